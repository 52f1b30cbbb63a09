//! Counts of leases, keys and waiters, and totals since the start.
//!
//! Guarantees: written under the guard of the lock they count, in memory that threads
//! seldom share. Not here: names, owners.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::domain::{DATABASES, Timestamp};
use crate::lock::{Effect, EndReason, LeaveReason, Outcome};
use crate::metrics::{Count, Histogram, STRIPES, Stripe};

/// Leases that the threads of one stripe may grant before they look at the limit again.
const ROOM_MAX: u64 = 256;
/// The part of what is left that one stripe may take for itself. All together may go beyond a limit
/// by a 64th, and the last few hundred below it are counted one by one.
const ROOM_PART: u64 = 64 * STRIPES as u64;

/// The counts of the keys of a database. A common lock, which has a deadline, is counted in two of
/// them.
#[derive(Debug, Default)]
struct KeyCounts {
    keys: Count,
    /// Keys that do not end by themselves.
    lasting: Count,
    /// The sum of the deadlines of the others, in milliseconds of the clock.
    deadlines: Count,
}

/// Deadlines count as at most this many milliseconds, 34 years, so that the sum of those of eight
/// million keys fits.
const DEADLINE_MS_MAX: u64 = 1 << 40;

/// The counts of a lock manager. Totals restart at 0 with the process.
#[derive(Debug)]
pub struct LockStats {
    leases: Count,
    delays: Count,
    keys: [KeyCounts; DATABASES as usize],
    waiting: Count,
    /// Leases that may be granted without looking at the limit.
    room: [CachePadded<AtomicU64>; STRIPES],
    /// Grants of a lock to an owner that did not hold it.
    pub grants: Count,
    /// Grants to an owner that held the lock already.
    pub repeats: Count,
    /// Requests that were not granted and did not queue.
    pub refusals: Count,
    /// Deadlines moved.
    pub renewals: Count,
    /// Leases ended by their owner, or by a DEL.
    pub releases: Count,
    /// Leases ended with their session.
    pub session_ends: Count,
    /// Leases that reached their deadline.
    pub expiries: Count,
    /// Leases ended by an operator.
    pub forced: Count,
    /// Leases ended by a SET that gave the lock to another owner.
    pub replaced: Count,
    /// Requests that had to queue.
    pub waits: Count,
    /// Queued requests that timed out.
    pub wait_timeouts: Count,
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
            leases: Count::default(),
            delays: Count::default(),
            keys: Default::default(),
            waiting: Count::default(),
            room: Default::default(),
            grants: Count::default(),
            repeats: Count::default(),
            refusals: Count::default(),
            renewals: Count::default(),
            releases: Count::default(),
            session_ends: Count::default(),
            expiries: Count::default(),
            forced: Count::default(),
            replaced: Count::default(),
            waits: Count::default(),
            wait_timeouts: Count::default(),
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
        self.leases.read()
    }

    /// Leases held and lock-delays running: what the limit of locks is about.
    pub fn kept(&self) -> u64 {
        self.leases() + self.delays.read()
    }

    /// Whether there is room for one more, of `max`. Usually reads only the stripe of this thread.
    pub(super) fn has_room(&self, max: u64) -> bool {
        let stripe = Stripe::of_thread();
        let room = &self.room[stripe.index()];
        if stripe.update(room, |left| left.checked_sub(1)) {
            return true;
        }
        let left = max.saturating_sub(self.kept());
        room.store((left / ROOM_PART).min(ROOM_MAX), Ordering::Relaxed);
        left > 0
    }

    /// Locks of a database that are held.
    pub fn keys(&self, database: u8) -> u64 {
        self.keys.get(usize::from(database)).map_or(0, |counts| counts.keys.read())
    }

    /// Keys of a database that end by themselves, and the milliseconds after which they do so on
    /// average.
    pub fn expiring(&self, database: u8, now: Timestamp) -> (u64, u64) {
        let Some(counts) = self.keys.get(usize::from(database)) else { return (0, 0) };
        let keys = counts.keys.read().saturating_sub(counts.lasting.read());
        let average = counts.deadlines.read().checked_div(keys).unwrap_or(0);
        (keys, average.saturating_sub(millis_of(now)))
    }

    /// Requests that queue.
    pub fn waiting(&self) -> u64 {
        self.waiting.read()
    }

    /// Counts a change of a key, given its deadline before and after it; `None`: it does not exist.
    #[inline]
    pub(super) fn key_changed(&self, database: u8, before: Option<Timestamp>, after: Option<Timestamp>) {
        if before == after {
            return;
        }
        let counts = &self.keys[usize::from(database)];
        match (before, after) {
            (None, Some(_)) => counts.keys.add(1),
            (Some(_), None) => counts.keys.subtract(1),
            _ => {}
        }
        match (before == Some(Timestamp::NEVER), after == Some(Timestamp::NEVER)) {
            (false, true) => counts.lasting.add(1),
            (true, false) => counts.lasting.subtract(1),
            _ => {}
        }
        let millis = |deadline: Option<Timestamp>| {
            deadline.filter(|deadline| *deadline != Timestamp::NEVER).map_or(0, millis_of)
        };
        counts.deadlines.add(millis(after).wrapping_sub(millis(before)));
    }

    pub(super) fn lease_restored(&self) {
        self.leases.add(1);
    }

    pub(super) fn outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Granted { already_held: true, .. } => self.repeats.add(1),
            Outcome::Refused(_) => self.refusals.add(1),
            _ => {}
        }
    }

    pub(super) fn count(&self, effect: &Effect, now: Timestamp) {
        let total = match effect {
            Effect::Granted { waiter, .. } => {
                self.leases.add(1);
                if let Some((_, since)) = waiter {
                    self.waiting.subtract(1);
                    self.waiting_times.observe(now.nanos_since(*since), 1);
                }
                &self.grants
            }
            Effect::Renewed { .. } => &self.renewals,
            Effect::Ended { lease, how } => {
                self.leases.subtract(1);
                self.hold_times.observe(now.min(lease.deadline).nanos_since(lease.granted_at), 1);
                match how {
                    EndReason::Released => &self.releases,
                    EndReason::Session { .. } => &self.session_ends,
                    EndReason::Expired => &self.expiries,
                    EndReason::Forced => &self.forced,
                    EndReason::Replaced => &self.replaced,
                }
            }
            Effect::Joined { .. } => {
                self.waiting.add(1);
                &self.waits
            }
            Effect::WaiterLeft { why, .. } => {
                self.waiting.subtract(1);
                if *why != LeaveReason::TimedOut {
                    return;
                }
                &self.wait_timeouts
            }
            Effect::DelayStarted { is_first, .. } => {
                self.delays.add(u64::from(*is_first));
                return;
            }
            Effect::DelayEnded => {
                self.delays.subtract(1);
                return;
            }
        };
        total.add(1);
    }

    pub(super) fn delay_restored(&self) {
        self.delays.add(1);
    }

    /// No lock is held and the queues are empty; totals stay.
    pub(super) fn clear(&self) {
        let of_keys = self.keys.iter().flat_map(|counts| [&counts.keys, &counts.lasting, &counts.deadlines]);
        of_keys.chain([&self.leases, &self.delays, &self.waiting]).for_each(Count::clear);
        self.room.iter().for_each(|room| room.store(0, Ordering::Relaxed));
    }
}

fn millis_of(time: Timestamp) -> u64 {
    (time.as_nanos() / 1_000_000).min(DEADLINE_MS_MAX)
}
