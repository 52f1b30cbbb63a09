//! The gate in front of the table: many operations at a time, or one transaction alone.
//!
//! Guarantees: a thread that finds the gate closed waits for [`GRACE`] at most and then learns
//! since when it is closed. Once one has waited in vain, the others do not wait at all, so a long
//! script does not hold up the threads that serve everything else. An open gate costs one attempt
//! at a read lock, which threads of different processors do not share. The only file that names
//! crossbeam's lock. Not here: what is behind the gate.

use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::domain::Timestamp;

/// How long a thread waits in front of a closed gate. Most transactions that close it are shorter.
const GRACE: Duration = Duration::from_millis(1);

/// A gate and what is behind it.
pub(in crate::engine) struct Gate<T> {
    inside: ShardedLock<T>,
    state: Mutex<GateState>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    /// `None`: the gate is open.
    closing: Option<Closing>,
    /// Counts openings. A thread that waits for one sees it even if the gate is closed again before
    /// the thread runs.
    openings: u64,
}

/// A gate that is closed, or about to be.
#[derive(Debug, Clone, Copy)]
struct Closing {
    /// [`Timestamp::NEVER`] while it waits for those inside.
    since: Timestamp,
    /// A thread has waited for [`GRACE`] in vain.
    is_long: bool,
}

/// The gate is closed, since this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct ClosedSince(pub(in crate::engine) Timestamp);

/// Keeps the gate closed until it is dropped.
pub(in crate::engine) struct Alone<'a, T> {
    gate: &'a Gate<T>,
    since: Timestamp,
    /// `None` only while it is dropped.
    inside: Option<ShardedLockWriteGuard<'a, T>>,
}

impl<T> Gate<T> {
    pub(in crate::engine) fn new(inside: T) -> Gate<T> {
        Gate { inside: ShardedLock::new(inside), state: Mutex::default(), opened: Condvar::new() }
    }

    /// Enters beside others. Fails if the gate stays closed for [`GRACE`].
    #[inline]
    pub(in crate::engine) fn enter(&self) -> Result<ShardedLockReadGuard<'_, T>, ClosedSince> {
        match self.inside.try_read() {
            Ok(inside) => Ok(inside),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => self.enter_soon(),
        }
    }

    #[cold]
    fn enter_soon(&self) -> Result<ShardedLockReadGuard<'_, T>, ClosedSince> {
        loop {
            self.wait_for_opening(&mut self.state.lock())?;
            match self.inside.try_read() {
                Ok(inside) => return Ok(inside),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                // Another transaction was faster.
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
    }

    /// Enters beside others, however long that takes.
    pub(in crate::engine) fn enter_in_time(&self) -> ShardedLockReadGuard<'_, T> {
        loop {
            match self.enter() {
                Ok(inside) => return inside,
                Err(_) => self.wait_until_opened(),
            }
        }
    }

    /// Closes the gate and waits until all who are inside have left; then `clock` is read. Fails if
    /// another transaction keeps it closed for [`GRACE`].
    pub(in crate::engine) fn close(
        &self,
        clock: impl FnOnce() -> Timestamp,
    ) -> Result<Alone<'_, T>, ClosedSince> {
        let mut state = self.state.lock();
        while state.closing.is_some() {
            self.wait_for_opening(&mut state)?;
        }
        state.closing = Some(Closing { since: Timestamp::NEVER, is_long: false });
        drop(state);
        let inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        let since = clock();
        if let Some(closing) = &mut self.state.lock().closing {
            closing.since = since;
        }
        Ok(Alone { gate: self, since, inside: Some(inside) })
    }

    /// [`Gate::close`], however long that takes.
    pub(in crate::engine) fn close_in_time(&self, clock: impl Fn() -> Timestamp) -> Alone<'_, T> {
        loop {
            match self.close(&clock) {
                Ok(alone) => return alone,
                Err(_) => self.wait_until_opened(),
            }
        }
    }

    /// Whether the gate has been closed for longer than a thread waits for it.
    pub(in crate::engine) fn is_closed_for_long(&self) -> bool {
        self.state.lock().closing.is_some_and(|closing| closing.is_long)
    }

    /// Waits for the next opening of a gate that is closed.
    pub(in crate::engine) fn wait_until_opened(&self) {
        let mut state = self.state.lock();
        let openings = state.openings;
        self.opened.wait_while(&mut state, |state| state.closing.is_some() && state.openings == openings);
    }

    /// Waits for [`GRACE`], or not at all if another thread has done so since the gate was closed.
    fn wait_for_opening(&self, state: &mut MutexGuard<'_, GateState>) -> Result<(), ClosedSince> {
        match state.closing {
            None => return Ok(()),
            Some(closing) if closing.is_long => return Err(ClosedSince(closing.since)),
            Some(_) => {}
        }
        let openings = state.openings;
        self.opened.wait_while_for(state, |state| state.openings == openings, GRACE);
        let is_open = state.openings > openings;
        match state.closing.as_mut().filter(|_| !is_open) {
            None => Ok(()),
            Some(closing) => {
                closing.is_long = true;
                Err(ClosedSince(closing.since))
            }
        }
    }
}

impl<T> Alone<'_, T> {
    /// When the gate was closed.
    pub(in crate::engine) fn since(&self) -> Timestamp {
        self.since
    }
}

impl<T> Deref for Alone<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.inside.as_deref().unwrap_or_else(|| unreachable!("there until it is dropped"))
    }
}

impl<T> DerefMut for Alone<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inside.as_deref_mut().unwrap_or_else(|| unreachable!("there until it is dropped"))
    }
}

