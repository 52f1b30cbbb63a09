//! The table of sessions: one keepalive for any number of locks.
//!
//! Guarantees: a session that has ended is never revived. It ends at one instant for everybody,
//! with one record, whatever it holds: from then on [`Sessions::is_over`] says so, and its locks
//! are freed by the next operation on each of them, or by a sweep, in steps.
//! [`Sessions::may_be_over`] is two atomic loads, so that every operation can ask before it looks
//! at a lock. Not here: the locks themselves, the journal, clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::ended::Ended;
use super::expired::Expired;
use crate::domain::{LockName, SessionId, Timestamp};
use crate::engine::Unavailable;
use crate::journal::{Seq, SessionRecord};
use crate::lock::Slot;

/// Leases and waiters of a lock, or sessions whose deadline has come, that are checked one by one in
/// each operation.
const MEMBERS_CHECKED: usize = 64;
/// Sessions that are found to be over at once.
const FOUND_AT_ONCE: usize = 256;

#[derive(Default)]
pub(in crate::engine) struct Sessions {
    table: Mutex<SessionTable>,
    next_deadline: AtomicU64,
    /// Sessions that are over and have locks which were not freed yet.
    ending: AtomicUsize,
    /// When the first of the expired sessions is to be forgotten.
    forget_at: AtomicU64,
}

#[derive(Default)]
struct SessionTable {
    /// The sessions of the connections that are there.
    connections: BTreeSet<SessionId>,
    sessions: BTreeMap<SessionId, Session>,
    deadlines: BTreeSet<(Timestamp, SessionId)>,
    /// Those without a TTL whose connection is gone, or was one of the process before this one.
    orphans: BTreeSet<SessionId>,
    /// Those that are over and still have leases or waiters.
    ending: BTreeMap<SessionId, Ending>,
    /// The order in which these ended.
    ended: Ended,
    expired: Expired,
}

/// A session that is open.
pub(in crate::engine) struct Session {
    pub(in crate::engine) record: SessionRecord,
    /// Locks in which this session has leases or waiters.
    names: BTreeMap<LockName, MemberCounts>,
    /// Leases that end with this session.
    leases: u32,
    /// Locks with a lease that only counts as this session's.
    counted: BTreeSet<LockName>,
}

/// A session that is over, and what is still to be freed.
#[derive(Default)]
struct Ending {
    /// Its number in [`SessionTable::ended`].
    number: u64,
    names: BTreeMap<LockName, MemberCounts>,
    is_clean: bool,
    leases: u32,
    released: u32,
    /// Its owner waits to be told how many leases it released.
    is_awaited: bool,
}

/// A lock that is checked for sessions that are over.
pub(in crate::engine) struct Members<'a> {
    pub(in crate::engine) name: &'a LockName,
    pub(in crate::engine) slot: &'a Slot,
}

/// The sessions that [`Sessions::over`] has found.
pub(in crate::engine) struct Over {
    pub(in crate::engine) sessions: Vec<SessionId>,
    /// The lock has nothing of any other session that is over.
    pub(in crate::engine) are_all: bool,
}

/// What a session has in one lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct MemberCounts {
    leases: u32,
    waiters: u32,
}

/// What a lock gives to, or takes from, a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum MemberKind {
    Lease,
    Waiter,
}

/// How far the locks of a session that is over are freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Freed {
    pub(in crate::engine) released: u32,
    pub(in crate::engine) left: u32,
}

impl Sessions {
    pub(in crate::engine) fn new() -> Sessions {
        Sessions {
            table: Mutex::default(),
            next_deadline: AtomicU64::new(u64::MAX),
            ending: AtomicUsize::new(0),
            forget_at: AtomicU64::new(u64::MAX),
        }
    }

