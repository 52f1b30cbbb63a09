//! How many there are, and how many there were since the start.
//!
//! Promise: plain atomics, written under the guard of the lock they count. Absent: names, owners, histograms.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::lock::{DATABASES, Effect, End, Left, Outcome, Timestamp};
use crate::metrics::Histogram;

/// The counts of a lock manager. Totals restart at 0 with the process.
#[derive(Debug)]
pub struct Census {
    leases: AtomicI64,
    delays: AtomicI64,
    keys: [AtomicI64; DATABASES as usize],
    waiting: AtomicI64,
    /// Grants of a lock to an owner that did not hold it.
    pub grants: AtomicU64,
    /// Grants to an owner that held the lock already.
    pub repeats: AtomicU64,
    /// Requests that were not granted and did not queue.
    pub refusals: AtomicU64,
    /// Deadlines moved.
    pub renewals: AtomicU64,
    /// Leases ended by their owner, or by a DEL.
    pub releases: AtomicU64,
    /// Leases ended with their session.
    pub session_ends: AtomicU64,
    /// Leases that reached their deadline.
    pub expiries: AtomicU64,
    /// Leases ended by an operator, or by a SET over them.
    pub forced: AtomicU64,
    /// Requests that had to queue.
    pub waits: AtomicU64,
    /// Queued requests that waited as long as they wished.
    pub wait_timeouts: AtomicU64,
    /// Nanoseconds that those who were granted a lock in the queue had waited.
    pub waiting_times: Histogram,
    /// Nanoseconds for which leases that have ended were held.
    pub hold_times: Histogram,
    /// Nanoseconds after the end of a lease at which its owner came back to release it.
    pub late_releases: Histogram,
    /// The same, to renew it.
    pub late_renewals: Histogram,
}

impl Default for Census {
    fn default() -> Census {
        Census {
            leases: AtomicI64::new(0),
            delays: AtomicI64::new(0),
            keys: Default::default(),
            waiting: AtomicI64::new(0),
            grants: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            renewals: AtomicU64::new(0),
            releases: AtomicU64::new(0),
            session_ends: AtomicU64::new(0),
            expiries: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            wait_timeouts: AtomicU64::new(0),
            waiting_times: Histogram::of_times(),
            hold_times: Histogram::of_times(),
            late_releases: Histogram::of_times(),
            late_renewals: Histogram::of_times(),
        }
    }
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

    pub(super) fn outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Granted { reentrant: true, .. } => self.repeats.fetch_add(1, Ordering::Relaxed),
            Outcome::Refused(_) => self.refusals.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    pub(super) fn count(&self, effect: &Effect, now: Timestamp) {
        let total = match effect {
            Effect::Granted { waiter, .. } => {
                self.leases.fetch_add(1, Ordering::Relaxed);
                if let Some((_, since)) = waiter {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.waiting_times.observe(now.nanos_since(*since), 1);
                }
                &self.grants
            }
            Effect::Renewed { .. } => &self.renewals,
            Effect::Ended { lease, how } => {
                self.leases.fetch_sub(1, Ordering::Relaxed);
                self.hold_times.observe(now.min(lease.deadline).nanos_since(lease.granted_at), 1);
                match how {
                    End::Released => &self.releases,
                    End::Session { .. } => &self.session_ends,
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
