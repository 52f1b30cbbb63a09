//! Group commit: many requests, one transaction, one sync.
//!
//! Promise: sequence numbers are assigned in the order of enqueueing; when one is durable, so are all before it; a
//! barrier that answers `Ok` stands on synced storage (unless the durability mode says otherwise, and then
//! it says so). After a failed commit nothing is accepted until the state was rebuilt from what is durable.
//!
//! Who waits sees to the commit: the first [`Barrier`] gives a turn to the others that are ready on its thread, so that what they
//! enqueue comes along. Then, if few wait, it commits on its own thread. That blocks the thread for one sync, and spares
//! the two hand-overs that a thread for commits costs. If many wait it asks such a thread, so that requests are executed
//! while others are committed. That thread also commits what nobody waits for, and recovers from failures.
//!
//! A thread that waits for a barrier never waits for another process that has the storage locked: it
//! leaves its batch to the commit thread. Storage that stalls blocks such a thread once: after a slow
//! commit all are left to the commit thread, until enough of them in a row have been fast. (To
//! hand the other tasks of the thread over before each commit costs as much as to hand over the
//! commit, which is what committing here saves.)
//! Absent: what records mean, async runtimes (barriers are plain futures).

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use super::{Attempt, Backend, JournalError, Record};

/// The place of a record in the journal; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seq(u64);

impl Seq {
    /// As a number, to be kept in an atomic.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The reverse of [`Seq::get`].
    pub fn from_u64(n: u64) -> Seq {
        Seq(n)
    }
}

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

/// A commit failed under this request: whether it took effect is unknown to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeUnknown;

/// Rebuilds the state in memory, for the new epoch, from what the backend holds.
pub type Rebuild = Box<dyn FnMut(&mut dyn Backend, u64) -> Result<(), JournalError> + Send>;

/// Nanoseconds that have passed since some fixed moment.
pub type Stopwatch = Box<dyn Fn() -> u64 + Send + Sync>;

/// First pause between two tries to recover from a failed commit; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How often the commit thread looks for records that nobody waits for, while there are any.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Without a commit for so long, the backend does its housekeeping.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// So many wait for one commit at most while those who wait make it: what they could be executing meanwhile mostly takes less
/// time than the hand-overs.
const FEW: usize = 4;
/// Whoever asks so many times before anybody else does is alone.
const ALONE_AFTER: usize = 8;
/// A commit that takes longer is slow: as long as it takes, the thread that makes it does nothing else.
const SLOW_COMMIT_NANOS: u64 = 2_000_000;
/// Fast commits in a row after which the threads that wait make them again.
const FAST_COMMITS_MIN: u32 = 8;
/// How often the backend verifies itself while nothing is committed.
const VERIFY_EVERY: Duration = Duration::from_secs(1);
/// Room kept from one commit to the next, in records.
const SPARE_RECORDS_MAX: usize = 8192;
/// Failures remembered for barriers that are still to be asked about; far more than can be in flight.
const FAILURES_MAX: usize = 1024;

/// The journal, and a handle to its commit thread.
pub struct Journal {
    shared: Arc<Shared>,
    durability: Durability,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    writer: Mutex<Writer>,
    queue: Mutex<Queue>,
    /// For the commit thread: something in the queue is for it.
    changed: Condvar,
    /// Every Seq up to this one is durable, or is in a failed range.
    settled: AtomicU64,
    has_failed: AtomicBool,
    /// Whether `Queue::down` is set, for a check without the lock.
    is_down: AtomicBool,
    /// Recent commits were slow, or found the storage locked: only the commit thread makes them.
    is_slow: AtomicBool,
    stopwatch: Stopwatch,
    barriers: Mutex<Barriers>,
    commits: AtomicU64,
    committed: AtomicU64,
}

/// Who has it locked commits. Lock it before the queue.
struct Writer {
    backend: Box<dyn Backend>,
    rebuild: Rebuild,
    /// Room for the records that come during a commit.
    spare: Vec<Record>,
    /// Since the last slow one.
    fast_commits: u32,
}

/// Records on their way to the backend, and the Seq of the last one.
struct Batch {
    records: Vec<Record>,
    last: u64,
}

#[derive(Default)]
struct Queue {
    pending: Vec<Record>,
    last: u64,
    /// Goes before `pending`: storage that another process has locked is for the commit thread to wait for.
    blocked: Option<Batch>,
    /// Counts rebuilds; an append for an earlier state is refused.
    epoch: u64,
    open_groups: u32,
    /// Batches taken to be committed.
    batches: u64,
    down: Option<JournalError>,
    /// The backend may have some.
    has_housekeeping: bool,
    /// The commit thread is to commit what is pending, now.
    is_urgent: bool,
    /// The commit thread does not look by itself.
    is_asleep: bool,
    closing: bool,
}

impl Queue {
    fn may_commit(&self) -> bool {
        self.blocked.is_some() || (self.open_groups == 0 && !self.pending.is_empty())
    }

