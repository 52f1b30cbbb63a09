//! The order in which sessions ended, and how far each lock was checked for them.
//!
//! Guarantees: a lock is checked once for each session that ended, in bounded steps, however many
//! leases and sessions there are. Not here: when a session ends.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::domain::{LockName, SessionId};

/// Sessions for which a lock is checked at once.
const CHECKED_AT_ONCE: usize = 1024;

/// Sessions that are over and still have leases or waiters, in the order in which they ended.
#[derive(Default)]
pub(super) struct Ended {
    /// By the number of their end.
    sessions: BTreeMap<u64, SessionId>,
    last: u64,
    /// Locks that have nothing of the sessions up to this number.
    checked: FxHashMap<LockName, u64>,
}

impl Ended {
    /// Adds a session. Returns the number of its end.
    pub(super) fn push(&mut self, id: SessionId) -> u64 {
        self.last += 1;
        self.sessions.insert(self.last, id);
        self.last
    }

    /// Removes a session that has nothing left.
    pub(super) fn remove(&mut self, number: u64) {
        self.sessions.remove(&number);
        if self.sessions.is_empty() {
            self.checked = FxHashMap::default();
        }
    }

    /// Finds sessions that have leases or waiters in a lock, at most `max`. Returns them, and whether
    /// these are all. Those that are found are found again until the lock has nothing more of them.
    pub(super) fn in_lock(
        &mut self,
        name: &LockName,
        max: usize,
        is_in_lock: impl Fn(SessionId) -> bool,
    ) -> (Vec<SessionId>, bool) {
        let from = self.checked.get(name).copied().unwrap_or(0);
        let mut unchecked = self.sessions.range(from + 1..);
        let (mut found, mut checked) = (Vec::new(), from);
        for (number, id) in unchecked.by_ref().take(CHECKED_AT_ONCE) {
            if is_in_lock(*id) {
                found.push(*id);
            } else if found.is_empty() {
                checked = *number;
            }
            if found.len() == max {
                break;
            }
        }
        let are_all = unchecked.next().is_none() && found.len() < max;
        if checked > from {
            self.checked.insert(name.clone(), checked);
        }
        (found, are_all)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_lock_is_checked_once_for_each_session() {
        const SESSIONS: usize = 10 * CHECKED_AT_ONCE;
        let name = |key: &str| LockName::new(0, key.as_bytes()).expect("a name");
        let mut ended = Ended::default();
        let numbers: Vec<u64> = (0..SESSIONS).map(|n| ended.push(SessionId(n as u128))).collect();
        let mut held = BTreeSet::from([SessionId(9), SessionId(5000), SessionId(5001)]);
        let checks = Cell::new(0);
        let mut freed = Vec::new();
        let mut look = |ended: &mut Ended, held: &mut BTreeSet<SessionId>, max| {
            checks.set(0);
            let (found, are_all) = ended.in_lock(&name("k"), max, |id| {
                checks.set(checks.get() + 1);
                held.contains(&id)
            });
            assert!(checks.get() <= CHECKED_AT_ONCE && found.len() <= max);
            for id in found {
                freed.push(id);
                held.remove(&id);
            }
            are_all
        };
        let mut steps = 1;
        while !look(&mut ended, &mut held, 2) {
            steps += 1;
        }
        assert!(held.is_empty() && (10..16).contains(&steps), "{steps}");
        // From then on, only sessions that end later are looked at.
        assert!(look(&mut ended, &mut held, 2) && checks.get() == 0);
        held.insert(SessionId(7));
        ended.remove(numbers[7]);
        ended.push(SessionId(7));
        assert!(look(&mut ended, &mut held, 2) && checks.get() == 1 && held.is_empty());
        assert_eq!(freed, [9, 5000, 5001, 7].map(SessionId));
        // What is found is found again until it is freed, and each lock is checked by itself.
        for _ in 0..2 {
            assert_eq!(ended.in_lock(&name("other"), 1, |id| id.0 == 0), (vec![SessionId(0)], false));
        }
    }

    #[test]
    fn nothing_is_kept_once_no_session_is_left() {
        let name = LockName::new(0, b"k").expect("a name");
        let mut ended = Ended::default();
        let number = ended.push(SessionId(1));
        assert_eq!(ended.in_lock(&name, 9, |_| false), (vec![], true));
        assert_eq!(ended.checked.len(), 1);
        ended.remove(number);
        assert!(ended.checked.is_empty());
        ended.push(SessionId(2));
        assert_eq!(ended.in_lock(&name, 9, |_| true), (vec![SessionId(2)], true));
    }
}
