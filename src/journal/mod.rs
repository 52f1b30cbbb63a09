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

/// What a backend demands of the queue in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendTraits {
    /// A thread that waits for a commit may make it. `false`: a commit takes as long as a network does, so
    /// only the commit thread makes commits.
    pub commit_on_caller: bool,
    /// The largest batch that one commit takes, in bytes; `None`: any batch.
    pub batch_bytes_max: Option<usize>,
    /// Another server can take over unnoticed, so a read is answered only after a commit, which may be
    /// empty, has shown that none has.
    pub reads_need_commit: bool,
}

impl BackendTraits {
    /// The traits of storage on this machine that no other server can write.
    pub const LOCAL: BackendTraits =
        BackendTraits { commit_on_caller: true, batch_bytes_max: None, reads_need_commit: false };
}

/// Storage for records. Owned by one thread; every call blocks.
pub trait Backend: Send {
    /// What the backend demands of its user; always the same.
    fn traits(&self) -> BackendTraits;

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
