//! Sockets, for RESP and HTTP alike: binding, accepting, and streams of bytes.
//!
//! Not here: protocols.

mod listener;
mod open_connection;
mod socket;
mod sockets;
mod stream;
mod tls;
mod unauthenticated;

pub use listener::{AcceptLimits, Protocol, serve, set_options};
pub use socket::Socket;
pub use sockets::{ListenAddress, Listeners};
pub use stream::{Stream, WriteError};
pub use tls::{ClientAuth, Tls, TlsError, TlsFiles, TlsProtocol};
pub use unauthenticated::{Place, Unauthenticated};
