//! The operations: one at a time, or several as one.
//!
//! Promise: what is returned with a [`Seq`] must not be told before [`Engine::barrier`] of it. Between two operations of
//! an access that is alone ([`Engine::alone`]) nobody else's happens, and all of them land in one commit.
//! Absent: protocols, and the rules of locks.

use std::collections::VecDeque;
use std::sync::{Arc, RwLockWriteGuard};

use super::sessions::Session;
use super::table::{Guarded, Table};
use super::waiters::Parked;
use super::{Engine, Event, EventKind, Unavailable, Verdict};
use crate::journal::{Group, Journal, JournalError, Record, Renewal, Seq, SessionRecord, StoredLease};
use crate::lock::{
    self, Effect, End, FencingToken, Left, LockName, Op, Outcome, SessionId, Slot, Timestamp, Ttl, WaiterId,
};

/// A way to the locks. Never make a second one on the same thread while one is alone.
pub struct Access<'a> {
    engine: &'a Arc<Engine>,
    alone: Option<Alone<'a>>,
}

struct Alone<'a> {
    table: RwLockWriteGuard<'a, Table>,
    _one_commit: Group<'a>,
}

/// What became of a request that may wait.
pub enum Acquired {
    /// Decided at once.
    Now(Outcome, Seq),
    /// In the queue.
    Parked(Parked),
}

enum Retry {
    AfterSessions,
    AfterExpiry,
    Never(Unavailable),
}

impl From<Unavailable> for Retry {
    fn from(why: Unavailable) -> Retry {
        Retry::Never(why)
    }
}

impl Engine {
    /// For single operations. Locks nothing by itself.
    pub fn access(self: &Arc<Self>) -> Access<'_> {
        Access { engine: self, alone: None }
    }

    /// For several operations that nobody may come between. Keeps all others out until it is dropped: be quick.
    pub fn alone(self: &Arc<Self>) -> Access<'_> {
        let table = self.core.write();
        Access { engine: self, alone: Some(Alone { table, _one_commit: self.one_commit() }) }
    }
}

