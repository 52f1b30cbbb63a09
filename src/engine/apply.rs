//! Runs one operation on one lock, under its guard, and what follows from the transition: records,
//! events, waiters, sessions, quotas.
//!
//! Guarantees: sequence numbers are assigned under the guard of the lock they concern. A waiter
//! that is gone is granted nothing. One call frees a bounded number of ended leases and leaves the
//! rest to the next. Not here: which table and which instant (in `txn`), the rules of locks.

use std::cell::Cell;

use super::keyspace::{Guarded, OnValue, Table, ttl_until};
use super::late_owners::{LateOwners, Lost};
use super::notifications::{Cause, DELETED, Transition};
use super::sessions::{MemberKind, Members};
use super::values::KeyWork;
use super::{Engine, Unavailable, WaitOutcome, losses, run_long};
use crate::domain::{FencingToken, LockName, Owner, SessionId, Timestamp, WaiterId};
use crate::journal::{Journal, Record, Renewal, Seq, StoredLease};
use crate::lock::{
    self, Effect, Effects, EndReason, Lease, LeaseExtra, LeaveReason, Op, Outcome, Request, SetCondition,
    Slot, Waiter,
};

/// Holders that [`Op::Set`], which replaces all of them in one step, replaces on a thread that
/// serves other connections, too. This takes about a millisecond.
const REPLACED_AT_ONCE_MAX: usize = 1024;

/// Why an operation was not run.
pub(super) enum Retry {
    /// Due leases that count toward the account must be swept first.
    AfterExpiry,
    /// More of the lock has ended than one step frees.
    Unsettled,
    Never(Unavailable),
}

impl From<Unavailable> for Retry {
    fn from(why: Unavailable) -> Retry {
        Retry::Never(why)
    }
}

/// Which key is worked on, and at which time.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) table: &'a Table,
    pub(super) name: &'a LockName,
    pub(super) now: Timestamp,
    /// What is behind the work.
    pub(super) cause: Cause,
    /// Counts the leases and waiters that are changed.
    changed: &'a Cell<usize>,
}

impl Scope<'_> {
    pub(super) fn with_cause(self, cause: Cause) -> Self {
        Scope { cause, ..self }
    }
}

impl Engine {
    /// Runs `work` on a key under its guard, at `instant` or at the time that the clock shows there. A
    /// value that has expired is removed first. Returns the Seq of the last change to the key, too. Adds
    /// the number of leases and waiters that were changed to `changed`.
    pub(super) fn under_guard<R>(
        &self,
        table: &Table,
        name: &LockName,
        (instant, cause): (Option<Timestamp>, Cause),
        changed: &Cell<usize>,
        work: impl FnOnce(&mut KeyWork<'_, '_>) -> Result<R, Retry>,
    ) -> Result<(R, Seq), Retry> {
        let core = &*self.core;
        table.with_key(core.hash.of(name), name, |mut key| {
            // Under the guard: what was changed here before the journal went down is not to be seen.
            self.check_up()?;
            let now = instant.unwrap_or_else(|| core.clock.now());
            let before = key.content.deadline();
            let scope = Scope { table, name, now, cause, changed };
            let mut under_guard = KeyWork { engine: self, scope, key: &mut key, appended: Seq::default() };
            let result = match under_guard.expire_value() {
                Ok(()) => work(&mut under_guard),
                Err(why) => Err(why.into()),
            };
            core.lock_stats.key_changed(name.database(), before, key.content.deadline());
            core.deadlines.rearm(&mut key, now);
            Ok((result?, key.last_change()))
        })
    }

    /// Runs an operation on a lock.
    #[inline]
    pub(super) fn run_on_lock(
        &self,
        op: &Op,
        scope: &Scope<'_>,
        guarded: &mut Guarded<'_>,
    ) -> Result<Outcome, Retry> {
        let (core, name, now) = (&*self.core, scope.name, scope.now);
        if core.sessions.may_be_over(now) {
            self.end_over_sessions(scope, guarded)?;
        }
        let account = self.admit(op, guarded.slot, now)?;
        let is_long = matches!(op, Op::Set { .. }) && guarded.slot.holder_count() > REPLACED_AT_ONCE_MAX;
        let outcome = match is_long {
            true => run_long(|| self.step_and_return(op, scope, guarded))?,
            false => self.step_and_return(op, scope, guarded)?,
        };
        if !matches!(outcome, Outcome::Granted { already_held: false, .. }) {
            account.into_iter().for_each(|account| core.quotas.remove(account));
        }
        match outcome {
            Outcome::Unsettled => return Err(Retry::Unsettled),
            Outcome::NotHeld => self.record_late(name, op, guarded.hash, now),
            _ => {}
        }
        core.lock_stats.outcome(&outcome);
        Ok(outcome)
    }

