//! The book of sessions: one keepalive for any number of locks.
//!
//! Promise: a session that has ended is never revived; [`Sessions::is_any_due`] is one atomic load, so that every
//! operation can ask before it looks at a lock. Absent: the locks themselves, the journal, clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::Unavailable;
use crate::journal::{Seq, SessionRecord};
use crate::lock::{LockName, SessionId, Timestamp};

/// How long it is remembered that a session has expired.
const REMEMBERED_NS: u64 = 5_000_000_000;
/// Expired sessions remembered.
const REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(in crate::engine) struct Sessions {
    book: Mutex<Book>,
    next_deadline: AtomicU64,
    /// There may be sessions of connections that are gone.
    pub(in crate::engine) has_orphans: AtomicBool,
}

#[derive(Default)]
pub(in crate::engine) struct Book {
    /// The sessions of the connections that are there.
    connections: BTreeSet<SessionId>,
    pub(in crate::engine) sessions: BTreeMap<SessionId, Session>,
    deadlines: BTreeSet<(Timestamp, SessionId)>,
    /// Those that expired lately, and when; the latest last.
    expired: VecDeque<(Timestamp, Session)>,
}

pub(in crate::engine) struct Session {
    pub(in crate::engine) record: SessionRecord,
    /// Locks in which this session has a lease or a waiter.
    pub(in crate::engine) names: BTreeSet<LockName>,
    /// Locks with a lease that only counts as this session's.
    pub(in crate::engine) counted: BTreeSet<LockName>,
}

