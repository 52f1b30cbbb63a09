//! A backend whose commits are measured.
//!
//! Guarantees: it does what the inner backend does. Not here: how measurements are shown.

use std::sync::Arc;

use super::{Attempt, Backend, BackendTraits, JournalError, Loaded, Record};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::metrics::Histogram;

/// Measurements of commits.
#[derive(Debug)]
pub struct CommitMetrics {
    /// Durations of commits in nanoseconds, failed commits included.
    pub times: Histogram,
    /// Records per commit.
    pub sizes: Histogram,
}

/// A backend whose commits are measured.
pub struct MeteredBackend {
    inner: Box<dyn Backend>,
    clock: Clock,
    metrics: Arc<CommitMetrics>,
}

impl MeteredBackend {
    /// Wraps `inner`.
    pub fn new(inner: Box<dyn Backend>, clock: &Clock) -> (MeteredBackend, Arc<CommitMetrics>) {
        let metrics = CommitMetrics { times: Histogram::of_times(), sizes: Histogram::of_sizes() };
        let metrics = Arc::new(metrics);
        (MeteredBackend { inner, clock: clock.clone(), metrics: Arc::clone(&metrics) }, metrics)
    }
}

impl Backend for MeteredBackend {
    fn traits(&self) -> BackendTraits {
        self.inner.traits()
    }

    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        self.inner.load(boot, now, each)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        let (started, records) = (self.clock.now(), batch.len() as u64);
        let outcome = self.inner.commit(batch);
        self.metrics.times.observe(self.clock.now().nanos_since(started), 1);
        self.metrics.sizes.observe(records, 1);
        outcome
    }

    fn try_commit(&mut self, batch: &[Record]) -> Result<Attempt, JournalError> {
        let (started, records) = (self.clock.now(), batch.len() as u64);
        let outcome = self.inner.try_commit(batch);
        if outcome != Ok(Attempt::WouldBlock) {
            self.metrics.times.observe(self.clock.now().nanos_since(started), 1);
            self.metrics.sizes.observe(records, 1);
        }
        outcome
    }

    fn verify(&mut self) -> Result<(), JournalError> {
        self.inner.verify()
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        self.inner.maintain()
    }
}
