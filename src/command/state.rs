//! The state that all connections share.

use std::sync::Arc;

use super::{Clients, PubSub, ScriptEngine};
use crate::auth::CurrentPassword;
use crate::domain::{KEY_BYTES_MAX, OWNER_BYTES_MAX, TTL_MS_MAX};
use crate::engine::Engine;
use crate::metrics::{Count, ServerMetrics};

/// The state that all connections share.
pub struct ServerState {
    /// The lock manager.
    pub engine: Arc<Engine>,
    /// The limits of requests.
    pub limits: Limits,
    /// The password; without one, every client is authenticated.
    pub password: CurrentPassword,
    /// The connected clients.
    pub clients: Clients,
    /// What runs scripts.
    pub scripts: ScriptEngine,
    /// The subscriptions.
    pub pubsub: PubSub,
    /// The settings of `CONFIG GET`, without secrets.
    pub settings: Vec<(&'static str, String)>,
    /// Information about the server for `INFO` and the banner.
    pub info: ServerInfo,
    /// Counters and histograms.
    pub metrics: Arc<ServerMetrics>,
    /// Number of commands executed since the start.
    pub commands_run: Count,
}

/// Information about the server.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// The port of the RESP listener.
    pub port: u16,
    /// The location of the data, for display.
    pub data: String,
    /// The durability mode, for display.
    pub durability: &'static str,
    /// The start time on the engine's clock.
    pub started: crate::domain::Timestamp,
}

/// The limits of requests.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest TTL, in milliseconds; at most [`TTL_MS_MAX`].
    pub ttl_ms_max: u32,
    /// Default TTL of LOCK, in milliseconds.
    pub ttl_ms_default: u32,
    /// Longest key, in bytes; at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// Longest owner, in bytes; at most [`OWNER_BYTES_MAX`].
    pub owner_bytes_max: usize,
    /// Longest META text, in bytes.
    pub meta_bytes_max: usize,
    /// Size of the commands queued by one MULTI, in bytes.
    pub multi_bytes_max: usize,
    /// Size of the messages queued for one subscriber, in bytes.
    pub subscriber_bytes_max: usize,
    /// Number of channels and patterns of one connection.
    pub subscriptions_max: usize,
    /// Size of the channels and patterns of one connection, in bytes.
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