    fn has_records(&self) -> bool {
        self.blocked.is_some() || !self.pending.is_empty()
    }
}

#[derive(Default)]
struct Barriers {
    last_id: u64,
    /// In the order of their ids.
    parked: Vec<Parked>,
    /// Somebody gives a turn to others, and then sees to the commit.
    gives_way: bool,
    /// How many asked for something new between two commits lately, less the longer ago, and how many since the last.
    asked_before: usize,
    asked: usize,
    /// The highest Seq that was asked for.
    last_seq: u64,
    /// Who asked last, and how often since anybody else did.
    last_asked: Option<Waker>,
    times: usize,
    /// Ranges of Seq that failed, both ends included, oldest first.
    failures: Vec<(u64, u64)>,
}

struct Parked {
    id: u64,
    seq: u64,
    waker: Waker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the data whole, so a panic elsewhere must not stop commits.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Journal {
    /// Starts the commit thread on a backend whose state is already loaded, as epoch 0. `stopwatch`
    /// tells slow commits from fast ones.
    pub fn start(
        backend: Box<dyn Backend>,
        durability: Durability,
        rebuild: Rebuild,
        stopwatch: Stopwatch,
    ) -> std::io::Result<Journal> {
        let shared = Arc::new(Shared {
            writer: Mutex::new(Writer {
                backend,
                rebuild,
                spare: Vec::new(),
                fast_commits: FAST_COMMITS_MIN,
            }),
            // An earlier process may have left some.
            queue: Mutex::new(Queue { has_housekeeping: true, ..Queue::default() }),
            changed: Condvar::new(),
            settled: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            stopwatch,
            barriers: Mutex::default(),
            commits: AtomicU64::new(0),
            committed: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("octostore-journal".into())
            .spawn(move || own.run(durability))?;
        Ok(Journal { shared, durability, thread: Mutex::new(Some(thread)) })
    }

    /// Enqueues records; does not block on storage. Call it under the guard of what the records describe.
    ///
    /// Fails while the backend is down, and for a state of an earlier epoch. Without durability nothing is kept.
    pub fn append(&self, epoch: u64, records: impl IntoIterator<Item = Record>) -> Result<Seq, JournalError> {
        if self.durability == Durability::Memory {
            return Ok(Seq(0));
        }
        let mut queue = lock(&self.shared.queue);
        if let Some(error) = &queue.down {
            return Err(error.clone());
        }
        if queue.epoch != epoch {
            return Err(JournalError::rebuilt());
        }
        let before = queue.pending.len();
        queue.pending.extend(records);
        queue.last += (queue.pending.len() - before) as u64;
        let seq = Seq(queue.last);
        let was_asleep = std::mem::replace(&mut queue.is_asleep, false);
        drop(queue);
        if was_asleep {
            self.shared.changed.notify_one();
        }
        Ok(seq)
    }

    /// Until the returned value is dropped, what is appended lands in one commit. Keep it short.
    pub fn group(&self) -> Group<'_> {
        lock(&self.shared.queue).open_groups += 1;
        Group { shared: &self.shared }
    }

    /// Commits made and records written by them since the start.
    pub fn commits(&self) -> (u64, u64) {
        (self.shared.commits.load(Ordering::Relaxed), self.shared.committed.load(Ordering::Relaxed))
    }

    /// Whether a commit has failed since the start.
    pub fn has_ever_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Acquire)
    }

    /// Why nothing can be changed at present.
    pub fn down(&self) -> Option<JournalError> {
        if !self.shared.is_down.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.shared.queue).down.clone()
    }

    /// The Seq of the record appended last.
    pub fn last(&self) -> Seq {
        Seq(lock(&self.shared.queue).last)
    }

    /// When replies may leave.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Completes when `seq` and all before it are durable, as far as the durability mode asks for that. Polling it may block
    /// for one commit: hold no guard.
    pub fn barrier(&self, seq: Seq) -> Barrier<'_> {
        let seq = match self.durability {
            Durability::Always => seq,
            Durability::Interval(_) | Durability::Memory => Seq(0),
        };
        self.synced(seq)
    }

    /// Completes when `seq` and all before it are durable, whatever the durability mode. Polling it may block for one commit.
    pub fn synced(&self, seq: Seq) -> Barrier<'_> {
        Barrier { shared: &self.shared, seq, stage: Stage::New }
    }

    /// What a barrier of `seq` would answer; `None`: it is not decided. Never blocks.
    pub fn verdict(&self, seq: Seq) -> Option<Result<(), OutcomeUnknown>> {
        self.shared.verdict(seq.0)
    }

    /// Commits what is enqueued and ends the thread. What is appended later is never durable.
    pub fn close(&self) {
        lock(&self.shared.queue).closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the thread has been printed already, and there is nothing left to commit with.
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Keeps a batch open, see [`Journal::group`].
pub struct Group<'a> {
    shared: &'a Shared,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.open_groups -= 1;
        if queue.open_groups == 0 && !queue.pending.is_empty() {
            // Whoever wanted to commit meanwhile could not.
            queue.is_urgent = true;
            drop(queue);
            self.shared.changed.notify_one();
        }
    }
}

