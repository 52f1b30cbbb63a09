//! The expiry index: which locks have something that ends by itself, and when.
//!
//! Guarantees: one entry of 8 bytes a lock, removed when the lock no longer needs it, so released
//! locks leave no garbage. Deadlines are known to within [`TICK_NANOS`]; what is found to
//! end that soon is noted exactly, and is ended when its time comes. Not here: clocks, threads, what happens at a
//! deadline.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;

use parking_lot::{Mutex, MutexGuard};

use crate::domain::Timestamp;
use crate::engine::keyspace::{GuardedKey, NameHash};

/// How exactly the index knows a deadline: 2 ms.
const TICK_NANOS: u64 = 1 << 21;

/// The time of a deadline, rounded down to [`TICK_NANOS`]. Enough for seventy years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct Tick(u64);

const TICK_BITS: u32 = u64::BITS - NameHash::LOWER_BITS;

impl Tick {
    /// `None`: never.
    pub(in crate::engine) fn of(deadline: Timestamp) -> Option<Tick> {
        (deadline != Timestamp::NEVER)
            .then(|| Tick((deadline.as_nanos() / TICK_NANOS).min((1 << TICK_BITS) - 1)))
    }

    fn begins(self) -> Timestamp {
        Timestamp::from_nanos(self.0 * TICK_NANOS)
    }
}

/// Ticks that are gone through together, stripe by stripe. Leases that end one after the other were
/// mostly granted so, and are neighbours where they are stored.
const TICKS_AT_ONCE: u64 = 4;

/// The upper part of a hash is the number of a stripe, the lower part is in its entries.
const STRIPES: usize = NameHash::UPPER_PARTS;

pub(in crate::engine) struct Deadlines {
    pub(in crate::engine) alarm: Alarm,
    /// The tick in the upper part of each number, the lower part of the hash in its lower part.
    stripes: Box<[Mutex<BTreeSet<u64>>]>,
    /// Where the next look begins, so that every stripe gets its turn.
    next_stripe: AtomicUsize,
    /// What is about to end, exactly. What is released meanwhile stays here for that moment.
    imminent: Mutex<BTreeSet<(Timestamp, u64)>>,
}

/// Wakes a sleeping thread when something is due before it meant to wake up.
#[derive(Default)]
pub(in crate::engine) struct Alarm {
    wakes_at: AtomicU64,
    sleeper: OnceLock<Thread>,
}

impl Alarm {
    pub(in crate::engine) fn sleeper_is(&self, thread: Thread) {
        self.sleeper.get_or_init(|| thread);
    }

    /// The sleeper wakes up by itself at this time, in nanoseconds.
    pub(in crate::engine) fn set(&self, nanos: u64) {
        self.wakes_at.store(nanos, Ordering::SeqCst);
    }

