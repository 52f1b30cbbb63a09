//! A TCP socket, in plain text or under TLS.
//!
//! Guarantees: nothing here waits, except in the functions named `poll_…`; a call that
//! would have to wait fails with `WouldBlock`. Not here: limits of time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::open_connection::OpenConnection;
use super::tls::Session;

/// Input that is decrypted at once: the largest record.
const RECORD_BYTES: usize = 16 << 10;

/// A connected socket.
pub struct Socket {
    tcp: TcpStream,
    /// Boxed: a connection in plain text should not pay for what TLS needs.
    session: Option<Box<Session>>,
    /// What it counts as; `None`: it does not count.
    open: Option<OpenConnection>,
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Socket {
        Socket { tcp, session: None, open: None }
    }
}

impl Socket {
    pub(super) fn encrypted(tcp: TcpStream, session: Session) -> Socket {
        Socket { tcp, session: Some(Box::new(session)), open: None }
    }

    /// The same socket, which counts until it closes.
    pub(super) fn counted(mut self, open: OpenConnection) -> Socket {
        self.open = Some(open);
        self
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether it is under TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.session.is_some()
    }

    /// The common name in the certificate that the client has presented.
    pub fn client_name(&self) -> Option<String> {
        self.session.as_ref()?.client_name()
    }

    /// Takes some of `bytes`. Under TLS, they may be sent later; see [`Socket::try_flush`].
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.tcp.try_write(bytes),
            Some(session) => session.try_write(&self.tcp, bytes),
        }
    }

    /// Sends what was taken. Returns whether that was all.
    pub(super) fn try_flush(&mut self) -> io::Result<bool> {
        match &mut self.session {
            None => Ok(true),
            Some(session) => session.try_flush(&self.tcp),
        }
    }

    /// Appends the input that is there to `input`. 0: the peer has closed.
    pub(super) fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.tcp.try_read_buf(input) };
        let before = input.len();
        // The room that there is, as for plain text.
        let room = (input.capacity() - before).clamp(1, RECORD_BYTES);
        input.resize(before + room, 0);
        let read = session.try_read(&self.tcp, &mut input[before..]);
        input.truncate(before + read.as_ref().map_or(0, |read| *read));
        read
    }

    /// Whether input has been decrypted and not read.
    pub(super) fn has_input(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_input())
    }

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(session) = &mut self.session else {
            return Pin::new(&mut self.tcp).poll_read(context, buffer);
        };
        let unfilled = buffer.initialize_unfilled_to(buffer.remaining().min(RECORD_BYTES));
        loop {
            match session.try_read(&self.tcp, unfilled) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_read_ready(context))?;
                }
                read => return Poll::Ready(read.map(|read| buffer.advance(read))),
            }
        }
    }

    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(session) = &mut self.session else {
            return Pin::new(&mut self.tcp).poll_write(context, bytes);
        };
        loop {
            match session.try_write(&self.tcp, bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(context))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.session.is_none() {
            return Pin::new(&mut self.tcp).poll_write_vectored(context, parts);
        }
        let first = parts.iter().find(|part| !part.is_empty());
        self.poll_write(context, first.map_or(&[], |part| part))
    }

    /// Whether several parts are written at once.
    pub(super) fn is_write_vectored(&self) -> bool {
        self.session.is_none()
    }

    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.try_flush()? {
            ready!(self.tcp.poll_write_ready(context))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the rest and the end of the output.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(session) = &mut self.session {
            session.close();
        }
        ready!(self.poll_flush(context))?;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// Tells the peer that the output is complete, if there is room for that.
impl Drop for Socket {
    fn drop(&mut self) {
        // First: a client that sees its connection closed can open another at once.
        self.open = None;
        if let Some(session) = &mut self.session {
            session.close();
            // The peer may be gone.
            let _ = session.try_flush(&self.tcp);
        }
    }
}
