//! The journal: the durable state of the server.
//!
//! Guarantees: once [`Backend::commit`] has returned `Ok`, [`Backend::load`] finds the batch,
//! whatever happens to the process or the machine in between; a batch is found as a whole or not at
//! all. Not here: the rules of locks (records are absolute states, not requests), async code.

mod commit;
#[cfg(test)]
mod conformance;
mod elements;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
mod faulty;
mod log;
mod memory;
mod metrics;
mod record;
mod sqlite;
mod store_address;

pub use commit::{
    Barrier, CommitGroup, Durability, Journal, OutcomeUnknown, Recover, Seq, Stopwatch, commit_before_park,
    leave_commits,
};
pub use error::JournalError;
pub use faulty::{Faults, FaultyBackend};
pub use memory::MemoryBackend;
pub use metrics::CommitMetrics;
pub use record::{Record, Renewal, ScriptHash, SessionRecord, StoredLease, StoredValue};
pub use sqlite::{
    Approve, Checked, DamagedLog, FloorOrigin, Restored, SqliteBackend, StoredState, back_up, check, restore,
};
pub use store_address::{StoreAddress, StoreTls};

use crate::domain::Timestamp;

/// What [`Backend::load`] finds besides the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// No token above this one has been issued.
    pub tokens_reserved: i64,
    /// The machine was rebooted since the last load, so every deadline has been moved to its full
    /// TTL from now.
    pub rebooted: bool,
    /// Random bytes that were made with the database and never change: a key for derived ids that
    /// must be the same after a restart.
    pub secret: [u8; 32],
}

/// The result of [`Backend::try_commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The batch is durable.
    Committed,
    /// Another process has the storage locked. Nothing was written, and the next commit must be of
    /// this batch.
    WouldBlock,
}

/// What a backend demands of the queue in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendTraits {
    /// A thread that waits for a commit may make it. `false`: a commit takes as long as a network
    /// does, so only the commit thread makes commits.
    pub commit_on_caller: bool,
    /// The largest batch that one commit takes, in bytes; `None`: any batch. A commit group, and the
    /// records of one append, are never split: one that is larger is a batch of its own.
    pub batch_bytes_max: Option<usize>,
    /// Another server can take over without notice, and only a commit shows that none has: whatever
    /// is revealed, what changed nothing included, waits for a commit that began after it was read.
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

    /// Passes the whole state to `each`, as [`Record::Granted`], [`Record::DelayStarted`],
    /// [`Record::Session`], [`Record::ScriptPut`] in the order in which they were last put, and
    /// [`Record::ValuePut`], each directly followed by its elements in the order in which they were
    /// added. May be called again, after a failed commit.
    ///
    /// `boot` identifies this boot of the machine. If it differs from the stored one, or is `None`,
    /// the clock of the stored deadlines is gone. All deadlines are then moved, durably and at
    /// once, to their full TTL from `now`: no lease ends early, and a second restart does not
    /// prolong it again.
    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError>;

    /// Makes a batch durable as a whole, and returns only then. After an error, what
    /// [`Backend::load`] finds decides whether the batch is stored. An empty batch checks that this
    /// server may still commit, if the backend's reads need that.
    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError>;

    /// Like [`Backend::commit`], for a thread that must not wait for other processes. After
    /// [`Attempt::WouldBlock`] the next commit must be of the same batch.
    fn try_commit(&mut self, batch: &[Record]) -> Result<Attempt, JournalError> {
        self.commit(batch).map(|()| Attempt::Committed)
    }

    /// Checks that a restart would find what this backend writes. Called every second while there
    /// are no commits; otherwise commits check it as often. An error counts as a failed commit.
    fn verify(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    /// Does a step of maintenance, and returns whether there is more to do. Called after a while
    /// without commits. After an error the state is as before. If a retry can help, commits
    /// continue; otherwise the error counts as a failed commit.
    fn maintain(&mut self) -> Result<bool, JournalError>;
}