    pub(in crate::engine) fn armed(&self, deadline: Timestamp) {
        if deadline.as_nanos() < self.wakes_at.load(Ordering::SeqCst)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            alarm: Alarm::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            next_stripe: AtomicUsize::new(0),
            imminent: Mutex::default(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

fn entry(hash: u64, tick: Tick) -> u64 {
    tick.0 << NameHash::LOWER_BITS | NameHash::lower(hash)
}

fn tick_in(entry: u64) -> Tick {
    Tick(entry >> NameHash::LOWER_BITS)
}

impl Deadlines {
    fn stripe(&self, hash: u64) -> MutexGuard<'_, BTreeSet<u64>> {
        locked(&self.stripes[NameHash::upper(hash)])
    }

    /// Makes the index know that something of a key ends at `deadline`. Call under the key's
    /// guard. A deadline that moved away is looked at when the earlier one comes: most leases are
    /// renewed more often than that.
    pub(in crate::engine) fn rearm(&self, key: &mut GuardedKey<'_>, now: Timestamp) {
        let (hash, deadline) = (key.hash, key.content.next_deadline());
        self.arm(hash, key.is_hash_shared, key.armed, deadline, now);
    }

    /// `armed` is where the lock stands in the index.
    fn arm(
        &self,
        hash: u64,
        is_hash_shared: bool,
        armed: &mut Option<Tick>,
        deadline: Timestamp,
        now: Timestamp,
    ) {
        let wanted = Tick::of(deadline);
        if *armed == wanted {
            return;
        }
        if let (Some(at), Some(wanted)) = (*armed, wanted)
            && at < wanted
            && at.begins() > now
        {
            return;
        }
        let mut stripe = self.stripe(hash);
        // Of two locks with one hash and one tick there is one entry. Left behind, it costs a look.
        if let Some(tick) = armed.filter(|_| !is_hash_shared) {
            stripe.remove(&entry(hash, tick));
        }
        if let Some(tick) = wanted {
            stripe.insert(entry(hash, tick));
            drop(stripe);
            self.alarm.armed(tick.begins());
        }
        *armed = wanted;
    }

    /// Takes at most `max` hashes out of the index whose tick has come, about in the order of their
    /// ticks: something of these locks ends now, or soon, or has moved. Look, and
    /// [`Deadlines::record_imminent`], or else rearm.
    pub(in crate::engine) fn take_near(&self, now: Timestamp, max: usize) -> Vec<u64> {
        let mut near = Vec::new();
        let Some(now) = Tick::of(now) else { return near };
        while let Some(first) = self.first_tick().filter(|first| *first <= now) {
            let last = Tick(first.0 + TICKS_AT_ONCE - 1).min(now);
            let begin = self.next_stripe.load(Ordering::Relaxed);
            for upper in (begin..STRIPES).chain(0..begin) {
                let mut stripe = locked(&self.stripes[upper]);
                while let Some(entry) = stripe.first().copied().filter(|entry| tick_in(*entry) <= last) {
                    if near.len() == max {
                        self.next_stripe.store(upper, Ordering::Relaxed);
                        return near;
                    }
                    stripe.remove(&entry);
                    near.push(NameHash::joined(upper, entry));
                }
            }
        }
        near
    }

    fn first_tick(&self) -> Option<Tick> {
        self.stripes.iter().filter_map(|stripe| locked(stripe).first().copied()).map(tick_in).min()
    }

    /// Notes exactly when something of a lock ends. `false` if that is not within a tick that has
    /// come: the index is enough.
    pub(in crate::engine) fn record_imminent(&self, hash: u64, deadline: Timestamp, now: Timestamp) -> bool {
        let is_imminent = Tick::of(deadline).is_some_and(|tick| tick.begins() <= now);
        if is_imminent {
            locked(&self.imminent).insert((deadline, hash));
        }
        is_imminent
    }

    /// Takes the first hash that was noted as imminent, if its time has come.
    pub(in crate::engine) fn take_due(&self, now: Timestamp) -> Option<u64> {
        let mut imminent = locked(&self.imminent);
        let first = imminent.first().copied().filter(|(deadline, _)| *deadline <= now)?;
        imminent.remove(&first);
        Some(first.1)
    }

    /// When to look again.
    pub(in crate::engine) fn next(&self) -> Timestamp {
        let first =
            |stripe: &Mutex<BTreeSet<u64>>| locked(stripe).first().map(|entry| tick_in(*entry).begins());
        let imminent = locked(&self.imminent).first().map(|(deadline, _)| *deadline);
        self.stripes.iter().filter_map(first).chain(imminent).min().unwrap_or(Timestamp::NEVER)
    }

    /// How many entries there are.
    pub(in crate::engine) fn len(&self) -> usize {
        locked(&self.imminent).len() + self.stripes.iter().map(|stripe| locked(stripe).len()).sum::<usize>()
    }

    pub(in crate::engine) fn clear(&self) {
        locked(&self.imminent).clear();
        self.stripes.iter().for_each(|stripe| locked(stripe).clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn what_is_near_is_taken_once_and_what_is_due_when_it_is() {
        let deadlines = Deadlines::default();
        let (hash, other) = (NameHash::joined(3, 5), NameHash::joined(3, 6));
        let deadline = at(10 * TICK_NANOS + 7);
        let (mut armed, mut free) = (None, None);
        deadlines.arm(hash, false, &mut armed, deadline, at(0));
        deadlines.arm(other, false, &mut free, deadline, at(0));
        deadlines.arm(other, false, &mut free, Timestamp::NEVER, at(0));
        assert_eq!((deadlines.len(), free), (1, None));
        assert_eq!(deadlines.next(), at(10 * TICK_NANOS));
        assert_eq!(deadlines.take_near(at(10 * TICK_NANOS - 1), 9).len(), 0);
        assert_eq!(deadlines.take_near(at(10 * TICK_NANOS), 9), [hash]);
        assert!(deadlines.record_imminent(hash, deadline, at(10 * TICK_NANOS)));
        assert_eq!((deadlines.take_due(at(10 * TICK_NANOS + 6)), deadlines.next()), (None, deadline));
        assert_eq!(deadlines.take_due(deadline), Some(hash));
        assert_eq!(deadlines.take_due(deadline), None);
        assert_eq!((deadlines.len(), deadlines.next()), (0, Timestamp::NEVER));
        // Renewed meanwhile: it is in the index again, and nothing is noted of it.
        deadlines.arm(hash, false, &mut armed, at(99 * TICK_NANOS), deadline);
        assert!(!deadlines.record_imminent(hash, at(99 * TICK_NANOS), deadline));
        assert_eq!((deadlines.len(), deadlines.next()), (1, at(99 * TICK_NANOS)));
        // And again, while there is time: the entry stays where it is.
        deadlines.arm(hash, false, &mut armed, at(200 * TICK_NANOS), at(50 * TICK_NANOS));
        assert_eq!(deadlines.next(), at(99 * TICK_NANOS));
        deadlines.arm(hash, false, &mut armed, at(60 * TICK_NANOS), at(50 * TICK_NANOS));
        assert_eq!((deadlines.len(), deadlines.next()), (1, at(60 * TICK_NANOS)));
    }

    #[test]
    fn two_locks_of_one_hash_and_one_tick_are_looked_at_even_if_one_of_them_is_gone() {
        let deadlines = Deadlines::default();
        let (mut one, mut other) = (None, None);
        deadlines.arm(7, false, &mut one, at(5 * TICK_NANOS), at(0));
        deadlines.arm(7, true, &mut other, at(5 * TICK_NANOS + 1), at(0));
        deadlines.arm(7, true, &mut one, Timestamp::NEVER, at(0));
        assert_eq!(deadlines.take_near(at(5 * TICK_NANOS), 9), [7]);
    }

    #[test]
    fn a_look_that_takes_a_part_goes_on_where_it_stopped() {
        let deadlines = Deadlines::default();
        let mut expected: Vec<u64> = (0..30).map(|n| NameHash::joined(n % 3, n as u64)).collect();
        expected.iter().for_each(|hash| deadlines.arm(*hash, false, &mut None, at(1), at(0)));
        let mut taken: Vec<u64> = (0..4).flat_map(|_| deadlines.take_near(at(1), 8)).collect();
        expected.sort_unstable();
        taken.sort_unstable();
        assert_eq!(taken, expected);
    }
}
