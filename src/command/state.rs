//! What all connections share.

use std::sync::Arc;

use super::{Clients, CurrentPassword, PubSub};
use crate::engine::Engine;
use crate::lock::{KEY_BYTES_MAX, OWNER_BYTES_MAX, TTL_MS_MAX};
use crate::metrics::{Count, ServerMetrics};

/// What all connections share.
pub struct ServerState {
    /// The lock manager.
    pub engine: Arc<Engine>,
    /// What requests may ask for.
    pub limits: Limits,
    /// Without it everyone may do everything.
    pub password: CurrentPassword,
    /// Who is connected.
    pub clients: Clients,
    /// Who listens to what.
    pub pubsub: PubSub,
    /// What `CONFIG GET` shows. No secrets.
    pub settings: Vec<(&'static str, String)>,
    /// What `INFO` and `HELLO` say of the server itself.
    pub info: ServerInfo,
    /// What is measured.
    pub metrics: Arc<ServerMetrics>,
    /// Commands carried out since the start.
    pub commands_run: Count,
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// The port of the RESP listener.
    pub port: u16,
    /// Where the data is, for people.
    pub data: String,
    /// The durability mode, for people.
    pub durability: &'static str,
    /// When it was started, on the engine's clock.
    pub started: crate::lock::Timestamp,
}

/// What requests may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest TTL, in milliseconds; at most [`TTL_MS_MAX`].
    pub ttl_ms_max: u32,
    /// The TTL of a LOCK that names none, in milliseconds.
    pub ttl_ms_default: u32,
    /// Longest key, in bytes; at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// Longest owner, in bytes; at most [`OWNER_BYTES_MAX`].
    pub owner_bytes_max: usize,
    /// Longest META text, in bytes.
    pub meta_bytes_max: usize,
    /// Bytes of commands that one MULTI may queue.
    pub multi_bytes_max: usize,
    /// Messages that wait for a subscriber who does not read, in bytes.
    pub subscriber_bytes_max: usize,
    /// Channels and patterns of one connection.
    pub subscriptions_max: usize,
    /// The same in bytes.
    pub subscriptions_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ttl_ms_max: TTL_MS_MAX,
            ttl_ms_default: 30_000,
            key_bytes_max: KEY_BYTES_MAX,
            owner_bytes_max: OWNER_BYTES_MAX,
            meta_bytes_max: 1024,
            multi_bytes_max: 1 << 20,
            subscriber_bytes_max: 1 << 20,
            subscriptions_max: 10_000,
            subscriptions_bytes_max: 4 << 20,
        }
    }
}