    fn table(&self) -> MutexGuard<'_, SessionTable> {
        self.table.lock()
    }

    fn publish(&self, table: &SessionTable) {
        let next = table.deadlines.first().map_or(u64::MAX, |(deadline, _)| deadline.as_nanos());
        self.ending.store(table.ending.len(), Ordering::Release);
        self.forget_at.store(table.expired.forget_at(), Ordering::Release);
        self.next_deadline.store(next, Ordering::Release);
    }

    /// Whether there is any session that is over and may have locks.
    pub(in crate::engine) fn may_be_over(&self, now: Timestamp) -> bool {
        self.next_deadline.load(Ordering::Acquire) <= now.as_nanos()
            || self.ending.load(Ordering::Acquire) > 0
    }

    /// When there is something to sweep; [`Timestamp::default`]: at once.
    pub(in crate::engine) fn next_sweep(&self) -> Timestamp {
        if self.ending.load(Ordering::Acquire) > 0 {
            return Timestamp::default();
        }
        let forget_at = self.forget_at.load(Ordering::Acquire);
        Timestamp::from_nanos(self.next_deadline.load(Ordering::Acquire).min(forget_at))
    }

    /// A session whose deadline has come.
    pub(in crate::engine) fn due(&self, now: Timestamp) -> Option<SessionId> {
        self.table().deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// Whether a session is over at `now`, whether or not it was ended; one that never was is over,
    /// too.
    pub(in crate::engine) fn is_over(&self, id: SessionId, now: Timestamp) -> bool {
        self.table().is_over(id, now)
    }

    /// Finds sessions that are over and may have leases or waiters in a lock. Does little, however
    /// many sessions are over: the rest is found by further calls, once those that were returned have
    /// ended and have nothing more in the lock.
    pub(in crate::engine) fn over(&self, now: Timestamp, lock: &Members<'_>) -> Over {
        let table = &mut *self.table();
        if lock.slot.session_members() <= MEMBERS_CHECKED {
            let over: BTreeSet<SessionId> =
                lock.slot.sessions().filter(|id| table.is_over(*id, now)).collect();
            return Over { sessions: over.into_iter().collect(), are_all: true };
        }
        let due = table.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| *id);
        let mut due: Vec<SessionId> = due.take(FOUND_AT_ONCE).collect();
        if due.len() > MEMBERS_CHECKED {
            // They end whether or not they are in the lock, and are not checked again.
            return Over { sessions: due, are_all: false };
        }
        let is_in_lock = |id| lock.slot.has_session(id);
        due.retain(|id| is_in_lock(*id));
        let (ended, are_all) = table.ended.in_lock(lock.name, FOUND_AT_ONCE, is_in_lock);
        due.extend(ended);
        Over { sessions: due, are_all }
    }

    /// Adds a session.
    pub(in crate::engine) fn put(&self, record: SessionRecord) {
        let mut table = self.table();
        let (id, deadline) = (record.id, record.deadline);
        let (names, counted) = (BTreeMap::new(), BTreeSet::new());
        if record.ttl.is_none() && !table.connections.contains(&id) {
            table.orphans.insert(id);
        }
        table.sessions.insert(id, Session { record, names, leases: 0, counted });
        if deadline != Timestamp::NEVER {
            table.deadlines.insert((deadline, id));
        }
        self.publish(&table);
    }

    /// Moves the end of a session to its TTL from now, in the order of the calls of `journal`.
    /// `None`: it is over by now, and is to be ended.
    pub(in crate::engine) fn keep(
        &self,
        id: SessionId,
        now: impl FnOnce() -> Timestamp,
        journal: impl FnOnce(SessionRecord) -> Result<(), Unavailable>,
    ) -> Result<Option<Timestamp>, Unavailable> {
        let table = &mut *self.table();
        let session = table.sessions.get_mut(&id).ok_or(Unavailable::NoSession)?;
        let (was, now) = (session.record.deadline, now());
        if was <= now {
            return Ok(None);
        }
        let deadline = now.after(session.record.ttl);
        journal(SessionRecord { deadline, ..session.record.clone() })?;
        session.record.deadline = deadline;
        if deadline != Timestamp::NEVER {
            table.deadlines.remove(&(was, id));
            table.deadlines.insert((deadline, id));
        }
        self.publish(table);
        Ok(Some(deadline))
    }

    /// Ends a session for everybody, once `journal` has its end: before that of any of its leases.
    /// `None`: there is none of this id that is open. `is_clean`: its owner asked, so no lock-delay
    /// is due. `is_awaited`: [`Sessions::freed`] follows.
    pub(in crate::engine) fn end(
        &self,
        id: SessionId,
        is_clean: bool,
        is_awaited: bool,
        now: Timestamp,
        journal: impl FnOnce() -> Result<Seq, Unavailable>,
    ) -> Result<Option<Seq>, Unavailable> {
        let table = &mut *self.table();
        let Some(session) = table.sessions.get(&id) else { return Ok(None) };
        let deadline = session.record.deadline;
        let seq = journal()?;
        let Some(Session { record, names, leases, .. }) = table.sessions.remove(&id) else { return Ok(None) };
        table.deadlines.remove(&(deadline, id));
        table.orphans.remove(&id);
        let is_expired = deadline <= now;
        if is_expired {
            table.expired.remember(record, now);
        }
        if !names.is_empty() {
            let is_clean = is_clean && !is_expired;
            let number = table.ended.push(id);
            table.ending.insert(id, Ending { number, names, is_clean, leases, released: 0, is_awaited });
        }
        self.publish(table);
        Ok(Some(seq))
    }

    /// Whether the owner of a session that is over asked for its end.
    pub(in crate::engine) fn ended_cleanly(&self, id: SessionId) -> bool {
        self.table().ending.get(&id).is_some_and(|ending| ending.is_clean)
    }

    /// Some locks of sessions that are over, at most `max`; of session `of`, if one is named.
    pub(in crate::engine) fn to_free(&self, of: Option<SessionId>, max: usize) -> Vec<(SessionId, LockName)> {
        let table = self.table();
        let all = match of {
            Some(id) => table.ending.range(id..=id),
            None => table.ending.range(..),
        };
        all.flat_map(|(id, ending)| ending.names.keys().map(|name| (*id, name.clone()))).take(max).collect()
    }

    /// How far a session that is over is freed. The rest is freed later.
    pub(in crate::engine) fn freed(&self, id: SessionId) -> Freed {
        let table = &mut *self.table();
        let Some(ending) = table.ending.get_mut(&id) else { return Freed { released: 0, left: 0 } };
        ending.is_awaited = false;
        let freed = Freed { released: ending.released, left: ending.leases };
        self.drop_if_freed(table, id);
        freed
    }

    /// Forgets a session that is over, if nothing is left of it.
    fn drop_if_freed(&self, table: &mut SessionTable, id: SessionId) {
        if table.ending.get(&id).is_some_and(|ending| ending.names.is_empty() && !ending.is_awaited) {
            let ending = table.ending.remove(&id);
            ending.into_iter().for_each(|ending| table.ended.remove(ending.number));
            self.publish(table);
        }
    }

    /// Reads a session that is open at `now`.
    pub(in crate::engine) fn get<R>(
        &self,
        id: SessionId,
        now: Timestamp,
        read: impl FnOnce(&Session) -> R,
    ) -> Option<R> {
        self.table().sessions.get(&id).filter(|session| session.record.deadline > now).map(read)
    }

    /// Adds a lease or waiter of a lock that ends with a session. Returns whether the session is
    /// over already, so that it is to be freed: the session may have ended after the request was
    /// admitted, or, in a recovered lock, its end was committed before that of the lease.
    pub(in crate::engine) fn attach(&self, id: SessionId, name: &LockName, what: MemberKind) -> bool {
        let table = &mut *self.table();
        let is_over = !table.sessions.contains_key(&id);
        let (names, leases) = match table.sessions.get_mut(&id) {
            Some(session) => (&mut session.names, &mut session.leases),
            None => {
                let ending = table.ending.entry(id).or_default();
                // The lock may have been checked for this session.
                table.ended.remove(ending.number);
                ending.number = table.ended.push(id);
                (&mut ending.names, &mut ending.leases)
            }
        };
        let uses = match names.get_mut(name) {
            Some(uses) => uses,
            None => names.entry(name.clone()).or_default(),
        };
        match what {
            MemberKind::Lease => {
                uses.leases += 1;
                *leases += 1;
            }
            MemberKind::Waiter => uses.waiters += 1,
        }
        if is_over {
            self.publish(table);
        }
        is_over
    }

    /// A lock has one lease or waiter less that ends with a session.
    pub(in crate::engine) fn detach(&self, id: SessionId, name: &LockName, what: MemberKind) {
        let table = &mut *self.table();
        let (names, leases) = match (table.sessions.get_mut(&id), table.ending.get_mut(&id)) {
            (Some(session), _) => (&mut session.names, &mut session.leases),
            (None, Some(ending)) => {
                if what == MemberKind::Lease {
                    ending.released += 1;
                    table.expired.freed(id, name);
                }
                (&mut ending.names, &mut ending.leases)
            }
            (None, None) => return,
        };
        if let Some(uses) = names.get_mut(name) {
            match what {
                MemberKind::Lease => {
                    uses.leases = uses.leases.saturating_sub(1);
                    *leases = leases.saturating_sub(1);
                }
                MemberKind::Waiter => uses.waiters = uses.waiters.saturating_sub(1),
            }
            if *uses == MemberCounts::default() {
                names.remove(name);
            }
        }
        self.drop_if_freed(table, id);
    }

    /// A lock has nothing more of a session that is over.
    pub(in crate::engine) fn is_freed(&self, id: SessionId, name: &LockName) {
        let table = &mut *self.table();
        if let Some(ending) = table.ending.get_mut(&id) {
            ending.names.remove(name);
        }
        self.drop_if_freed(table, id);
    }

    /// A lease counts as a session's, or does no more.
    pub(in crate::engine) fn count(&self, id: SessionId, name: &LockName, is_held: bool) {
        if let Some(session) = self.table().sessions.get_mut(&id) {
            if is_held {
                session.counted.insert(name.clone());
            } else {
                session.counted.remove(name);
            }
        }
    }

    /// Forgets a part of what expired too long ago.
    pub(in crate::engine) fn forget_old(&self, now: Timestamp) {
        if self.forget_at.load(Ordering::Acquire) <= now.as_nanos() {
            let table = &mut *self.table();
            table.expired.forget_old(now);
            self.publish(table);
        }
    }

    /// One that expired lately.
    pub(in crate::engine) fn expired(&self, id: SessionId, now: Timestamp) -> Option<SessionRecord> {
        let table = &mut *self.table();
        table.expired.forget_old(now);
        table.expired.get(id, now).cloned()
    }

    /// Whether a session of `account` that expired lately had this lock, which has been freed of it
    /// since.
    pub(in crate::engine) fn has_expired(&self, account: &str, name: &LockName, now: Timestamp) -> bool {
        let table = &mut *self.table();
        table.expired.forget_old(now);
        table.expired.had(account, name, now)
    }

    /// Forgets that a session has expired.
    pub(in crate::engine) fn forget(&self, id: SessionId) {
        self.table().expired.forget(id);
    }

    /// Notes that the connection of a session without a TTL is there, or gone.
    pub(in crate::engine) fn connection(&self, id: SessionId, is_there: bool) {
        let mut table = self.table();
        if is_there {
            table.connections.insert(id);
            table.orphans.remove(&id);
        } else if table.connections.remove(&id) && table.sessions.contains_key(&id) {
            table.orphans.insert(id);
        }
    }

    /// Some sessions whose connection is gone, at most `max`.
    pub(in crate::engine) fn orphans(&self, max: usize) -> Vec<SessionId> {
        self.table().orphans.iter().take(max).copied().collect()
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.table().sessions.len()
    }

    pub(in crate::engine) fn clear(&self) {
        let mut table = self.table();
        let old = std::mem::take(&mut *table);
        table.connections = old.connections;
        self.publish(&table);
    }
}