/// Resolves when a Seq is decided.
#[must_use = "a reply must not leave before its barrier"]
pub struct Barrier<'a> {
    shared: &'a Shared,
    seq: Seq,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// It gives a turn to the others that are ready, and then sees to the commit for all who ask meanwhile.
    GivingWay,
    /// Its waker is among those of [`Barriers`], under this id.
    Parked(u64),
}

impl Future for Barrier<'_> {
    type Output = Result<(), OutcomeUnknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (shared, seq, waker) = (self.shared, self.seq.0, context.waker());
        if let Some(verdict) = shared.verdict(seq) {
            return Poll::Ready(verdict);
        }
        let mut barriers = lock(&shared.barriers);
        self.leave(&mut barriers);
        let is_last = match std::mem::replace(&mut self.stage, Stage::New) {
            Stage::GivingWay => true,
            Stage::New | Stage::Parked(_) => barriers.ask(seq, waker),
        };
        if !is_last && !barriers.gives_way {
            barriers.gives_way = true;
            self.stage = Stage::GivingWay;
            drop(barriers);
            waker.wake_by_ref();
            return Poll::Pending;
        }
        // Under the lock that `settle` takes: either it sees this waker, or this sees its number.
        if shared.settled.load(Ordering::Acquire) < seq {
            self.stage = Stage::Parked(barriers.park(seq, waker));
            let are_many = barriers.asked.max(barriers.asked_before) > FEW;
            drop(barriers);
            // Only now: if somebody else commits at this moment, then this one is seen afterwards.
            match (is_last, are_many || shared.is_slow.load(Ordering::Relaxed)) {
                (false, _) => {}
                (true, true) => shared.ask(),
                (true, false) => shared.commit_unless_busy(),
            }
        } else {
            drop(barriers);
            shared.hand_over();
        }
        shared.verdict(seq).map_or(Poll::Pending, Poll::Ready)
    }
}

/// Wakes a thread that waits for a barrier.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Barrier<'_> {
    /// Blocks the thread until the Seq is decided.
    pub fn wait(mut self) -> Result<(), OutcomeUnknown> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(verdict) => return verdict,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    /// Takes back what this one has left in `barriers`.
    fn leave(&self, barriers: &mut Barriers) {
        match self.stage {
            Stage::New => {}
            Stage::GivingWay => barriers.gives_way = false,
            Stage::Parked(id) => {
                if let Ok(place) = barriers.parked.binary_search_by_key(&id, |parked| parked.id) {
                    barriers.parked.remove(place);
                }
            }
        }
    }
}

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        if self.stage == Stage::New {
            return;
        }
        let mut barriers = lock(&self.shared.barriers);
        self.leave(&mut barriers);
        if self.stage == Stage::GivingWay {
            // Those who relied on it.
            let next = barriers.parked.first().map(|parked| parked.waker.clone());
            drop(barriers);
            next.into_iter().for_each(Waker::wake);
        }
    }
}

impl Barriers {
    /// Notes that somebody asks. Whether there is nobody to wait for: it has been alone for a while.
    fn ask(&mut self, seq: u64, waker: &Waker) -> bool {
        // Who is handed a lock waits for the same as who released it, and has nothing else to be executed meanwhile.
        if seq > self.last_seq {
            self.asked += 1;
            self.last_seq = seq;
        }
        if self.last_asked.as_ref().is_some_and(|last| last.will_wake(waker)) {
            self.times += 1;
        } else {
            (self.last_asked, self.times) = (Some(waker.clone()), 0);
        }
        self.times >= ALONE_AFTER && self.parked.is_empty() && !self.gives_way
    }

    fn park(&mut self, seq: u64, waker: &Waker) -> u64 {
        self.last_id += 1;
        self.parked.push(Parked { id: self.last_id, seq, waker: waker.clone() });
        self.last_id
    }
}

impl Shared {
    fn verdict(&self, seq: u64) -> Option<Result<(), OutcomeUnknown>> {
        if self.settled.load(Ordering::Acquire) < seq {
            return None;
        }
        if !self.has_failed.load(Ordering::Acquire) {
            return Some(Ok(()));
        }
        let failed = lock(&self.barriers).failures.iter().any(|&(from, to)| (from..=to).contains(&seq));
        Some(if failed { Err(OutcomeUnknown) } else { Ok(()) })
    }

    /// Asks the commit thread to commit.
    fn ask(&self) {
        let mut queue = lock(&self.queue);
        // Nothing there: a commit that is under way has it.
        let is_known = queue.pending.is_empty() || std::mem::replace(&mut queue.is_urgent, true);
        drop(queue);
        if !is_known {
            self.changed.notify_one();
        }
    }

    /// Commits what is pending, unless somebody else is committing, or keeps the storage locked.
    fn commit_unless_busy(&self) {
        let Some(mut writer) = try_lock(&self.writer) else { return };
        self.commit_pending(&mut writer, |backend, records| backend.try_commit(records));
        drop(writer);
        self.hand_over();
    }

