//! The expiry index: which locks have something that ends by itself, and when.
//!
//! Promise: one entry a lock, removed when the lock no longer needs it, so released locks leave no garbage. Entries are
//! 16 bytes: a deadline and the hash of the lock's name. Absent: clocks, threads, what happens at a deadline.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::lock::Timestamp;

const STRIPES: usize = 16;

#[derive(Default)]
pub(super) struct Deadlines {
    stripes: [Mutex<BTreeSet<(Timestamp, u64)>>; STRIPES],
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
