//! Sessions: one keepalive for any number of locks.
//!
//! Promise: a session that has ended is never revived; [`Sessions::is_any_due`] is one atomic load, so that every
//! operation can ask before it looks at a lock. Absent: the locks themselves, the journal, clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::journal::SessionRecord;
use crate::lock::{LockName, SessionId, Timestamp};

/// How long it is remembered that a session has expired.
const REMEMBERED_NS: u64 = 5_000_000_000;
/// Expired sessions remembered.
const REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(super) struct Sessions {
    book: Mutex<Book>,
    next_deadline: AtomicU64,
    /// There may be sessions of connections that are gone.
    pub(super) has_orphans: AtomicBool,
}

#[derive(Default)]
pub(super) struct Book {
    /// The sessions of the connections that are there.
    connections: BTreeSet<SessionId>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    deadlines: BTreeSet<(Timestamp, SessionId)>,
    /// Those that expired lately, and when; the latest last.
    expired: VecDeque<(Timestamp, Session)>,
}

pub(super) struct Session {
    pub(super) record: SessionRecord,
    /// Locks in which this session has a lease or a waiter.
    pub(super) names: BTreeSet<LockName>,
    /// Locks with a lease that only counts as this session's.
    pub(super) counted: BTreeSet<LockName>,
}

impl Sessions {
    pub(super) fn new() -> Sessions {
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

    pub(super) fn is_any_due(&self, now: Timestamp) -> bool {
        self.next_deadline.load(Ordering::Acquire) <= now.as_nanos()
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        Timestamp::from_nanos(self.next_deadline.load(Ordering::Acquire))
    }

    pub(super) fn due(&self, now: Timestamp) -> Option<SessionId> {
        self.book().deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// Adds a session, or replaces its record.
    pub(super) fn put(&self, record: SessionRecord) {
        let mut book = self.book();
        let (id, deadline) = (record.id, record.deadline);
        match book.sessions.get_mut(&id) {
            Some(session) => {
                let was = std::mem::replace(&mut session.record, record);
                book.deadlines.remove(&(was.deadline, id));
            }
            None => drop(
                book.sessions
                    .insert(id, Session { record, names: BTreeSet::new(), counted: BTreeSet::new() }),
            ),
        }
        if deadline != Timestamp::NEVER {
            book.deadlines.insert((deadline, id));
        }
        self.publish(&book);
    }

    pub(super) fn remove(&self, id: SessionId) -> Option<Session> {
        let mut book = self.book();
        let session = book.sessions.remove(&id)?;
        book.deadlines.remove(&(session.record.deadline, id));
        self.publish(&book);
        Some(session)
    }

    pub(super) fn get<R>(&self, id: SessionId, read: impl FnOnce(&Session) -> R) -> Option<R> {
        self.book().sessions.get(&id).map(read)
    }

    pub(super) fn attach(&self, id: SessionId, name: &LockName) {
        if let Some(session) = self.book().sessions.get_mut(&id) {
            session.names.insert(name.clone());
        }
    }

    pub(super) fn detach(&self, id: SessionId, name: &LockName) {
        if let Some(session) = self.book().sessions.get_mut(&id) {
            session.names.remove(name);
        }
    }

    /// A lease counts as a session's, or does no more.
    pub(super) fn count(&self, id: SessionId, name: &LockName, is_held: bool) {
        if let Some(session) = self.book().sessions.get_mut(&id) {
            if is_held {
                session.counted.insert(name.clone());
            } else {
                session.counted.remove(name);
            }
        }
    }

    /// Remembers for a while that a session has expired.
    pub(super) fn has_expired(&self, session: Session, now: Timestamp) {
        let mut book = self.book();
        while let Some((at, _)) = book.expired.front()
            && (now.nanos_since(*at) > REMEMBERED_NS || book.expired.len() >= REMEMBERED)
        {
            book.expired.pop_front();
        }
        book.expired.push_back((now, session));
    }

    /// Looks for one that expired lately.
    pub(super) fn expired(
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
    pub(super) fn forget(&self, id: SessionId) {
        self.book().expired.retain(|(_, session)| session.record.id != id);
    }

    /// Notes that the connection of a session without a TTL is there, or gone.
    pub(super) fn connection(&self, id: SessionId, is_there: bool) {
        let mut book = self.book();
        if is_there {
            book.connections.insert(id);
        } else {
            book.connections.remove(&id);
        }
    }

    /// Sessions without a TTL whose connection is gone.
    pub(super) fn orphans(&self) -> Vec<SessionId> {
        let book = self.book();
        let ids = book.sessions.values().filter(|session| session.record.ttl.is_none());
        let ids = ids.map(|session| session.record.id);
        ids.filter(|id| !book.connections.contains(id)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.book().sessions.len()
    }

    pub(super) fn clear(&self) {
        let mut book = self.book();
        *book = Book { connections: std::mem::take(&mut book.connections), ..Book::default() };
        self.next_deadline.store(u64::MAX, Ordering::Release);
    }
}
