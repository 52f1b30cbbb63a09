//! The line of requests that do long work, or wait for others that do.
//!
//! Guarantees: not more requests work long at a time than there are processors; the others wait, in
//! the order in which they came, and keep no thread busy. While a request waits for a value that
//! long work holds, no younger request begins to hold a value. So it waits for those that have
//! begun, and for those that came before it. A request that was put off keeps its place until it is
//! executed or its client is gone. Not here: what the work is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{Engine, HELD_UP_CHECK, Txn, Unavailable};

/// Attempts at long work, all in vain because the key was replaced meanwhile, after which a request
/// keeps all others out.
const ATTEMPTS_IN_VAIN_MAX: u32 = 3;

/// Requests that may work long on a machine with a single processor: one that takes very long does
/// not hold up all others.
const PERMITS_MIN: usize = 2;

/// The requests that work long and those that wait.
#[derive(Debug)]
pub(super) struct Line {
    /// One for each request that may work long.
    permits: Arc<Semaphore>,
    /// The numbers of those who wait for values that are held.
    waiting: Mutex<BTreeSet<u64>>,
    last_number: AtomicU64,
    /// Changes when a value is no longer held, and when a request no longer waits.
    changed: watch::Sender<()>,
}

/// A request that was put off, between two attempts to execute it.
#[derive(Debug, Default)]
pub struct PutOff {
    awaits: Awaited,
    place: Option<Place>,
    permit: Option<OwnedSemaphorePermit>,
    attempts_in_vain: u32,
}

/// What a request waits for before it is executed again.
#[derive(Debug, Default)]
enum Awaited {
    /// Only that others are served in between.
    #[default]
    Others,
    /// The end of long work with a value, or of the wait of an older request.
    Change(watch::Receiver<()>),
    Permit,
}

/// The place of a request in the line, until it is dropped.
#[derive(Debug)]
struct Place {
    line: Arc<Line>,
    number: u64,
}

impl Default for Line {
    fn default() -> Line {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Line {
            permits: Arc::new(Semaphore::new(processors.max(PERMITS_MIN))),
            waiting: Mutex::default(),
            last_number: AtomicU64::new(0),
            changed: watch::Sender::new(()),
        }
    }
}

impl Line {
    /// Lets those who wait try again.
    pub(super) fn advance(&self) {
        self.changed.send_replace(());
    }
}

impl Place {
    fn new(line: &Arc<Line>) -> Place {
        let number = line.last_number.fetch_add(1, Ordering::Relaxed);
        Place { line: Arc::clone(line), number }
    }

    fn is_first(&self) -> bool {
        self.line.waiting.lock().first().is_none_or(|first| *first >= self.number)
    }

    fn wait(&self) {
        self.line.waiting.lock().insert(self.number);
    }

