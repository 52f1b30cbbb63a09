//! Transactions: one operation at a time, or several as one.
//!
//! Guarantees: a transaction accumulates the highest Seq of everything it has seen, refusals included, and yields
//! it once, from [`SharedTxn::finish`]. Nothing read or done in it may be revealed before [`Engine::barrier`] of
//! that Seq. Everything a transaction has seen belongs to one state of the table: after a rebuild, its next
//! operation fails unless all it had seen was durable. The operations of an [`ExclusiveTxn`] happen at one
//! instant and land in one commit.
//! Not here: protocols, the rules of locks, what follows from a transition.

use std::cell::{Cell, OnceCell};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::apply::Retry;
use super::blocking::{Blocked, Place};
use super::keyspace::{Alone, ClosedSince, Entry, Table};
use super::notifications::Cause;
use super::values::{KeyWork, is_ready_for_edits};
use super::{BUSY_AFTER_MS, Engine, Event, Interest, PutOff, Unavailable};
use crate::domain::{LockName, Timestamp};
use crate::journal::{CommitGroup, JournalError, Seq};
use crate::lock::{ENDS_PER_STEP, Op, Outcome, Request, Slot};

/// The operations that every transaction offers. It is either a [`SharedTxn`] or an [`ExclusiveTxn`].
pub struct Txn<'a> {
    engine: &'a Arc<Engine>,
    seen: Cell<Seen>,
    /// Leases and waiters that its operations have changed, what they freed first included.
    work: Cell<usize>,
    /// It has been behind the gate of the table: from then on it waits as long as the gate is closed, since
    /// what it has done already must not be done again.
    has_entered: Cell<bool>,
    /// What is behind the changes that follow.
    cause: Cell<Cause>,
    /// The request, if it works long or was put off.
    pub(super) put_off: Cell<Option<Box<PutOff>>>,
    /// `None`: each operation takes the shared side of the table and reads the clock.
    exclusive: Option<Exclusive<'a>>,
}

/// A transaction whose operations happen one by one. Holds no lock between them.
pub struct SharedTxn<'a>(Txn<'a>);

/// A transaction whose operations happen as one, at one instant. Keeps all others out until it is dropped, so it
/// must be short. It is not `Send`, so it cannot be held across an `await` of a spawned task.
pub struct ExclusiveTxn<'a>(Txn<'a>);

/// A transaction of either kind.
#[derive(Clone, Copy)]
pub enum AnyTxn<'a> {
    /// Others may come between its operations.
    Shared(&'a SharedTxn<'a>),
    /// Its operations happen as one.
    Exclusive(&'a ExclusiveTxn<'a>),
}

struct Exclusive<'a> {
    /// Ends before the table is opened, the field below: everything is appended under a guard of the
    /// table, so the group has the records of this transaction and none of others, and no other
    /// transaction finds the commits held up.
    _one_commit: CommitGroup<'a>,
    table: Alone<'a, Table>,
    now: Timestamp,
    /// The same by the wall clock, once it was asked for.
    wall_millis: OnceCell<u64>,
}

/// What a transaction has seen. Carries it over to the next transaction of the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The rebuild of the table it belongs to.
    epoch: u64,
    /// The highest Seq; all of it is durable once this is.
    seq: Seq,
}

impl Seen {
    pub(super) fn of(epoch: u64, seq: Seq) -> Seen {
        Seen { epoch, seq }
    }

    /// What must be durable before any of it may be revealed.
    pub fn seq(self) -> Seq {
        self.seq
    }
}

/// The result of a request that may wait.
pub enum Acquired {
    /// Decided at once.
    Now(Outcome),
    /// In the queue.
    Blocked(Blocked),
}

/// Steps of freeing ended leases that one shared operation makes before it yields.
const STEPS_PER_TURN: usize = 2;