    /// After a commit, with the writer free again: those whose records came too late for it are not to be forgotten.
    fn hand_over(&self) {
        // What a group leaves open is urgent once it closes.
        let is_seen_to = |queue: &Queue| queue.pending.is_empty() || queue.is_urgent || queue.open_groups > 0;
        if is_seen_to(&lock(&self.queue)) {
            return;
        }
        let barriers = lock(&self.barriers);
        let next = barriers.parked.first().filter(|_| !barriers.gives_way).map(|parked| parked.waker.clone());
        drop(barriers);
        next.into_iter().for_each(Waker::wake);
    }

    /// Publishes that everything up to `last` is decided, and wakes exactly those who waited for that.
    fn settle(&self, last: u64, failed_from: Option<u64>) {
        let mut barriers = lock(&self.barriers);
        if let Some(from) = failed_from {
            if barriers.failures.len() == FAILURES_MAX {
                barriers.failures.remove(0);
            }
            barriers.failures.push((from, last));
            self.has_failed.store(true, Ordering::Release);
        }
        self.settled.store(last, Ordering::Release);
        let woken: Vec<Parked> = barriers.parked.extract_if(.., |parked| parked.seq <= last).collect();
        // Many stay many for a while: among their commits are small ones.
        barriers.asked_before = std::mem::take(&mut barriers.asked).max(barriers.asked_before / 2);
        drop(barriers);
        woken.into_iter().for_each(|parked| parked.waker.wake());
    }

    /// Commits all there is, unless a group is open. What would block is left to the commit thread.
    fn commit_pending(
        &self,
        writer: &mut Writer,
        commit: impl FnOnce(&mut dyn Backend, &[Record]) -> Result<Attempt, JournalError>,
    ) {
        let Some(mut batch) = self.take_batch(writer) else { return };
        let records = batch.records.len() as u64;
        let started = (self.stopwatch)();
        let backend = writer.backend.as_mut();
        let commit = AssertUnwindSafe(|| commit(backend, &batch.records));
        // What a panic leaves is loaded anew, as after every failure.
        let panicked = |_| Err(JournalError::Io { what: "the commit panicked".into() });
        let outcome = catch_unwind(commit).unwrap_or_else(panicked);
        let nanos = (self.stopwatch)().saturating_sub(started);
        self.note_pace(writer, nanos > SLOW_COMMIT_NANOS || outcome == Ok(Attempt::WouldBlock));
        match outcome {
            Ok(Attempt::Committed) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.committed.fetch_add(records, Ordering::Relaxed);
                self.settle(batch.last, None);
            }
            Ok(Attempt::WouldBlock) => {
                let mut queue = lock(&self.queue);
                (queue.blocked, queue.is_urgent) = (Some(batch), true);
                drop(queue);
                return self.changed.notify_one();
            }
            Err(error) => self.fail(records, error),
        }
        // Only now that everybody is told: it takes a while.
        batch.records.clear();
        if batch.records.capacity() <= SPARE_RECORDS_MAX {
            writer.spare = batch.records;
        }
    }

    fn take_batch(&self, writer: &mut Writer) -> Option<Batch> {
        let mut queue = lock(&self.queue);
        if !queue.may_commit() {
            return None;
        }
        queue.has_housekeeping = true;
        queue.is_urgent = false;
        queue.batches += 1;
        let last = queue.last;
        queue.blocked.take().or_else(|| {
            let records = std::mem::replace(&mut queue.pending, std::mem::take(&mut writer.spare));
            Some(Batch { records, last })
        })
    }

    /// Notes how long a commit took.
    fn note_pace(&self, writer: &mut Writer, was_slow: bool) {
        writer.fast_commits = if was_slow { 0 } else { writer.fast_commits.saturating_add(1) };
        self.is_slow.store(writer.fast_commits < FAST_COMMITS_MIN, Ordering::Relaxed);
    }

    /// Fails what is in flight, that is what is queued and so many records before it; the commit thread will recover.
    fn fail(&self, taken: u64, error: JournalError) {
        let (first, last) = {
            let mut queue = lock(&self.queue);
            queue.down = Some(error.clone());
            self.is_down.store(true, Ordering::Release);
            let blocked = queue.blocked.take().map_or(0, |batch| batch.records.len());
            let in_flight = taken + (blocked + queue.pending.len()) as u64;
            queue.pending.clear();
            queue.is_urgent = false;
            queue.epoch += 1;
            (queue.last + 1 - in_flight, queue.last)
        };
        self.settle(last, Some(first));
        self.changed.notify_all();
        // Only now: whatever becomes of this line, nobody waits for it.
        tracing::error!(%error, "storage failed; nothing can be locked or released until it works again");
    }
}

/// What the commit thread is to do.
enum Work {
    Commit,
    KeepHouse,
    Verify,
    Recover,
    End,
}

