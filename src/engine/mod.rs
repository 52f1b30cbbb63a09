//! The lock manager: runs the transitions of [`crate::lock`] under a guard of the table, and carries their
//! effects out: journal, waiters, sessions, expiry.
//!
//! Promise: what is returned with a [`Seq`] must not be told before [`Engine::barrier`] of it. Sequence numbers are
//! assigned under the guard of the lock they concern. A waiter that is gone is granted nothing.
//! Lock order: the table, then a lock's shard, then one of sessions, waiters, deadlines, tokens or the journal's queue.
//! Absent: protocols, storage, and the rules of locks.

mod deadlines;
mod sessions;
mod table;
mod tokens;
mod waiters;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::journal::{
    Backend, Durability, Journal, JournalError, OutcomeUnknown, Record, Seq, SessionRecord, StoredLease,
};
use crate::lock::{
    self, Effect, FencingToken, Left, LockName, Op, Outcome, Owner, SessionId, Slot, Timestamp, Ttl, WaiterId,
};
use deadlines::Deadlines;
use sessions::Sessions;
use table::{Guarded, NameHash, Table};
use tokens::Tokens;
pub use waiters::Verdict;
use waiters::Waiters;

/// Locks settled in one go when many expire together, so that other requests get their turn.
const EXPIRIES_PER_STEP: usize = 256;

/// How the manager is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// When replies may leave.
    pub durability: Durability,
    /// Leases held at once; beyond it nothing new is granted.
    pub locks_max: u64,
    /// Tokens start above this, for a database restored from an old backup.
    pub token_floor: i64,
    /// The kernel's name for this boot.
    pub boot: Option<String>,
}

/// Why an operation was not run at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// The journal cannot be written; nothing changed.
    Journal(JournalError),
    /// As many locks are held as may be.
    LocksMax,
    /// The session has ended, or never was.
    NoSession,
    /// No fencing token is left.
    TokensExhausted,
}

/// The lock manager.
pub struct Engine {
    core: Arc<Core>,
    journal: Arc<OnceLock<Journal>>,
}

/// All but the journal, which in turn rebuilds this after a failure.
struct Core {
    table: RwLock<Table>,
    hash: NameHash,
    clock: Clock,
    config: EngineConfig,
    tokens: Tokens,
    sessions: Sessions,
    waiters: Waiters,
    deadlines: Deadlines,
    held: AtomicI64,
}

impl Engine {
    /// Loads what `backend` holds and starts the commit thread.
    pub fn start(
        mut backend: Box<dyn Backend>,
        clock: Clock,
        config: EngineConfig,
    ) -> Result<Engine, JournalError> {
        let mut found = Vec::new();
        let loaded = backend.load(config.boot.as_deref(), clock.now(), &mut |record| found.push(record))?;
        let core = Arc::new(Core {
            table: RwLock::new(Table::new(0)),
            hash: NameHash::default(),
            tokens: Tokens::above(loaded.tokens_reserved.max(config.token_floor)),
            clock,
            config,
            sessions: Sessions::new(),
            waiters: Waiters::default(),
            deadlines: Deadlines::default(),
            held: AtomicI64::new(0),
        });
        core.restore(&mut core.write(), found)?;
        let rebuilt = Arc::clone(&core);
        let journal = Journal::start(
            backend,
            core.config.durability,
            Box::new(move |backend, epoch| rebuilt.rebuild(backend, epoch)),
        )
        .map_err(|error| JournalError::Io { what: format!("cannot start the commit thread: {error}") })?;
        let cell = OnceLock::new();
        cell.get_or_init(|| journal);
        let engine = Engine { core, journal: Arc::new(cell) };
        engine.close_orphans();
        Ok(engine)
    }

    fn journal(&self) -> &Journal {
        self.journal.get().unwrap_or_else(|| unreachable!("set when the engine starts"))
    }

