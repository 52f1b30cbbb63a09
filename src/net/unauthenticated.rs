//! Connections that have not authenticated: how many there may be, and for how long.
//!
//! Guarantees: they take at most half of all connections, and the oldest gives way to a new one, so
//! that clients without a password cannot keep out those that have one. Not here: what such a
//! connection may send, and how it is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The connections of one protocol that have not authenticated.
#[derive(Clone, Default)]
pub struct Unauthenticated(Arc<Mutex<ByAge>>);

#[derive(Default)]
struct ByAge {
    /// The number of the last one.
    last: u64,
    /// What closes each of them.
    connections: BTreeMap<u64, Box<dyn FnOnce() + Send>>,
}

/// A connection that counts as not authenticated while this exists.
pub struct Place {
    all: Unauthenticated,
    number: u64,
    deadline: Instant,
}

impl Unauthenticated {
    /// Counts a connection that must authenticate within `time`. If they take more than half of
    /// `connections_max`, the oldest is closed: honest clients authenticate at once. `close` must not wait.
    pub fn enter(
        &self,
        connections_max: usize,
        time: Duration,
        close: impl FnOnce() + Send + 'static,
    ) -> Place {
        let max = (connections_max / 2).max(1);
        let mut by_age = self.0.lock();
        by_age.last += 1;
        let number = by_age.last;
        by_age.connections.insert(number, Box::new(close));
        let mut to_close = Vec::new();
        while by_age.connections.len() > max
            && let Some((_, oldest)) = by_age.connections.pop_first()
        {
            to_close.push(oldest);
        }
        drop(by_age);
        to_close.into_iter().for_each(|close| close());
        Place { all: self.clone(), number, deadline: Instant::now() + time }
    }
}

impl Place {
    /// When the connection must have authenticated.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time that is left to authenticate.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.0.lock().connections.remove(&self.number);
    }
}
