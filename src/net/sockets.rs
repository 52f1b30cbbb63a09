//! Sockets that listen.
//!
//! Guarantees: one `accept` for all addresses of a protocol, which take turns, so that limits count
//! connections to all of them. Not here: protocols.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Tls, TlsProtocol};

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address; port 0 leaves the choice to the system.
    pub address: SocketAddr,
    /// Without it the server does not start. The default addresses and those of a host name are not
    /// required if one of them can be bound: a machine may have no IPv6.
    pub is_required: bool,
}

/// Connections that wait to be accepted, as far as the system allows that (`net.core.somaxconn`).
/// All clients come back at once after a restart, and those that find no room try again only after
/// a second, then three, then seven.
const ACCEPT_BACKLOG: u32 = 65_535;

/// Sockets that listen for one protocol, at least one.
pub struct Listeners {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    /// The number of those in plain text, which come first.
    plain: usize,
    encryption: Option<Encryption>,
    /// The one that is asked first.
    next: usize,
}

/// How connections to the other addresses are encrypted.
#[derive(Clone)]
pub(super) struct Encryption {
    pub(super) tls: Arc<Tls>,
    pub(super) protocol: TlsProtocol,
}

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    /// `None`: plain text.
    pub(super) encryption: Option<Encryption>,
}

impl Listeners {
    /// Listens at all of these addresses. Fails with the address that is not available.
    pub fn bind(wanted: &[ListenAddress]) -> Result<Listeners, (SocketAddr, io::Error)> {
        let mut bound = Listeners::none();
        let has_v4 = wanted.iter().any(|wanted| wanted.address.is_ipv4());
        let mut missing = None;
        for ListenAddress { address, is_required } in wanted.iter().copied() {
            let socket = listen(bound.with_known_port(address), has_v4).or_else(|error| {
                let is_taken = error.kind() == io::ErrorKind::AddrInUse && address.port() == 0;
                if is_taken { listen(address, has_v4) } else { Err(error) }
            });
            match socket.and_then(|socket| Ok((socket.local_addr()?, socket))) {
                Ok((address, socket)) => {
                    bound.addresses.push(address);
                    bound.sockets.push(socket);
                }
                Err(error) if !is_required && is_absent(&error) => {
                    tracing::debug!(%address, %error, "address not available on this machine");
                    missing = Some((address, error));
                }
                Err(error) => return Err((address, error)),
            }
        }
        match missing {
            Some(missing) if bound.sockets.is_empty() => Err(missing),
            _ => {
                bound.plain = bound.sockets.len();
                Ok(bound)
            }
        }
    }

    fn none() -> Listeners {
        Listeners { sockets: Vec::new(), addresses: Vec::new(), plain: 0, encryption: None, next: 0 }
    }

    /// Adds sockets whose connections are encrypted.
    #[must_use]
    pub fn and_encrypted(mut self, others: Listeners, tls: Arc<Tls>, protocol: TlsProtocol) -> Listeners {
        self.sockets.extend(others.sockets);
        self.addresses.extend(others.addresses);
        self.encryption = Some(Encryption { tls, protocol });
        self
    }

    /// Port 0 stands for the one port that all addresses get, if it is free everywhere.
    fn with_known_port(&self, mut address: SocketAddr) -> SocketAddr {
        if let (0, Some(first)) = (address.port(), self.addresses.first()) {
            address.set_port(first.port());
        }
        address
    }

    /// Where they listen; first those in plain text.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where they listen for connections in plain text.
    pub fn plain_addresses(&self) -> &[SocketAddr] {
        &self.addresses[..self.plain]
    }

    /// Where they listen for encrypted connections.
    pub fn encrypted_addresses(&self) -> &[SocketAddr] {
        &self.addresses[self.plain..]
    }

    /// The next connection. Nothing is lost if the future is dropped.
    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
        let (sockets, next) = (&self.sockets, &mut self.next);
        let (socket, accepted) = poll_fn(|context| {
            for turn in 0..sockets.len() {
                let socket = (*next + turn) % sockets.len();
                if let Poll::Ready(accepted) = sockets[socket].poll_accept(context) {
                    *next = socket + 1;
                    return Poll::Ready((socket, accepted));
                }
            }
            Poll::Pending
        })
        .await;
        let (tcp, peer) = accepted?;
        let encryption = if socket < self.plain { None } else { self.encryption.clone() };
        Ok(Accepted { tcp, peer, encryption })
    }
}

/// `has_v4`: IPv4 addresses have sockets of their own, so that `[::]` leaves IPv4 to them.
fn listen(address: SocketAddr, has_v4: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        if has_v4 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        socket
    };
    // Otherwise a restart finds its port in use for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Whether the machine lacks the address, or its whole family.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(addresses: &[&str], is_required: bool) -> Vec<ListenAddress> {
        let parse = |text: &&str| ListenAddress { address: text.parse().unwrap(), is_required };
        addresses.iter().map(parse).collect()
    }

    /// An address for documentation, which no machine has.
    const NOWHERE: &str = "192.0.2.1:0";

    #[tokio::test]
    async fn every_address_accepts_in_turn() {
        let mut listeners = Listeners::bind(&wanted(&["127.0.0.1:0", "127.0.0.2:0"], true)).unwrap();
        let addresses = listeners.addresses().to_vec();
        assert_eq!(addresses[0].port(), addresses[1].port(), "port 0 is one port");
        let connect = |address: SocketAddr| std::net::TcpStream::connect(address).unwrap();
        let _clients: Vec<_> = [0, 0, 0, 1].map(|n| connect(addresses[n])).into();
        let mut accepted = Vec::new();
        for _ in 0..4 {
            let own = listeners.accept().await.unwrap().tcp.local_addr().unwrap();
            accepted.push(addresses.iter().position(|address| *address == own).unwrap());
        }
        assert!(
            accepted[..2].contains(&1),
            "three connections here do not delay the one there: {accepted:?}"
        );
    }

    #[tokio::test]
    async fn all_of_ipv4_and_all_of_ipv6_can_have_one_port() {
        if std::net::TcpListener::bind("[::1]:0").is_err() {
            return println!("skipped: this machine has no IPv6");
        }
        let mut listeners = Listeners::bind(&wanted(&["0.0.0.0:0", "[::]:0"], true)).unwrap();
        let port = listeners.addresses()[0].port();
        assert_eq!(listeners.addresses()[1].port(), port);
        for ip in ["127.0.0.1", "::1"] {
            let _client = std::net::TcpStream::connect((ip, port)).unwrap();
            assert_eq!(listeners.accept().await.unwrap().peer.ip().to_string(), ip);
        }
    }

    #[tokio::test]
    async fn a_missing_address_is_skipped_unless_it_is_required() {
        let addresses = |bound: Listeners| bound.addresses().to_vec();
        let found = Listeners::bind(&wanted(&["127.0.0.1:0", NOWHERE], false)).map(addresses).unwrap();
        assert_eq!(found.len(), 1);
        let refused =
            |wanted: &[ListenAddress]| Listeners::bind(wanted).map(addresses).unwrap_err().0.to_string();
        assert_eq!(refused(&wanted(&["127.0.0.1:0", NOWHERE], true)), NOWHERE);
        assert_eq!(refused(&wanted(&[NOWHERE], false)), NOWHERE, "one address is needed");
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().to_string();
        assert_eq!(refused(&wanted(&["127.0.0.1:0", &taken], false)), taken, "in use is not absent");
    }
}
