//! The state that all connections share.

use std::sync::Arc;

use super::{Clients, PubSub, ScriptEngine};
use crate::auth::CurrentPassword;
use crate::domain::{Limits, Timestamp};
use crate::engine::Engine;
use crate::metrics::{Count, ServerMetrics};

/// The state that all connections share.
pub struct ServerState {
    /// The lock manager.
    pub engine: Arc<Engine>,
    /// The limits of requests.
    pub limits: Limits,
    /// The limits of a client's state.
    pub client_limits: ClientLimits,
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
    pub started: Timestamp,
}

/// The limits of what one client's state may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Size of the commands queued by one MULTI, in bytes.
    pub multi_bytes_max: usize,
    /// Size of the messages queued for one subscriber, in bytes.
    pub subscriber_bytes_max: usize,
    /// Number of channels and patterns of one connection.
    pub subscriptions_max: usize,
    /// Size of the channels and patterns of one connection, in bytes.
    pub subscriptions_bytes_max: usize,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            multi_bytes_max: 1 << 20,
            subscriber_bytes_max: 1 << 20,
            subscriptions_max: 10_000,
            subscriptions_bytes_max: 4 << 20,
        }
    }
}