impl Shared {
    /// The commit thread.
    fn run(&self, durability: Durability) {
        let mut is_idle = false;
        loop {
            let work = self.wait_for_work(durability, is_idle);
            is_idle = matches!(work, Work::Verify);
            match work {
                Work::Commit => {
                    self.commit_pending(&mut lock(&self.writer), |backend, records| {
                        backend.commit(records).map(|()| Attempt::Committed)
                    });
                    self.hand_over();
                }
                Work::Verify => {
                    let mut writer = lock(&self.writer);
                    if let Err(error) = writer.backend.verify() {
                        self.fail(0, error);
                    }
                    drop(writer);
                    self.hand_over();
                }
                Work::KeepHouse => {
                    let has_more = lock(&self.writer).backend.maintain().unwrap_or_else(|error| {
                        // A failure changes nothing and is tried again after the next commit.
                        tracing::warn!(%error, "housekeeping of the database failed; nothing is lost, it is tried again");
                        false
                    });
                    lock(&self.queue).has_housekeeping = has_more;
                    self.hand_over();
                }
                Work::Recover => {
                    self.recover(&mut lock(&self.writer));
                    self.hand_over();
                }
                Work::End => return,
            }
        }
    }

    fn wait_for_work(&self, durability: Durability, is_idle: bool) -> Work {
        let look_every = match durability {
            Durability::Interval(interval) => interval,
            Durability::Always | Durability::Memory => LOOK_EVERY,
        };
        let mut queue = lock(&self.queue);
        let (mut batches_seen, mut some_seen, mut quiet_for) =
            (queue.batches, false, if is_idle { IDLE_AFTER } else { Duration::ZERO });
        loop {
            let has_some = queue.has_records();
            let may_commit = queue.may_commit();
            let is_quiet = queue.batches == batches_seen;
            if queue.down.is_some() {
                return if queue.closing { Work::End } else { Work::Recover };
            }
            if queue.closing && !has_some {
                return Work::End;
            }
            let is_time = match durability {
                // They lie there since the last look: nobody waits for them.
                Durability::Always | Durability::Memory => some_seen && is_quiet,
                Durability::Interval(_) => quiet_for >= look_every,
            };
            if may_commit && (is_time || queue.is_urgent || queue.closing) {
                return Work::Commit;
            }
            (batches_seen, some_seen) = (queue.batches, has_some);
            if has_some || !is_quiet {
                quiet_for = Duration::ZERO;
            } else if quiet_for >= IDLE_AFTER {
                if queue.has_housekeeping {
                    return Work::KeepHouse;
                }
                queue.is_asleep = true;
                let is_asleep = |queue: &mut Queue| queue.is_asleep && !queue.closing && queue.down.is_none();
                let slept = self.changed.wait_timeout_while(queue, VERIFY_EVERY, is_asleep);
                queue = slept.unwrap_or_else(PoisonError::into_inner).0;
                if std::mem::replace(&mut queue.is_asleep, false) && !queue.closing && queue.down.is_none() {
                    return Work::Verify;
                }
                quiet_for = Duration::ZERO;
                continue;
            }
            let is_left_alone = |queue: &mut Queue| {
                let is_wanted = queue.may_commit() && (queue.is_urgent || queue.closing);
                let is_over = queue.closing && !queue.has_records();
                !is_wanted && !is_over && queue.down.is_none()
            };
            let waited = self.changed.wait_timeout_while(queue, look_every, is_left_alone);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            quiet_for += look_every;
        }
    }

