//! The records on their way to the backend, in order.
//!
//! Guarantees: a record gets its sequence number and its place in one critical section; batches are
//! taken in order; no batch contains a part of a commit group, or of one append. Where reads need a
//! commit, all that are made before one begins share it. After a failure
//! the queue refuses records until it is reopened, and refuses records of an older epoch for ever.
//! Not here: storage, and which thread commits.

use std::sync::atomic::{self, Ordering};

use super::batch_limit::BatchLimit;
use super::sync::{AtomicBool, Condvar, Mutex, MutexGuard};
use crate::journal::{BackendTraits, JournalError, Record};

/// Records of a large commit. The commit thread makes these: executing requests meanwhile is worth
/// the thread switches.
pub(super) const LARGE_COMMIT_RECORDS_MIN: usize = 64;
/// Size of a large commit, in bytes, however few records it has: writing takes a millisecond from
/// here on.
pub(super) const LARGE_COMMIT_BYTES_MIN: usize = 256 << 10;

/// The place of a record in the journal; 0 is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seq(pub(super) u64);

impl Seq {
    /// The state that was loaded at the start. Always durable.
    pub const LOADED: Seq = Seq(1);

    /// As a number, to be kept in an atomic.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Inverse of [`Seq::get`].
    pub fn from_u64(n: u64) -> Seq {
        Seq(n)
    }
}

/// Records taken from the queue to be committed.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// How many numbers it decides: one for each record, and one if it is a check.
    pub(super) numbers: u64,
    /// The highest of them.
    pub(super) last: u64,
}

/// The queue, shared by the threads that append and those that commit.
pub(super) struct CommitQueue {
    pub(super) state: Mutex<QueueState>,
    /// Wakes the commit thread.
    pub(super) changed: Condvar,
    /// Whether [`QueueState::down`] is set, for a check without the lock.
    is_down: AtomicBool,
    /// [`QueueState::pending_bytes`]. A gauge that orders nothing, so not one of the primitives in `sync`.
    backlog_bytes: atomic::AtomicUsize,
}

pub(super) struct QueueState {
    pending: Vec<Record>,
    /// The size of `pending`.
    pending_bytes: usize,
    /// The Seq of the record appended last, or of a check after it.
    last: u64,
    /// The number before those of `pending` is that of a check: a commit of nothing, if there is
    /// nothing else to commit.
    has_check: bool,
    reads_need_commit: bool,
    /// Goes before `pending`: its storage was locked by another process when it was tried.
    blocked: Option<Batch>,
    limit: Option<BatchLimit>,
    /// Counts failures; an append for an earlier state is refused.
    pub(super) epoch: u64,
    open_groups: u32,
    /// A thread wanted to commit while a group was open.
    is_wanted: bool,
    /// Batches taken so far.
    pub(super) batches: u64,
    pub(super) down: Option<JournalError>,
    /// The backend may have maintenance to do.
    pub(super) has_maintenance: bool,
    /// A commit was requested from the commit thread.
    pub(super) is_urgent: bool,
    /// The commit thread sleeps until the next append.
    pub(super) is_asleep: bool,
    pub(super) is_closing: bool,
}

impl QueueState {
    pub(super) fn may_commit(&self) -> bool {
        self.blocked.is_some() || (self.open_groups == 0 && self.has_pending())
    }

    pub(super) fn has_records(&self) -> bool {
        self.blocked.is_some() || self.has_pending()
    }

    /// Leaves the commit of what is pending to the end of the open group. Returns whether there is
    /// both.
    fn leave_to_group(&mut self) -> bool {
        let is_left = self.open_groups > 0 && self.has_pending();
        self.is_wanted |= is_left;
        is_left
    }

    fn has_pending(&self) -> bool {
        self.has_check || !self.pending.is_empty()
    }

    fn push(&mut self, records: impl IntoIterator<Item = Record>) {
        let before = self.pending.len();
        self.pending.extend(records);
        self.last += (self.pending.len() - before) as u64;
        self.pending_bytes += size_bytes(&self.pending[before..]);
        if let Some(limit) = &mut self.limit {
            limit.note(&self.pending[before..], self.open_groups > 0);
        }
    }