impl SessionTable {
    fn is_over(&self, id: SessionId, now: Timestamp) -> bool {
        self.sessions.get(&id).is_none_or(|session| session.record.deadline <= now)
    }
}

impl Session {
    /// How many locks it has, those included that only count as its own.
    pub(in crate::engine) fn locks(&self) -> usize {
        self.names.len() + self.counted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::expired::{FORGOTTEN_AT_ONCE, REMEMBERED_NS};
    use super::*;
    use crate::domain::Ttl;

    #[test]
    fn a_lease_that_is_granted_while_its_session_ends_is_to_be_freed() {
        let sessions = Sessions::new();
        let (id, name) = (SessionId(7), LockName::new(0, b"k").expect("a name"));
        let deadline = Timestamp::NEVER;
        sessions.put(SessionRecord { id, name: String::new(), account: None, ttl: None, deadline });
        // The request was admitted before this, and its lease is added after it.
        let ended = sessions.end(id, true, false, Timestamp::default(), || Ok(Seq::default()));
        assert_eq!(ended, Ok(Some(Seq::default())));
        assert!(!sessions.may_be_over(Timestamp::default()), "nothing is left of it");
        assert!(sessions.attach(id, &name, MemberKind::Lease), "it is over");
        assert!(sessions.may_be_over(Timestamp::default()));
        assert_eq!(sessions.to_free(None, 9), [(id, name.clone())]);
        sessions.detach(id, &name, MemberKind::Lease);
        assert!(!sessions.may_be_over(Timestamp::default()) && sessions.to_free(None, 9).is_empty());
    }

    #[test]
    fn what_is_over_is_not_kept_and_nothing_is_journaled_for_it() {
        let sessions = Sessions::new();
        let id = SessionId(7);
        let at = |millis: u64| Timestamp::from_nanos(millis * 1_000_000);
        let ttl = Ttl::from_millis(500).ok();
        sessions.put(SessionRecord { id, name: String::new(), account: None, ttl, deadline: at(500) });
        let kept = sessions.keep(
            id,
            || at(499),
            |record| {
                assert_eq!(record.deadline, at(999));
                Ok(())
            },
        );
        assert_eq!(kept, Ok(Some(at(999))));
        assert_eq!(sessions.keep(id, || at(999), |_| panic!("journaled")), Ok(None));
        assert!(sessions.may_be_over(at(999)) && !sessions.may_be_over(at(998)));
        let other = sessions.keep(SessionId(8), || at(0), |_| panic!("journaled"));
        assert_eq!(other, Err(Unavailable::NoSession));
        // A journal that refuses leaves the end where it was.
        let refused = sessions.keep(id, || at(998), |_| Err(Unavailable::SessionsMax));
        assert_eq!((refused, sessions.next_sweep()), (Err(Unavailable::SessionsMax), at(999)));
    }

    #[test]
    fn expired_sessions_and_their_locks_are_remembered_for_a_while_and_forgotten_in_parts() {
        let sessions = Sessions::new();
        let at = |millis: u64| Timestamp::from_nanos(millis * 1_000_000);
        let name = |n: u128| LockName::new(0, format!("k{n}").as_bytes()).expect("a name");
        let had = |account: &str, n, now| sessions.has_expired(account, &name(n), now);
        let (count, ttl) = (3 * FORGOTTEN_AT_ONCE as u128, Ttl::from_millis(100).ok());
        for n in 0..count {
            let (id, account) = (SessionId(n), Some("web".into()));
            let record = SessionRecord { id, name: String::new(), account, ttl, deadline: at(100) };
            sessions.put(record);
            sessions.attach(id, &name(n), MemberKind::Lease);
            assert_eq!(
                sessions.end(id, false, false, at(100), || Ok(Seq::default())),
                Ok(Some(Seq::default()))
            );
            assert!(!had("web", n, at(100)), "the lock is not freed yet");
            sessions.detach(id, &name(n), MemberKind::Lease);
        }
        let last = at(100 + REMEMBERED_NS / 1_000_000);
        assert!(had("web", 0, last) && had("web", count - 1, last));
        assert!(!had("other", 0, last) && !had("web", count, last));
        sessions.forget(SessionId(0));
        assert!(!had("web", 0, last) && sessions.expired(SessionId(0), last).is_none());
        assert!(sessions.expired(SessionId(1), last).is_some());
        // From then on it is forgotten for all, and freed in parts.
        let later = last.after(Ttl::from_millis(1).ok());
        let left = || sessions.table().expired.locks.len();
        assert!(!had("web", 1, later) && left() > 0);
        assert!(sessions.expired(SessionId(1), later).is_none());
        while left() > 0 {
            assert!(sessions.next_sweep() <= later);
            let before = left();
            sessions.forget_old(later);
            assert!((1..=FORGOTTEN_AT_ONCE).contains(&(before - left())));
        }
        assert_eq!(sessions.next_sweep(), Timestamp::NEVER);
    }
}
