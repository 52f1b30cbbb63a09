//! Sessions that expired lately.
//!
//! Guarantees: what is remembered is bounded in number and time, and each call does little, however
//! much that is. Not here: open sessions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::domain::{LockName, SessionId, Timestamp};
use crate::journal::SessionRecord;

/// How long it is remembered that a session has expired.
pub(super) const REMEMBERED_NS: u64 = 5_000_000_000;
/// Expired sessions remembered, and locks that all of them together had.
const REMEMBERED: usize = 10_000;
/// Entries forgotten at once, which bounds how long the table is locked.
pub(super) const FORGOTTEN_AT_ONCE: usize = 256;

/// Sessions of accounts that expired lately, and the locks that were freed of them since. Bounded
/// in number and time. Each call does little, however much is remembered.
#[derive(Default)]
pub(super) struct Expired {
    sessions: BTreeMap<SessionId, ExpiredSession>,
    /// The latest last. What was forgotten early may be here still.
    order: VecDeque<SessionId>,
    pub(super) locks: BTreeSet<ExpiredLock>,
    /// The latest last.
    locks_order: VecDeque<ExpiredLock>,
}

struct ExpiredSession {
    record: SessionRecord,
    at: Timestamp,
}

/// A lock of which a lease ended with a session, and the account of that.
type ExpiredLock = (LockName, Box<str>, SessionId);

impl ExpiredSession {
    fn is_remembered(&self, now: Timestamp) -> bool {
        now.nanos_since(self.at) <= REMEMBERED_NS
    }
}

impl Expired {
    pub(super) fn remember(&mut self, record: SessionRecord, now: Timestamp) {
        // Only users of HTTP ask for it, and each has an account.
        if record.account.is_none() {
            return;
        }
        self.forget_old(now);
        if self.order.len() >= REMEMBERED {
            self.forget_first();
        }
        self.order.push_back(record.id);
        self.sessions.insert(record.id, ExpiredSession { record, at: now });
    }

    /// Remembers a lock that was freed of a session that is over.
    pub(super) fn freed(&mut self, id: SessionId, name: &LockName) {
        let session = self.sessions.get(&id);
        let Some(account) = session.and_then(|session| session.record.account.clone()) else { return };
        if self.locks_order.len() >= REMEMBERED {
            self.forget_first_lock();
        }
        let lock = (name.clone(), account, id);
        if self.locks.insert(lock.clone()) {
            self.locks_order.push_back(lock);
        }
    }

    pub(super) fn get(&self, id: SessionId, now: Timestamp) -> Option<&SessionRecord> {
        let session = self.sessions.get(&id).filter(|session| session.is_remembered(now))?;
        Some(&session.record)
    }

    /// Whether a session of `account` had this lock.
    pub(super) fn had(&self, account: &str, name: &LockName, now: Timestamp) -> bool {
        let lock = |id| (name.clone(), account.into(), SessionId(id));
        self.locks.range(lock(u128::MIN)..=lock(u128::MAX)).any(|(.., id)| self.get(*id, now).is_some())
    }

    pub(super) fn forget(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    fn forget_first(&mut self) {
        if let Some(id) = self.order.pop_front() {
            self.forget(id);
        }
    }

    fn forget_first_lock(&mut self) {
        if let Some(lock) = self.locks_order.pop_front() {
            self.locks.remove(&lock);
        }
    }

    /// Forgets a part of what expired too long ago.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some(first) = self.order.front() else { break };
            if self.get(*first, now).is_some() {
                break;
            }
            self.forget_first();
        }
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((.., id)) = self.locks_order.front() else { break };
            if self.get(*id, now).is_some() {
                break;
            }
            self.forget_first_lock();
        }
    }

    /// When there is something to forget.
    pub(super) fn forget_at(&self) -> u64 {
        let first = self.order.front().into_iter().chain(self.locks_order.front().map(|(.., id)| id));
        let at = |id: &SessionId| self.sessions.get(id).map_or(0, |s| s.at.as_nanos() + REMEMBERED_NS + 1);
        first.map(at).min().unwrap_or(u64::MAX)
    }
}
