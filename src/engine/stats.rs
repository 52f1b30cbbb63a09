//! Counts of leases, keys and waiters, and totals since the start.
//!
//! Guarantees: written under the guard of the lock they count, in memory that threads
//! seldom share. Not here: names, owners.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::{DATABASES, Timestamp};
use crate::lock::{Effect, EndReason, LeaveReason, Outcome};
use crate::metrics::{Histogram, STRIPES, Striped};

/// Leases that the threads of one stripe may grant before they look at the limit again.
const ROOM_MAX: u64 = 256;
/// The part of what is left that one stripe may take for itself. All together may go beyond a limit
/// by a 64th, and the last few hundred below it are counted one by one.
const ROOM_PART: u64 = 64 * STRIPES as u64;

/// The counts of the keys of a database. A common lock, which has a deadline, is counted in two of
/// them.
#[derive(Debug, Default)]
struct KeyCounts {
    keys: AtomicU64,
    /// Keys that do not end by themselves.
    lasting: AtomicU64,
    /// The sum of the deadlines of the others, in milliseconds of the clock.
    deadlines: AtomicU64,
}

/// Deadlines count as at most this many milliseconds, 34 years, so that the sum of those of eight
/// million keys fits.
const DEADLINE_MS_MAX: u64 = 1 << 40;

/// What one stripe has counted. What every lock that is taken and given back changes is in the first
/// cache line, and in that of its database.
#[derive(Debug, Default)]
#[repr(C)]
struct Counts {
    leases: AtomicU64,
    /// Leases that may be granted without looking at the limit.
    room: AtomicU64,
    grants: AtomicU64,
    releases: AtomicU64,
    delays: AtomicU64,
    waiting: AtomicU64,
    waits: AtomicU64,
    renewals: AtomicU64,
    keys: [KeyCounts; DATABASES as usize],
    repeats: AtomicU64,
    refusals: AtomicU64,
    session_ends: AtomicU64,
    expiries: AtomicU64,
    forced: AtomicU64,
    replaced: AtomicU64,
    wait_timeouts: AtomicU64,
}

impl Counts {
    /// What is about the things that are there now, and not about those that happened.
    fn of_present(&self) -> impl Iterator<Item = &AtomicU64> {
        let keys = self.keys.iter().flat_map(|of| [&of.keys, &of.lasting, &of.deadlines]);
        keys.chain([&self.leases, &self.delays, &self.waiting, &self.room])
    }
}

/// What has happened since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockTotals {
    /// Grants of a lock to an owner that did not hold it.
    pub grants: u64,
    /// Grants to an owner that held the lock already.
    pub repeats: u64,
    /// Requests that were not granted and did not queue.
    pub refusals: u64,
    /// Renewals, also those that left the deadline as it was.
    pub renewals: u64,
    /// Leases released by their owner or deleted by a client.
    pub releases: u64,
    /// Leases ended with their session.
    pub session_ends: u64,
    /// Leases that reached their deadline.
    pub expiries: u64,
    /// Leases ended by an operator.
    pub forced: u64,
    /// Leases ended by a SET that gave the lock to another owner.
    pub replaced: u64,
    /// Requests that had to queue.
    pub waits: u64,
    /// Queued requests that timed out.
    pub wait_timeouts: u64,
}

/// The counts of a lock manager.
#[derive(Debug)]
pub struct LockStats {
    counts: Striped<Counts>,
    /// Nanoseconds that those who were granted a lock in the queue had waited.
    pub waiting_times: Histogram,
    /// Nanoseconds for which leases that have ended were held.
    pub hold_times: Histogram,
    /// Nanoseconds after the end of a lease at which its owner came back to release it.
    pub late_releases: Histogram,
    /// The same, to renew it.
    pub late_renewals: Histogram,
}

impl Default for LockStats {
    fn default() -> LockStats {
        LockStats {
            counts: Striped::default(),
            waiting_times: Histogram::of_times(),
            hold_times: Histogram::of_times(),
            late_releases: Histogram::of_times(),
            late_renewals: Histogram::of_times(),
        }
    }
}

impl LockStats {
    /// Leases held; those that have ended and were not swept yet included.
    pub fn leases(&self) -> u64 {
        self.counts.sum(|counts| &counts.leases)
    }

    /// Leases held and lock-delays running: what the limit of locks is about.
    pub fn kept(&self) -> u64 {
        self.leases() + self.counts.sum(|counts| &counts.delays)
    }

    /// Whether there is room for one more, of `max`. Usually reads only the stripe of this thread.
    pub(super) fn has_room(&self, max: u64) -> bool {
        let (stripe, counts) = self.counts.of_thread();
        if stripe.update(&counts.room, |left| left.checked_sub(1)) {
            return true;
        }
        self.take_room(counts, max)
    }

    #[cold]
    fn take_room(&self, counts: &Counts, max: u64) -> bool {
        let left = max.saturating_sub(self.kept());
        counts.room.store((left / ROOM_PART).min(ROOM_MAX), Ordering::Relaxed);
        left > 0
    }

    /// Locks of a database that are held.
    pub fn keys(&self, database: u8) -> u64 {
        self.of_database(database, |of| &of.keys)
    }

    fn of_database(&self, database: u8, number: impl Fn(&KeyCounts) -> &AtomicU64) -> u64 {
        match usize::from(database) {
            database if database < usize::from(DATABASES) => {
                self.counts.sum(|counts| number(&counts.keys[database]))
            }
            _ => 0,
        }
    }

    /// Keys of a database that end by themselves, and the milliseconds after which they do so on
    /// average.
    pub fn expiring(&self, database: u8, now: Timestamp) -> (u64, u64) {
        let keys = self.keys(database).saturating_sub(self.of_database(database, |of| &of.lasting));
        let deadlines = self.of_database(database, |of| &of.deadlines);
        let average = deadlines.checked_div(keys).unwrap_or(0);
        (keys, average.saturating_sub(millis_of(now)))
    }

