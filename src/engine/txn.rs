//! Transactions: one operation at a time, or several as one.
//!
//! Guarantees: a transaction accumulates the highest Seq of everything it has seen, refusals included, and yields
//! it once, from [`SharedTxn::finish`]. Nothing read or done in it may be revealed before [`Engine::barrier`] of
//! that Seq. Everything a transaction has seen belongs to one state of the table: after a rebuild, its next
//! operation fails unless all it had seen was durable. The operations of an [`ExclusiveTxn`] happen at one
//! instant and land in one commit.
//! Not here: protocols, the rules of locks, what follows from a transition.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_utils::sync::ShardedLockWriteGuard;

use super::apply::Retry;
use super::blocking::Blocked;
use super::keyspace::Table;
use super::{Engine, Unavailable};
use crate::domain::{LockName, Timestamp};
use crate::journal::{CommitGroup, JournalError, Seq};
use crate::lock::{ENDS_PER_STEP, Op, Outcome, Request, Slot};

/// The operations that every transaction offers. It is either a [`SharedTxn`] or an [`ExclusiveTxn`].
pub struct Txn<'a> {
    engine: &'a Arc<Engine>,
    seen: Cell<Seen>,
    /// Leases and waiters that its operations have changed, what they freed first included.
    work: Cell<usize>,
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
    /// Ends before the table is unlocked, the field below: everything is appended under a guard of the table, so
    /// the group has the records of this transaction and none of others, and no other transaction finds the
    /// commits held up.
    _one_commit: CommitGroup<'a>,
    table: ShardedLockWriteGuard<'a, Table>,
    now: Timestamp,
    wall_millis: u64,
}

/// What a transaction has seen. Carries it over to the next transaction of the same request.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The rebuild of the table it belongs to.
    epoch: u64,
    /// The highest Seq; all of it is durable once this is.
    seq: Seq,
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

    /// Begins a transaction that has seen what an earlier one of the same request saw.
    pub fn resume_txn(self: &Arc<Self>, seen: Seen) -> SharedTxn<'_> {
        SharedTxn(Txn { engine: self, seen: Cell::new(seen), work: Cell::new(0), exclusive: None })
    }

    /// Begins a transaction that keeps all others out. Deadlocks on a thread that is in an exclusive one already.
    pub(super) fn exclusive_txn(self: &Arc<Self>) -> ExclusiveTxn<'_> {
        let table = self.core.write();
        let clock = &self.core.clock;
        let (now, wall_millis) = (clock.now(), clock.wall_millis());
        let seen = Cell::new(Seen { epoch: table.epoch, seq: Seq::default() });
        let exclusive = Exclusive { _one_commit: self.one_commit(), table, now, wall_millis };
        ExclusiveTxn(Txn { engine: self, seen, work: Cell::new(0), exclusive: Some(exclusive) })
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
        self.0.seen.get().seq
    }

    /// What the transaction has seen so far, for [`Engine::resume_txn`].
    pub fn seen(&self) -> Seen {
        self.0.seen.get()
    }

    /// Runs `work`, which uses the locks `names`, in an exclusive transaction; what it sees counts as seen by this
    /// one, too. Fails if the state was rebuilt since this transaction saw it.
    ///
    /// What has ended of these locks is freed before. Fails with [`Unavailable::Unsettled`], without having run
    /// `work`, if that is so much that others must be served in between.
    pub fn exclusively<R>(
        &self,
        names: &[LockName],
        work: impl FnOnce(&ExclusiveTxn<'_>) -> R,
    ) -> Result<R, Unavailable> {
        self.free_all_ended(names)?;
        let exclusive = self.engine.exclusive_txn();
        self.enter(exclusive.seen.get().epoch)?;
        // Little has ended since, unless much ended at once.
        let freed = exclusive.free_all_ended(names);
        let result = freed.map(|()| work(&exclusive));
        self.observe(exclusive.seen.get().seq);
        self.count_work(exclusive.work());
        result
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
                Ok(Acquired::Blocked(Blocked::new(engine, name.clone(), request.owner, id, receiver)))
            }
            done => {
                waiters.forget(id);
                done.map(Acquired::Now)
            }
        }
    }
}

impl<'a> Txn<'a> {
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
        self.exclusive
            .as_ref()
            .map_or_else(|| self.engine.core.clock.wall_millis(), |exclusive| exclusive.wall_millis)
    }

    /// Runs one operation.
    pub fn submit(&self, name: &LockName, op: &Op) -> Result<Outcome, Unavailable> {
        self.submit_and_inspect(name, op, |outcome, _, _| outcome)
    }

    /// Reads a lock as it is now, expired leases left out. `read` runs under the guard of the lock: it should
    /// copy what is needed and format nothing.
    pub fn read<R>(&self, name: &LockName, read: impl Fn(&Slot, Timestamp) -> R) -> Result<R, Unavailable> {
        self.submit_and_inspect(name, &Op::Inspect, |_, slot, now| read(slot, now))
    }

    /// Leases and waiters that its operations have changed so far, those included that had ended and were freed.
    pub fn work(&self) -> usize {
        self.work.get()
    }

    fn count_work(&self, changed: usize) {
        self.work.set(self.work.get() + changed);
    }

    /// Frees what has ended of some locks, and stops with [`Unavailable::Unsettled`] where that becomes much.
    fn free_all_ended(&self, names: &[LockName]) -> Result<(), Unavailable> {
        let before = self.work();
        for name in names {
            if self.peek(name, |_| ())?.is_none() {
                self.free_in_steps(name, STEPS_PER_TURN)?;
            }
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
        let steps = if self.exclusive.is_some() { usize::MAX } else { STEPS_PER_TURN };
        let (result, seq) = self.submit_in_steps(name, op, inspect, steps).map_err(|why| self.refuse(why))?;
        self.observe(seq);
        Ok(result)
    }

    /// Frees what has ended of a lock, in at most `steps` steps. Fails with [`Unavailable::Unsettled`] if more is left.
    pub(super) fn free_in_steps(&self, name: &LockName, steps: usize) -> Result<(), Unavailable> {
        let ((), seq) = self.submit_in_steps(name, &Op::Inspect, |_, _, _| (), steps)?;
        self.observe(seq);
        Ok(())
    }

    fn submit_in_steps<R>(
        &self,
        name: &LockName,
        op: &Op,
        inspect: impl Fn(Outcome, &Slot, Timestamp) -> R,
        steps: usize,
    ) -> Result<(R, Seq), Unavailable> {
        let instant = self.exclusive.as_ref().map(|exclusive| exclusive.now);
        let run = |table: &Table| {
            self.enter(table.epoch)?;
            let (result, changed) = self.engine.run_in(table, name, op, instant, &inspect);
            self.count_work(changed);
            result
        };
        for _ in 0..steps {
            match self.with_table(run) {
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

    pub(super) fn with_table<R>(&self, work: impl FnOnce(&Table) -> R) -> R {
        match &self.exclusive {
            Some(exclusive) => work(&exclusive.table),
            None => work(&self.engine.core.read()),
        }
    }

    /// [`Txn::with_table`], in one state of the table with what was seen before.
    pub(super) fn in_epoch<R>(
        &self,
        work: impl FnOnce(&Table) -> Result<R, Unavailable>,
    ) -> Result<R, Unavailable> {
        self.with_table(|table| {
            self.enter(table.epoch)?;
            work(table)
        })
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
            _ => Err(Unavailable::Journal(JournalError::rebuilt())),
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
            Unavailable::Journal(_) | Unavailable::Unsettled => why,
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
            false => Err(Unavailable::Journal(JournalError::rebuilt())),
        })
    }
}
