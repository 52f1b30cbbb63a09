//! Owners that come back after their lease has ended without them, which is what fencing tokens are
//! for.
//!
//! Guarantees: bounded; costs one atomic load while nothing has ended that way. The
//! latest ends are remembered, not all. Not here: any effect but counts and log lines.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::domain::{FencingToken, Owner, Timestamp};
use crate::lock::Origin;

/// Ends remembered.
const REMEMBERED: usize = 65_536;
/// Longest owner that is remembered, in bytes.
const OWNER_BYTES_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct LateOwners {
    remembered: AtomicUsize,
    ended: Mutex<Ended>,
}

/// A lease that its owner lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    /// When it ended.
    pub(super) at: Timestamp,
    pub(super) token: FencingToken,
    /// Where the holder was, if that is logged.
    pub(super) origin: Option<Arc<Origin>>,
}

#[derive(Default)]
struct Ended {
    /// By the hash of lock and owner.
    lost: HashMap<u64, Lost>,
    order: VecDeque<(u64, Timestamp)>,
}

impl LateOwners {
    /// Whether the end of this owner's lease is remembered. That of a longer one is the value of a
    /// string, and hashing a megabyte takes a millisecond.
    pub(super) fn remembers(owner: &Owner) -> bool {
        owner.as_bytes().len() <= OWNER_BYTES_MAX
    }

    /// A lease has ended behind its owner's back.
    pub(super) fn ended(&self, lock_and_owner: u64, lost: Lost) {
        let mut ended = self.ended.lock();
        if ended.order.len() == REMEMBERED
            && let Some((oldest, then)) = ended.order.pop_front()
            && ended.lost.get(&oldest).is_some_and(|lost| lost.at == then)
        {
            ended.lost.remove(&oldest);
        }
        ended.order.push_back((lock_and_owner, lost.at));
        ended.lost.insert(lock_and_owner, lost);
        self.remembered.store(ended.lost.len(), Ordering::Relaxed);
    }

    /// The owner wants to release or renew what it does not hold: the lease that it lost, if it had
    /// one. Told once.
    pub(super) fn came_back(&self, lock_and_owner: impl FnOnce() -> u64) -> Option<Lost> {
        if self.remembered.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut ended = self.ended.lock();
        let lost = ended.lost.remove(&lock_and_owner());
        self.remembered.store(ended.lost.len(), Ordering::Relaxed);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_ends_are_remembered_and_told_once() {
        let late_owners = LateOwners::default();
        let token = FencingToken::new(1).unwrap();
        let at = |nanos| Lost { at: Timestamp::from_nanos(nanos), token, origin: None };
        for n in 0..REMEMBERED as u64 + 10 {
            late_owners.ended(n, at(n));
        }
        assert_eq!(late_owners.came_back(|| 9), None);
        assert_eq!(late_owners.came_back(|| 10), Some(at(10)));
        assert_eq!(late_owners.came_back(|| 10), None);
        late_owners.ended(10, at(99));
        // What made room was the first end of 11, not the second one of 10.
        assert_eq!(late_owners.came_back(|| 10), Some(at(99)));
        assert_eq!(late_owners.ended.lock().order.len(), REMEMBERED);
    }
}
