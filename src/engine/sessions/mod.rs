//! What is done with sessions.
//!
//! Promise: a session that has ended is never revived, and nobody sees a part of its locks released. Sessions that are
//! due end before whatever is asked next. What one end leads to (a waiter that hears that its own session is over, too) is in
//! one commit with it. Absent: the rules of locks.

mod book;

use self::book::Session;
pub(super) use self::book::Sessions;
use super::access::Retry;
use super::table::Table;
use super::{Access, Engine, Unavailable};
use crate::journal::{JournalError, Record, Seq, SessionRecord};
use crate::lock::{LockName, Op, Outcome, SessionId, Timestamp, Ttl};

impl Access<'_> {
    /// Opens a session that ends `ttl` after its last keepalive; `None`: when [`Engine::connection_is_gone`] says so, or at
    /// the latest when the server stops, as befits the session of a connection.
    /// `account`: whose it is, if that matters.
    pub fn open_session(
        &self,
        name: &str,
        account: Option<&str>,
        ttl: Option<Ttl>,
    ) -> Result<(SessionId, Seq), Unavailable> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            Unavailable::Journal(JournalError::Io { what: format!("no random numbers: {error}") })
        })?;
        let id = SessionId::from_random(bytes);
        let core = &self.engine().core;
        if core.sessions.len() >= core.config.sessions_max {
            return Err(Unavailable::SessionsMax);
        }
        if ttl.is_none() {
            core.sessions.connection(id, true);
        }
        let deadline = core.clock.now().after(ttl);
        let record =
            SessionRecord { id, name: name.to_owned(), account: account.map(Box::from), ttl, deadline };
        let opened = self.with_table(|table| {
            let opened = Record::SessionOpened(record.clone());
            let seq = self.engine().journal().append(table.epoch, [opened]).map_err(Unavailable::Journal)?;
            core.sessions.put(record);
            Ok(seq)
        });
        if ttl.is_none() && opened.is_err() {
            core.sessions.connection(id, false);
        }
        core.deadlines.alarm.armed(deadline);
        Ok((id, opened?))
    }

    /// Moves the end of a session to its TTL from now. Answers when it ends.
    pub fn keep_alive(&self, id: SessionId) -> Result<(Timestamp, Seq), Unavailable> {
        let core = &self.engine().core;
        loop {
            self.end_due_sessions()?;
            let kept = self.with_table(|table| {
                core.sessions.keep(
                    id,
                    || core.clock.now(),
                    |record| {
                        let kept = Record::SessionOpened(record);
                        self.engine().journal().append(table.epoch, [kept]).map_err(Unavailable::Journal)
                    },
                )
            });
            if let Some((deadline, seq)) = kept? {
                core.deadlines.alarm.armed(deadline);
                return Ok((deadline, seq));
            }
        }
    }

    /// Whether a session is there.
    pub fn has_session(&self, id: SessionId) -> bool {
        self.engine().core.sessions.get(id, |_| ()).is_some()
    }

    /// What is known of a session, and how many locks it has.
    pub fn session(&self, id: SessionId) -> Result<(SessionRecord, usize, Seq), Unavailable> {
        self.end_due_sessions()?;
        let read = |session: &Session| (session.record.clone(), session.names.len() + session.counted.len());
        let (record, locks) = self.engine().core.sessions.get(id, read).ok_or(Unavailable::NoSession)?;
        Ok((record, locks, self.engine().last()))
    }

    /// Ends a session; its locks are released in one commit. `clean`: its owner asked, so no lock-delay is due.
    pub fn close_session(&self, id: SessionId, clean: bool) -> Result<(u32, Seq), Unavailable> {
        let _one_commit = self.engine().one_commit();
        self.with_table_alone(|table| {
            self.engine().end_due_sessions_in(table)?;
            let closed = self.engine().close_session_in(table, id, clean)?;
            // One that became due meanwhile may have lost a waiter to this end.
            self.engine().end_due_sessions_in(table)?;
            Ok(closed)
        })
    }

    /// Ends the sessions whose deadline has come.
    pub(super) fn end_due_sessions(&self) -> Result<(), Unavailable> {
        let core = &self.engine().core;
        if !core.sessions.is_any_due(core.clock.now()) {
            return Ok(());
        }
        let _one_commit = self.engine().one_commit();
        self.with_table_alone(|table| self.engine().end_due_sessions_in(table))
    }

    /// What was known of a session that expired in the last seconds.
    pub fn expired_session(&self, id: SessionId) -> Option<SessionRecord> {
        let core = &self.engine().core;
        core.sessions.expired(core.clock.now(), |session| session.record.id == id)
    }

    /// Whether a session of `account` that expired in the last seconds had a lease of this lock.
    pub fn had_expired_session(&self, account: &str, name: &LockName) -> bool {
        let is_wanted = |session: &Session| {
            session.record.account.as_deref() == Some(account) && session.names.contains(name)
        };
        let core = &self.engine().core;
        core.sessions.expired(core.clock.now(), is_wanted).is_some()
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
    fn end_due_sessions_in(&self, table: &Table) -> Result<(), Unavailable> {
        while let Some(id) = self.core.sessions.due(self.core.clock.now()) {
            self.close_session_in(table, id, false)?;
        }
        Ok(())
    }

    /// Needs the table alone: nobody may see a part of a session's locks released.
    fn close_session_in(&self, table: &Table, id: SessionId, clean: bool) -> Result<(u32, Seq), Unavailable> {
        self.check_up()?;
        let session = self.core.sessions.remove(id).ok_or(Unavailable::NoSession)?;
        let _one_commit = self.one_commit();
        let mut released = 0;
        for name in &session.names {
            match self.run_in(table, name, &Op::EndSession { session: id, clean }, &|outcome, _, _| outcome) {
                Ok((Outcome::Released(n), _)) => released += n,
                Ok(_) | Err(Retry::AfterSessions | Retry::AfterExpiry) => {}
                Err(Retry::Never(why)) => return Err(why),
            }
        }
        let ended = [Record::SessionEnded(id)];
        let seq = self.journal().append(table.epoch, ended).map_err(Unavailable::Journal)?;
        let now = self.core.clock.now();
        if session.record.deadline <= now {
            self.core.sessions.has_expired(session, now);
        }
        Ok((released, seq))
    }
}
