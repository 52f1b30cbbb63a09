//! Group commit: many requests, one transaction, one sync.
//!
//! Promise: sequence numbers are assigned in the order of enqueueing; when one is durable, so are all before it; a
//! barrier that answers `Ok` stands on synced storage (unless the durability mode says otherwise, and then
//! it says so). After a failed commit nothing is accepted until the state was rebuilt from what is durable.
//! A thread commits for all who wait; a client that is alone has its commit made on the thread that executed
//! its requests, which spares two hand-overs.
//! Absent: what records mean, async runtimes (barriers are plain futures).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Backend, JournalError, Record};

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

/// First pause between two tries to recover from a failed commit; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Without anything to commit for so long, the backend does its housekeeping.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// Turns that others get before a commit, when several waited for the last one.
const TURNS_FOR_OTHERS: usize = 5;
/// Failures remembered for barriers that are still to be asked about; far more than can be in flight.
const FAILURES_MAX: usize = 1024;

/// A handle to the commit thread.
pub struct Journal {
    shared: Arc<Shared>,
    durability: Durability,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    writer: Mutex<Writer>,
    queue: Mutex<Queue>,
    /// Something was enqueued, a group was closed, or the journal is closing.
    changed: Condvar,
    /// Every Seq up to this one is durable, or is in a failed range.
    settled: AtomicU64,
    has_failed: AtomicBool,
    /// Whether `Queue::down` is set, for a check without the lock.
    is_down: AtomicBool,
    barriers: Mutex<Barriers>,
    /// Batches of requests that are being executed; each sees to its commit at its end.
    executing: AtomicUsize,
    /// Nobody waits, and at most one did for the last commit.
    is_quiet: AtomicBool,
    /// How many waited for the last commit.
    woken: AtomicUsize,
    commits: AtomicU64,
    committed: AtomicU64,
}

/// Who has it locked commits. Lock it before the queue.
struct Writer {
    backend: Box<dyn Backend>,
    rebuild: Rebuild,
}

#[derive(Default)]
struct Queue {
    pending: Vec<Record>,
    last: u64,
    /// Counts rebuilds; an append for an earlier state is refused.
    epoch: u64,
    open_groups: u32,
    down: Option<JournalError>,
    /// The backend may have some.
    has_housekeeping: bool,
    closing: bool,
}

#[derive(Default)]
struct Barriers {
    next_id: u64,
    parked: BTreeMap<(u64, u64), Waker>,
    /// Ranges of Seq that failed, both ends included, oldest first.
    failures: Vec<(u64, u64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the data whole, so a panic elsewhere must not stop commits.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Starts the commit thread on a backend whose state is already loaded, as epoch 0.
    pub fn start(
        backend: Box<dyn Backend>,
        durability: Durability,
        rebuild: Rebuild,
    ) -> std::io::Result<Journal> {
        let shared = Arc::new(Shared {
            writer: Mutex::new(Writer { backend, rebuild }),
            // An earlier process may have left some.
            queue: Mutex::new(Queue { has_housekeeping: true, ..Queue::default() }),
            changed: Condvar::new(),
            settled: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            barriers: Mutex::default(),
            executing: AtomicUsize::new(0),
            is_quiet: AtomicBool::new(false),
            woken: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            committed: AtomicU64::new(0),
        });
        let interval = match durability {
            Durability::Interval(interval) => interval,
            Durability::Always | Durability::Memory => Duration::ZERO,
        };
        let own = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("octostore-journal".into()).spawn(move || own.run(interval))?;
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
            return Err(JournalError::Io { what: "the state was rebuilt meanwhile".into() });
        }
        let was_empty = queue.pending.is_empty();
        let before = queue.pending.len();
        queue.pending.extend(records);
        queue.last += (queue.pending.len() - before) as u64;
        let seq = Seq(queue.last);
        drop(queue);
        // Whoever executes a batch looks at the queue at its end.
        if was_empty && self.shared.executing.load(Ordering::SeqCst) == 0 {
            self.shared.changed.notify_one();
        }
        Ok(seq)
    }

    /// To be held while requests of one client are executed, and dropped when no guard is held any more: sees to it that
    /// what they appended is committed. Dropping it may block for one commit.
    pub fn batch(&self) -> Batch<'_> {
        self.shared.executing.fetch_add(1, Ordering::SeqCst);
        Batch { journal: self }
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
        Barrier { shared: &self.shared, seq, id: None }
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
        lock(&self.shared.queue).open_groups -= 1;
        self.shared.changed.notify_one();
    }
}