impl<'a> Access<'a> {
    /// The lock manager behind it.
    pub fn engine(&self) -> &'a Arc<Engine> {
        self.engine
    }

    /// Whether nobody else's operations happen meanwhile.
    pub fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    fn with_table<R>(&self, work: impl FnOnce(&Table) -> R) -> R {
        match &self.alone {
            Some(alone) => work(&alone.table),
            None => work(&self.engine.core.read()),
        }
    }

    /// Runs one operation.
    pub fn submit(&self, name: &LockName, op: &Op) -> Result<(Outcome, Seq), Unavailable> {
        self.submit_and_look(name, op, |outcome, _, _| outcome)
    }

    /// Reads a lock as it is now, expired leases left out.
    pub fn read<R>(
        &self,
        name: &LockName,
        read: impl Fn(&Slot, Timestamp) -> R,
    ) -> Result<(R, Seq), Unavailable> {
        self.submit_and_look(name, &Op::Settle, |_, slot, now| read(slot, now))
    }

    /// Runs one operation and looks at the lock as it is then.
    pub fn submit_and_look<R>(
        &self,
        name: &LockName,
        op: &Op,
        look: impl Fn(Outcome, &Slot, Timestamp) -> R,
    ) -> Result<(R, Seq), Unavailable> {
        loop {
            // In a statement of its own: ending sessions needs the table to itself.
            let done = self.with_table(|table| self.engine.run_in(table, name, op, &look));
            match done {
                Err(Retry::AfterSessions) => self.end_due_sessions()?,
                // What has ended and was not swept yet counts no more.
                Err(Retry::AfterExpiry) if self.is_alone() => return Err(Unavailable::AccountMax),
                Err(Retry::AfterExpiry) => drop(self.engine.expire_due()),
                Err(Retry::Never(why)) => return Err(why),
                Ok(done) => return Ok(done),
            }
        }
    }

    /// Asks for a lock and, if it is not free, queues for it until the clock reaches `until`. Alone it does not queue.
    pub fn submit_or_wait(
        &self,
        name: &LockName,
        request: lock::Request,
        until: Timestamp,
    ) -> Result<Acquired, Unavailable> {
        if self.is_alone() {
            let (outcome, seq) = self.submit(name, &Op::Acquire { request, wait: None })?;
            return Ok(Acquired::Now(outcome, seq));
        }
        let waiters = &self.engine.core.waiters;
        let (id, receiver) = waiters.register();
        let op = Op::Acquire { request, wait: Some((id, until)) };
        match self.submit(name, &op) {
            Ok((Outcome::Queued, _)) => {
                let Op::Acquire { request, .. } = op else { unreachable!("made above") };
                let engine = Arc::clone(self.engine);
                Ok(Acquired::Parked(Parked::new(engine, name.clone(), request.owner, id, receiver)))
            }
            done => {
                waiters.forget(id);
                done.map(|(outcome, seq)| Acquired::Now(outcome, seq))
            }
        }
    }

    /// Names held in a database, in the order of a scan from `cursor` (0: the start), about `count` of them, and the
    /// cursor to go on with (0: the end). What is held during the whole scan is returned.
    pub fn scan(
        &self,
        database: u8,
        cursor: u64,
        count: usize,
    ) -> Result<(Vec<LockName>, u64, Seq), Unavailable> {
        self.engine.check_up()?;
        let now = self.engine.core.clock.now();
        let (mut names, mut last, mut next) = (Vec::new(), None, 0);
        // Cursors are 48 bits of the hash: they survive every client's number type.
        let scan = |hash: u64, name: &LockName, slot: &Slot| {
            let position = hash >> 16;
            if names.len() >= count && last != Some(position) {
                next = position;
                return false;
            }
            if name.database() == database && slot.holders().any(|lease| !lease.is_over(now)) {
                names.push(name.clone());
                last = Some(position);
            }
            true
        };
        self.with_table(|table| table.scan(cursor << 16, scan));
        Ok((names, next, self.engine.last()))
    }

    /// All locks of a database that are held, in no order, until `each` answers `false`. A lock that is held during the whole
    /// visit is visited. Slow where there are many, without keeping others out.
    pub fn visit(
        &self,
        database: u8,
        mut each: impl FnMut(&LockName, &Slot, Timestamp) -> bool,
    ) -> Result<Seq, Unavailable> {
        let mut wants_more = true;
        for part in 0..Table::PARTS {
            self.engine.check_up()?;
            let now = self.engine.core.clock.now();
            let visit = |name: &LockName, slot: &Slot| {
                if name.database() == database && slot.holders().any(|lease| !lease.is_over(now)) {
                    wants_more = each(name, slot, now);
                }
                wants_more
            };
            self.with_table(|table| table.scan_part(part, visit));
            if !wants_more {
                break;
            }
        }
        Ok(self.engine.last())
    }

    /// How many locks of a database are held; those that have ended and were not swept yet included.
    pub fn keys_held(&self, database: u8) -> Result<(u64, Seq), Unavailable> {
        self.engine.check_up()?;
        Ok((self.engine.core.census.keys(database), self.engine.last()))
    }

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
        let deadline = self.engine.core.clock.now().after(ttl);
        let sessions = &self.engine.core.sessions;
        if sessions.len() >= self.engine.core.config.sessions_max {
            return Err(Unavailable::SessionsMax);
        }
        if ttl.is_none() {
            sessions.connection(id, true);
        }
        let (name, account) = (name.to_owned(), account.map(Box::from));
        let opened = self.put_session(SessionRecord { id, name, account, ttl, deadline });
        if ttl.is_none() && opened.is_err() {
            sessions.connection(id, false);
        }
        Ok((id, opened?))
    }

    /// Moves the end of a session to its TTL from now. Answers when it ends.
    pub fn keep_alive(&self, id: SessionId) -> Result<(Timestamp, Seq), Unavailable> {
        self.end_due_sessions()?;
        let sessions = &self.engine.core.sessions;
        let mut record = sessions.get(id, |session| session.record.clone()).ok_or(Unavailable::NoSession)?;
        record.deadline = self.engine.core.clock.now().after(record.ttl);
        let deadline = record.deadline;
        let seq = self.put_session(record)?;
        Ok((deadline, seq))
    }

    /// Notes that the connection of a session that is no more opens another one.
    pub fn forget_connection(&self, id: SessionId) {
        self.engine.core.sessions.connection(id, false);
    }

    /// Whether a session is there.
    pub fn has_session(&self, id: SessionId) -> bool {
        self.engine.core.sessions.get(id, |_| ()).is_some()
    }

    /// What is known of a session, and how many locks it has.
    pub fn session(&self, id: SessionId) -> Result<(SessionRecord, usize, Seq), Unavailable> {
        self.end_due_sessions()?;
        let found = self
            .engine
            .core
            .sessions
            .get(id, |session| (session.record.clone(), session.names.len() + session.counted.len()))
            .ok_or(Unavailable::NoSession)?;
        Ok((found.0, found.1, self.engine.last()))
    }

    /// What was known of a session that expired in the last seconds.
    pub fn expired_session(&self, id: SessionId) -> Option<SessionRecord> {
        let core = &self.engine.core;
        core.sessions.expired(core.clock.now(), |session| session.record.id == id)
    }

    /// Whether a session of `account` that expired in the last seconds had a lease of this lock.
    pub fn had_expired_session(&self, account: &str, name: &LockName) -> bool {
        let is_wanted = |session: &Session| {
            session.record.account.as_deref() == Some(account) && session.names.contains(name)
        };
        let core = &self.engine.core;
        core.sessions.expired(core.clock.now(), is_wanted).is_some()
    }

    /// Forgets that a session has expired.
    pub fn forget_session(&self, id: SessionId) {
        self.engine.core.sessions.forget(id);
    }

    /// Ends a session; its locks are released in one commit. `clean`: its owner asked, so no lock-delay is due.
    pub fn close_session(&self, id: SessionId, clean: bool) -> Result<(u32, Seq), Unavailable> {
        self.end_due_sessions()?;
        match &self.alone {
            Some(alone) => self.engine.close_session_in(&alone.table, id, clean),
            None => self.engine.close_session_in(&self.engine.core.write(), id, clean),
        }
    }

    fn put_session(&self, record: SessionRecord) -> Result<Seq, Unavailable> {
        self.with_table(|table| {
            let opened = Record::SessionOpened(record.clone());
            let seq = self.engine.journal().append(table.epoch, [opened]).map_err(Unavailable::Journal)?;
            self.engine.core.sessions.put(record);
            Ok(seq)
        })
    }

    pub(super) fn end_due_sessions(&self) -> Result<(), Unavailable> {
        let core = &self.engine.core;
        while core.sessions.is_any_due(core.clock.now()) {
            let end_one = |table: &Table| match core.sessions.due(core.clock.now()) {
                Some(id) => self.engine.close_session_in(table, id, false).map(|_| ()),
                None => Ok(()),
            };
            match &self.alone {
                Some(alone) => end_one(&alone.table)?,
                None => end_one(&core.write())?,
            }
        }
        Ok(())
    }
}

