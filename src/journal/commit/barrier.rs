//! Barriers: futures that resolve when a sequence number is decided, that is durable or lost.
//!
//! Guarantees: a barrier resolves to `Ok` only after its Seq was published as durable; every
//! publication wakes exactly the barriers that it decides; polling blocks on storage for at most one
//! commit, and only where `hook::note_poll` says so; a barrier that is dropped leaves nothing behind.
//! Not here: commits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};

use super::committer::Committer;
use super::hook;
use super::queue::Seq;
use super::sync::{AtomicBool, AtomicU64, Mutex, Thread, current, park};

/// Failures remembered for barriers that are polled later; far more than can be in flight.
const FAILURES_MAX: usize = 1024;

/// A commit failed under this request: whether it took effect is unknown to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeUnknown;

/// What is decided, and the barriers that wait for the rest.
pub(super) struct Barriers {
    /// Every Seq up to this one is decided: durable, or in a failed range.
    decided: AtomicU64,
    has_failed: AtomicBool,
    pub(super) waiting: Mutex<Waiting>,
}

#[derive(Default)]
pub(super) struct Waiting {
    last_id: u64,
    /// In the order of their ids.
    pub(super) parked: Vec<ParkedBarrier>,
    /// A barrier has yielded to the other tasks of its thread, and requests a commit when it is
    /// polled again.
    is_yielding: bool,
    /// Ranges of Seq that failed, both ends included, oldest first.
    failures: Vec<(u64, u64)>,
}

pub(super) struct ParkedBarrier {
    id: u64,
    seq: u64,
    waker: Waker,
}

impl Waiting {
    fn park(&mut self, seq: u64, waker: &Waker) -> u64 {
        self.last_id += 1;
        self.parked.push(ParkedBarrier { id: self.last_id, seq, waker: waker.clone() });
        self.last_id
    }

    fn unpark(&mut self, id: u64) {
        if let Ok(place) = self.parked.binary_search_by_key(&id, |parked| parked.id) {
            self.parked.remove(place);
        }
    }

    fn first_waker(&self) -> Option<Waker> {
        self.parked.first().map(|parked| parked.waker.clone())
    }
}

impl Barriers {
    pub(super) fn new() -> Barriers {
        let (decided, has_failed) = (AtomicU64::new(Seq::LOADED.0), AtomicBool::new(false));
        Barriers { decided, has_failed, waiting: Mutex::new(Waiting::default()) }
    }

    /// Whether `seq` is durable; `None`: it is not decided.
    pub(super) fn durability_of(&self, seq: u64) -> Option<Result<(), OutcomeUnknown>> {
        if self.decided.load(Ordering::Acquire) < seq {
            return None;
        }
        if !self.has_failed() {
            return Some(Ok(()));
        }
        let failed = self.waiting.lock().failures.iter().any(|&(from, to)| (from..=to).contains(&seq));
        Some(if failed { Err(OutcomeUnknown) } else { Ok(()) })
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Publishes that everything up to `last` is durable.
    pub(super) fn publish_durable(&self, last: u64) {
        self.publish(last, None);
    }

    /// Publishes that the commits of `first` to `last` failed.
    pub(super) fn publish_failed(&self, first: u64, last: u64) {
        self.publish(last, Some(first));
    }

    fn publish(&self, last: u64, failed_from: Option<u64>) {
        let mut waiting = self.waiting.lock();
        if let Some(from) = failed_from {
            if waiting.failures.len() == FAILURES_MAX {
                waiting.failures.remove(0);
            }
            waiting.failures.push((from, last));
            self.has_failed.store(true, Ordering::Release);
        }
        self.decided.store(last, Ordering::Release);
        let woken: Vec<ParkedBarrier> = waiting.parked.extract_if(.., |parked| parked.seq <= last).collect();
        drop(waiting);
        woken.into_iter().for_each(|parked| parked.waker.wake());
    }

    /// Wakes the barrier that has waited longest, so that it sees to a commit; none, if a yielding
    /// one will.
    pub(super) fn wake_next(&self) {
        let waiting = self.waiting.lock();
        let next = if waiting.is_yielding { None } else { waiting.first_waker() };
        drop(waiting);
        next.into_iter().for_each(Waker::wake);
    }
}

/// Resolves when a Seq is decided. Polling it may block for one commit.
#[must_use = "a reply must not leave before its barrier"]
pub struct Barrier<'a> {
    committer: &'a Arc<Committer>,
    /// What must be durable.
    seq: Seq,
    /// What is awaited, and must be durable, too: the same or a later one.
    awaited: Seq,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// It has set [`Waiting::is_yielding`].
    Yielding,
    /// It is in [`Waiting::parked`], under this id.
    Parked(u64),
}

