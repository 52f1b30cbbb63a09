//! Measurements of commits.
//!
//! Not here: how they are shown.

use std::sync::Arc;

use super::Stopwatch;
use crate::clock::Clock;
use crate::metrics::Histogram;

/// Measurements of commits, by the clock of the server.
#[derive(Debug)]
pub struct CommitMetrics {
    /// Durations of commits in nanoseconds, failed commits included.
    pub times: Histogram,
    /// Records per commit.
    pub sizes: Histogram,
    clock: Clock,
}

impl CommitMetrics {
    /// Nothing was measured yet.
    pub fn new(clock: &Clock) -> Arc<CommitMetrics> {
        let (times, sizes) = (Histogram::of_times(), Histogram::of_sizes());
        Arc::new(CommitMetrics { times, sizes, clock: clock.clone() })
    }
}

impl Stopwatch for CommitMetrics {
    fn nanos(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    fn committed(&self, nanos: u64, records: usize) {
        self.times.observe(nanos, 1);
        self.sizes.observe(records as u64, 1);
    }
}