    /// Takes what one commit may take of `pending`; `spare` becomes the room for what follows.
    fn take_pending(&mut self, spare: &mut Vec<Record>) -> Batch {
        let taken = self.limit.as_mut().map_or(self.pending.len(), BatchLimit::take);
        let mut records = std::mem::replace(&mut self.pending, std::mem::take(spare));
        self.pending.extend(records.drain(taken..));
        self.pending_bytes = size_bytes(&self.pending);
        let numbers = records.len() as u64 + u64::from(std::mem::take(&mut self.has_check));
        Batch { records, numbers, last: self.last - self.pending.len() as u64 }
    }
}

fn size_bytes(records: &[Record]) -> usize {
    records.iter().map(Record::size_bytes).sum()
}

impl CommitQueue {
    /// An empty queue for a backend with these traits.
    pub(super) fn new(traits: BackendTraits) -> CommitQueue {
        let state = QueueState {
            pending: Vec::new(),
            pending_bytes: 0,
            last: Seq::LOADED.0,
            has_check: false,
            reads_need_commit: traits.reads_need_commit,
            blocked: None,
            limit: traits.batch_bytes_max.map(BatchLimit::new),
            epoch: 0,
            open_groups: 0,
            is_wanted: false,
            batches: 0,
            down: None,
            // An earlier process may have left some.
            has_maintenance: true,
            is_urgent: false,
            is_asleep: false,
            is_closing: false,
        };
        CommitQueue {
            state: Mutex::new(state),
            changed: Condvar::new(),
            is_down: AtomicBool::new(false),
            backlog_bytes: atomic::AtomicUsize::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }

    /// Enqueues records of the state of `epoch`. Returns the Seq of the last one.
    pub(super) fn append(
        &self,
        epoch: u64,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Seq, JournalError> {
        let mut queue = self.lock();
        if let Some(error) = &queue.down {
            return Err(error.clone());
        }
        if queue.epoch != epoch {
            return Err(JournalError::rebuilt());
        }
        queue.push(records);
        self.backlog_bytes.store(queue.pending_bytes, Ordering::Relaxed);
        let seq = Seq(queue.last);
        let was_asleep = std::mem::replace(&mut queue.is_asleep, false);
        drop(queue);
        if was_asleep {
            self.changed.notify_one();
        }
        Ok(seq)
    }

    /// The number that must be durable before something may be revealed that was read before this
    /// call, and that depends on `seq`. It is that of a commit that has not begun, if reads need one.
    pub(super) fn revealing(&self, seq: Seq) -> Seq {
        let mut queue = self.lock();
        if !queue.reads_need_commit {
            return seq;
        }
        if queue.down.is_none() && !queue.has_records() {
            (queue.last, queue.has_check) = (queue.last + 1, true);
        }
        // While storage is down, this is the last number of what failed.
        let (last, was_asleep) = (queue.last, std::mem::replace(&mut queue.is_asleep, false));
        drop(queue);
        if was_asleep {
            self.changed.notify_one();
        }
        Seq(last)
    }

    /// Opens a group: nothing is committed until it is dropped.
    pub(super) fn open_group(&self) -> CommitGroup<'_> {
        self.lock().open_groups += 1;
        CommitGroup { queue: self }
    }

    /// The Seq of the record appended last.
    pub(super) fn last(&self) -> Seq {
        Seq(self.lock().last)
    }

    /// The size of the records that no commit has taken yet, in bytes.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes.load(Ordering::Relaxed)
    }

    /// Whether records are refused.
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// Why records are refused.
    pub(super) fn down(&self) -> Option<JournalError> {
        if !self.is_down() {
            return None;
        }
        self.lock().down.clone()
    }

    /// Whether the next commit is large.
    pub(super) fn is_large(&self) -> bool {
        let queue = self.lock();
        queue.pending.len() >= LARGE_COMMIT_RECORDS_MIN || queue.pending_bytes >= LARGE_COMMIT_BYTES_MIN
    }

