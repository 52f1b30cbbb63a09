//! Connections that have not authenticated: how many there may be, and for how long.
//!
//! Guarantees: they take at most half of all connections, so that clients without a password cannot
//! keep out those that have one. Not here: what such a connection may send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The number of connections that have not authenticated.
#[derive(Debug, Clone, Default)]
pub(super) struct Unauthenticated(Arc<AtomicUsize>);

/// A connection that counts as not authenticated while this exists.
#[derive(Debug)]
pub(super) struct Place {
    all: Unauthenticated,
    deadline: Instant,
}

impl Unauthenticated {
    /// Whether another such connection is too many, if there may be `connections_max` in total.
    pub(super) fn are_full(&self, connections_max: usize) -> bool {
        self.0.load(Ordering::Relaxed) >= (connections_max / 2).max(1)
    }

    /// Counts a connection that must authenticate within `time`.
    pub(super) fn enter(&self, time: Duration) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place { all: self.clone(), deadline: Instant::now() + time }
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
        self.all.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_connections_may_be_unauthenticated() {
        let all = Unauthenticated::default();
        let places: Vec<_> = (0..5).map(|_| all.enter(Duration::from_secs(1))).collect();
        assert!(all.are_full(10) && all.are_full(11) && !all.are_full(12));
        drop(places);
        assert!(!all.are_full(1), "a server for one client serves it");
    }
}