/// Requests that are being executed, see [`Journal::batch`].
pub struct Batch<'a> {
    journal: &'a Journal,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let shared = &self.journal.shared;
        let others = shared.executing.fetch_sub(1, Ordering::SeqCst) - 1;
        let queue = lock(&shared.queue);
        if queue.pending.is_empty() {
            return;
        }
        let is_alone = others == 0
            && queue.open_groups == 0
            && self.journal.durability == Durability::Always
            && shared.is_quiet.load(Ordering::Acquire);
        drop(queue);
        match shared.writer.try_lock() {
            Ok(mut writer) if is_alone => shared.commit_pending(&mut writer),
            _ => shared.changed.notify_one(),
        }
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
        let later = barriers.parked.split_off(&(last + 1, 0));
        let woken = std::mem::replace(&mut barriers.parked, later);
        self.woken.store(woken.len(), Ordering::Relaxed);
        self.is_quiet.store(woken.len() <= 1 && barriers.parked.is_empty(), Ordering::Release);
        drop(barriers);
        woken.into_values().for_each(Waker::wake);
    }
}

/// Resolves when a Seq is decided.
#[must_use = "a reply must not leave before its barrier"]
pub struct Barrier<'a> {
    shared: &'a Shared,
    seq: Seq,
    id: Option<u64>,
}

impl Future for Barrier<'_> {
    type Output = Result<(), OutcomeUnknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(verdict) = self.shared.verdict(self.seq.0) {
            return Poll::Ready(verdict);
        }
        let mut barriers = lock(&self.shared.barriers);
        let id = *self.id.get_or_insert_with(|| {
            barriers.next_id += 1;
            barriers.next_id
        });
        // Under the lock that `settle` takes: either it sees this waker, or this sees its number.
        if self.shared.settled.load(Ordering::Acquire) < self.seq.0 {
            barriers.parked.insert((self.seq.0, id), context.waker().clone());
            if barriers.parked.len() > 1 {
                self.shared.is_quiet.store(false, Ordering::Release);
            }
            return Poll::Pending;
        }
        drop(barriers);
        self.shared.verdict(self.seq.0).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            lock(&self.shared.barriers).parked.remove(&(self.seq.0, id));
        }
    }
}

impl Shared {
    /// The commit thread.
    fn run(&self, interval: Duration) {
        while self.wait_for_work(interval) {
            self.let_others_join();
            let mut writer = lock(&self.writer);
            self.commit_pending(&mut writer);
            if self.is_down.load(Ordering::Acquire) {
                self.recover(&mut writer);
            }
        }
    }