    fn stop_waiting(&self) {
        if self.line.waiting.lock().remove(&self.number) {
            self.line.advance();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

impl Engine {
    /// Waits until a request that was put off is to be executed again. From then on, it waits in the
    /// line: execute it at once.
    pub async fn next_attempt(&self, mut put_off: Box<PutOff>) -> Box<PutOff> {
        if let Some(place) = &put_off.place {
            place.wait();
        }
        if self.core.table.is_closed_for_long() {
            tokio::time::sleep(HELD_UP_CHECK).await;
            return put_off;
        }
        match std::mem::take(&mut put_off.awaits) {
            Awaited::Others => tokio::task::yield_now().await,
            // The line is never closed.
            Awaited::Change(mut changed) => {
                let _ = changed.changed().await;
            }
            Awaited::Permit => {
                put_off.permit = Arc::clone(&self.core.line.permits).acquire_owned().await.ok()
            }
        }
        put_off
    }
}

impl Txn<'_> {
    /// Goes on with a request that was put off.
    pub fn resume(&self, put_off: Box<PutOff>) {
        self.put_off.set(Some(put_off));
    }

    /// The request, if it was put off, as [`Engine::next_attempt`] takes it.
    pub fn put_off(&self) -> Option<Box<PutOff>> {
        let mut put_off = self.put_off.take()?;
        // Others may work long while it waits.
        put_off.permit = None;
        Some(put_off)
    }

    /// Call it before work that takes long. Fails with [`Unavailable::Unsettled`] if as many others
    /// as may do such work. An exclusive transaction has the server alone.
    pub fn begin_long_work(&self) -> Result<(), Unavailable> {
        if self.is_exclusive() {
            return Ok(());
        }
        let mut put_off = self.put_off.take().unwrap_or_default();
        if put_off.permit.is_none() {
            put_off.permit = Arc::clone(&self.engine().core.line.permits).try_acquire_owned().ok();
        }
        let begins = put_off.permit.is_some();
        if !begins {
            put_off.awaits = Awaited::Permit;
        }
        self.put_off.set(Some(put_off));
        if begins { Ok(()) } else { Err(Unavailable::Unsettled) }
    }

    /// Puts the request off unless `is_ready`, and, if it `takes_turns`, unless no older one waits.
    pub(super) fn wait_in_line(
        &self,
        takes_turns: bool,
        is_ready: impl FnOnce() -> bool,
    ) -> Result<(), Unavailable> {
        let line = &self.engine().core.line;
        let mut put_off = self.put_off.take().unwrap_or_default();
        let place = put_off.place.get_or_insert_with(|| Place::new(line));
        // Before the question, so that no change is missed.
        let changed = line.changed.subscribe();
        let is_ready = is_ready() && (!takes_turns || place.is_first());
        if is_ready {
            place.stop_waiting();
        } else {
            put_off.awaits = Awaited::Change(changed);
            put_off.permit = None;
        }
        self.put_off.set(Some(put_off));
        if is_ready { Ok(()) } else { Err(Unavailable::Unsettled) }
    }

    /// Notes that the request has worked long in vain.
    pub(super) fn worked_in_vain(&self) {
        let mut put_off = self.put_off.take().unwrap_or_default();
        put_off.attempts_in_vain += 1;
        self.put_off.set(Some(put_off));
    }

    /// Whether the request has worked long in vain so often that it must keep all others out.
    pub fn must_work_alone(&self) -> bool {
        let put_off = self.put_off.take();
        let must = put_off.as_ref().is_some_and(|put_off| put_off.attempts_in_vain >= ATTEMPTS_IN_VAIN_MAX);
        self.put_off.set(put_off);
        must
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::pin::Pin;
    use std::task::{self, Poll};

    use super::*;
    use crate::clock::Clock;
    use crate::engine::tests::memory;

    /// Whether a request goes on at once.
    pub(in crate::engine) fn is_next(
        waiting: &mut Pin<Box<impl Future<Output = Box<PutOff>>>>,
    ) -> Option<Box<PutOff>> {
        match waiting.as_mut().poll(&mut task::Context::from_waker(task::Waker::noop())) {
            Poll::Ready(put_off) => Some(put_off),
            Poll::Pending => None,
        }
    }

    #[test]
    fn as_many_requests_as_there_are_processors_work_long_and_the_others_follow_in_order() {
        let engine = memory(&Clock::manual());
        let permits = engine.core.line.permits.available_permits();
        let mut working: Vec<_> = (0..permits).map(|_| engine.txn()).collect();
        for txn in &working {
            assert_eq!((txn.begin_long_work(), txn.begin_long_work()), (Ok(()), Ok(())));
        }
        let [mut first, mut second] = [(); 2].map(|()| {
            let txn = engine.txn();
            assert_eq!(txn.begin_long_work(), Err(Unavailable::Unsettled));
            Box::pin(engine.next_attempt(txn.put_off().unwrap()))
        });
        assert!(is_next(&mut first).is_none() && is_next(&mut second).is_none());
        assert_eq!(engine.txn().exclusively(&[], |alone| alone.begin_long_work()), Ok(Ok(())));
        working.pop();
        assert_eq!(engine.txn().begin_long_work(), Err(Unavailable::Unsettled), "it is the turn of another");
        assert!(is_next(&mut second).is_none());
        let txn = engine.txn();
        txn.resume(is_next(&mut first).unwrap());
        assert_eq!(txn.begin_long_work(), Ok(()));
        drop(txn);
        assert!(is_next(&mut second).is_some());
    }
}
