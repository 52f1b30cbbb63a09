//! The Redis protocol over TCP.
//!
//! Guarantees: any bytes lead to replies, an error or a closed connection; never to a crash, a hang
//! or memory beyond the limits. No reply is sent before everything it depends on is durable. Not
//! here: what commands mean, HTTP, storage.

mod codec;
mod connection;
mod end;
mod input;
mod listener;
mod requests;

pub use listener::{Arrival, ListenerLimits, Resp, accept_limits, listen, send_refusal};
pub use requests::ScanLimits;

/// The request scanner and the reply encoder, for benches and fuzzing.
pub mod parts {
    pub use super::codec::encode;
    pub use super::requests::{ProtocolError, ScanLimits, Scanner};
}