    /// Ends what a lock has of sessions that are over.
    #[cold]
    fn end_over_sessions(&self, scope: &Scope<'_>, guarded: &mut Guarded<'_>) -> Result<(), Retry> {
        let (sessions, slot, now) = (&self.core.sessions, &*guarded.slot, scope.now);
        if slot.session_members() == 0 {
            return Ok(());
        }
        let over = sessions.over(now, &Members { name: scope.name, slot });
        for session in over.sessions {
            // One that is due may not have been ended yet. Its end goes before those of its leases.
            self.end_session_in(scope.table, session, false, false, now)?;
            let op = Op::EndSession { session, clean: sessions.ended_cleanly(session) };
            if self.step_and_return(&op, scope, guarded)? == Outcome::Unsettled {
                return Err(Retry::Unsettled);
            }
        }
        if over.are_all { Ok(()) } else { Err(Retry::Unsettled) }
    }

    /// Refuses what would go beyond a limit, before anything changes. Returns the account for which
    /// a lease is counted already, to be taken back if there is no grant.
    fn admit<'o>(&self, op: &'o Op, slot: &Slot, now: Timestamp) -> Result<Option<&'o str>, Retry> {
        let (Op::Acquire { request, .. } | Op::Set { request, .. }) = op else { return Ok(None) };
        self.check_backlog()?;
        if let Some(extra) = &request.extra {
            self.check_sessions(extra, now)?;
        }
        if slot.lease_of(&request.owner).is_none() {
            if needs_room(op, slot) && !self.core.lock_stats.has_room(self.core.config.locks_max) {
                return Err(Unavailable::LocksMax.into());
            }
            if self.core.tokens.are_exhausted() {
                return Err(Unavailable::TokensExhausted.into());
            }
            if let Op::Acquire { wait: Some(_), .. } = op {
                self.check_waiters(slot, &request.owner)?;
            }
            if let Some(account) = request.account() {
                return self.reserve(account, now);
            }
        }
        Ok(None)
    }

    #[inline(never)]
    fn check_sessions(&self, extra: &LeaseExtra, now: Timestamp) -> Result<(), Retry> {
        let is_over = |id: SessionId| self.core.sessions.is_over(id, now);
        match [extra.session, extra.counted_by].into_iter().flatten().any(is_over) {
            true => Err(Unavailable::NoSession.into()),
            false => Ok(()),
        }
    }

    #[inline(never)]
    fn check_waiters(&self, slot: &Slot, owner: &Owner) -> Result<(), Retry> {
        let is_full = slot.waiter_count() >= self.core.config.waiters_per_lock_max;
        if is_full && !slot.is_queued(owner) { Err(Unavailable::WaitersMax.into()) } else { Ok(()) }
    }

    /// Counts one more lease for an account.
    #[inline(never)]
    fn reserve<'o>(&self, account: &'o str, now: Timestamp) -> Result<Option<&'o str>, Retry> {
        if self.core.quotas.reserve(account, self.core.config.leases_per_account_max) {
            return Ok(Some(account));
        }
        // A lease that has ended, but was not freed yet, counts.
        let is_any_due = self.core.deadlines.next() <= now
            || self.core.sessions.may_be_over(now)
            || self.core.expiring.is_locked();
        Err(if is_any_due { Retry::AfterExpiry } else { Unavailable::AccountMax.into() })
    }

    /// Counts an owner that comes back after its lease has ended.
    fn record_late(&self, name: &LockName, op: &Op, hash: u64, now: Timestamp) {
        let (owner, late) = match op {
            Op::Release { owner, .. } | Op::Delete { if_owner: Some(owner) } => {
                (owner, &self.core.lock_stats.late_releases)
            }
            Op::Renew { owner, .. } => (owner, &self.core.lock_stats.late_renewals),
            _ => return,
        };
        if !LateOwners::remembers(owner) {
            return;
        }
        if let Some(lost) = self.core.late_owners.came_back(|| self.core.hash.with_owner(hash, owner)) {
            late.observe(now.nanos_since(lost.at), 1);
            losses::log_late(name, op, &lost, now);
        }
    }

    /// One transition and what follows from it. Undelivered grants are reverted.
    #[inline]
    pub(super) fn step_and_return(
        &self,
        op: &Op,
        scope: &Scope<'_>,
        guarded: &mut Guarded<'_>,
    ) -> Result<Outcome, Unavailable> {
        let mut undelivered = Vec::new();
        let outcome = self.step(op, scope, guarded, &mut undelivered)?;
        if !undelivered.is_empty() {
            self.revert(undelivered, scope, guarded)?;
        }
        Ok(outcome)
    }

    #[cold]
    fn revert(
        &self,
        mut undelivered: Vec<Op>,
        scope: &Scope<'_>,
        guarded: &mut Guarded<'_>,
    ) -> Result<(), Unavailable> {
        while !undelivered.is_empty() {
            for op in std::mem::take(&mut undelivered) {
                self.step(&op, scope, guarded, &mut undelivered)?;
            }
        }
        Ok(())
    }

    /// One transition and what follows from it. Appends to `undelivered` the operations that
    /// revert undelivered grants.
    #[inline(always)]
    fn step(
        &self,
        op: &Op,
        scope: &Scope<'_>,
        guarded: &mut Guarded<'_>,
        undelivered: &mut Vec<Op>,
    ) -> Result<Outcome, Unavailable> {
        let (core, name, now, epoch) = (&*self.core, scope.name, scope.now, scope.table.epoch);
        let mut effects = Effects::default();
        let mut env = EngineEnv { engine: self, epoch, now };
        let outcome = lock::apply(guarded.slot, op, now, &mut env, &mut effects);
        let changes_value = || changes_value(op, &outcome, &effects);
        if core.watches.are_any() && changes_value() {
            core.watches.changed(name);
        }
        if effects.is_empty() {
            if changes_value() {
                // The value that it sets is there already.
                let (slot, cause) = (&*guarded.slot, scope.cause);
                let transition = Transition { name, op, outcome: &outcome, effects: &effects, slot, cause };
                core.events.lock_changed(guarded.last_change(), &transition);
            }
            return Ok(outcome);
        }
        // If this fails, the slot has changed and the journal has not. The change stays invisible:
        // every reader checks first whether the journal is down, and it stays down until this
        // table is replaced.
        let records = effects.iter().filter_map(|effect| record_of(name, effect, &effects, guarded.slot));
        let seq = self.journal().append(epoch, records)?;
        guarded.changed_by(seq);
        let (slot, cause) = (&*guarded.slot, scope.cause);
        let transition = Transition { name, op, outcome: &outcome, effects: &effects, slot, cause };
        core.events.lock_changed(seq, &transition);
        for effect in effects.iter() {
            scope.changed.update(|changed| changed + 1);
            core.lock_stats.count(effect, now);
            losses::log_end(name, op, effect);
            self.record(name, effect, &effects, guarded, now);
            if let Some((waiter, outcome)) = outcome_of(effect, seq) {
                undelivered.extend(self.end_wait(waiter, outcome, guarded.slot));
            }
        }
        Ok(outcome)
    }

    /// Tells a waiter how its wait has ended. Returns the operation that reverts a grant to a waiter
    /// that is gone.
    #[inline(never)]
    fn end_wait(&self, waiter: WaiterId, outcome: WaitOutcome, slot: &Slot) -> Option<Op> {
        let granted = match &outcome {
            WaitOutcome::Granted(token, _) => Some(*token),
            _ => None,
        };
        if self.core.waiters.notify(waiter, outcome) {
            return None;
        }
        let lease = slot.lease(granted?)?;
        Some(Op::RevertGrant { owner: lease.owner.clone(), token: lease.token })
    }

    /// Adds a lease or waiter to a session, and sees to its end if the session has ended since the
    /// request was admitted.
    fn attach(&self, session: SessionId, name: &LockName, kind: MemberKind) {
        if self.core.sessions.attach(session, name, kind) {
            self.core.deadlines.alarm.armed(Timestamp::default());
        }
    }

    /// What sessions, quotas and the memory of late owners have to know of an effect.
    fn record(&self, name: &LockName, effect: &Effect, all: &Effects, guarded: &Guarded<'_>, now: Timestamp) {
        match effect {
            Effect::Granted { token, waiter } => {
                let lease = all.granted(*token, guarded.slot);
                if let Some(lease) = lease.filter(|lease| lease.extra.is_some()) {
                    self.record_grant(name, lease, waiter.is_some());
                }
            }
            Effect::Ended { lease, how } => {
                if lease.extra.is_some() {
                    self.record_end(name, lease);
                }
                if how.is_unclean() || *how == EndReason::Replaced {
                    self.remember_end(lease, guarded.hash, now);
                }
            }
            Effect::Joined { session: Some(session), .. } => self.attach(*session, name, MemberKind::Waiter),
            Effect::WaiterLeft { session: Some(session), .. } => {
                self.core.sessions.detach(*session, name, MemberKind::Waiter);
            }
            _ => {}
        }
    }

    #[inline(never)]
    fn record_grant(&self, name: &LockName, lease: &Lease, has_waited: bool) {
        let core = &*self.core;
        if let Some(session) = lease.session() {
            self.attach(session, name, MemberKind::Lease);
            if has_waited {
                core.sessions.detach(session, name, MemberKind::Waiter);
            }
        }
        if let Some(session) = lease.counted_by() {
            core.sessions.count(session, name, true);
        }
        if has_waited {
            // Other requests were counted when admitted.
            lease.account().into_iter().for_each(|account| core.quotas.add(account));
        }
    }

    #[inline(never)]
    fn record_end(&self, name: &LockName, lease: &Lease) {
        let core = &*self.core;
        if let Some(session) = lease.session() {
            core.sessions.detach(session, name, MemberKind::Lease);
        }
        if let Some(session) = lease.counted_by() {
            core.sessions.count(session, name, false);
        }
        lease.account().into_iter().for_each(|account| core.quotas.remove(account));
    }

    /// Remembers a lease that has ended behind its owner's back.
    #[inline(never)]
    fn remember_end(&self, lease: &Lease, hash: u64, now: Timestamp) {
        if LateOwners::remembers(&lease.owner) {
            let at = now.min(lease.deadline);
            let lost = Lost { at, token: lease.token, origin: losses::origin_if_logged(lease) };
            self.core.late_owners.ended(self.core.hash.with_owner(hash, &lease.owner), lost);
        }
    }
}