impl Engine {
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

    fn run_in<R>(
        &self,
        table: &Table,
        name: &LockName,
        op: &Op,
        look: &impl Fn(Outcome, &Slot, Timestamp) -> R,
    ) -> Result<(R, Seq), Retry> {
        let core = &*self.core;
        table.with_slot(core.hash.of(name), name, |mut guarded| {
            // Under the guard: what was changed here before the journal went down is not to be seen.
            self.check_up()?;
            let now = core.clock.now();
            if core.sessions.is_any_due(now) && !matches!(op, Op::EndSession { .. }) {
                return Err(Retry::AfterSessions);
            }
            let account = self.admit(op, guarded.slot, now)?;
            let was_held = guarded.slot.newest().is_some();
            let mut undelivered = VecDeque::new();
            let outcome = self.step(table, name, op, now, &mut guarded, &mut undelivered)?;
            core.census.outcome(&outcome);
            match outcome {
                Outcome::Granted { reentrant: false, .. } => {}
                _ => account.into_iter().for_each(|account| core.quotas.remove(account)),
            }
            if outcome == Outcome::NotHeld {
                self.note_late(op, guarded.hash, now);
            }
            while let Some(op) = undelivered.pop_front() {
                self.step(table, name, &op, now, &mut guarded, &mut undelivered)?;
            }
            core.census.key_changed(name.database(), was_held, guarded.slot.newest().is_some());
            let next = guarded.slot.next_deadline();
            // A deadline that moved away is looked at when the earlier one comes: most leases are renewed more often
            // than that.
            if next < *guarded.armed || *guarded.armed <= now || next == Timestamp::NEVER {
                core.deadlines.rearm(guarded.hash, *guarded.armed, next);
                *guarded.armed = next;
            }
            Ok((look(outcome, guarded.slot, now), guarded.last_change()))
        })
    }