impl Sessions {
    pub(in crate::engine) fn new() -> Sessions {
        let (book, next_deadline) = (Mutex::default(), AtomicU64::new(u64::MAX));
        // Connections ended with the process before this one.
        Sessions { book, next_deadline, has_orphans: AtomicBool::new(true) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, book: &Book) {
        let next = book.deadlines.first().map_or(u64::MAX, |(deadline, _)| deadline.as_nanos());
        self.next_deadline.store(next, Ordering::Release);
    }

    pub(in crate::engine) fn is_any_due(&self, now: Timestamp) -> bool {
        self.next_deadline.load(Ordering::Acquire) <= now.as_nanos()
    }

    pub(in crate::engine) fn next_deadline(&self) -> Timestamp {
        Timestamp::from_nanos(self.next_deadline.load(Ordering::Acquire))
    }

    pub(in crate::engine) fn due(&self, now: Timestamp) -> Option<SessionId> {
        self.book().deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// Adds a session.
    pub(in crate::engine) fn put(&self, record: SessionRecord) {
        let mut book = self.book();
        let (id, deadline) = (record.id, record.deadline);
        book.sessions.insert(id, Session { record, names: BTreeSet::new(), counted: BTreeSet::new() });
        if deadline != Timestamp::NEVER {
            book.deadlines.insert((deadline, id));
        }
        self.publish(&book);
    }

    /// Moves the end of a session to its TTL from now, in the order in which `journal` is told. `None`: it is over by now,
    /// and is to be ended.
    pub(in crate::engine) fn keep(
        &self,
        id: SessionId,
        now: impl FnOnce() -> Timestamp,
        journal: impl FnOnce(SessionRecord) -> Result<Seq, Unavailable>,
    ) -> Result<Option<(Timestamp, Seq)>, Unavailable> {
        let book = &mut *self.book();
        let session = book.sessions.get_mut(&id).ok_or(Unavailable::NoSession)?;
        let (was, now) = (session.record.deadline, now());
        if was <= now {
            return Ok(None);
        }
        let deadline = now.after(session.record.ttl);
        let seq = journal(SessionRecord { deadline, ..session.record.clone() })?;
        session.record.deadline = deadline;
        if deadline != Timestamp::NEVER {
            book.deadlines.remove(&(was, id));
            book.deadlines.insert((deadline, id));
        }
        self.publish(book);
        Ok(Some((deadline, seq)))
    }

    pub(in crate::engine) fn remove(&self, id: SessionId) -> Option<Session> {
        let mut book = self.book();
        let session = book.sessions.remove(&id)?;
        book.deadlines.remove(&(session.record.deadline, id));
        self.publish(&book);
        Some(session)
    }

    pub(in crate::engine) fn get<R>(&self, id: SessionId, read: impl FnOnce(&Session) -> R) -> Option<R> {
        self.book().sessions.get(&id).map(read)
    }

    pub(in crate::engine) fn attach(&self, id: SessionId, name: &LockName) {
        if let Some(session) = self.book().sessions.get_mut(&id) {
            session.names.insert(name.clone());
        }
    }

    pub(in crate::engine) fn detach(&self, id: SessionId, name: &LockName) {
        if let Some(session) = self.book().sessions.get_mut(&id) {
            session.names.remove(name);
        }
    }

    /// A lease counts as a session's, or does no more.
    pub(in crate::engine) fn count(&self, id: SessionId, name: &LockName, is_held: bool) {
        if let Some(session) = self.book().sessions.get_mut(&id) {
            if is_held {
                session.counted.insert(name.clone());
            } else {
                session.counted.remove(name);
            }
        }
    }

    /// Remembers for a while that a session has expired.
    pub(in crate::engine) fn has_expired(&self, session: Session, now: Timestamp) {
        let mut book = self.book();
        while let Some((at, _)) = book.expired.front()
            && (now.nanos_since(*at) > REMEMBERED_NS || book.expired.len() >= REMEMBERED)
        {
            book.expired.pop_front();
        }
        book.expired.push_back((now, session));
    }

    /// Looks for one that expired lately.
    pub(in crate::engine) fn expired(
        &self,
        now: Timestamp,
        is_wanted: impl Fn(&Session) -> bool,
    ) -> Option<SessionRecord> {
        let book = self.book();
        let lately = book.expired.iter().rev().take_while(|(at, _)| now.nanos_since(*at) <= REMEMBERED_NS);
        lately
            .map(|(_, session)| session)
            .find(|session| is_wanted(session))
            .map(|session| session.record.clone())
    }

    /// Forgets that a session has expired.
    pub(in crate::engine) fn forget(&self, id: SessionId) {
        self.book().expired.retain(|(_, session)| session.record.id != id);
    }

    /// Notes that the connection of a session without a TTL is there, or gone.
    pub(in crate::engine) fn connection(&self, id: SessionId, is_there: bool) {
        let mut book = self.book();
        if is_there {
            book.connections.insert(id);
        } else {
            book.connections.remove(&id);
        }
    }

    /// Sessions without a TTL whose connection is gone.
    pub(in crate::engine) fn orphans(&self) -> Vec<SessionId> {
        let book = self.book();
        let ids = book.sessions.values().filter(|session| session.record.ttl.is_none());
        let ids = ids.map(|session| session.record.id);
        ids.filter(|id| !book.connections.contains(id)).collect()
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.book().sessions.len()
    }

    pub(in crate::engine) fn clear(&self) {
        let mut book = self.book();
        *book = Book { connections: std::mem::take(&mut book.connections), ..Book::default() };
        self.next_deadline.store(u64::MAX, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Ttl;

    #[test]
    fn what_is_over_is_not_kept_and_nothing_is_journaled_for_it() {
        let sessions = Sessions::new();
        let id = SessionId(7);
        let at = |millis: u64| Timestamp::from_nanos(millis * 1_000_000);
        let ttl = Ttl::from_millis(500).ok();
        sessions.put(SessionRecord { id, name: String::new(), account: None, ttl, deadline: at(500) });
        let kept = sessions.keep(id, || at(499), |record| Ok(Seq::from_u64(record.deadline.as_nanos())));
        assert_eq!(kept, Ok(Some((at(999), Seq::from_u64(at(999).as_nanos())))));
        assert_eq!(sessions.keep(id, || at(999), |_| panic!("journaled")), Ok(None));
        assert!(sessions.is_any_due(at(999)) && !sessions.is_any_due(at(998)));
        let other = sessions.keep(SessionId(8), || at(0), |_| panic!("journaled"));
        assert_eq!(other, Err(Unavailable::NoSession));
        // A journal that refuses leaves the end where it was.
        let refused = sessions.keep(id, || at(998), |_| Err(Unavailable::SessionsMax));
        assert_eq!((refused, sessions.next_deadline()), (Err(Unavailable::SessionsMax), at(999)));
    }
}
