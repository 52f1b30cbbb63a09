//! Sockets, for RESP and HTTP alike: binding, accepting, and streams of bytes.
//!
//! Not here: protocols.

mod listener;
mod sockets;
mod stream;

pub use listener::{AcceptLimits, Protocol, serve, set_options};
pub use sockets::{ListenAddress, Listeners};
pub use stream::{Stream, WriteError};
