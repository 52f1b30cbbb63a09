//! What is done with sessions.
//!
//! Guarantees: a session ends at one instant for everybody, with one record, and is never revived;
//! no reader sees a part of its locks released. What is left to do, lock by lock, is done by the
//! next operation on each of them or in steps by [`Txn::sweep_sessions`], and by recovery if the
//! process ends before. Not here: the rules of locks.

mod ended;
mod expired;
mod table;

use self::table::Session;
pub(super) use self::table::{MemberKind, Members, Sessions};
use super::keyspace::Table;
use super::{Engine, Txn, Unavailable};
use crate::domain::{LockName, SessionId, Timestamp, Ttl};
use crate::journal::{JournalError, Record, Seq, SessionRecord};

/// Locks that the end of a session frees at once; more are freed in steps.
const FREED_AT_ONCE: usize = 256;

impl Txn<'_> {
    /// Opens a session that ends `ttl` after its last keepalive; `None`: when
    /// [`Engine::connection_is_gone`] says so, or at the latest when the server stops, as befits
    /// the session of a connection. `account`: whose it is, if that matters.
    pub fn open_session(
        &self,
        name: &str,
        account: Option<&str>,
        ttl: Option<Ttl>,
    ) -> Result<SessionId, Unavailable> {
        let mut bytes = [0; 16];
        let core = &self.engine().core;
        core.config.entropy.fill(&mut bytes).map_err(|error| JournalError::Io { what: error.to_string() })?;
        let id = SessionId::from_random(bytes);
        if core.sessions.len() >= core.config.sessions_max {
            return Err(self.refuse(Unavailable::SessionsMax));
        }
        if ttl.is_none() {
            core.sessions.connection(id, true);
        }
        let deadline = self.now().after(ttl);
        let record =
            SessionRecord { id, name: name.to_owned(), account: account.map(Box::from), ttl, deadline };
        let opened = self.in_epoch(|table| {
            self.append(table, Record::Session(record.clone()))?;
            core.sessions.put(record);
            Ok(())
        });
        if ttl.is_none() && opened.is_err() {
            core.sessions.connection(id, false);
        }
        core.deadlines.alarm.armed(deadline);
        opened.map(|()| id)
    }

    /// Moves the end of a session to its TTL from now. Returns when it ends.
    pub fn keep_alive(&self, id: SessionId) -> Result<Timestamp, Unavailable> {
        self.engine().check_up()?;
        let core = &self.engine().core;
        let kept = self.in_epoch(|table| {
            core.sessions.keep(id, || self.now(), |record| self.append(table, Record::Session(record)))
        });
        match kept.map_err(|why| self.refuse(why))? {
            Some(deadline) => {
                core.deadlines.alarm.armed(deadline);
                Ok(deadline)
            }
            None => {
                self.end_session(id, false, false)?;
                Err(self.refuse(Unavailable::NoSession))
            }
        }
    }

    /// Whether a session is open.
    pub fn has_session(&self, id: SessionId) -> bool {
        self.engine().core.sessions.get(id, self.now(), |_| ()).is_some()
    }

    /// What is known of a session, and how many locks it has.
    pub fn session(&self, id: SessionId) -> Result<(SessionRecord, usize), Unavailable> {
        let read = |session: &Session| (session.record.clone(), session.locks());
        self.in_epoch(|_| {
            self.engine().check_up()?;
            let found = self.engine().core.sessions.get(id, self.now(), read);
            self.observe(self.engine().last());
            found.ok_or(Unavailable::NoSession)
        })
    }

    /// Ends a session and, at the same instant, all its leases. Answers how many these were; if
    /// there are more than `FREED_AT_ONCE` locks, leases count that reached their own deadline just
    /// now and were not swept. `clean`: its owner asked, so no lock-delay is due.
    pub fn close_session(&self, id: SessionId, clean: bool) -> Result<u32, Unavailable> {
        let is_over = !self.has_session(id);
        let ended = self.end_session(id, clean, true)?;
        // All of it depends on the end of the session alone.
        self.observe(ended.ok_or_else(|| self.refuse(Unavailable::NoSession))?);
        let sessions = &self.engine().core.sessions;
        let swept = self.free_some(sessions.to_free(Some(id), FREED_AT_ONCE), FREED_AT_ONCE);
        let freed = sessions.freed(id);
        swept?;
        if is_over {
            return Err(self.refuse(Unavailable::NoSession));
        }
        Ok(freed.released + freed.left)
    }

    /// Journals a change to a session.
    fn append(&self, table: &Table, record: Record) -> Result<(), Unavailable> {
        let seq = self.engine().journal().append(table.epoch, [record])?;
        self.observe(seq);
        Ok(())
    }

    /// Ends a session for everybody. `None`: there is none that is open.
    fn end_session(
        &self,
        id: SessionId,
        is_clean: bool,
        is_awaited: bool,
    ) -> Result<Option<Seq>, Unavailable> {
        let ended =
            self.in_epoch(|table| self.engine().end_session_in(table, id, is_clean, is_awaited, self.now()));
        // Its locks are to be freed.
        self.engine().core.deadlines.alarm.armed(Timestamp::default());
        ended
    }

    /// Ends sessions whose deadline has come, and frees locks of those that are over: at most `max`
    /// of each, and no more once about as many leases were freed.
    pub(super) fn sweep_sessions(&self, max: usize) -> Result<(), Unavailable> {
        let (sessions, now) = (&self.engine().core.sessions, self.now());
        sessions.forget_old(now);
        if !sessions.may_be_over(now) {
            return Ok(());
        }
        for _ in 0..max {
            let Some(id) = sessions.due(now) else { break };
            self.end_session(id, false, false)?;
        }
        self.free_some(sessions.to_free(None, max), max)
    }

    /// Frees some locks of sessions that are over, until about `max` leases are freed.
    fn free_some(&self, locks: Vec<(SessionId, LockName)>, max: usize) -> Result<(), Unavailable> {
        let before = self.work();
        for (id, name) in locks {
            if self.work() - before >= max {
                break;
            }
            self.free(id, &name)?;
        }
        Ok(())
    }

    /// Frees one lock of what ended with a session, or, if much has ended, a part of it.
    fn free(&self, id: SessionId, name: &LockName) -> Result<(), Unavailable> {
        let epoch = self.with_table(|table| table.epoch)?;
        match self.free_in_steps(name, 1) {
            Ok(()) => {}
            Err(Unavailable::Unsettled) => return Ok(()),
            Err(other) => return Err(other),
        }
        self.with_table(|table| {
            // After a rebuild the session may have the lock again.
            if table.epoch == epoch {
                self.engine().core.sessions.is_freed(id, name);
            }
        })
    }

    /// What was known of a session that expired in the last seconds.
    pub fn expired_session(&self, id: SessionId) -> Option<SessionRecord> {
        if !self.has_session(id) {
            // One that is due has expired, swept or not. If the journal is down it is not known.
            self.end_session(id, false, false).ok()?;
        }
        let expired = self.engine().core.sessions.expired(id, self.now());
        self.observe_all().ok()?;
        expired
    }

    /// Whether a session of `account` that expired in the last seconds had a lease of this lock.
    pub fn had_expired_session(&self, account: &str, name: &LockName) -> Result<bool, Unavailable> {
        // A lock is known once it is freed of the session.
        self.free_ended(name)?;
        let had = self.engine().core.sessions.has_expired(account, name, self.now());
        self.observe_all().map(|()| had)
    }

    /// Forgets that a session has expired.
    pub fn forget_session(&self, id: SessionId) {
        self.engine().core.sessions.forget(id);
    }

    /// Notes that the connection of a session that is no more opens another one.
    pub fn forget_connection(&self, id: SessionId) {
        self.engine().core.sessions.connection(id, false);
    }
}

impl Engine {
    /// Ends a session for everybody. Does not need the table alone: there is one instant at which
    /// it is over.
    pub(super) fn end_session_in(
        &self,
        table: &Table,
        id: SessionId,
        is_clean: bool,
        is_awaited: bool,
        now: Timestamp,
    ) -> Result<Option<Seq>, Unavailable> {
        self.check_up()?;
        self.core.sessions.end(id, is_clean, is_awaited, now, || {
            let ended = [Record::SessionEnded(id)];
            self.journal().append(table.epoch, ended).map_err(Unavailable::from)
        })
    }
}