impl KeyWork<'_, '_> {
    /// Runs an operation, then `inspect` on the resulting state.
    pub(super) fn run<R>(
        &mut self,
        op: &Op,
        inspect: &impl Fn(Outcome, &Slot, Timestamp) -> R,
    ) -> Result<R, Retry> {
        let outcome = match self.key.lock() {
            Some(mut guarded) => self.engine.run_on_lock(op, &self.scope, &mut guarded)?,
            None => self.run_on_value(op)?,
        };
        Ok(match self.key.lock() {
            Some(guarded) => inspect(outcome, guarded.slot, self.scope.now),
            // A value has no holder.
            None => inspect(outcome, &Slot::default(), self.scope.now),
        })
    }

    /// Runs an operation on a key that holds a value.
    fn run_on_value(&mut self, op: &Op) -> Result<Outcome, Retry> {
        let now = self.scope.now;
        let (request, keeps_ttl) = match OnValue::of(op) {
            OnValue::Refuse => return Err(Unavailable::WrongType.into()),
            OnValue::Keep(outcome) => return Ok(outcome),
            OnValue::Delete => {
                self.end_value(&[DELETED])?;
                return Ok(Outcome::Released(1));
            }
            OnValue::SetTtl(ttl) => return Ok(Outcome::Renewed { deadline: self.set_ttl(ttl)? }),
            OnValue::Replace { request, keep_ttl } => (request, keep_ttl),
        };
        let ttl = match keeps_ttl {
            true => self.key.content.deadline().and_then(|deadline| ttl_until(deadline, now)),
            false => request.ttl,
        };
        let request = Request { ttl, ..request.clone() };
        let op = Op::Set { request, condition: SetCondition::Always, keep_ttl: false };
        self.engine.admit(&op, &Slot::default(), now)?;
        // The value is gone and the lease is there in one commit.
        let _one_commit = self.engine.one_commit();
        self.end_value(&[])?;
        let Some(mut guarded) = self.key.lock() else { unreachable!("vacant now") };
        let scope = self.scope.with_cause(Cause { replaces: true, keeps_ttl, ..self.scope.cause });
        let outcome = self.engine.step_and_return(&op, &scope, &mut guarded)?;
        self.engine.core.lock_stats.outcome(&outcome);
        Ok(outcome)
    }
}

