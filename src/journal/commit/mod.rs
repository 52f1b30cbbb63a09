//! Group commit: many requests, one transaction, one sync.
//!
//! Promise: sequence numbers are assigned in the order of enqueueing; when one is durable, so are all before it; a
//! barrier that answers `Ok` stands on synced storage (unless the durability mode says otherwise, and then
//! it says so). After a failed commit nothing is accepted until the state was rebuilt from what is durable.
//!
//! While commits are small, the runtime's threads make them. A barrier leaves its waker here and the wish for a commit
//! on its thread. The runtime calls [`commit_before_park`] when a thread has run out of ready tasks: what they
//! enqueued becomes one commit, without the two hand-overs that a thread for commits costs.
//!
//! While commits are large, the commit thread makes them, so that requests are executed meanwhile. The first barrier
//! gives a turn to the tasks that are ready on its thread, so that their records join the commit, and then asks that
//! thread. It also commits for threads that no runtime calls the hook on, what no barrier waits for and what a
//! thread that never parks leaves lying, and it recovers from failures.
//!
//! A runtime's thread never waits for another process that has the storage locked: it leaves its
//! batch to the commit thread. Storage that stalls blocks such a thread once: after a slow commit all
//! are left to the commit thread, until enough of them in a row have been fast.
//! Absent: what records mean, async runtimes (barriers are plain futures).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crate::journal::{Attempt, Backend, JournalError, Record};

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
/// How often the commit thread looks for records that no other thread commits, while there are any.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Without a commit for so long, the backend does its housekeeping.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// Records of a large commit. The commit thread makes these: executing requests meanwhile is worth the hand-overs.
const LARGE_COMMIT: usize = 256;
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
    /// The last commit was large.
    is_large: AtomicBool,
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
    /// A barrier gives a turn to the other tasks of its thread, and then asks the commit thread.
    gives_way: bool,
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
            is_large: AtomicBool::new(false),
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

    /// Completes when `seq` and all before it are durable, as far as the durability mode asks for that.
    pub fn barrier(&self, seq: Seq) -> Barrier<'_> {
        let seq = match self.durability {
            Durability::Always => seq,
            Durability::Interval(_) | Durability::Memory => Seq(0),
        };
        self.synced(seq)
    }

    /// Completes when `seq` and all before it are durable, whatever the durability mode.
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

thread_local! {
    /// The journal whose barriers wait on this thread.
    static WANTED: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
    /// [`commit_before_park`] is called on this thread.
    static IS_HOOKED: Cell<bool> = const { Cell::new(false) };
}

/// Commits what barriers wait for that were polled on this thread. May block for one commit. For the runtime to call
/// whenever a thread is about to park.
pub fn commit_before_park() {
    IS_HOOKED.set(true);
    if let Some(shared) = WANTED.take() {
        shared.commit_here();
    }
}

/// Resolves when a Seq is decided. Polling it never blocks.
#[must_use = "a reply must not leave before its barrier"]
pub struct Barrier<'a> {
    shared: &'a Arc<Shared>,
    seq: Seq,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// It is [`Barriers::gives_way`].
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
        let gave_way = std::mem::replace(&mut self.stage, Stage::New) == Stage::GivingWay;
        if !gave_way && !barriers.gives_way && shared.is_for_commit_thread() {
            barriers.gives_way = true;
            self.stage = Stage::GivingWay;
            drop(barriers);
            waker.wake_by_ref();
            return Poll::Pending;
        }
        // Under the lock that `settle` takes: either it sees this waker, or this sees its number.
        if shared.settled.load(Ordering::Acquire) < seq {
            self.stage = Stage::Parked(barriers.park(seq, waker));
            let is_seen_to = barriers.gives_way;
            drop(barriers);
            match (gave_way, is_seen_to) {
                (true, _) => shared.ask(),
                (false, false) => shared.want_commit(),
                (false, true) => {}
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
    /// Blocks the thread until the Seq is decided. It commits itself, if it can.
    pub fn wait(mut self) -> Result<(), OutcomeUnknown> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let was_hooked = IS_HOOKED.replace(true);
        let verdict = loop {
            match Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(verdict) => break verdict,
                Poll::Pending => {
                    commit_before_park();
                    std::thread::park();
                }
            }
        };
        IS_HOOKED.set(was_hooked);
        verdict
    }
}

impl Barrier<'_> {
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

    /// Sees to a commit: by this thread before it parks, or else by the commit thread.
    fn want_commit(self: &Arc<Self>) {
        let is_wanted_here = IS_HOOKED.get()
            && WANTED
                .with_borrow_mut(|wanted| Arc::ptr_eq(wanted.get_or_insert_with(|| Arc::clone(self)), self));
        if !is_wanted_here {
            self.ask();
        }
    }

    /// Commits what is pending, unless that is for the commit thread, or somebody else is committing.
    fn commit_here(&self) {
        let is_large = lock(&self.queue).pending.len() >= LARGE_COMMIT;
        if is_large || self.is_for_commit_thread() {
            return self.ask();
        }
        // Whoever is committing hands over.
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
        let records = batch.records.len();
        let started = (self.stopwatch)();
        let backend = writer.backend.as_mut();
        let commit = AssertUnwindSafe(|| commit(backend, &batch.records));
        // What a panic leaves is loaded anew, as after every failure.
        let panicked = |_| Err(JournalError::Io { what: "the commit panicked".into() });
        let outcome = catch_unwind(commit).unwrap_or_else(panicked);
        let nanos = (self.stopwatch)().saturating_sub(started);
        let was_slow = nanos > SLOW_COMMIT_NANOS || outcome == Ok(Attempt::WouldBlock);
        self.note_pace(writer, records, was_slow);
        match outcome {
            Ok(Attempt::Committed) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.committed.fetch_add(records as u64, Ordering::Relaxed);
                self.settle(batch.last, None);
            }
            Ok(Attempt::WouldBlock) => {
                let mut queue = lock(&self.queue);
                (queue.blocked, queue.is_urgent) = (Some(batch), true);
                drop(queue);
                return self.changed.notify_one();
            }
            Err(error) => self.fail(records as u64, error),
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

    /// Remembers how large a commit was, and whether it was slow.
    fn note_pace(&self, writer: &mut Writer, records: usize, was_slow: bool) {
        writer.fast_commits = if was_slow { 0 } else { writer.fast_commits.saturating_add(1) };
        self.is_slow.store(writer.fast_commits < FAST_COMMITS_MIN, Ordering::Relaxed);
        self.is_large.store(records >= LARGE_COMMIT, Ordering::Relaxed);
    }

    /// Whether the next commit is to be left to the commit thread.
    fn is_for_commit_thread(&self) -> bool {
        self.is_large.load(Ordering::Relaxed) || self.is_slow.load(Ordering::Relaxed)
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
mod tests;
