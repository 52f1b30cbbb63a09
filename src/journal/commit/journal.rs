//! The handle to a journal and its commit thread.
//!
//! Guarantees: appending never blocks on storage; barriers follow the durability mode; closing
//! commits what is enqueued. Not here: how any of it is done.

use std::sync::Arc;
use std::time::Duration;

use super::barrier::{Barrier, OutcomeUnknown};
use super::committer::{Committer, Recover, Stopwatch};
use super::queue::{CommitGroup, Seq};
use super::sync::{Builder, JoinHandle, Mutex};
use crate::journal::{Backend, JournalError, Record};

/// When a reply may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After the sync.
    Always,
    /// At once; a commit follows within this time.
    Interval(Duration),
    /// At once; nothing outlives the process.
    Memory,
}

/// The journal, and a handle to its commit thread.
pub struct Journal {
    pub(super) committer: Arc<Committer>,
    durability: Durability,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Starts the commit thread on a backend whose state is already loaded, as epoch 0. `stopwatch`
    /// tells slow commits from fast ones, and records how long each took.
    pub fn start(
        backend: Box<dyn Backend>,
        durability: Durability,
        state: Box<dyn Recover>,
        stopwatch: Arc<dyn Stopwatch>,
    ) -> std::io::Result<Journal> {
        let committer = Arc::new(Committer::new(backend, state, stopwatch));
        let own = Arc::clone(&committer);
        let thread = Builder::new().name("octostore-journal".into()).spawn(move || own.run(durability))?;
        Ok(Journal { committer, durability, thread: Mutex::new(Some(thread)) })
    }

    /// Enqueues records; does not block on storage. Call it under the guard of what the records
    /// describe.
    ///
    /// Fails while the backend is down, and for a state of an earlier epoch. Without durability
    /// nothing is kept.
    pub fn append(&self, epoch: u64, records: impl IntoIterator<Item = Record>) -> Result<Seq, JournalError> {
        if self.durability == Durability::Memory {
            return Ok(Seq(0));
        }
        self.committer.queue.append(epoch, records)
    }

    /// Until the returned value is dropped, nothing is committed, and what is appended lands in one
    /// commit. Keep it short.
    pub fn commit_group(&self) -> CommitGroup<'_> {
        self.committer.queue.open_group()
    }

    /// Commits made and records written by them since the start.
    pub fn commits(&self) -> (u64, u64) {
        self.committer.totals()
    }

    /// Whether a commit has failed since the start.
    pub fn has_ever_failed(&self) -> bool {
        self.committer.barriers.has_failed()
    }

    /// The size of the records that no commit has taken yet, in bytes.
    pub fn backlog_bytes(&self) -> usize {
        self.committer.queue.backlog_bytes()
    }

    /// Whether nothing can be changed at present.
    #[inline]
    pub fn is_down(&self) -> bool {
        self.committer.queue.is_down()
    }

    /// Why nothing can be changed at present.
    pub fn down(&self) -> Option<JournalError> {
        self.committer.queue.down()
    }

    /// The Seq of the record appended last.
    pub fn last(&self) -> Seq {
        self.committer.queue.last()
    }

    /// When replies may leave.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Completes when `seq` and all before it are durable, as far as the durability mode asks for
    /// that.
    pub fn barrier(&self, seq: Seq) -> Barrier<'_> {
        let seq = match self.durability {
            Durability::Always => seq,
            Durability::Interval(_) | Durability::Memory => Seq(0),
        };
        self.synced(seq)
    }

    /// Completes when `seq` and all before it are durable, whatever the durability mode.
    pub fn synced(&self, seq: Seq) -> Barrier<'_> {
        Barrier::new(&self.committer, seq)
    }

    /// Completes when what was read before this call, and depends on `seq`, may be revealed: once
    /// `seq` and all before it are durable, and after a commit that began after the call if the
    /// backend's reads need one. Nothing waits for [`Seq::default`].
    pub fn revealed(&self, seq: Seq) -> Barrier<'_> {
        let awaited = if seq == Seq::default() { seq } else { self.committer.queue.revealing(seq) };
        Barrier::of_both(&self.committer, seq, awaited)
    }

    /// Whether `seq` is durable: what [`Journal::synced`] would resolve to; `None`: it is not
    /// decided. Never blocks.
    pub fn durability_of(&self, seq: Seq) -> Option<Result<(), OutcomeUnknown>> {
        self.committer.barriers.durability_of(seq.0)
    }

    /// Commits what is enqueued and ends the thread. What is appended later is never durable.
    pub fn close(&self) {
        self.committer.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread has been printed already, and nothing is left to commit with.
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}