/// Whether a lock has changed as far as WATCH is concerned: its holders, or when their leases end.
/// As in Redis, a SET is a change even if it changes nothing.
pub(super) fn changes_value(op: &Op, outcome: &Outcome, effects: &Effects) -> bool {
    matches!((op, outcome), (Op::Set { .. }, Outcome::Granted { .. }))
        || effects.iter().any(|effect| match effect {
            Effect::Granted { .. } | Effect::Renewed { .. } | Effect::Ended { .. } => true,
            Effect::DelayStarted { .. }
            | Effect::DelayEnded
            | Effect::Joined { .. }
            | Effect::WaiterLeft { .. } => false,
        })
}

/// Whether an operation may add to the number of leases and lock-delays. A SET that replaces either
/// does not.
fn needs_room(op: &Op, slot: &Slot) -> bool {
    match op {
        Op::Set { condition: SetCondition::Always | SetCondition::IfFree, .. } => {
            slot.newest().is_none() && slot.delay().is_none()
        }
        Op::Set { .. } => false,
        _ => true,
    }
}

struct EngineEnv<'a> {
    engine: &'a Engine,
    epoch: u64,
    now: Timestamp,
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
    fn is_undeliverable(&mut self, waiter: &Waiter) -> Option<LeaveReason> {
        let core = &self.engine.core;
        // When one session ends, others may be due and not yet ended.
        if let Some(session) = waiter.request.session()
            && core.sessions.is_over(session, self.now)
        {
            return Some(LeaveReason::SessionEnded);
        }
        (!core.waiters.is_there(waiter.id)).then_some(LeaveReason::Gone)
    }
}