    /// Runs one operation. Its result may be told after [`Engine::barrier`] of the Seq beside it.
    pub fn submit(&self, name: &LockName, op: &Op) -> Result<(Outcome, Seq), Unavailable> {
        loop {
            // In a statement of its own: ending sessions needs the table to itself.
            let done = self.submit_in(&self.core.read(), name, op);
            match done {
                Err(Retry::AfterSessions) => self.end_due_sessions()?,
                Err(Retry::Never(why)) => return Err(why),
                Ok(done) => return Ok(done),
            }
        }
    }

    /// Asks for a lock and, if it is not free, queues for it until the clock reaches `until`.
    pub fn submit_or_wait(
        self: &Arc<Self>,
        name: &LockName,
        request: lock::Request,
        until: Timestamp,
    ) -> Result<Acquired, Unavailable> {
        let (id, receiver) = self.core.waiters.register();
        let owner = request.owner.clone();
        let submitted = self.submit(name, &Op::Acquire { request, wait: Some((id, until)) });
        match submitted {
            Ok((Outcome::Queued, _)) => {
                let (engine, name) = (Arc::clone(self), name.clone());
                Ok(Acquired::Parked(Parked { engine, name, owner, id, receiver, is_over: false }))
            }
            done => {
                self.core.waiters.forget(id);
                done.map(|(outcome, seq)| Acquired::Now(outcome, seq))
            }
        }
    }

    /// Reads a lock as it is now, expired leases left out.
    pub fn read<R>(
        &self,
        name: &LockName,
        read: impl FnOnce(&Slot, Timestamp) -> R,
    ) -> Result<(R, Seq), Unavailable> {
        let (_, _) = self.submit(name, &Op::Settle)?;
        let table = self.core.read();
        let result = table.with_slot(self.core.hash.of(name), name, |guarded| {
            (read(guarded.slot, self.core.clock.now()), guarded.last_change())
        });
        self.check_up().map(|()| result)
    }

    /// Completes when a result with this Seq may be told.
    pub async fn barrier(&self, seq: Seq) -> Result<(), OutcomeUnknown> {
        match self.journal().durability() {
            Durability::Always => self.journal().synced(seq).await,
            // A lost commit may lose grants in this mode, but never repeat a token.
            Durability::Interval(_) => self.journal().synced(self.core.tokens.reservation()).await,
            Durability::Memory => Ok(()),
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
        let now = self.core.clock.now();
        let (mut names, mut last, mut next) = (Vec::new(), None, 0);
        // Cursors are 48 bits of the hash: they survive every client's number type.
        self.core.read().scan(cursor << 16, |hash, name, slot| {
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
        });
        self.check_up().map(|()| (names, next, self.journal().last()))
    }

    /// How many leases are held; those that have ended and were not swept yet included.
    pub fn held(&self) -> u64 {
        u64::try_from(self.core.held.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// How many locks the expiry index knows.
    pub fn deadlines(&self) -> usize {
        self.core.deadlines.len()
    }

    /// Frees what has ended by now. Answers when to come back; [`Timestamp::NEVER`]: when something is granted.
    pub fn expire_due(&self) -> Timestamp {
        // A journal that is down refuses; whoever looks sees that the leases have ended all the same.
        let _ = self.end_due_sessions();
        for hash in self.core.deadlines.due(self.core.clock.now(), EXPIRIES_PER_STEP) {
            let names = self.core.read().names(hash);
            for name in names {
                let _ = self.submit(&name, &Op::Settle);
            }
        }
        self.core.deadlines.next().min(self.core.sessions.next_deadline())
    }

    /// Opens a session that ends `ttl` after its last keepalive; `None`: when it is closed, or at the latest
    /// when the server stops, as befits the session of a connection.
    pub fn open_session(&self, name: &str, ttl: Option<Ttl>) -> Result<(SessionId, Seq), Unavailable> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            Unavailable::Journal(JournalError::Io { what: format!("no random numbers: {error}") })
        })?;
        let id = SessionId(u128::from_ne_bytes(bytes));
        let deadline = self.core.clock.now().after(ttl);
        let seq = self.put_session(SessionRecord { id, name: name.to_owned(), ttl, deadline })?;
        Ok((id, seq))
    }