impl Future for Barrier<'_> {
    type Output = Result<(), OutcomeUnknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (committer, seq, waker) = (self.committer, self.awaited.0, context.waker());
        let barriers = &committer.barriers;
        let is_new = self.stage == Stage::New;
        let durability = self.durability();
        // One that never had to wait is no sign of other records: its task may have been handed a lock
        // that another released and committed.
        let is_alone = (durability.is_none() || !is_new) && hook::note_poll();
        if let Some(durability) = durability {
            return Poll::Ready(durability);
        }
        if is_alone && is_new {
            committer.try_commit();
            if let Some(durability) = self.durability() {
                return Poll::Ready(durability);
            }
        }
        let mut waiting = barriers.waiting.lock();
        let has_yielded = self.withdraw(&mut waiting) == Stage::Yielding;
        if !has_yielded && !waiting.is_yielding && committer.is_for_commit_thread() {
            waiting.is_yielding = true;
            self.stage = Stage::Yielding;
            drop(waiting);
            waker.wake_by_ref();
            return Poll::Pending;
        }
        // Under the lock that `publish` takes: it finds this waker, or this sees its number.
        if barriers.decided.load(Ordering::Acquire) < seq {
            self.stage = Stage::Parked(waiting.park(seq, waker));
            let other_requests = waiting.is_yielding;
            drop(waiting);
            match (has_yielded, other_requests) {
                (true, _) => committer.queue.request_commit(),
                (false, false) => hook::schedule_commit(committer),
                (false, true) => {}
            }
        } else {
            drop(waiting);
            committer.wake_next();
        }
        self.durability().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Barrier<'_> {
    pub(super) fn new(committer: &Arc<Committer>, seq: Seq) -> Barrier<'_> {
        Barrier::of_both(committer, seq, seq)
    }

    /// A barrier for `seq` that waits until `awaited` is decided, which is not earlier.
    pub(super) fn of_both(committer: &Arc<Committer>, seq: Seq, awaited: Seq) -> Barrier<'_> {
        Barrier { committer, seq, awaited, stage: Stage::New }
    }

    /// An earlier commit may have failed, and a later one succeeded.
    fn durability(&self) -> Option<Result<(), OutcomeUnknown>> {
        let barriers = &self.committer.barriers;
        let later = barriers.durability_of(self.awaited.0)?;
        later.map_or(Some(later), |()| barriers.durability_of(self.seq.0))
    }

    /// Blocks the thread until the Seq is decided. The thread makes the commit itself if it may.
    pub fn wait(mut self) -> Result<(), OutcomeUnknown> {
        let waker = Waker::from(Arc::new(Unpark(current())));
        hook::with_hook(|| {
            loop {
                match Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(durability) => break durability,
                    Poll::Pending => {
                        hook::commit_before_park();
                        park();
                    }
                }
            }
        })
    }

    /// Takes back what this barrier has left in `waiting`. Returns the stage that it was in.
    fn withdraw(&mut self, waiting: &mut Waiting) -> Stage {
        let stage = std::mem::replace(&mut self.stage, Stage::New);
        match stage {
            Stage::New => {}
            Stage::Yielding => waiting.is_yielding = false,
            Stage::Parked(id) => waiting.unpark(id),
        }
        stage
    }
}

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        if self.stage == Stage::New {
            return;
        }
        let committer = self.committer;
        let mut waiting = committer.barriers.waiting.lock();
        if self.withdraw(&mut waiting) == Stage::Yielding {
            // Barriers parked meanwhile, and relied on this one's request.
            let next = waiting.first_waker();
            drop(waiting);
            next.into_iter().for_each(Waker::wake);
        } else {
            drop(waiting);
            // It may have been woken to see to the next commit.
            committer.wake_next();
        }
    }
}

/// Wakes a thread in [`Barrier::wait`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