    /// Waits for records, or for a failure to recover from; `false` when the journal is closed and empty.
    fn wait_for_work(&self, interval: Duration) -> bool {
        let is_idle = |queue: &mut Queue| queue.pending.is_empty() && !queue.closing && queue.down.is_none();
        loop {
            let seen = self.commits.load(Ordering::Relaxed);
            let mut queue = lock(&self.queue);
            queue = if queue.has_housekeeping {
                let waited = self.changed.wait_timeout_while(queue, IDLE_AFTER, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                let is_still = |queue: &mut Queue| is_idle(queue) && !queue.has_housekeeping;
                self.changed.wait_while(queue, is_still).unwrap_or_else(PoisonError::into_inner)
            };
            if !is_idle(&mut queue) {
                break;
            }
            let was_idle = queue.has_housekeeping && self.commits.load(Ordering::Relaxed) == seen;
            drop(queue);
            if was_idle {
                let mut writer = lock(&self.writer);
                // A failure changes nothing and is tried again after the next commit.
                let has_more = writer.backend.maintain().unwrap_or_else(|error| {
                    tracing::warn!(%error, "housekeeping of the database failed; nothing is lost, it is tried again");
                    false
                });
                lock(&self.queue).has_housekeeping = has_more;
            }
        }
        let mut queue = lock(&self.queue);
        if !interval.is_zero() && !queue.closing {
            let waited = self.changed.wait_timeout_while(queue, interval, |queue| !queue.closing);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        while queue.open_groups > 0 {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        !(queue.closing && queue.pending.is_empty())
    }

    /// Those whom the last commit answered are about to ask again: a few turns for them make the next one fuller.
    fn let_others_join(&self) {
        let woken = self.woken.load(Ordering::Relaxed);
        if woken <= 1 {
            return;
        }
        for _ in 0..TURNS_FOR_OTHERS {
            if lock(&self.barriers).parked.len() * 4 >= woken * 3 {
                break;
            }
            std::thread::yield_now();
        }
    }

    /// Commits all there is, unless a group is open.
    fn commit_pending(&self, writer: &mut Writer) {
        let (batch, last) = {
            let mut queue = lock(&self.queue);
            if queue.pending.is_empty() || queue.open_groups > 0 {
                return;
            }
            if !std::mem::replace(&mut queue.has_housekeeping, true) {
                // The commit thread is to look after it when all is quiet.
                self.changed.notify_one();
            }
            let room = Vec::with_capacity(queue.pending.len());
            (std::mem::replace(&mut queue.pending, room), queue.last)
        };
        let records = batch.len() as u64;
        match writer.backend.commit(batch) {
            Ok(()) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.committed.fetch_add(records, Ordering::Relaxed);
                self.settle(last, None);
            }
            Err(error) => self.fail(last + 1 - records, error),
        }
    }

    /// Fails what is in flight; the commit thread will recover.
    fn fail(&self, first: u64, error: JournalError) {
        tracing::error!(%error, "a commit failed; nothing can be locked or released until storage works again");
        let last = {
            let mut queue = lock(&self.queue);
            queue.down = Some(error);
            self.is_down.store(true, Ordering::Release);
            queue.pending.clear();
            queue.epoch += 1;
            queue.last
        };
        self.settle(last, Some(first));
        self.changed.notify_all();
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
    use std::task::Wake;
    use std::thread::Thread;

    use super::super::faulty::{Faults, FaultyBackend};
    use super::super::{MemoryBackend, SessionRecord};
    use super::*;
    use crate::lock::{SessionId, Timestamp};

    /// The epoch of a rebuild, and the sessions it found.
    type Rebuilt = (u64, Vec<u128>);

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let waker = Arc::new(Unpark(std::thread::current())).into();
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => return value,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    fn is_pending(future: &mut Barrier<'_>) -> bool {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    fn session(id: u128) -> Record {
        let (name, deadline) = (String::new(), Timestamp::NEVER);
        Record::SessionOpened(SessionRecord { id: SessionId(id), name, account: None, ttl: None, deadline })
    }

    fn sessions(backend: &mut dyn Backend) -> Result<Vec<u128>, JournalError> {
        let mut found = Vec::new();
        backend.load(Some("b"), Timestamp::default(), &mut |record| {
            if let Record::SessionOpened(session) = record {
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
        (Journal::start(Box::new(backend), durability, rebuild).unwrap(), faults, rebuilt)
    }

    #[test]
    fn a_barrier_waits_for_the_commit_and_not_longer() {
        let (journal, faults, _) = start(Durability::Always);
        assert_eq!(block_on(journal.barrier(Seq(0))), Ok(()), "nothing to wait for");
        faults.hold_commits();
        let seq = journal.append(0, [session(1)]).unwrap();
        let mut barrier = journal.barrier(seq);
        assert!(is_pending(&mut barrier));
        faults.release_commits();
        assert_eq!(block_on(barrier), Ok(()));
    }

    #[test]
    fn what_arrives_during_a_commit_is_one_batch() {
        let (journal, faults, _) = start(Durability::Always);
        faults.hold_commits();
        journal.append(0, [session(0)]).unwrap();
        faults.wait_until_held();
        let last = (1..=50).map(|n| journal.append(0, [session(n)]).unwrap()).last().unwrap();
        faults.release_commits();
        block_on(journal.barrier(last)).unwrap();
        assert_eq!(faults.batch_sizes(), [1, 50]);
    }

    #[test]
    fn a_group_is_never_split() {
        let (journal, faults, _) = start(Durability::Always);
        let group = journal.group();
        journal.append(0, [session(1)]).unwrap();
        let seq = journal.append(0, [session(2)]).unwrap();
        drop(group);
        block_on(journal.barrier(seq)).unwrap();
        assert_eq!(faults.batch_sizes(), [2]);
    }

    #[test]
    fn nothing_of_an_open_group_is_committed_whoever_commits() {
        let (journal, faults, _) = start(Durability::Always);
        let group = journal.group();
        journal.append(0, [session(1)]).unwrap();
        // As a thread does that began before the group was opened.
        journal.shared.commit_pending(&mut lock(&journal.shared.writer));
        let batch = journal.batch();
        let seq = journal.append(0, [session(2)]).unwrap();
        drop(batch);
        assert_eq!((faults.batch_sizes(), journal.commits()), (vec![], (0, 0)));
        drop(group);
        block_on(journal.barrier(seq)).unwrap();
        assert_eq!(faults.batch_sizes(), [2]);
    }

    #[test]
    fn a_failed_commit_is_never_an_ok_and_service_resumes_by_itself() {
        let (journal, faults, rebuilt) = start(Durability::Always);
        let durable = journal.append(0, [session(1)]).unwrap();
        block_on(journal.barrier(durable)).unwrap();
        faults.fail_with(Some(JournalError::Full));
        let lost = journal.append(0, [session(2)]).unwrap();
        assert_eq!(block_on(journal.barrier(lost)), Err(OutcomeUnknown));
        assert_eq!(journal.append(0, [session(3)]), Err(JournalError::Full));
        assert_eq!(block_on(journal.barrier(durable)), Ok(()), "what was durable stays so");
        faults.fail_with(None);
        assert_eq!(rebuilt.recv(), Ok((1, vec![1])));
        assert!(journal.append(0, [session(4)]).is_err(), "the old state is refused");
        let seq = loop {
            match journal.append(1, [session(5)]) {
                Ok(seq) => break seq,
                Err(_) => std::thread::yield_now(),
            }
        };
        assert_eq!(block_on(journal.barrier(seq)), Ok(()));
        assert_eq!(block_on(journal.barrier(lost)), Err(OutcomeUnknown), "also when asked late");
    }

    #[test]
    fn a_client_that_is_alone_commits_on_its_own_thread() {
        let (journal, faults, rebuilt) = start(Durability::Always);
        let seq = journal.append(0, [session(1)]).unwrap();
        block_on(journal.barrier(seq)).unwrap();
        let alone = |id| {
            // The commit thread lets go only after it has told us.
            drop(lock(&journal.shared.writer));
            let batch = journal.batch();
            let seq = journal.append(0, [session(id)]).unwrap();
            drop(batch);
            seq
        };
        for id in 2..100 {
            assert_eq!(block_on(journal.barrier(alone(id))), Ok(()));
        }
        assert!(faults.committed_by().contains(&std::thread::current().id()));
        faults.fail_with(Some(JournalError::Full));
        assert_eq!(block_on(journal.barrier(alone(100))), Err(OutcomeUnknown));
        faults.fail_with(None);
        assert_eq!(rebuilt.recv(), Ok((1, (1..100).collect())));
    }

    #[test]
    fn several_batches_at_once_are_left_to_the_commit_thread() {
        let (journal, faults, _) = start(Durability::Always);
        let (one, two) = (journal.batch(), journal.batch());
        journal.append(0, [session(1)]).unwrap();
        let seq = journal.append(0, [session(2)]).unwrap();
        drop(one);
        drop(two);
        assert_eq!(block_on(journal.barrier(seq)), Ok(()));
        assert_eq!(faults.batch_sizes(), [2]);
    }

    #[test]
    fn an_interval_answers_at_once_and_commits_on_close() {
        let (journal, faults, _) = start(Durability::Interval(Duration::from_secs(3600)));
        let seq = journal.append(0, [session(1)]).unwrap();
        assert_eq!(block_on(journal.barrier(seq)), Ok(()));
        assert!(is_pending(&mut journal.synced(seq)));
        journal.close();
        assert_eq!(block_on(journal.synced(seq)), Ok(()));
        assert_eq!(faults.batch_sizes(), [1]);
    }

    #[test]
    fn a_barrier_that_is_dropped_leaves_nothing_behind() {
        let (journal, faults, _) = start(Durability::Always);
        faults.hold_commits();
        let seq = journal.append(0, [session(1)]).unwrap();
        let mut barrier = journal.barrier(seq);
        assert!(is_pending(&mut barrier));
        drop(barrier);
        assert!(lock(&journal.shared.barriers).parked.is_empty());
        faults.release_commits();
    }
}