    /// Moves the end of a session to its TTL from now. Answers when it ends.
    pub fn keep_alive(&self, id: SessionId) -> Result<(Timestamp, Seq), Unavailable> {
        self.end_due_sessions()?;
        let mut record =
            self.core.sessions.get(id, |session| session.record.clone()).ok_or(Unavailable::NoSession)?;
        record.deadline = self.core.clock.now().after(record.ttl);
        let deadline = record.deadline;
        let seq = self.put_session(record)?;
        Ok((deadline, seq))
    }

    /// What is known of a session, and how many locks it has.
    pub fn session(&self, id: SessionId) -> Result<(SessionRecord, usize), Unavailable> {
        self.end_due_sessions()?;
        self.core
            .sessions
            .get(id, |session| (session.record.clone(), session.names.len()))
            .ok_or(Unavailable::NoSession)
    }

    /// Ends a session; its locks are released in one commit. `clean`: its owner asked, so no lock-delay is due.
    pub fn close_session(&self, id: SessionId, clean: bool) -> Result<(u32, Seq), Unavailable> {
        let table = self.core.write();
        self.close_session_in(&table, id, clean)
    }

    /// Commits what is pending and stops the commit thread.
    pub fn close(&self) {
        self.journal().close();
    }

    fn check_up(&self) -> Result<(), Unavailable> {
        self.journal().down().map_or(Ok(()), |error| Err(Unavailable::Journal(error)))
    }

    fn put_session(&self, record: SessionRecord) -> Result<Seq, Unavailable> {
        let table = self.core.read();
        let opened = Record::SessionOpened(record.clone());
        let seq = self.journal().append(table.epoch, [opened]).map_err(Unavailable::Journal)?;
        self.core.sessions.put(record);
        Ok(seq)
    }

    fn end_due_sessions(&self) -> Result<(), Unavailable> {
        while self.core.sessions.is_any_due(self.core.clock.now()) {
            let table = self.core.write();
            let Some(id) = self.core.sessions.due(self.core.clock.now()) else { break };
            self.close_session_in(&table, id, false)?;
        }
        Ok(())
    }

    /// Sessions without a TTL belong to connections, and those ended with the process before this one.
    fn close_orphans(&self) {
        let orphans = self.core.sessions.without_ttl();
        for id in orphans {
            let _ = self.close_session(id, false);
        }
    }

    fn close_session_in(&self, table: &Table, id: SessionId, clean: bool) -> Result<(u32, Seq), Unavailable> {
        self.check_up()?;
        let session = self.core.sessions.remove(id).ok_or(Unavailable::NoSession)?;
        let _group = self.journal().group();
        let mut released = 0;
        for name in &session.names {
            match self.submit_in(table, name, &Op::EndSession { session: id, clean }) {
                Ok((Outcome::Released(n), _)) => released += n,
                Ok(_) | Err(Retry::AfterSessions) => {}
                Err(Retry::Never(why)) => return Err(why),
            }
        }
        let ended = [Record::SessionEnded(id)];
        let seq = self.journal().append(table.epoch, ended).map_err(Unavailable::Journal)?;
        Ok((released, seq))
    }

    fn submit_in(&self, table: &Table, name: &LockName, op: &Op) -> Result<(Outcome, Seq), Retry> {
        let core = &*self.core;
        self.check_up().map_err(Retry::Never)?;
        table.with_slot(core.hash.of(name), name, |mut guarded| {
            let now = core.clock.now();
            if core.sessions.is_any_due(now) && !matches!(op, Op::EndSession { .. }) {
                return Err(Retry::AfterSessions);
            }
            self.admit(op, guarded.slot)?;
            let mut todo = VecDeque::from([op.clone()]);
            let mut first = None;
            while let Some(op) = todo.pop_front() {
                let outcome = self.step(table, name, &op, now, &mut guarded, &mut todo)?;
                first.get_or_insert(outcome);
            }
            let next = guarded.slot.next_deadline();
            core.deadlines.rearm(guarded.hash, *guarded.armed, next);
            *guarded.armed = next;
            Ok((first.unwrap_or(Outcome::Done), guarded.last_change()))
        })
    }