impl Engine {
    /// Begins a transaction of single operations. Locks nothing by itself.
    pub fn txn(self: &Arc<Self>) -> SharedTxn<'_> {
        let epoch = self.core.epoch.load(Ordering::Acquire);
        self.resume_txn(Seen { epoch, seq: Seq::default() })
    }

    /// Begins a transaction that waits as long as another one keeps all others out. For threads that may be
    /// kept busy.
    pub(super) fn patient_txn(self: &Arc<Self>) -> SharedTxn<'_> {
        let epoch = self.core.epoch.load(Ordering::Acquire);
        self.resume_patient_txn(Seen { epoch, seq: Seq::default() })
    }

    /// [`Engine::resume_txn`] that waits as [`Engine::patient_txn`] does.
    pub(super) fn resume_patient_txn(self: &Arc<Self>, seen: Seen) -> SharedTxn<'_> {
        let txn = self.resume_txn(seen);
        txn.0.has_entered.set(true);
        txn
    }

    /// Begins a transaction that has seen what an earlier one of the same request saw.
    pub fn resume_txn(self: &Arc<Self>, seen: Seen) -> SharedTxn<'_> {
        let (seen, work, has_entered) = (Cell::new(seen), Cell::new(0), Cell::new(false));
        let (cause, put_off) = (Cell::default(), Cell::default());
        SharedTxn(Txn { engine: self, seen, work, has_entered, cause, put_off, exclusive: None })
    }

    /// Begins a transaction that keeps all others out. Fails if another one does so for long.
    fn close_gate(self: &Arc<Self>) -> Result<ExclusiveTxn<'_>, Unavailable> {
        let closed = self.core.table.close(|| self.core.clock.now());
        closed.map(|closed| self.exclusive_txn_on(closed)).map_err(|since| self.unavailable_since(since))
    }

    /// Begins a transaction that keeps all others out, however long it has to wait for another one.
    /// Deadlocks on a thread that is in one already.
    pub(super) fn exclusive_txn(self: &Arc<Self>) -> ExclusiveTxn<'_> {
        self.exclusive_txn_on(self.core.table.close_in_time(|| self.core.clock.now()))
    }

    fn exclusive_txn_on<'a>(self: &'a Arc<Self>, table: Alone<'a, Table>) -> ExclusiveTxn<'a> {
        let (now, wall_millis) = (table.since(), OnceCell::new());
        let seen = Cell::new(Seen { epoch: table.epoch, seq: Seq::default() });
        let exclusive = Exclusive { _one_commit: self.one_commit(), table, now, wall_millis };
        let (work, has_entered) = (Cell::new(0), Cell::new(true));
        let (cause, put_off) = (Cell::default(), Cell::default());
        ExclusiveTxn(Txn {
            engine: self,
            seen,
            work,
            has_entered,
            cause,
            put_off,
            exclusive: Some(exclusive),
        })
    }

    /// Why nothing can be done while the gate of the table is closed.
    #[cold]
    fn unavailable_since(&self, closed: ClosedSince) -> Unavailable {
        let ClosedSince(since) = closed;
        match self.check_up() {
            // The table is being rebuilt.
            Err(down) => down,
            Ok(()) if self.core.clock.now().millis_since(since) < BUSY_AFTER_MS => Unavailable::Unsettled,
            Ok(()) => Unavailable::Busy,
        }
    }
}

impl<'a> Deref for SharedTxn<'a> {
    type Target = Txn<'a>;
    fn deref(&self) -> &Txn<'a> {
        &self.0
    }
}

impl<'a> Deref for ExclusiveTxn<'a> {
    type Target = Txn<'a>;
    fn deref(&self) -> &Txn<'a> {
        &self.0
    }
}

impl<'a> Deref for AnyTxn<'a> {
    type Target = Txn<'a>;
    fn deref(&self) -> &Txn<'a> {
        match self {
            AnyTxn::Shared(txn) => txn,
            AnyTxn::Exclusive(txn) => txn,
        }
    }
}

