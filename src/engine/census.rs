//! How many there are, and how many there were since the start.
//!
//! Promise: plain atomics, written under the guard of the lock they count. Absent: names, owners, histograms.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::lock::{DATABASES, Effect, End, Left};

/// The counts of a lock manager. Totals restart at 0 with the process.
#[derive(Debug, Default)]
pub struct Census {
    leases: AtomicI64,
    delays: AtomicI64,
    keys: [AtomicI64; DATABASES as usize],
    waiting: AtomicI64,
    /// Grants of a lock to an owner that did not hold it.
    pub grants: AtomicU64,
    /// Deadlines moved.
    pub renewals: AtomicU64,
    /// Leases ended by their owner, a DEL or the end of a session.
    pub releases: AtomicU64,
    /// Leases that reached their deadline.
    pub expiries: AtomicU64,
    /// Leases ended by an operator, or by a SET over them.
    pub forced: AtomicU64,
    /// Requests that had to queue.
    pub waits: AtomicU64,
    /// Queued requests that waited as long as they wished.
    pub wait_timeouts: AtomicU64,
}

fn positive(count: &AtomicI64) -> u64 {
    u64::try_from(count.load(Ordering::Relaxed)).unwrap_or(0)
}

impl Census {
    /// Leases held; those that have ended and were not swept yet included.
    pub fn leases(&self) -> u64 {
        positive(&self.leases)
    }

    /// Leases held and lock-delays running: what the limit of locks is about.
    pub fn kept(&self) -> u64 {
        self.leases() + positive(&self.delays)
    }

    /// Locks of a database that are held.
    pub fn keys(&self, database: u8) -> u64 {
        self.keys.get(usize::from(database)).map_or(0, positive)
    }

    /// Requests that queue.
    pub fn waiting(&self) -> u64 {
        positive(&self.waiting)
    }

    pub(super) fn key_changed(&self, database: u8, was_held: bool, is_held: bool) {
        if was_held != is_held {
            let change = if is_held { 1 } else { -1 };
            self.keys[usize::from(database)].fetch_add(change, Ordering::Relaxed);
        }
    }

    pub(super) fn lease_restored(&self) {
        self.leases.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, effect: &Effect) {
        let total = match effect {
            Effect::Granted { waiter, .. } => {
                self.leases.fetch_add(1, Ordering::Relaxed);
                if waiter.is_some() {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                &self.grants
            }
            Effect::Renewed { .. } => &self.renewals,
            Effect::Ended { how, .. } => {
                self.leases.fetch_sub(1, Ordering::Relaxed);
                match how {
                    End::Released | End::Session { .. } => &self.releases,
                    End::Expired => &self.expiries,
                    End::Forced | End::Replaced => &self.forced,
                }
            }
            Effect::Joined { .. } => {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                &self.waits
            }
            Effect::WaiterLeft { why, .. } => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                if *why != Left::TimedOut {
                    return;
                }
                &self.wait_timeouts
            }
            Effect::DelayStarted { is_first, .. } => {
                self.delays.fetch_add(i64::from(*is_first), Ordering::Relaxed);
                return;
            }
            Effect::DelayEnded => {
                self.delays.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        };
        total.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn delay_restored(&self) {
        self.delays.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing is held and nobody waits; totals stay.
    pub(super) fn clear(&self) {
        self.keys
            .iter()
            .chain([&self.leases, &self.delays, &self.waiting])
            .for_each(|count| count.store(0, Ordering::Relaxed));
    }
}
