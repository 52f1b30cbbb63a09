//! The expiry index: which locks have something that ends by itself, and when.
//!
//! Promise: one entry a lock, removed when the lock no longer needs it, so released locks leave no garbage. Entries are
//! 16 bytes: a deadline and the hash of the lock's name. Absent: clocks, threads, what happens at a deadline.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use crate::lock::Timestamp;

const STRIPES: usize = 16;

#[derive(Default)]
pub(super) struct Deadlines {
    pub(super) alarm: Alarm,
    stripes: [Mutex<BTreeSet<(Timestamp, u64)>>; STRIPES],
}

/// Wakes a sleeping thread when something is due before it meant to wake up.
#[derive(Default)]
pub(super) struct Alarm {
    wakes_at: AtomicU64,
    sleeper: OnceLock<Thread>,
}

impl Alarm {
    pub(super) fn sleeper_is(&self, thread: Thread) {
        self.sleeper.get_or_init(|| thread);
    }

    /// The sleeper wakes up by itself at this time, in nanoseconds.
    pub(super) fn set(&self, nanos: u64) {
        self.wakes_at.store(nanos, Ordering::SeqCst);
    }

    pub(super) fn armed(&self, deadline: Timestamp) {
        if deadline.as_nanos() < self.wakes_at.load(Ordering::SeqCst)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }
}

impl Deadlines {
    fn stripe(&self, hash: u64) -> MutexGuard<'_, BTreeSet<(Timestamp, u64)>> {
        self.stripes[hash as usize % STRIPES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a lock's entry. Call under the lock's guard.
    pub(super) fn rearm(&self, hash: u64, from: Timestamp, to: Timestamp) {
        if from == to {
            return;
        }
        let mut stripe = self.stripe(hash);
        if from != Timestamp::NEVER {
            stripe.remove(&(from, hash));
        }
        if to != Timestamp::NEVER {
            stripe.insert((to, hash));
            drop(stripe);
            self.alarm.armed(to);
        }
    }

    /// At most `most` hashes whose deadline is `now` or earlier. They stay until they are rearmed.
    pub(super) fn due(&self, now: Timestamp, most: usize) -> Vec<u64> {
        let mut due = Vec::new();
        for stripe in &self.stripes {
            let stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            let here = stripe.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, hash)| *hash);
            due.extend(here.take(most - due.len()));
        }
        due
    }

    /// The nearest deadline of all.
    pub(super) fn next(&self) -> Timestamp {
        let first = |stripe: &Mutex<BTreeSet<(Timestamp, u64)>>| {
            stripe.lock().unwrap_or_else(PoisonError::into_inner).first().map(|(deadline, _)| *deadline)
        };
        self.stripes.iter().filter_map(first).min().unwrap_or(Timestamp::NEVER)
    }

    /// How many locks are indexed.
    pub(super) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    pub(super) fn clear(&self) {
        for stripe in &self.stripes {
            stripe.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}