fn record_of(name: &LockName, effect: &Effect, all: &Effects, slot: &Slot) -> Option<Record> {
    match effect {
        Effect::Granted { token, .. } => {
            let lease = all.granted(*token, slot)?.clone();
            Some(Record::Granted(StoredLease { name: name.clone(), lease }))
        }
        Effect::Renewed { token, deadline, effective_ttl, renewals } => Some(Record::Renewed(Renewal {
            token: *token,
            deadline: *deadline,
            effective_ttl: *effective_ttl,
            renewals: *renewals,
        })),
        Effect::Ended { lease, .. } => Some(Record::Ended(lease.token)),
        Effect::DelayStarted { delay, .. } => Some(Record::DelayStarted(name.clone(), *delay)),
        Effect::DelayEnded => Some(Record::DelayEnded(name.clone())),
        Effect::Joined { .. } | Effect::WaiterLeft { .. } => None,
    }
}

/// The waiter that leaves the queue with this effect, and the outcome of its wait.
fn outcome_of(effect: &Effect, seq: Seq) -> Option<(WaiterId, WaitOutcome)> {
    match effect {
        Effect::Granted { token, waiter: Some((waiter, _)) } => {
            Some((*waiter, WaitOutcome::Granted(*token, seq)))
        }
        Effect::WaiterLeft { waiter, why, .. } => {
            let outcome = match why {
                LeaveReason::TimedOut | LeaveReason::Gone => WaitOutcome::TimedOut(seq),
                LeaveReason::SessionEnded => WaitOutcome::SessionEnded(seq),
                LeaveReason::Replaced => WaitOutcome::Replaced,
            };
            Some((*waiter, outcome))
        }
        _ => None,
    }
}
