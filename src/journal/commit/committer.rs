//! One commit: take a batch, write it, publish the result.
//!
//! Guarantees: one commit at a time; a result is published only after the backend returned; a
//! commit that fails or panics fails everything in flight; records that came too late for a commit
//! are not forgotten. Not here: when to commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::barrier::Barriers;
use super::queue::{Batch, CommitQueue, LARGE_COMMIT_RECORDS_MIN};
use super::sync::{AtomicBool, AtomicU64, Mutex};
use crate::journal::{Attempt, Backend, JournalError, Record};

/// A commit that takes longer is slow: its thread does nothing else meanwhile.
pub(super) const SLOW_COMMIT_NANOS: u64 = 2_000_000;
/// After a slow commit, the commit thread makes the next ones: one for each [`SLOW_COMMIT_NANOS`] that
/// it took, up to this number. A thread that was preempted once is no reason to keep callers away for
/// long: a commit costs more with two threads.
pub(super) const COMMITS_AFTER_SLOW_MAX: u64 = 8;
/// A commit that takes at least as long is a stall of the storage, and likely to come again.
pub(super) const STALL_NANOS: u64 = 50_000_000;
/// After a stall, the commit thread makes all commits for this many times as long as it took: a caller
/// loses at most 1 % of its time to stalls.
pub(super) const STALL_TIMES: u64 = 100;
/// The longest such time. A machine that was suspended during a commit has not stalled.
pub(super) const AFTER_STALL_NANOS_MAX: u64 = 600_000_000_000;
/// Room kept from one commit to the next, in records.
const SPARE_RECORDS_MAX: usize = 8192;

/// Times commits.
pub trait Stopwatch: Send + Sync {
    /// Nanoseconds that have passed since some fixed moment.
    fn nanos(&self) -> u64;

    /// A commit of `records` was made, or failed, after `nanos`.
    fn committed(&self, nanos: u64, records: usize);
}

/// The state in memory that the journal makes durable. Called on the commit thread after a failure.
pub trait Recover: Send {
    /// Storage does not work. Called before each attempt to rebuild, and as often if there are no
    /// more attempts: requests that wait for anything but a commit must learn of it.
    fn suspend(&mut self);

    /// Rebuilds the state, as that of `epoch`, from what `backend` holds.
    fn rebuild(&mut self, backend: &mut dyn Backend, epoch: u64) -> Result<(), JournalError>;
}

/// The queue, the barriers, and the backend between them.
pub(super) struct Committer {
    pub(super) queue: CommitQueue,
    pub(super) barriers: Barriers,
    pub(super) writer: Mutex<Writer>,
    pace: Pace,
    stopwatch: Arc<dyn Stopwatch>,
    commits: AtomicU64,
    records: AtomicU64,
}

/// The thread that has it locked commits. Lock it before the queue.
pub(super) struct Writer {
    pub(super) backend: Box<dyn Backend>,
    pub(super) state: Box<dyn Recover>,
    /// Room for the records that come during a commit.
    spare: Vec<Record>,
    /// Fast commits that the commit thread has to make before callers make them again.
    thread_commits: u64,
    /// By the stopwatch: the commit thread makes all commits before it.
    callers_from_nanos: u64,
    /// Records of recent commits: of the last one, or half of this number before it if that is
    /// more. There are small commits among large ones.
    recent_records: usize,
}

/// Which threads commit.
struct Pace {
    may_commit_on_caller: bool,
    /// Recent commits were slow, or found the storage locked.
    is_slow: AtomicBool,
    /// Recent commits were large.
    is_large: AtomicBool,
}

