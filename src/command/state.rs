//! The state that all connections share.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Clients, LiveSettings, Monitors, Pauses, PubSub, ScriptEngine, ServerStats, SlowLog, Tracking};
use crate::auth::{DenialLog, Users};
use crate::domain::{Limits, Shards, SharedTopology, Timestamp};
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
    /// The users.
    pub users: Arc<Users>,
    /// What users were refused.
    pub denials: DenialLog,
    /// The connected clients.
    pub clients: Clients,
    /// What runs scripts.
    pub scripts: ScriptEngine,
    /// The pause of requests.
    pub pauses: Pauses,
    /// Whether FLUSHDB and FLUSHALL are permitted.
    pub allows_flush: bool,
    /// The subscriptions.
    pub pubsub: PubSub,
    /// The clients that cache keys.
    pub tracking: Tracking,
    /// The connections that monitor the server.
    pub monitors: Monitors,
    /// The settings of `CONFIG GET`, without secrets.
    pub settings: LiveSettings,
    /// Information about the server for `INFO` and the banner.
    pub info: ServerInfo,
    /// Counters and histograms.
    pub metrics: Arc<ServerMetrics>,
    /// Number of commands executed since the start.
    pub commands_run: Count,
    /// Number of keys that commands have looked up to read them.
    pub lookups: Lookups,
    /// The totals of INFO.
    pub stats: ServerStats,
    /// The commands that took long.
    pub slow_log: SlowLog,
    /// Notified when a client asks the server to stop.
    pub shutdown: Notify,
    /// The servers of the cluster, which is this one alone if there is no cluster.
    pub topology: Arc<SharedTopology>,
    /// The shards; `None`: all keys are here.
    pub shards: Option<Arc<Shards>>,
    /// Whether this state serves while another server leads: it has no locks, and requests about
    /// locks are for the leader.
    pub is_standby: bool,
}

/// Numbers of keys that were looked up since the start.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Those that existed.
    pub hits: Count,
    /// Those that did not.
    pub misses: Count,
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
    /// Another one at each start: 40 hexadecimal digits.
    pub run_id: String,
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
