//! The journal: what a restart finds again.
//!
//! Promise: a [`Backend`] that answered `commit` with `Ok` gives back the same state from `load`, whatever
//! happens to the process or the machine in between; a batch is there whole or not at all.
//! Absent: who may hold what (records are absolute states, not requests), clocks, async code.

#[cfg(test)]
mod conformance;
mod error;
mod faulty;
mod group_commit;
mod log;
mod memory;
mod metered;
mod record;
mod sqlite;

pub use error::JournalError;
pub use faulty::{Faults, FaultyBackend};
pub use group_commit::{Barrier, Durability, Group, Journal, OutcomeUnknown, Rebuild, Seq, Stopwatch};
pub use memory::MemoryBackend;
pub use metered::{CommitMetrics, MeteredBackend};
pub use record::{Record, Renewal, SessionRecord, StoredLease};
pub use sqlite::{DamagedLog, SqliteBackend};

use crate::lock::Timestamp;

/// What [`Backend::load`] found beside the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// No token above this was ever issued.
    pub tokens_reserved: i64,
    /// The machine was rebooted since the last load, so every deadline was moved to its full TTL from now.
    pub rebooted: bool,
    /// Made with the data and never changed: the key of what is derived from leases and must outlive a restart.
    pub secret: [u8; 32],
}

/// What came of [`Backend::try_commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The batch is durable.
    Committed,
    /// Another process has the storage locked. Nothing was written; the batch must be committed next.
    WouldBlock,
}

/// Where records are kept. Owned by one thread; every call blocks.
pub trait Backend: Send {
    /// Passes the whole state to `each`, as [`Record::Granted`], [`Record::DelayStarted`] and
    /// [`Record::SessionOpened`]. May be called again, after a failed commit.
    ///
    /// `boot` names this boot of the machine. When it differs from the one stored, or is `None`, the
    /// clock of the stored deadlines is gone: all of them are first moved, durably and at once, to their full TTL
    /// from `now`, so that nothing ends early and a second restart does not prolong them again.
    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError>;

    /// Makes a batch durable, as a whole; returns only then. After an error nothing of it is kept.
    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError>;

    /// [`Backend::commit`] for a thread that must not wait for other processes. After
    /// [`Attempt::WouldBlock`] the next commit must be of the same batch.
    fn try_commit(&mut self, batch: &[Record]) -> Result<Attempt, JournalError> {
        self.commit(batch).map(|()| Attempt::Committed)
    }

    /// Checks that a restart would still find what is written here. Called every second while nothing is
    /// committed; while there are commits, they check it themselves as often. An error counts as a failed
    /// commit.
    fn verify(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    /// A step of housekeeping, called when nothing was to be committed for a while. Whether there is more to do. After an
    /// error everything is as before, and commits go on.
    fn maintain(&mut self) -> Result<bool, JournalError>;
}