impl Committer {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        state: Box<dyn Recover>,
        stopwatch: Arc<dyn Stopwatch>,
    ) -> Committer {
        let traits = backend.traits();
        let writer = Writer {
            backend,
            state,
            spare: Vec::new(),
            thread_commits: 0,
            callers_from_nanos: 0,
            recent_records: 0,
        };
        Committer {
            queue: CommitQueue::new(traits),
            barriers: Barriers::new(),
            writer: Mutex::new(writer),
            pace: Pace {
                may_commit_on_caller: traits.commit_on_caller,
                is_slow: AtomicBool::new(false),
                is_large: AtomicBool::new(false),
            },
            stopwatch,
            commits: AtomicU64::new(0),
            records: AtomicU64::new(0),
        }
    }

    /// Commits made, and records written by them.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.commits.load(Ordering::Relaxed), self.records.load(Ordering::Relaxed))
    }

    /// Whether the next commit is to be left to the commit thread.
    pub(super) fn is_for_commit_thread(&self) -> bool {
        !self.pace.may_commit_on_caller
            || self.pace.is_large.load(Ordering::Relaxed)
            || self.pace.is_slow.load(Ordering::Relaxed)
    }

    /// Commits what is pending, unless another thread is at it. What is for the commit thread is
    /// requested from it.
    pub(super) fn commit_on_caller(&self) {
        if !self.try_commit() {
            self.queue.request_commit();
        }
    }

    /// Commits what is pending, unless another thread is at it. Returns `false` if that is for the
    /// commit thread.
    pub(super) fn try_commit(&self) -> bool {
        if self.is_for_commit_thread() || self.queue.is_large() {
            return false;
        }
        // The thread that commits wakes a barrier for what it did not take.
        let Some(mut writer) = self.writer.try_lock() else { return true };
        self.commit_batch(&mut writer, |backend, records| backend.try_commit(records));
        drop(writer);
        self.wake_next();
        true
    }

    /// Commits, and waits for storage that another process has locked. For the commit thread.
    pub(super) fn commit(&self) {
        self.commit_batch(&mut self.writer.lock(), |backend, records| {
            backend.commit(records).map(|()| Attempt::Committed)
        });
        self.wake_next();
    }

    /// Wakes a barrier for records that came too late for a commit. Call it with the writer free.
    pub(super) fn wake_next(&self) {
        if self.queue.needs_committer() {
            self.barriers.wake_next();
        }
    }

    fn commit_batch(
        &self,
        writer: &mut Writer,
        commit: impl FnOnce(&mut dyn Backend, &[Record]) -> Result<Attempt, JournalError>,
    ) {
        let Some(batch) = self.queue.take_batch(&mut writer.spare) else { return };
        let (records, numbers) = (batch.records.len(), batch.numbers);
        let started = self.stopwatch.nanos();
        let backend = writer.backend.as_mut();
        let commit = AssertUnwindSafe(|| commit(backend, &batch.records));
        // The state is loaded anew after a panic, as after every failure.
        let panicked = |_| Err(JournalError::Io { what: "the commit panicked".into() });
        let outcome = catch_unwind(commit).unwrap_or_else(panicked);
        let ended = self.stopwatch.nanos();
        let nanos = ended.saturating_sub(started);
        if outcome == Ok(Attempt::WouldBlock) {
            writer.thread_commits = COMMITS_AFTER_SLOW_MAX;
        } else {
            self.stopwatch.committed(nanos, records);
            writer.note_time(nanos, ended);
        }
        self.record_pace(writer, records, ended);
        match outcome {
            Ok(Attempt::Committed) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.records.fetch_add(records as u64, Ordering::Relaxed);
                self.barriers.publish_durable(batch.last);
                keep_room(writer, batch);
            }
            Ok(Attempt::WouldBlock) => self.queue.put_back(batch),
            Err(error) => self.fail(numbers, error),
        }
    }

    /// Decides which threads make the next commits, after one of this size that `ended` then.
    fn record_pace(&self, writer: &mut Writer, records: usize, ended: u64) {
        let is_slow = writer.thread_commits > 0 || ended < writer.callers_from_nanos;
        self.pace.is_slow.store(is_slow, Ordering::Relaxed);
        writer.recent_records = records.max(writer.recent_records / 2);
        self.pace.is_large.store(writer.recent_records >= LARGE_COMMIT_RECORDS_MIN, Ordering::Relaxed);
    }

    /// Fails everything in flight: the queue, and the `taken` numbers of the batch before it. The
    /// commit thread recovers.
    pub(super) fn fail(&self, taken: u64, error: JournalError) {
        let (first, last) = self.queue.fail(taken, error.clone());
        self.barriers.publish_failed(first, last);
        self.queue.changed.notify_all();
        // Last, because a log that blocks must delay nothing.
        log_failure(&error);
    }
}

impl Writer {
    /// Remembers how long a commit took.
    fn note_time(&mut self, nanos: u64, ended: u64) {
        self.thread_commits = match nanos > SLOW_COMMIT_NANOS {
            true => (nanos / SLOW_COMMIT_NANOS).min(COMMITS_AFTER_SLOW_MAX).max(self.thread_commits),
            false => self.thread_commits.saturating_sub(1),
        };
        if nanos >= STALL_NANOS {
            let away = nanos.saturating_mul(STALL_TIMES).min(AFTER_STALL_NANOS_MAX);
            self.callers_from_nanos = self.callers_from_nanos.max(ended.saturating_add(away));
        }
    }
}

/// Frees the records of a batch, after everything that depends on the commit, and keeps their room.
fn keep_room(writer: &mut Writer, mut batch: Batch) {
    batch.records.clear();
    if batch.records.capacity() <= SPARE_RECORDS_MAX {
        writer.spare = batch.records;
    }
}

/// Logs why nothing can be changed, and what ends that. The text of `error` says what to do.
pub(super) fn log_failure(error: &JournalError) {
    if error.is_retryable() {
        tracing::error!(%error, "storage failed; nothing can be locked or released until it works again");
    } else {
        tracing::error!(%error, "storage failed for good; all requests are refused until a restart");
    }
}