impl SharedTxn<'_> {
    /// Ends the transaction. Returns the Seq that must be durable before anything seen in it may be revealed.
    #[must_use]
    pub fn finish(self) -> Seq {
        let seq = self.0.seen.get().seq;
        // Even what was never written has been read.
        if self.0.has_entered.get() { seq.max(Seq::LOADED) } else { seq }
    }

    /// Runs `work`, which uses the keys `names`, in an exclusive transaction; what it sees counts as
    /// seen by this one, too. Fails, without having run it, if the state was rebuilt since this
    /// transaction saw it, or if another transaction keeps all others out for long.
    ///
    /// What has ended of these keys is freed before. Fails with [`Unavailable::Unsettled`], without
    /// having run `work`, if that is so much that others must be served in between.
    pub fn exclusively<R>(
        &self,
        names: &[LockName],
        work: impl FnOnce(&ExclusiveTxn<'_>) -> R,
    ) -> Result<R, Unavailable> {
        self.exclusively_once_ready(names, false, work)
    }

    /// [`SharedTxn::exclusively`] for `work` that may edit the values of these keys: not while
    /// other requests do long work with them, and without having to copy large ones that are being
    /// read.
    pub fn exclusively_editing<R>(
        &self,
        names: &[LockName],
        work: impl FnOnce(&ExclusiveTxn<'_>) -> R,
    ) -> Result<R, Unavailable> {
        self.exclusively_once_ready(names, true, work)
    }

    fn exclusively_once_ready<R>(
        &self,
        names: &[LockName],
        edits: bool,
        work: impl FnOnce(&ExclusiveTxn<'_>) -> R,
    ) -> Result<R, Unavailable> {
        let had_entered = self.has_entered.get();
        let mut exclusive = self.begin_exclusive()?;
        let mut freed = Ok(());
        if !exclusive.is_ready(names, edits) {
            drop(exclusive);
            self.has_entered.set(had_entered);
            self.make_ready(names, edits)?;
            exclusive = self.begin_exclusive()?;
            // Little has ended since, unless much ended at once.
            freed = exclusive.make_ready(names, false);
        }
        exclusive.set_cause(self.cause.get());
        let result = freed.map(|()| work(&exclusive));
        if result.is_err() {
            self.has_entered.set(had_entered);
        }
        self.observe(exclusive.seen.get().seq);
        self.count_work(exclusive.work());
        result
    }

    fn begin_exclusive(&self) -> Result<ExclusiveTxn<'_>, Unavailable> {
        let exclusive = match self.has_entered.replace(true) {
            true => self.engine.exclusive_txn(),
            false => self.engine.close_gate().inspect_err(|_| self.has_entered.set(false))?,
        };
        self.enter(exclusive.seen.get().epoch)?;
        Ok(exclusive)
    }

    /// Asks for a lock and, if it is not free, queues for it until the clock reaches `until`.
    pub fn submit_or_wait(
        &self,
        name: &LockName,
        request: Request,
        until: Timestamp,
    ) -> Result<Acquired, Unavailable> {
        let waiters = &self.engine.core.waiters;
        let (id, receiver) = waiters.register();
        let op = Op::Acquire { request, wait: Some((id, until)) };
        match self.submit(name, &op) {
            Ok(Outcome::Queued) => {
                let Op::Acquire { request, .. } = op else { unreachable!("made above") };
                let engine = Arc::clone(self.engine);
                let place = Place::Lock { name: name.clone(), owner: request.owner };
                Ok(Acquired::Blocked(Blocked::new(engine, place, (id, receiver))))
            }
            done => {
                waiters.forget(id);
                done.map(Acquired::Now)
            }
        }
    }
}

impl Drop for SharedTxn<'_> {
    /// Serves the blocked pops that the transaction has made possible.
    fn drop(&mut self) {
        if self.engine.core.pops.has_ready() {
            self.engine.serve_pops();
        }
    }
}

impl<'a> Txn<'a> {
    /// What the transaction has seen so far, for [`Engine::resume_txn`].
    pub fn seen(&self) -> Seen {
        self.seen.get()
    }

