//! TLS on one connection.
//!
//! Guarantees: at most one record of input and a few of output are in memory; an attack on the
//! protocol ends the connection. Not here: sockets, certificates.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use tokio::net::TcpStream;

use super::certificate;

/// Reads from the socket for one read of plain text: enough for the largest record.
const READS_MAX: usize = 16;

/// One side of a TLS connection.
pub(in crate::net) struct Session(Connection);

/// A socket as rustls uses it. Calls that would have to wait fail with `WouldBlock`.
struct Ready<'a>(&'a TcpStream);

impl Read for Ready<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    /// Makes the handshake with the client at the other end of `tcp`.
    pub(super) async fn accept(tcp: &TcpStream, config: Arc<ServerConfig>) -> io::Result<Session> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Session::shake_hands(tcp, connection.into()).await
    }

    /// Makes the handshake with the server of this name at the other end of `tcp`.
    pub(super) async fn connect(
        tcp: &TcpStream,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> io::Result<Session> {
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Session::shake_hands(tcp, connection.into()).await
    }

    async fn shake_hands(tcp: &TcpStream, connection: Connection) -> io::Result<Session> {
        let mut session = Session(connection);
        while session.0.is_handshaking() {
            if !session.try_flush(tcp)? {
                tcp.writable().await?;
                continue;
            }
            tcp.readable().await?;
            match session.receive(tcp) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        // What does not fit leaves with the first reply.
        session.try_flush(tcp)?;
        Ok(session)
    }

    /// See [`crate::net::Socket::client_name`].
    pub(in crate::net) fn client_name(&self) -> Option<String> {
        certificate::common_name(self.0.peer_certificates()?.first()?)
    }

    pub(in crate::net) fn try_write(&mut self, tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.writer().write(bytes)?;
        let is_all = self.try_flush(tcp)?;
        match written {
            // There is room again.
            0 if is_all && !bytes.is_empty() => self.0.writer().write(bytes),
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    pub(in crate::net) fn try_flush(&mut self, tcp: &TcpStream) -> io::Result<bool> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Ready(tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads plain text. 0: the peer has closed, with or without saying so: a request that was cut
    /// off is incomplete in its own protocol. `WouldBlock` does not mean that the socket has nothing
    /// more: records without content must not keep the caller busy.
    pub(in crate::net) fn try_read(&mut self, tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..READS_MAX {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            self.receive(tcp)?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Whether [`Session::try_read`] has something to return that is not in the socket.
    pub(in crate::net) fn has_input(&self) -> bool {
        !self.0.wants_read()
    }

    /// Reads and decrypts what is there. 0: the peer has closed.
    fn receive(&mut self, tcp: &TcpStream) -> io::Result<usize> {
        let read = self.0.read_tls(&mut Ready(tcp))?;
        let processed = self.0.process_new_packets();
        // Answers of the protocol itself, such as an alert. What does not fit leaves later.
        let flushed = self.try_flush(tcp);
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        flushed.map(|_| read)
    }

    /// Tells the peer that there is no more output.
    pub(in crate::net) fn close(&mut self) {
        self.0.send_close_notify();
    }
}