    /// Rebuilds from what is durable until that works.
    fn recover(&self, writer: &mut Writer) {
        let epoch = lock(&self.queue).epoch;
        let mut pause = RETRY_MIN;
        loop {
            let outcome = (writer.rebuild)(writer.backend.as_mut(), epoch);
            let mut queue = lock(&self.queue);
            match outcome {
                Ok(()) => {
                    queue.down = None;
                    self.is_down.store(false, Ordering::Release);
                    tracing::info!("storage works again; every lock is as it was last committed");
                    return;
                }
                Err(error) => {
                    if queue.down.as_ref() != Some(&error) {
                        tracing::error!(%error, "storage still fails");
                    }
                    queue.down = Some(error);
                }
            }
            let (queue, _) = self
                .changed
                .wait_timeout_while(queue, pause, |queue| !queue.closing)
                .unwrap_or_else(PoisonError::into_inner);
            if queue.closing {
                return;
            }
            drop(queue);
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::super::faulty::{Faults, FaultyBackend};
    use super::super::{MemoryBackend, SessionRecord};
    use super::*;
    use crate::domain::{SessionId, Timestamp};

    /// The epoch of a rebuild, and the sessions it found.
    type Rebuilt = (u64, Vec<u128>);

    fn is_pending(future: &mut Barrier<'_>) -> bool {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    fn session(id: u128) -> Record {
        let (name, deadline) = (String::new(), Timestamp::NEVER);
        Record::Session(SessionRecord { id: SessionId(id), name, account: None, ttl: None, deadline })
    }

    fn sessions(backend: &mut dyn Backend) -> Result<Vec<u128>, JournalError> {
        let mut found = Vec::new();
        backend.load(Some("b"), Timestamp::default(), &mut |record| {
            if let Record::Session(session) = record {
                found.push(session.id.0);
            }
        })?;
        Ok(found)
    }

    /// A journal on a faulty memory, whose rebuilds report the epoch and what was durable.
    fn start(durability: Durability) -> (Journal, Arc<Faults>, Receiver<Rebuilt>) {
        let faults = Arc::new(Faults::default());
        let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
        let (report, rebuilt) = std::sync::mpsc::channel();
        let rebuild: Rebuild = Box::new(move |backend, epoch| {
            let found = sessions(backend)?;
            report.send((epoch, found)).unwrap();
            Ok(())
        });
        let journal = Journal::start(Box::new(backend), durability, rebuild, faults.stopwatch()).unwrap();
        (journal, faults, rebuilt)
    }

    /// Appends as soon as the state of this epoch is there.
    fn append_in(journal: &Journal, epoch: u64, id: u128) -> Seq {
        loop {
            match journal.append(epoch, [session(id)]) {
                Ok(seq) => return seq,
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn a_barrier_waits_for_the_commit_and_not_longer() {
        let (journal, faults, _) = start(Durability::Always);
        assert_eq!(journal.barrier(Seq(0)).wait(), Ok(()), "nothing to wait for");
        faults.hold_commits();
        let seq = journal.append(0, [session(1)]).unwrap();
        let mut barrier = journal.barrier(seq);
        assert!(is_pending(&mut barrier));
        faults.release_commits();
        assert_eq!(barrier.wait(), Ok(()));
    }

    #[test]
    fn what_arrives_during_a_commit_is_one_batch() {
        let (journal, faults, _) = start(Durability::Always);
        faults.hold_commits();
        let first = journal.append(0, [session(0)]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| journal.barrier(first).wait().unwrap());
            faults.wait_until_held();
            let last = (1..=50).map(|n| journal.append(0, [session(n)]).unwrap()).last().unwrap();
            let barrier = journal.barrier(last);
            faults.release_commits();
            barrier.wait().unwrap();
        });
        assert_eq!(faults.batch_sizes(), [1, 50]);
    }

    #[test]
    fn others_on_the_thread_have_their_turn_before_a_commit() {
        let (journal, faults, _) = start(Durability::Always);
        let mut first = journal.barrier(journal.append(0, [session(1)]).unwrap());
        assert!(is_pending(&mut first));
        let mut second = journal.barrier(journal.append(0, [session(2)]).unwrap());
        assert!(is_pending(&mut second));
        assert_eq!((first.wait(), second.wait()), (Ok(()), Ok(())));
        assert_eq!(faults.batch_sizes(), [2]);
    }

    #[test]
    fn who_came_too_late_for_a_commit_makes_the_next() {
        let (journal, faults, _) = start(Durability::Always);
        faults.hold_commits();
        let first = journal.append(0, [session(1)]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| journal.barrier(first).wait().unwrap());
            faults.wait_until_held();
            let seq = journal.append(0, [session(2)]).unwrap();
            let mut late = journal.barrier(seq);
            // Twice: it has given way, and found somebody committing.
            assert!(is_pending(&mut late) && is_pending(&mut late));
            faults.release_commits();
            assert_eq!(late.wait(), Ok(()));
        });
        assert_eq!(faults.batch_sizes(), [1, 1]);
    }

    #[test]
    fn what_nobody_waits_for_is_committed_all_the_same() {
        let (journal, faults, _) = start(Durability::Always);
        faults.hold_commits();
        journal.append(0, [session(1)]).unwrap();
        faults.wait_until_held();
        faults.release_commits();
        journal.close();
        assert_eq!((faults.batch_sizes(), journal.commits()), (vec![1], (1, 1)));
    }

    #[test]
    fn a_group_is_never_split() {
        let (journal, faults, _) = start(Durability::Always);
        let group = journal.group();
        journal.append(0, [session(1)]).unwrap();
        let seq = journal.append(0, [session(2)]).unwrap();
        drop(group);
        journal.barrier(seq).wait().unwrap();
        assert_eq!(faults.batch_sizes(), [2]);
    }

    #[test]
    fn nothing_of_an_open_group_is_committed_whoever_commits() {
        let (journal, faults, _) = start(Durability::Always);
        let group = journal.group();
        journal.append(0, [session(1)]).unwrap();
        let seq = journal.append(0, [session(2)]).unwrap();
        let mut barrier = journal.barrier(seq);
        assert!(is_pending(&mut barrier) && is_pending(&mut barrier) && is_pending(&mut barrier));
        // As a thread does that began before the group was opened.
        journal.shared.commit_unless_busy();
        assert_eq!((faults.batch_sizes(), journal.commits()), (vec![], (0, 0)));
        drop(group);
        barrier.wait().unwrap();
        assert_eq!(faults.batch_sizes(), [2]);
    }

    #[test]
    fn a_failed_commit_is_never_an_ok_and_service_resumes_by_itself() {
        let (journal, faults, rebuilt) = start(Durability::Always);
        let durable = journal.append(0, [session(1)]).unwrap();
        journal.barrier(durable).wait().unwrap();
        faults.fail_with(Some(JournalError::Full));
        let lost = journal.append(0, [session(2)]).unwrap();
        assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown));
        assert_eq!(journal.append(0, [session(3)]), Err(JournalError::Full));
        assert_eq!(journal.barrier(durable).wait(), Ok(()), "what was durable stays so");
        faults.fail_with(None);
        assert_eq!(rebuilt.recv(), Ok((1, vec![1])));
        assert!(journal.append(0, [session(4)]).is_err(), "the old state is refused");
        assert_eq!(journal.barrier(append_in(&journal, 1, 5)).wait(), Ok(()));
        assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown), "also when asked late");
    }

    #[test]
    fn a_commit_that_panics_is_a_failed_one_whoever_makes_it() {
        let (journal, faults, rebuilt) = start(Durability::Always);
        faults.panic_once();
        let lost = journal.append(0, [session(1)]).unwrap();
        assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown));
        assert_eq!(rebuilt.recv(), Ok((1, vec![])));
        faults.panic_once();
        let lost = append_in(&journal, 1, 2);
        // Nobody waits for it: the commit thread sees to it.
        assert_eq!(rebuilt.recv(), Ok((2, vec![])));
        assert_eq!(journal.verdict(lost), Some(Err(OutcomeUnknown)));
        assert_eq!(journal.barrier(append_in(&journal, 2, 3)).wait(), Ok(()));
    }

    #[test]
    fn a_journal_that_is_closed_waits_for_the_group_that_is_open() {
        let (journal, faults, _) = start(Durability::Always);
        let group = journal.group();
        let seq = journal.append(0, [session(1)]).unwrap();
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| journal.close());
            while !lock(&journal.shared.queue).closing {
                std::thread::yield_now();
            }
            let _ = journal.append(0, [session(2)]).unwrap();
            drop(group);
            closing.join().unwrap();
        });
        assert_eq!((journal.barrier(seq).wait(), faults.batch_sizes()), (Ok(()), vec![2]));
    }

    #[test]
    fn who_waits_for_an_open_group_does_not_spin() {
        let (journal, _, _) = start(Durability::Always);
        let group = journal.group();
        let seq = journal.append(0, [session(1)]).unwrap();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut barrier = journal.barrier(seq);
        for wakes in [1, 1] {
            assert!(Pin::new(&mut barrier).poll(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!(woken.0.load(Ordering::Relaxed), wakes, "only to give way");
        }
        drop(group);
        assert_eq!(barrier.wait(), Ok(()));
    }

    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_commits_on_its_own_thread_unless_many_do() {
        let (journal, faults, rebuilt) = start(Durability::Always);
        let append = |id| journal.append(0, [session(id)]).unwrap();
        let committed_by = || faults.committed_by().last().copied();
        let thread = lock(&journal.thread).as_ref().unwrap().thread().id();
        assert_eq!(journal.barrier(append(0)).wait(), Ok(()));
        assert_eq!(committed_by(), Some(std::thread::current().id()));
        let writer = lock(&journal.shared.writer);
        let mut many: Vec<_> = (1..=1 + FEW as u128).map(|id| journal.barrier(append(id))).collect();
        for _ in 0..2 {
            assert!(many.iter_mut().all(is_pending));
        }
        drop(writer);
        many.into_iter().for_each(|barrier| assert_eq!(barrier.wait(), Ok(())));
        assert_eq!((faults.batch_sizes().last(), committed_by()), (Some(&(1 + FEW)), Some(thread)));
        // And again, until one has been alone for long enough.
        let mut alone = 0;
        while committed_by() == Some(thread) {
            alone += 1;
            assert_eq!(journal.barrier(append(100 + alone)).wait(), Ok(()));
        }
        assert!((2..=2 + ALONE_AFTER as u128).contains(&alone), "{alone}");
        faults.fail_with(Some(JournalError::Full));
        assert_eq!(journal.barrier(append(1000)).wait(), Err(OutcomeUnknown));
        faults.fail_with(None);
        assert_eq!(
            rebuilt.recv().map(|(epoch, found)| (epoch, found.len())),
            Ok((1, 2 + FEW + alone as usize))
        );
    }

    #[test]
    fn after_a_slow_commit_only_the_commit_thread_commits_until_several_were_fast() {
        let (journal, faults, _) = start(Durability::Always);
        let mut ids = 0..;
        let mut committed_here = || {
            let seq = journal.append(0, [session(ids.next().unwrap())]).unwrap();
            assert_eq!(journal.barrier(seq).wait(), Ok(()));
            faults.committed_by().last() == Some(&std::thread::current().id())
        };
        faults.set_commit_nanos(SLOW_COMMIT_NANOS);
        assert!(committed_here() && committed_here(), "that is fast");
        faults.set_commit_nanos(SLOW_COMMIT_NANOS + 1);
        assert!(committed_here(), "the first slow one");
        for _ in 0..3 {
            assert!(!committed_here());
        }
        faults.set_commit_nanos(1);
        for _ in 0..FAST_COMMITS_MIN {
            assert!(!committed_here());
        }
        assert!(committed_here());
    }

    #[test]
    fn storage_that_stalls_blocks_a_thread_once_and_not_again() {
        let (journal, faults, _) = start(Durability::Always);
        faults.set_commit_nanos(SLOW_COMMIT_NANOS + 1);
        journal.barrier(journal.append(0, [session(1)]).unwrap()).wait().unwrap();
        faults.hold_commits();
        let mut late = journal.barrier(journal.append(0, [session(2)]).unwrap());
        // Neither blocks, although the commit does.
        assert!(is_pending(&mut late) && is_pending(&mut late));
        faults.wait_until_held();
        let mut later = journal.barrier(journal.append(0, [session(3)]).unwrap());
        assert!(is_pending(&mut later) && is_pending(&mut later));
        faults.release_commits();
        assert_eq!((late.wait(), later.wait()), (Ok(()), Ok(())));
    }

    #[test]
    fn a_thread_that_waits_does_not_wait_for_another_process() {
        let (journal, faults, _) = start(Durability::Always);
        faults.lock_storage(true);
        let mut first = journal.barrier(journal.append(0, [session(1)]).unwrap());
        assert!(is_pending(&mut first) && is_pending(&mut first));
        faults.wait_until_held();
        let mut second = journal.barrier(journal.append(0, [session(2)]).unwrap());
        assert!(is_pending(&mut second) && is_pending(&mut second));
        faults.lock_storage(false);
        assert_eq!((first.wait(), second.wait()), (Ok(()), Ok(())));
        assert_eq!(faults.batch_sizes(), [1, 1], "in their order");
        assert_eq!(journal.commits(), (2, 2));
    }

    #[test]
    fn what_waits_for_another_process_is_committed_before_the_end_or_fails_with_the_rest() {
        for is_failing in [false, true] {
            let (journal, faults, _) = start(Durability::Always);
            faults.lock_storage(true);
            let first = journal.append(0, [session(1)]).unwrap();
            let mut waiting = journal.barrier(first);
            assert!(is_pending(&mut waiting) && is_pending(&mut waiting));
            faults.wait_until_held();
            let last = journal.append(0, [session(2), session(3)]).unwrap();
            faults.fail_with(is_failing.then_some(JournalError::Locked));
            faults.lock_storage(false);
            let expected = if is_failing { Err(OutcomeUnknown) } else { Ok(()) };
            assert_eq!(waiting.wait(), expected);
            journal.close();
            assert_eq!((journal.verdict(first), journal.verdict(last)), (Some(expected), Some(expected)));
        }
    }

    #[test]
    fn a_backend_that_is_not_what_it_was_is_noticed_while_nothing_is_committed() {
        let (journal, faults, rebuilt) = start(Durability::Always);
        let durable = journal.append(0, [session(1)]).unwrap();
        journal.barrier(durable).wait().unwrap();
        let replaced = JournalError::Replaced { what: "the file was removed".into() };
        faults.fail_verification_with(Some(replaced.clone()));
        while journal.down().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(journal.append(0, [session(2)]), Err(replaced.clone()));
        assert_eq!(journal.barrier(durable).wait(), Ok(()));
        assert_eq!(journal.down(), Some(replaced), "it is not taken back into service");
        assert!(rebuilt.try_recv().is_err());
        faults.fail_verification_with(None);
        assert_eq!(rebuilt.recv(), Ok((1, vec![1])));
        assert_eq!(journal.barrier(append_in(&journal, 1, 3)).wait(), Ok(()));
    }

    #[test]
    fn an_interval_answers_at_once_and_commits_on_close() {
        let (journal, faults, _) = start(Durability::Interval(Duration::from_secs(3600)));
        let seq = journal.append(0, [session(1)]).unwrap();
        assert_eq!(journal.barrier(seq).wait(), Ok(()));
        assert!(is_pending(&mut journal.synced(seq)));
        journal.close();
        assert_eq!(journal.synced(seq).wait(), Ok(()));
        assert_eq!(faults.batch_sizes(), [1]);
    }

    #[test]
    fn a_barrier_that_is_dropped_leaves_nothing_behind() {
        let (journal, faults, _) = start(Durability::Always);
        faults.hold_commits();
        let seq = journal.append(0, [session(1)]).unwrap();
        let _group = journal.group();
        let mut barrier = journal.barrier(seq);
        assert!(is_pending(&mut barrier) && is_pending(&mut barrier));
        assert_eq!(lock(&journal.shared.barriers).parked.len(), 1);
        drop(barrier);
        assert!(lock(&journal.shared.barriers).parked.is_empty());
        faults.release_commits();
    }
}
