//! The commands: one table, one file or folder per family.
//!
//! Guarantees: [`FAMILIES`] is the only list of commands. Look-up, arity, keys, `COMMAND DOCS` and
//! the command page of the documents come from it. Handlers are synchronous: they return a reply
//! and never touch a socket. Not here: wire formats, sockets, storage, the rules of locks.

mod acl;
mod args;
mod attention;
mod blocking;
mod categories;
mod client;
mod cluster;
mod connection;
mod context;
mod dispatch;
mod docs;
mod error;
mod events;
mod handover;
mod hash;
mod key;
mod key_positions;
mod list;
mod live_settings;
mod lock;
mod monitor;
mod number;
mod options;
mod parts;
mod pause;
mod permissions;
mod pubsub;
mod registry;
mod scan;
mod script;
mod secrets;
mod sentinel;
mod server;
mod session;
mod set;
mod sorted_set;
mod sources;
mod spec;
mod state;
mod steps;
mod string;
mod table;
mod tracking;
mod transaction;
mod values;
mod waiting;

pub use args::{Args, OwnedArgs, Span};
pub use categories::Categories;
pub use client::{AfterReply, Client, Execution};
pub use context::Context;
use context::name_or_none;
use dispatch::Caller;
pub use error::{CommandError, OUTCOME_UNKNOWN};
pub use events::{Delivery, DeliveryTurn};
pub use handover::ClientState;
pub use key_positions::{KeyAccess, KeySpec, KeyVisitor};
pub use live_settings::{IDLE_TIMEOUT_S_MAX, LiveSettings, SLOWLOG_LEN_MAX};
pub use monitor::Monitors;
pub use pause::{Pause, Pauses};
pub use permissions::catalog;
pub use pubsub::{Incoming, PubSub, Publication, Subscribed, Turn};
pub use registry::{ClientInfo, Clients};
pub use script::{ScriptEngine, ScriptLimits};
pub use server::{ServerStats, SlowLog};
pub use spec::{Command, Flags, Group, Handler, Run};
pub use state::{ClientLimits, Lookups, ServerInfo, ServerState};
pub use steps::{LongRequest, Progress, Steps};
pub use table::{FAMILIES, commands, commands_and_subcommands, names};
pub use tracking::{Invalidation, Tracking};
pub use waiting::{Unblock, Waiting};

/// The version of Redis whose answers these are. Clients choose commands by it.
pub(crate) const REDIS_VERSION: &str = "7.2.4";
