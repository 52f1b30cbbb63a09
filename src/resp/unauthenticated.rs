//! Connections that have not authenticated: how many there may be, and for how long.
//!
//! Guarantees: they take at most half of all connections, and the oldest gives way to a new one, so
//! that clients without a password cannot keep out those that have one. Not here: what such a
//! connection may send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::command::{ClientInfo, ServerState};

/// The connections that have not authenticated.
#[derive(Clone, Default)]
pub(super) struct Unauthenticated(Arc<Mutex<ByAge>>);

#[derive(Default)]
struct ByAge {
    /// The number of the last one.
    last: u64,
    connections: BTreeMap<u64, Arc<ClientInfo>>,
}

/// A connection that counts as not authenticated while this exists.
pub(super) struct Place {
    all: Unauthenticated,
    number: u64,
    deadline: Instant,
}

impl Unauthenticated {
    /// Counts a connection that must authenticate within `time`. If there are too many, the oldest is
    /// closed: honest clients authenticate at once.
    pub(super) fn enter(&self, server: &ServerState, client: &Arc<ClientInfo>, time: Duration) -> Place {
        let max = (server.settings.connections_max().load(Ordering::Relaxed) / 2).max(1);
        let mut by_age = self.0.lock();
        by_age.last += 1;
        let number = by_age.last;
        by_age.connections.insert(number, Arc::clone(client));
        while by_age.connections.len() > max
            && let Some((_, oldest)) = by_age.connections.pop_first()
        {
            server.metrics.redis.refuse();
            tracing::warn!(
                client = %oldest.addr,
                "connection closed for a newer one: half of --connections-max have not authenticated"
            );
            oldest.kill();
        }
        drop(by_age);
        Place { all: self.clone(), number, deadline: Instant::now() + time }
    }
}

impl Place {
    /// The time that is left to authenticate.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.0.lock().connections.remove(&self.number);
    }
}
