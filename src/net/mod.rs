//! Sockets. Not here: protocols.

mod listener;

pub use listener::{ListenAddress, Listeners};
