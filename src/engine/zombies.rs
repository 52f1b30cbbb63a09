//! Owners that come back after their lease has ended without them, which is what fencing tokens are for.
//!
//! Promise: bounded; costs one atomic load while nothing has ended that way. Absent: any effect but a number: the
//! latest ends are remembered, not all.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::lock::Timestamp;

/// Ends remembered.
const REMEMBERED: usize = 65_536;

#[derive(Default)]
pub(super) struct Zombies {
    remembered: AtomicUsize,
    ended: Mutex<Ended>,
}

#[derive(Default)]
struct Ended {
    /// By the hash of lock and owner.
    at: HashMap<u64, Timestamp>,
    order: VecDeque<(u64, Timestamp)>,
}

impl Zombies {
    /// A lease has ended behind its owner's back.
    pub(super) fn ended(&self, lock_and_owner: u64, at: Timestamp) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.order.len() == REMEMBERED
            && let Some((oldest, then)) = ended.order.pop_front()
            && ended.at.get(&oldest) == Some(&then)
        {
            ended.at.remove(&oldest);
        }
        ended.at.insert(lock_and_owner, at);
        ended.order.push_back((lock_and_owner, at));
        self.remembered.store(ended.at.len(), Ordering::Relaxed);
    }

    /// The owner wants to release or renew what it does not hold: when its lease ended, if it had one. Told once.
    pub(super) fn came_back(&self, lock_and_owner: impl FnOnce() -> u64) -> Option<Timestamp> {
        if self.remembered.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let at = ended.at.remove(&lock_and_owner());
        self.remembered.store(ended.at.len(), Ordering::Relaxed);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_ends_are_remembered_and_told_once() {
        let zombies = Zombies::default();
        let at = Timestamp::from_nanos;
        for n in 0..REMEMBERED as u64 + 10 {
            zombies.ended(n, at(n));
        }
        assert_eq!(zombies.came_back(|| 9), None);
        assert_eq!(zombies.came_back(|| 10), Some(at(10)));
        assert_eq!(zombies.came_back(|| 10), None);
        zombies.ended(10, at(99));
        // What made room was the first end of 11, not the second one of 10.
        assert_eq!(zombies.came_back(|| 10), Some(at(99)));
        assert_eq!(zombies.ended.lock().unwrap().order.len(), REMEMBERED);
    }
}