    /// Asks the commit thread to commit now.
    pub(super) fn request_commit(&self) {
        let mut queue = self.lock();
        // An empty queue needs no commit: a commit under way has the records.
        let is_known = !queue.has_pending() || std::mem::replace(&mut queue.is_urgent, true);
        drop(queue);
        if !is_known {
            self.changed.notify_one();
        }
    }

    /// Whether there are records that no thread is going to commit: none was asked to.
    pub(super) fn needs_committer(&self) -> bool {
        let mut queue = self.lock();
        !queue.leave_to_group() && queue.has_pending() && !queue.is_urgent
    }

    /// Takes the next batch, unless a group is open. `spare` is room for later records.
    pub(super) fn take_batch(&self, spare: &mut Vec<Record>) -> Option<Batch> {
        let mut queue = self.lock();
        if !queue.may_commit() {
            queue.leave_to_group();
            return None;
        }
        queue.has_maintenance = true;
        queue.batches += 1;
        let batch = queue.blocked.take();
        let was_blocked = batch.is_some();
        let batch = batch.unwrap_or_else(|| queue.take_pending(spare));
        self.backlog_bytes.store(queue.pending_bytes, Ordering::Relaxed);
        // More than one batch takes: the commit thread goes on with the rest.
        queue.is_urgent = !was_blocked && !queue.pending.is_empty();
        let has_rest = queue.is_urgent;
        drop(queue);
        if has_rest {
            self.changed.notify_one();
        }
        Some(batch)
    }

    /// Puts back a batch whose storage is locked, for the commit thread to wait for.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut queue = self.lock();
        (queue.blocked, queue.is_urgent) = (Some(batch), true);
        drop(queue);
        self.changed.notify_one();
    }

    /// Refuses records from now on, and drops those in flight: the `taken` numbers of the failed
    /// batch and all that follow. Returns the first and the last Seq of these.
    pub(super) fn fail(&self, taken: u64, error: JournalError) -> (u64, u64) {
        let mut queue = self.lock();
        queue.down = Some(error);
        self.is_down.store(true, Ordering::Release);
        let blocked = queue.blocked.take().map_or(0, |batch| batch.numbers);
        let check = u64::from(std::mem::take(&mut queue.has_check));
        let mut in_flight = taken + blocked + check + queue.pending.len() as u64;
        if queue.reads_need_commit {
            // What is read until the queue is reopened fails with this number.
            (queue.last, in_flight) = (queue.last + 1, in_flight + 1);
        }
        queue.pending.clear();
        queue.pending_bytes = 0;
        self.backlog_bytes.store(0, Ordering::Relaxed);
        if let Some(limit) = &mut queue.limit {
            limit.clear();
        }
        queue.is_urgent = false;
        queue.epoch += 1;
        (queue.last + 1 - in_flight, queue.last)
    }

    /// Accepts records again, those of the present epoch.
    pub(super) fn reopen(&self) {
        let mut queue = self.lock();
        queue.down = None;
        self.is_down.store(false, Ordering::Release);
    }

    /// Makes the commit thread commit what there is, and end.
    pub(super) fn close(&self) {
        self.lock().is_closing = true;
        self.changed.notify_all();
    }
}

/// Until it is dropped, nothing is committed, and what is appended lands in one commit.
pub struct CommitGroup<'a> {
    queue: &'a CommitQueue,
}

impl Drop for CommitGroup<'_> {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.open_groups -= 1;
        if queue.open_groups > 0 {
            return;
        }
        if let Some(limit) = &mut queue.limit {
            limit.end_group();
        }
        // Else the records wait until a barrier wants them, like all others.
        let was_wanted = std::mem::take(&mut queue.is_wanted) || queue.is_urgent || queue.is_closing;
        if was_wanted && queue.has_pending() {
            queue.is_urgent = true;
            drop(queue);
            self.queue.changed.notify_one();
        }
    }
}