    /// Refuses what would go beyond a limit, before anything changes. Returns the account for which a lease is counted
    /// already, to be taken back if there is no grant.
    fn admit<'o>(&self, op: &'o Op, slot: &Slot, now: Timestamp) -> Result<Option<&'o str>, Retry> {
        let (Op::Acquire { request, .. } | Op::Set { request, .. }) = op else { return Ok(None) };
        for id in [request.session, request.counted_by].into_iter().flatten() {
            if self.core.sessions.get(id, |_| ()).is_none() {
                return Err(Unavailable::NoSession.into());
            }
        }
        if slot.lease_of(&request.owner).is_none() {
            if self.core.census.kept() >= self.core.config.locks_max {
                return Err(Unavailable::LocksMax.into());
            }
            if self.core.tokens.are_exhausted() {
                return Err(Unavailable::TokensExhausted.into());
            }
            if let Op::Acquire { wait: Some(_), .. } = op
                && slot.waiter_count() >= self.core.config.waiters_per_lock_max
            {
                return Err(Unavailable::WaitersMax.into());
            }
            if let Some(account) = request.account.as_deref() {
                if self.core.quotas.reserve(account, self.core.config.leases_per_account_max) {
                    return Ok(Some(account));
                }
                let is_any_due = self.core.deadlines.next() <= now;
                return Err(if is_any_due { Retry::AfterExpiry } else { Unavailable::AccountMax.into() });
            }
        }
        Ok(None)
    }

    /// Counts an owner that comes back after its lease has ended.
    fn note_late(&self, op: &Op, hash: u64, now: Timestamp) {
        let (owner, late) = match op {
            Op::Release { owner, .. } | Op::Delete { if_owner: Some(owner) } => {
                (owner, &self.core.census.late_releases)
            }
            Op::Renew { owner, .. } => (owner, &self.core.census.late_renewals),
            _ => return,
        };
        if let Some(ended) = self.core.zombies.came_back(|| self.core.hash.with_owner(hash, owner)) {
            late.observe(now.nanos_since(ended), 1);
        }
    }

    /// One transition and what follows from it. Grants that reached nobody are given back through `undelivered`.
    fn step(
        &self,
        table: &Table,
        name: &LockName,
        op: &Op,
        now: Timestamp,
        guarded: &mut Guarded<'_>,
        undelivered: &mut VecDeque<Op>,
    ) -> Result<Outcome, Unavailable> {
        let core = &*self.core;
        let mut effects = Vec::new();
        let mut env = EngineEnv { engine: self, epoch: table.epoch };
        let outcome = lock::apply(guarded.slot, op, now, &mut env, &mut effects);
        if effects.is_empty() {
            return Ok(outcome);
        }
        let mut records = Vec::with_capacity(effects.len());
        let mut events = Vec::new();
        let mut verdicts = Vec::new();
        for effect in effects {
            core.census.count(&effect, now);
            if core.events.is_heard() {
                events.extend(event_of(name, &effect));
            }
            match effect {
                Effect::Granted { lease, waiter } => {
                    if let Some(session) = lease.session() {
                        core.sessions.attach(session, name);
                    }
                    if let Some(session) = lease.counted_by() {
                        core.sessions.count(session, name, true);
                    }
                    if let Some((waiter, _)) = waiter {
                        verdicts.push((waiter, Verdict::Granted(lease.token, Seq::default())));
                        // Whoever did not wait was counted when admitted.
                        lease.account().into_iter().for_each(|account| core.quotas.add(account));
                    }
                    records.push(Record::Granted(Box::new(StoredLease { name: name.clone(), lease })));
                }
                Effect::Renewed { token, deadline, lasts, renewals } => {
                    records.push(Record::Renewed(Renewal { token, deadline, lasts, renewals }));
                }
                Effect::Ended { lease, how } => {
                    self.detach(lease.session(), name, guarded.slot);
                    if let Some(session) = lease.counted_by() {
                        core.sessions.count(session, name, false);
                    }
                    lease.account().into_iter().for_each(|account| core.quotas.remove(account));
                    if how.is_unclean() {
                        let at = now.min(lease.deadline);
                        core.zombies.ended(core.hash.with_owner(guarded.hash, &lease.owner), at);
                    }
                    records.push(Record::Ended(lease.token));
                }
                Effect::DelayStarted { delay, .. } => records.push(Record::DelayStarted(name.clone(), delay)),
                Effect::DelayEnded => records.push(Record::DelayEnded(name.clone())),
                Effect::Joined { session, .. } => {
                    if let Some(session) = session {
                        core.sessions.attach(session, name);
                    }
                }
                Effect::WaiterLeft { waiter, session, why } => {
                    let verdict = match why {
                        Left::TimedOut | Left::Gone => Verdict::TimedOut(Seq::default()),
                        Left::SessionEnded => Verdict::SessionEnded(Seq::default()),
                        Left::Replaced => Verdict::Replaced,
                    };
                    verdicts.push((waiter, verdict));
                    self.detach(session, name, guarded.slot);
                }
            }
        }
        // Should this fail, the slot has changed and the journal has not. Nothing is told of it: whoever looks asks
        // first whether the journal is down, and it stays down until this table is replaced.
        let seq = self.journal().append(table.epoch, records).map_err(Unavailable::Journal)?;
        guarded.changed_by(seq);
        core.watches.changed(guarded.hash);
        events.into_iter().for_each(|event| core.events.push(seq, event));
        for (waiter, verdict) in verdicts {
            let is_heard = core.waiters.tell(waiter, verdict.standing_on(seq));
            if let Verdict::Granted(token, _) = verdict
                && !is_heard
                && let Some(lease) = guarded.slot.lease(token)
            {
                undelivered.push_back(Op::GiveBack { owner: lease.owner.clone(), token });
            }
        }
        Ok(outcome)
    }

    fn detach(&self, session: Option<SessionId>, name: &LockName, slot: &Slot) {
        let Some(session) = session else { return };
        let still_there = slot.holders().any(|lease| lease.session() == Some(session))
            || slot.waiters().any(|waiter| waiter.request.session == Some(session));
        if !still_there {
            self.core.sessions.detach(session, name);
        }
    }
}

struct EngineEnv<'a> {
    engine: &'a Engine,
    epoch: u64,
}

impl EngineEnv<'_> {
    fn journal(&self) -> &Journal {
        self.engine.journal()
    }
}

impl lock::Env for EngineEnv<'_> {
    fn take_token(&mut self) -> FencingToken {
        self.engine.core.tokens.take(self.journal(), self.epoch)
    }
    fn deliverable(&mut self, waiter: WaiterId) -> bool {
        self.engine.core.waiters.is_there(waiter)
    }
}

fn event_of(name: &LockName, effect: &Effect) -> Option<Event> {
    let (kind, token, deadline) = match effect {
        Effect::Granted { lease, .. } => (EventKind::Acquired, lease.token, lease.deadline),
        Effect::Renewed { token, deadline, .. } => (EventKind::Renewed, *token, *deadline),
        Effect::Ended { lease, how } => {
            let kind = match how {
                End::Released | End::Session { .. } => EventKind::Released,
                End::Expired => EventKind::Expired,
                End::Forced | End::Replaced => EventKind::Forced,
            };
            (kind, lease.token, lease.deadline)
        }
        _ => return None,
    };
    Some(Event { number: 0, name: name.clone(), kind, token, deadline })
}