    /// Refuses what would go beyond a limit, before anything changes.
    fn admit(&self, op: &Op, slot: &Slot) -> Result<(), Retry> {
        let (Op::Acquire { request, .. } | Op::Set { request, .. }) = op else { return Ok(()) };
        if slot.lease_of(&request.owner).is_none() {
            if self.held() >= self.core.config.locks_max {
                return Err(Retry::Never(Unavailable::LocksMax));
            }
            if self.core.tokens.are_exhausted() {
                return Err(Retry::Never(Unavailable::TokensExhausted));
            }
        }
        if let Some(id) = request.session
            && self.core.sessions.get(id, |_| ()).is_none()
        {
            return Err(Retry::Never(Unavailable::NoSession));
        }
        Ok(())
    }

    /// One transition and what follows from it. Grants that reached nobody are given back through `todo`.
    fn step(
        &self,
        table: &Table,
        name: &LockName,
        op: &Op,
        now: Timestamp,
        guarded: &mut Guarded<'_>,
        todo: &mut VecDeque<Op>,
    ) -> Result<Outcome, Retry> {
        let core = &*self.core;
        let mut effects = Vec::new();
        let mut env = EngineEnv { core, journal: self.journal(), epoch: table.epoch };
        let outcome = lock::apply(guarded.slot, op, now, &mut env, &mut effects);
        if effects.is_empty() {
            return Ok(outcome);
        }
        let records = effects.iter().filter_map(|effect| record_of(name, effect));
        let seq = match self.journal().append(table.epoch, records) {
            Ok(seq) => seq,
            Err(error) => {
                // The slot has changed and the journal has not. Nothing is told of it: whoever looks asks first
                // whether the journal is down, and it stays down until this table is replaced.
                return Err(Retry::Never(Unavailable::Journal(error)));
            }
        };
        guarded.changed_by(seq);
        for effect in effects {
            match effect {
                Effect::Granted { lease, waiter } => {
                    core.held.fetch_add(1, Ordering::Relaxed);
                    if let Some(session) = lease.session() {
                        core.sessions.attach(session, name);
                    }
                    if let Some(waiter) = waiter
                        && !core.waiters.tell(waiter, Verdict::Granted(lease.token, seq))
                    {
                        todo.push_back(Op::Release { owner: lease.owner, token: Some(lease.token) });
                    }
                }
                Effect::Ended { lease, .. } => {
                    core.held.fetch_sub(1, Ordering::Relaxed);
                    self.detach(lease.session(), name, guarded.slot);
                }
                Effect::Joined { session, .. } => {
                    if let Some(session) = session {
                        core.sessions.attach(session, name);
                    }
                }
                Effect::WaiterLeft { waiter, session, why } => {
                    let verdict = match why {
                        Left::TimedOut | Left::Gone => Verdict::TimedOut,
                        Left::SessionEnded => Verdict::SessionEnded,
                        Left::Replaced => Verdict::Replaced,
                    };
                    core.waiters.tell(waiter, verdict);
                    self.detach(session, name, guarded.slot);
                }
                Effect::Renewed { .. } | Effect::DelayStarted(_) | Effect::DelayEnded => {}
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

impl Drop for Engine {
    fn drop(&mut self) {
        // The commit thread holds the core for rebuilds; end it before the core goes.
        self.close();
    }
}

impl Core {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts recovered records into an empty table. Refuses states that no server of ours could have left.
    fn restore(&self, table: &mut Table, records: Vec<Record>) -> Result<(), JournalError> {
        self.sessions.clear();
        self.deadlines.clear();
        self.held.store(0, Ordering::Relaxed);
        for record in records {
            match record {
                Record::SessionOpened(session) => self.sessions.put(session),
                Record::DelayStarted(name, delay) => {
                    self.restore_into(table, &name, |slot| slot.restore_delay(delay));
                }
                Record::Granted(StoredLease { name, lease }) => {
                    let session = lease.session();
                    let fits = self.restore_into(table, &name, |slot| {
                        let mixes = slot.newest().is_none_or(|held| held.mode.mixes_with(lease.mode));
                        let fits = mixes && slot.lease_of(&lease.owner).is_none();
                        if fits {
                            slot.restore(lease);
                        }
                        fits
                    });
                    if !fits {
                        return Err(JournalError::Corrupt {
                            what: format!("two leases of {name:?} that exclude each other"),
                        });
                    }
                    self.held.fetch_add(1, Ordering::Relaxed);
                    if let Some(session) = session {
                        self.sessions.attach(session, &name);
                    }
                }
                other => return Err(JournalError::Corrupt { what: format!("not a state: {other:?}") }),
            }
        }
        Ok(())
    }

    fn restore_into<R>(&self, table: &Table, name: &LockName, work: impl FnOnce(&mut Slot) -> R) -> R {
        table.with_slot(self.hash.of(name), name, |guarded| {
            let result = work(guarded.slot);
            let next = guarded.slot.next_deadline();
            self.deadlines.rearm(guarded.hash, *guarded.armed, next);
            *guarded.armed = next;
            result
        })
    }

    /// After a failed commit: replaces the table by what is durable. Waiters are told to ask again.
    fn rebuild(&self, backend: &mut dyn Backend, epoch: u64) -> Result<(), JournalError> {
        let mut found = Vec::new();
        backend.load(self.config.boot.as_deref(), self.clock.now(), &mut |record| found.push(record))?;
        // Writing must work again, too.
        backend.commit(&[Record::TokensReserved(self.tokens.reserved())])?;
        let mut table = self.write();
        let mut fresh = Table::new(epoch);
        self.restore(&mut fresh, found)?;
        self.tokens.after_failure();
        *table = fresh;
        drop(table);
        self.waiters.tell_all(Verdict::Unavailable);
        Ok(())
    }
}

enum Retry {
    AfterSessions,
    Never(Unavailable),
}

struct EngineEnv<'a> {
    core: &'a Core,
    journal: &'a Journal,
    epoch: u64,
}

impl lock::Env for EngineEnv<'_> {
    fn take_token(&mut self) -> FencingToken {
        self.core.tokens.take(self.journal, self.epoch)
    }
    fn deliverable(&mut self, waiter: WaiterId) -> bool {
        self.core.waiters.is_there(waiter)
    }
}

fn record_of(name: &LockName, effect: &Effect) -> Option<Record> {
    let stored = |lease: &lock::Lease| StoredLease { name: name.clone(), lease: lease.clone() };
    match effect {
        Effect::Granted { lease, .. } => Some(Record::Granted(stored(lease))),
        Effect::Renewed { lease } => Some(Record::Renewed(stored(lease))),
        Effect::Ended { lease, .. } => Some(Record::Ended(lease.token)),
        Effect::DelayStarted(delay) => Some(Record::DelayStarted(name.clone(), *delay)),
        Effect::DelayEnded => Some(Record::DelayEnded(name.clone())),
        Effect::Joined { .. } | Effect::WaiterLeft { .. } => None,
    }
}

/// What became of a request that may wait.
pub enum Acquired {
    /// Decided at once.
    Now(Outcome, Seq),
    /// In the queue.
    Parked(Parked),
}

/// A place in a queue. Dropping it leaves the queue; a grant that nobody saw is given back.
pub struct Parked {
    engine: Arc<Engine>,
    name: LockName,
    owner: Owner,
    id: WaiterId,
    receiver: oneshot::Receiver<Verdict>,
    is_over: bool,
}

impl Parked {
    /// Waits for the verdict. Safe to drop half-way and call again.
    pub async fn verdict(&mut self) -> Verdict {
        let verdict = (&mut self.receiver).await.unwrap_or(Verdict::Unavailable);
        self.is_over = true;
        verdict
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.receiver.close();
        self.engine.core.waiters.forget(self.id);
        let owner = self.owner.clone();
        let op = match self.receiver.try_recv() {
            Ok(Verdict::Granted(token, _)) => Op::Release { owner, token: Some(token) },
            _ => Op::Leave { waiter: self.id, owner },
        };
        // If the journal is down the table is rebuilt without this waiter anyway.
        let _ = self.engine.submit(&self.name, &op);
    }
}