    /// The lock manager behind it.
    pub fn engine(&self) -> &'a Arc<Engine> {
        self.engine
    }

    /// The time; in an exclusive transaction, the instant at which all of its operations happen.
    pub fn now(&self) -> Timestamp {
        self.exclusive.as_ref().map_or_else(|| self.engine.core.clock.now(), |exclusive| exclusive.now)
    }

    /// The same by the wall clock, in milliseconds since 1970.
    pub fn wall_millis(&self) -> u64 {
        let clock = &self.engine.core.clock;
        let Some(exclusive) = &self.exclusive else { return clock.wall_millis() };
        let read = || clock.wall_millis().saturating_sub(clock.now().millis_since(exclusive.now));
        *exclusive.wall_millis.get_or_init(read)
    }

    /// The milliseconds since 1970 at [`Txn::now`]. The wall clock itself can be a millisecond ahead.
    pub fn wall_millis_of_now(&self) -> u64 {
        self.wall_millis_of(self.now()).unwrap_or(0)
    }

    /// The milliseconds since 1970 at which `time` is, or was, by the wall clock; `None` for
    /// [`Timestamp::NEVER`].
    pub fn wall_millis_of(&self, time: Timestamp) -> Option<u64> {
        let nanos = self.engine.core.clock.wall_nanos_of(time)?;
        Some(u64::try_from(nanos).unwrap_or(0) / 1_000_000)
    }

    /// Runs one operation.
    pub fn submit(&self, name: &LockName, op: &Op) -> Result<Outcome, Unavailable> {
        self.submit_and_inspect(name, op, |outcome, _, _| outcome)
    }

    /// Reads a lock as it is now, expired leases left out. `read` runs under the guard of the lock: it should
    /// copy what is needed and format nothing.
    pub fn read<R>(&self, name: &LockName, read: impl Fn(&Slot, Timestamp) -> R) -> Result<R, Unavailable> {
        let inspect = |_, slot: &Slot, now| (slot.newest().is_some(), read(slot, now));
        let (exists, result) = self.submit_and_inspect(name, &Op::Inspect, inspect)?;
        if !exists {
            self.announce_miss(name);
        }
        Ok(result)
    }

    /// Makes the reply wait as that of a read: the leader of a cluster does not say that it leads
    /// before its store confirms it.
    pub fn confirm_leadership(&self) {
        self.has_entered.set(true);
    }

    /// Says what is behind the changes that follow.
    pub fn set_cause(&self, cause: Cause) {
        self.cause.set(cause);
    }

    /// Gives the changes that follow this name as keyspace notifications.
    pub fn set_event(&self, event: &'static str) {
        self.cause.set(Cause { event, ..self.cause.get() });
    }

    /// Runs a part of a change that is announced elsewhere.
    pub(super) fn silently<R>(&self, work: impl FnOnce() -> R) -> R {
        let cause = self.cause.replace(Cause { is_silent: true, ..self.cause.get() });
        let result = work();
        self.cause.set(cause);
        result
    }

    /// Tells clients that cache keys that all of them are out of date, once what was done so far is
    /// durable.
    pub fn invalidate_all(&self) {
        let events = &self.engine.core.events;
        if events.interests().include(Interest::Invalidations) {
            let client = self.cause.get().client;
            events.push(self.seen.get().seq, Event::Invalidation { name: None, client, number: 0 });
        }
    }

    /// What is behind the changes that follow.
    pub fn cause(&self) -> Cause {
        self.cause.get()
    }

    /// Leases and waiters that its operations have changed so far, those included that had ended and were freed.
    pub fn work(&self) -> usize {
        self.work.get()
    }

    fn count_work(&self, changed: usize) {
        self.work.set(self.work.get() + changed);
    }

    /// Whether it keeps all others out.
    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive.is_some()
    }

    /// Runs `work`, which is no part of the request: that may still be refused.
    pub(super) fn before_request<R>(&self, work: impl FnOnce() -> R) -> R {
        let had_entered = self.has_entered.get();
        let result = work();
        self.has_entered.set(had_entered);
        result
    }

    /// Whether [`Txn::make_ready`] would find nothing to do.
    fn is_ready(&self, names: &[LockName], edits: bool) -> bool {
        let is_ready = |entry: Option<&Entry>| !edits || entry.is_none_or(is_ready_for_edits);
        names.iter().all(|name| matches!(self.peek(name, is_ready), Ok(Some(true))))
    }

    /// Frees what has ended of some keys, and stops with [`Unavailable::Unsettled`] where that
    /// becomes much. Prepares their values if they are to be edited.
    fn make_ready(&self, names: &[LockName], edits: bool) -> Result<(), Unavailable> {
        let before = self.work();
        for name in names {
            let is_ready = |entry: Option<&Entry>| !edits || entry.is_none_or(is_ready_for_edits);
            self.before_request(|| match self.peek(name, is_ready)? {
                Some(true) => Ok(()),
                Some(false) => self.prepare_edit(name),
                None => self.free_in_steps(name, STEPS_PER_TURN),
            })?;
            if self.work() - before > ENDS_PER_STEP {
                return Err(Unavailable::Unsettled);
            }
        }
        Ok(())
    }

    /// Runs one operation, then `inspect` on the resulting state, under the same guard.
    ///
    /// Fails with [`Unavailable::Unsettled`], without having run the operation, if a shared transaction has freed
    /// its share of ended leases and more are left.
    pub fn submit_and_inspect<R>(
        &self,
        name: &LockName,
        op: &Op,
        inspect: impl Fn(Outcome, &Slot, Timestamp) -> R,
    ) -> Result<R, Unavailable> {
        let done = self.in_steps(name, |key| key.run(op, &inspect));
        let (result, seq) = done.map_err(|why| self.refuse(why))?;
        self.observe(seq);
        Ok(result)
    }

    /// Frees what has ended of a key, in at most `steps` steps. Fails with
    /// [`Unavailable::Unsettled`] if more is left.
    pub(super) fn free_in_steps(&self, name: &LockName, steps: usize) -> Result<(), Unavailable> {
        let ((), seq) = self.in_at_most(steps, name, |key| key.free_ended())?;
        self.observe(seq);
        Ok(())
    }

    /// Runs `work` on a key, again as long as more has to be freed first, but not longer than a turn.
    pub(super) fn in_steps<R>(
        &self,
        name: &LockName,
        work: impl FnMut(&mut KeyWork<'_, '_>) -> Result<R, Retry>,
    ) -> Result<(R, Seq), Unavailable> {
        let steps = if self.exclusive.is_some() { usize::MAX } else { STEPS_PER_TURN };
        self.in_at_most(steps, name, work)
    }

    fn in_at_most<R>(
        &self,
        steps: usize,
        name: &LockName,
        mut work: impl FnMut(&mut KeyWork<'_, '_>) -> Result<R, Retry>,
    ) -> Result<(R, Seq), Unavailable> {
        let instant = (self.exclusive.as_ref().map(|exclusive| exclusive.now), self.cause.get());
        let mut step = |table: &Table| {
            self.enter(table.epoch)?;
            self.engine.under_guard(table, name, instant, &self.work, &mut work)
        };
        for _ in 0..steps {
            match self.with_table(&mut step)? {
                // Due leases that are not swept yet no longer count.
                Err(Retry::AfterExpiry) if self.exclusive.is_some() => return Err(Unavailable::AccountMax),
                Err(Retry::AfterExpiry) => self.engine.expire_some(),
                Err(Retry::Unsettled) => {}
                Err(Retry::Never(why)) => return Err(why),
                Ok(done) => return Ok(done),
            }
        }
        Err(Unavailable::Unsettled)
    }

    /// Runs `work` on the table. Fails if a transaction keeps all others out for long and nothing was done in
    /// this one before.
    pub(super) fn with_table<R>(&self, work: impl FnOnce(&Table) -> R) -> Result<R, Unavailable> {
        if let Some(exclusive) = &self.exclusive {
            return Ok(work(&exclusive.table));
        }
        let gate = &self.engine.core.table;
        let table = match gate.enter() {
            Ok(table) => table,
            Err(_) if self.has_entered.get() => gate.enter_in_time(),
            Err(closed) => return Err(self.engine.unavailable_since(closed)),
        };
        self.has_entered.set(true);
        Ok(work(&table))
    }

    /// [`Txn::with_table`], in one state of the table with what was seen before.
    pub(super) fn in_epoch<R>(
        &self,
        work: impl FnOnce(&Table) -> Result<R, Unavailable>,
    ) -> Result<R, Unavailable> {
        self.with_table(|table| {
            self.enter(table.epoch)?;
            work(table)
        })?
    }

    /// Makes sure that what was seen so far is part of the table of this epoch. A rebuild keeps what is durable
    /// and takes the rest back, and a later Seq says nothing about the latter.
    #[inline]
    pub(super) fn enter(&self, epoch: u64) -> Result<(), Unavailable> {
        let seen = self.seen.get();
        if seen.epoch == epoch {
            return Ok(());
        }
        match self.engine.journal().durability_of(seen.seq) {
            Some(Ok(())) => {
                self.restart(epoch);
                Ok(())
            }
            _ => Err(JournalError::rebuilt().into()),
        }
    }

    /// Forgets what was seen before the table was rebuilt.
    pub(super) fn restart(&self, epoch: u64) {
        self.seen.set(Seen { epoch, seq: Seq::default() });
    }

    /// Remembers a Seq that must be durable before the results of this transaction are revealed.
    #[inline]
    pub(super) fn observe(&self, seq: Seq) {
        let seen = self.seen.get();
        self.seen.set(Seen { seq: seen.seq.max(seq), ..seen });
    }

    /// A refusal, covered by the Seq of everything decided so far if it depends on more than one lock. Becomes a
    /// failure of the journal if the state it is about was rebuilt meanwhile.
    pub(super) fn refuse(&self, why: Unavailable) -> Unavailable {
        match why {
            Unavailable::Journal(_) | Unavailable::Unsettled | Unavailable::Busy => why,
            _ => self.observe_all().err().unwrap_or(why),
        }
    }

    /// Remembers the Seq of everything decided so far. Fails if the state was rebuilt since it was looked at.
    pub(super) fn observe_all(&self) -> Result<(), Unavailable> {
        self.with_table(|table| match table.epoch == self.seen.get().epoch {
            true => {
                self.observe(self.engine.last());
                Ok(())
            }
            false => Err(JournalError::rebuilt().into()),
        })?
    }
}
