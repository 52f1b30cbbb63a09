//! The HTTP API and the state that its requests share. The wire format is that of OctoStore 0.14.
//!
//! Guarantees: the same locks as over RESP, in one order of tokens; nothing about locks is decided
//! here. A response is sent once everything it depends on is durable. Each route is one function in
//! `locks`, `sessions`, `watch`, `keys`, `key`, `overview`, `page` or `admin`, with its checks in the
//! contract's order. Not here: RESP, storage, TLS (`net/tls`). Elections, access lists and webhooks of
//! OctoStore 0.14 do not exist (404).
//!
//! How HTTP maps to Redis: a name is a key of database 0; a user's locks have the owner
//! `http:<user>`, those of its session `http:<user>:session:<pseudonym>`; a lease id is derived
//! from the fencing token and the name with a key that only the server has.

mod admin;
mod body;
mod budget;
mod credentials;
mod error;
mod fields;
mod head;
mod host;
mod key;
mod keys;
mod listener;
mod live;
mod locks;
mod metrics;
mod names;
mod overview;
mod page;
mod pseudonyms;
mod recent;
mod router;
mod sessions;
mod shards;
mod standing;
mod text_format;
mod times;
mod timeseries;
mod unread;
mod users;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::budget::Budget;
use self::error::ApiError;
pub use self::listener::{Http, HttpArrival, accept_limits, record_history, serve};
use self::live::Streams;
use self::metrics::HttpMetrics;
pub use self::names::is_namespace;
use self::overview::Hour;
use self::pseudonyms::Ids;
use self::recent::Recent;
pub use self::router::is_for_any_node;
use self::timeseries::History;
pub use self::users::AccessConfig;
use self::users::Users;

use self::watch::Watchers;
use crate::auth;
use crate::domain::{Limits, Membership, Timestamp};
use crate::engine::{Engine, LeaseEvent, SharedTxn, Unavailable};
use crate::metrics::ServerMetrics;
use crate::net::Unauthenticated;

/// The routes without sockets, for fuzzing.
pub mod parts {
    pub use super::router::router;
}

/// The configuration of HTTP.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// What is checked beside users.
    pub access: AccessConfig,
    /// Whether the certificate of a client names its user.
    pub users_from_certificates: bool,
    /// Origins of web pages whose scripts may read responses.
    pub origins: Vec<String>,
    /// Locks held by one user.
    pub locks_per_user_max: u64,
    /// Connections at once.
    pub connections_max: usize,
    /// A connection that reads none of a pending response for this time is closed.
    pub output_stall: Duration,
    /// A connection none of whose requests has authenticated in this time is closed, where they need
    /// credentials.
    pub auth_timeout: Duration,
}

/// Where locks are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In this process only.
    Memory,
    /// In the SQLite database in this file.
    File(PathBuf),
    /// In etcd.
    Etcd,
}

impl Storage {
    fn name(&self) -> &'static str {
        match self {
            Storage::Memory => "memory",
            Storage::File(_) => "wal",
            Storage::Etcd => "etcd",
        }
    }
}

/// The state that all requests share.
pub struct HttpState {
    engine: Arc<Engine>,
    config: HttpConfig,
    limits: Limits,
    ids: Ids,
    users: Users,
    unauthenticated: Unauthenticated,
    /// The budget for bodies of all callers without credentials.
    anonymous: Budget,
    watchers: Arc<Watchers>,
    metrics: HttpMetrics,
    server_metrics: Arc<ServerMetrics>,
    history: History,
    hour: Hour,
    streams: Streams,
    recent: Recent,
    storage: Storage,
    started: Timestamp,
    membership: Membership,
}

impl HttpState {
    /// Serves the locks of `engine` within `limits`, which are stored in `storage`.
    pub fn new(
        engine: &Arc<Engine>,
        users: &Arc<auth::Users>,
        config: HttpConfig,
        limits: Limits,
        server_metrics: &Arc<ServerMetrics>,
        storage: Storage,
        membership: Membership,
    ) -> Arc<HttpState> {
        let ids = Ids::new(engine.secret());
        Arc::new(HttpState {
            users: Users::new(users, &config.access, engine.secret()),
            unauthenticated: Unauthenticated::default(),
            anonymous: body::budget(),
            watchers: Watchers::new(engine),
            metrics: HttpMetrics::default(),
            server_metrics: Arc::clone(server_metrics),
            history: History::default(),
            hour: Hour::default(),
            streams: Streams::default(),
            recent: Recent::default(),
            storage,
            started: engine.clock().now(),
            engine: Arc::clone(engine),
            config,
            limits,
            ids,
            membership,
        })
    }

    /// Replaces what is checked beside users.
    pub fn replace_access(&self, access: &AccessConfig) {
        self.users.replace(access);
    }

    /// Passes a lock event to the watchers of the lock.
    pub async fn notify(&self, event: &LeaseEvent) {
        self.recent.record(event, self.engine.clock().wall_millis());
        self.watchers.notify(event).await;
    }

    /// Ends all watch streams, because events were lost. Returns their number.
    pub fn cut_off_watchers(&self) -> usize {
        self.watchers.cut_off()
    }

    /// Runs `work` in a transaction. Returns its result once everything it has seen is durable.
    async fn decide<R>(
        &self,
        mut work: impl FnMut(&SharedTxn<'_>) -> Result<R, Unavailable>,
    ) -> Result<R, ApiError> {
        let (done, seq) = loop {
            {
                let txn = self.engine.txn();
                match work(&txn) {
                    Err(Unavailable::Unsettled | Unavailable::Busy) => {}
                    done => break (done, txn.finish()),
                }
            }
            self.engine.give_way().await;
        };
        self.engine.barrier(seq).await.map_err(|_| ApiError::internal())?;
        Ok(done?)
    }

    /// Formats a time as wall time.
    fn format_time(&self, time: Timestamp) -> String {
        times::rfc3339(self.engine.clock().wall_nanos_of(time))
    }
}