    /// Requests that queue.
    pub fn waiting(&self) -> u64 {
        self.counts.sum(|counts| &counts.waiting)
    }

    /// What has happened so far.
    pub fn totals(&self) -> LockTotals {
        LockTotals {
            grants: self.counts.sum(|counts| &counts.grants),
            repeats: self.counts.sum(|counts| &counts.repeats),
            refusals: self.counts.sum(|counts| &counts.refusals),
            renewals: self.counts.sum(|counts| &counts.renewals),
            releases: self.counts.sum(|counts| &counts.releases),
            session_ends: self.counts.sum(|counts| &counts.session_ends),
            expiries: self.counts.sum(|counts| &counts.expiries),
            forced: self.counts.sum(|counts| &counts.forced),
            replaced: self.counts.sum(|counts| &counts.replaced),
            waits: self.counts.sum(|counts| &counts.waits),
            wait_timeouts: self.counts.sum(|counts| &counts.wait_timeouts),
        }
    }

    /// Counts a change of a key, given its deadline before and after it; `None`: it does not exist.
    #[inline]
    pub(super) fn key_changed(&self, database: u8, before: Option<Timestamp>, after: Option<Timestamp>) {
        if before == after {
            return;
        }
        let (stripe, counts) = self.counts.of_thread();
        let counts = &counts.keys[usize::from(database)];
        match (before, after) {
            (None, Some(_)) => stripe.add(&counts.keys, 1),
            (Some(_), None) => stripe.subtract(&counts.keys, 1),
            _ => {}
        }
        match (before == Some(Timestamp::NEVER), after == Some(Timestamp::NEVER)) {
            (false, true) => stripe.add(&counts.lasting, 1),
            (true, false) => stripe.subtract(&counts.lasting, 1),
            _ => {}
        }
        let millis = |deadline: Option<Timestamp>| {
            deadline.filter(|deadline| *deadline != Timestamp::NEVER).map_or(0, millis_of)
        };
        stripe.add(&counts.deadlines, millis(after).wrapping_sub(millis(before)));
    }

    pub(super) fn lease_restored(&self) {
        let (stripe, counts) = self.counts.of_thread();
        stripe.add(&counts.leases, 1);
    }

    pub(super) fn outcome(&self, outcome: &Outcome) {
        let (stripe, counts) = self.counts.of_thread();
        match outcome {
            Outcome::Granted { already_held: true, .. } => stripe.add(&counts.repeats, 1),
            Outcome::Refused(_) => stripe.add(&counts.refusals, 1),
            _ => {}
        }
    }

    pub(super) fn count(&self, effect: &Effect, now: Timestamp) {
        let (stripe, counts) = self.counts.of_thread();
        let total = match effect {
            Effect::Granted { waiter, .. } => {
                stripe.add(&counts.leases, 1);
                if let Some((_, since)) = waiter {
                    stripe.subtract(&counts.waiting, 1);
                    self.waiting_times.observe(now.nanos_since(*since), 1);
                }
                &counts.grants
            }
            Effect::Renewed { .. } => &counts.renewals,
            Effect::Ended { lease, how } => {
                stripe.subtract(&counts.leases, 1);
                self.hold_times.observe(now.min(lease.deadline).nanos_since(lease.granted_at), 1);
                match how {
                    EndReason::Released => &counts.releases,
                    EndReason::Session { .. } => &counts.session_ends,
                    EndReason::Expired => &counts.expiries,
                    EndReason::Forced => &counts.forced,
                    EndReason::Replaced => &counts.replaced,
                }
            }
            Effect::Joined { .. } => {
                stripe.add(&counts.waiting, 1);
                &counts.waits
            }
            Effect::WaiterLeft { why, .. } => {
                stripe.subtract(&counts.waiting, 1);
                if *why != LeaveReason::TimedOut {
                    return;
                }
                &counts.wait_timeouts
            }
            Effect::DelayStarted { is_first, .. } => {
                stripe.add(&counts.delays, u64::from(*is_first));
                return;
            }
            Effect::DelayEnded => {
                stripe.subtract(&counts.delays, 1);
                return;
            }
        };
        stripe.add(total, 1);
    }

    pub(super) fn delay_restored(&self) {
        let (stripe, counts) = self.counts.of_thread();
        stripe.add(&counts.delays, 1);
    }

    /// No lock is held and the queues are empty; totals stay. There must be no concurrent change.
    pub(super) fn clear(&self) {
        let present = self.counts.iter().flat_map(Counts::of_present);
        present.for_each(|number| number.store(0, Ordering::Relaxed));
    }
}

fn millis_of(time: Timestamp) -> u64 {
    (time.as_nanos() / 1_000_000).min(DEADLINE_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FencingToken;

    #[test]
    fn what_is_there_is_counted_over_all_threads_and_cleared_and_totals_stay() {
        let stats = LockStats::default();
        let granted = Effect::Granted { token: FencingToken::new(1).unwrap(), waiter: None };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    stats.count(&granted, Timestamp::default());
                    stats.key_changed(1, None, Some(Timestamp::NEVER));
                });
            }
        });
        assert!(stats.has_room(1 << 20), "takes room for the next, too");
        assert_eq!((stats.leases(), stats.keys(1), stats.keys(0), stats.totals().grants), (3, 3, 0, 3));
        stats.clear();
        assert_eq!((stats.leases(), stats.keys(1), stats.totals().grants), (0, 0, 3));
        assert!(!stats.has_room(0), "no room is left over");
    }
}