impl<T> Drop for Alone<'_, T> {
    fn drop(&mut self) {
        self.inside = None;
        let mut state = self.gate.state.lock();
        state.closing = None;
        state.openings += 1;
        drop(state);
        self.gate.opened.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::clock::Clock;
    use crate::domain::LockName;
    use crate::engine::{BUSY_AFTER_MS, Durability, Engine, EngineConfig, Unavailable};
    use crate::entropy::Entropy;
    use crate::journal::MemoryBackend;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn a_closed_gate_tells_since_when_and_opens_for_all_who_wait() {
        let gate = Arc::new(Gate::new(0));
        let mut alone = gate.close(|| at(5)).ok().unwrap();
        assert!(!gate.is_closed_for_long());
        assert_eq!(gate.enter().err(), Some(ClosedSince(at(5))));
        assert!(gate.is_closed_for_long());
        assert_eq!(gate.close(|| at(9)).err(), Some(ClosedSince(at(5))));
        let waiting: Vec<_> = (0..4)
            .map(|n| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || match n % 2 {
                    0 => *gate.enter_in_time(),
                    _ => *gate.close_in_time(|| at(7)),
                })
            })
            .collect();
        *alone = 1;
        drop(alone);
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap() == 1));
        assert_eq!(*gate.enter().ok().unwrap(), 1);
        assert!(!gate.is_closed_for_long());
    }

    #[test]
    fn an_opening_counts_even_if_a_closing_follows_at_once() {
        let gate = Arc::new(Gate::new(()));
        let alone = gate.close(|| at(1)).ok().unwrap();
        let (returned, has_returned) = mpsc::channel();
        let waiting = thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                gate.wait_until_opened();
                returned.send(()).unwrap();
            }
        });
        loop {
            let mut state = gate.state.lock();
            // From here on, the thread that waits runs only once it gets the lock.
            if gate.opened.notify_all() == 1 {
                state.openings += 1;
                state.closing = Some(Closing { since: at(1), is_long: false });
                break;
            }
            drop(state);
            thread::yield_now();
        }
        assert_eq!(has_returned.recv_timeout(Duration::from_secs(60)), Ok(()));
        waiting.join().unwrap();
        drop(alone);
    }

    #[test]
    fn closing_waits_for_those_inside_and_keeps_others_out_meanwhile() {
        let gate = Arc::new(Gate::new(()));
        let inside = gate.enter().ok().unwrap();
        let also_inside = gate.enter().ok();
        assert!(also_inside.is_some(), "others do not matter");
        drop(also_inside);
        let (closed, is_closed) = mpsc::channel();
        let closing = thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                let alone = gate.close_in_time(|| at(3));
                closed.send(()).unwrap();
                drop(alone);
            }
        });
        while gate.state.lock().closing.is_none() {
            thread::yield_now();
        }
        assert_eq!(is_closed.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(inside);
        is_closed.recv().unwrap();
        closing.join().unwrap();
        assert!(gate.enter().is_ok());
    }

    #[test]
    fn while_a_transaction_runs_others_are_put_off_and_after_a_while_refused() {
        let config = EngineConfig {
            durability: Durability::Memory,
            locks_max: 10,
            sessions_max: 10,
            waiters_per_lock_max: 10,
            values_bytes_max: 1000,
            value_elements_max: 10,
            leases_per_account_max: 10,
            token_floor: 0,
            boot: None,
            entropy: Entropy::system(),
        };
        let clock = Clock::manual();
        let engine = Engine::start(Box::new(MemoryBackend::default()), clock.clone(), config).unwrap();
        let name = LockName::new(0, b"k").unwrap();
        let ask = || {
            thread::scope(|threads| {
                let asked = threads.spawn(|| {
                    let txn = engine.txn();
                    assert_eq!(txn.exclusively(&[], |_| ()), txn.exists(&name).map(drop));
                    assert_eq!(txn.key_count(0).map(drop), txn.exists(&name).map(drop));
                    txn.exists(&name)
                });
                asked.join().unwrap()
            })
        };
        let alone = engine.exclusive_txn();
        assert_eq!(ask(), Err(Unavailable::Unsettled));
        clock.advance_millis(BUSY_AFTER_MS);
        assert_eq!(ask(), Err(Unavailable::Busy));
        assert_eq!(alone.exists(&name), Ok(false));
        drop(alone);
        assert_eq!(ask(), Ok(false));
        // A transaction that has begun is not cut in two: it waits.
        thread::scope(|threads| {
            let (begin, begun) = mpsc::channel();
            let (close, closed) = mpsc::channel::<()>();
            let (engine, name) = (&engine, &name);
            let waiting = threads.spawn(move || {
                let txn = engine.txn();
                assert_eq!(txn.exists(name), Ok(false));
                begin.send(()).unwrap();
                closed.recv().unwrap();
                (txn.exists(name), txn.exclusively(&[], |_| ()))
            });
            begun.recv().unwrap();
            let alone = engine.exclusive_txn();
            close.send(()).unwrap();
            assert_eq!(ask(), Err(Unavailable::Unsettled));
            drop(alone);
            assert_eq!(waiting.join().unwrap(), (Ok(false), Ok(())));
        });
    }

    #[test]
    fn transactions_from_many_threads_lose_no_change() {
        let gate = Arc::new(Gate::new(0_u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    for _ in 0..500 {
                        let before = *gate.enter_in_time();
                        let mut alone = gate.close_in_time(|| at(1));
                        assert!(*alone >= before);
                        *alone += 1;
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*gate.enter_in_time(), 2000);
    }
}
