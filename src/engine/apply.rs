//! Runs one operation on one lock, under its guard, and what follows from the transition: records, events,
//! waiters, sessions, quotas.
//!
//! Guarantees: sequence numbers are assigned under the guard of the lock they concern. A waiter that is gone is
//! granted nothing. One call frees a bounded number of ended leases and leaves the rest to the next.
//! Not here: which table and which instant (in `txn`), the rules of locks.

use std::collections::VecDeque;

use super::keyspace::{Guarded, OnValue, Table, ttl_until};
use super::late_owners::Lost;
use super::sessions::MemberKind;
use super::values::KeyWork;
use super::{Engine, Event, EventKind, Unavailable, WaitOutcome, losses};
use crate::domain::{FencingToken, LockName, SessionId, Timestamp, WaiterId};
use crate::journal::{Journal, Record, Renewal, Seq, StoredLease};
use crate::lock::{
    self, ENDS_PER_STEP, Effect, Effects, EndReason, LeaveReason, Op, Outcome, Request, SetCondition, Slot,
    Waiter,
};

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

impl Engine {
    /// Runs an operation at `instant`, or at the time that the clock shows under the guard.
    pub(super) fn run_in<R>(
        &self,
        table: &Table,
        name: &LockName,
        op: &Op,
        instant: Option<Timestamp>,
        inspect: &impl Fn(Outcome, &Slot, Timestamp) -> R,
    ) -> Result<(R, Seq), Retry> {
        self.under_guard(table, name, instant, |mut work| {
            let outcome = match work.key.lock() {
                Some(mut guarded) => self.run_under_guard(table, name, op, work.now, &mut guarded)?,
                None => self.run_on_value(op, &mut work)?,
            };
            let now = work.now;
            Ok(match work.key.lock() {
                Some(guarded) => inspect(outcome, guarded.slot, now),
                // Nobody holds a value.
                None => inspect(outcome, &Slot::default(), now),
            })
        })
    }

    /// Runs `work` on a key under its guard, at `instant` or at the time that the clock shows there. A
    /// value that has ended is gone before. Returns the Seq of the last change to the key, too.
    pub(super) fn under_guard<R>(
        &self,
        table: &Table,
        name: &LockName,
        instant: Option<Timestamp>,
        work: impl FnOnce(KeyWork<'_, '_>) -> Result<R, Retry>,
    ) -> Result<(R, Seq), Retry> {
        let core = &*self.core;
        table.with_key(core.hash.of(name), name, |mut key| {
            // Under the guard: what was changed here before the journal went down is not to be seen.
            self.check_up()?;
            let now = instant.unwrap_or_else(|| core.clock.now());
            let existed = key.content.exists();
            let mut under_guard =
                KeyWork { engine: self, table, name, now, key: &mut key, appended: Seq::default() };
            let result = match under_guard.expire_value() {
                Ok(()) => work(under_guard),
                Err(why) => Err(why.into()),
            };
            core.lock_stats.key_changed(name.database(), existed, key.content.exists());
            core.deadlines.rearm(&mut key, now);
            Ok((result?, key.last_change()))
        })
    }

    /// Runs an operation on a lock.
    #[inline]
    pub(super) fn run_under_guard(
        &self,
        table: &Table,
        name: &LockName,
        op: &Op,
        now: Timestamp,
        guarded: &mut Guarded<'_>,
    ) -> Result<Outcome, Retry> {
        let core = &*self.core;
        if core.sessions.may_be_over(now) {
            self.end_over_sessions(table, name, now, guarded)?;
        }
        let account = self.admit(op, guarded.slot, now)?;
        let outcome = self.step_and_return(table, name, op, now, guarded)?;
        if !matches!(outcome, Outcome::Granted { already_held: false, .. }) {
            account.into_iter().for_each(|account| core.quotas.remove(account));
        }
        match outcome {
            Outcome::Unsettled => return Err(Retry::Unsettled),
            Outcome::NotHeld => self.note_late(name, op, guarded.hash, now),
            _ => {}
        }
        core.lock_stats.outcome(&outcome);
        Ok(outcome)
    }

    /// Runs an operation on a key that holds a value.
    fn run_on_value(&self, op: &Op, work: &mut KeyWork<'_, '_>) -> Result<Outcome, Retry> {
        let (request, ttl) = match OnValue::of(op) {
            OnValue::Refuse => return Err(Unavailable::WrongType.into()),
            OnValue::Keep(outcome) => return Ok(outcome),
            OnValue::Delete => {
                work.end_value()?;
                return Ok(Outcome::Released(1));
            }
            OnValue::SetTtl(ttl) => return Ok(Outcome::Renewed { deadline: work.set_ttl(ttl)? }),
            OnValue::Replace { request, keep_ttl: false } => (request, request.ttl),
            OnValue::Replace { request, keep_ttl: true } => {
                (request, work.key.content.deadline().and_then(|deadline| ttl_until(deadline, work.now)))
            }
        };
        let request = Request { ttl, ..request.clone() };
        let op = Op::Set { request, condition: SetCondition::Always, keep_ttl: false };
        self.admit(&op, &Slot::default(), work.now)?;
        // The value is gone and the lease is there in one commit.
        let _one_commit = self.one_commit();
        work.end_value()?;
        let Some(mut guarded) = work.key.lock() else { unreachable!("vacant now") };
        let outcome = self.step_and_return(work.table, work.name, &op, work.now, &mut guarded)?;
        self.core.lock_stats.outcome(&outcome);
        Ok(outcome)
    }

    /// Ends what a lock has of sessions that are over.
    fn end_over_sessions(
        &self,
        table: &Table,
        name: &LockName,
        now: Timestamp,
        guarded: &mut Guarded<'_>,
    ) -> Result<(), Retry> {
        let (sessions, slot) = (&self.core.sessions, &*guarded.slot);
        let members = slot.session_members();
        if members == 0 {
            return Ok(());
        }
        let over =
            sessions.over(now, ENDS_PER_STEP, members, slot.sessions(), |session| slot.has_session(session));
        let are_all = over.len() < ENDS_PER_STEP;
        for session in over {
            // One that is due may not have been ended yet. Its end goes before those of its leases.
            self.end_session_in(table, session, false, false, now)?;
            let op = Op::EndSession { session, clean: sessions.ended_cleanly(session) };
            if self.step_and_return(table, name, &op, now, guarded)? == Outcome::Unsettled {
                return Err(Retry::Unsettled);
            }
        }
        if are_all { Ok(()) } else { Err(Retry::Unsettled) }
    }

    /// Refuses what would go beyond a limit, before anything changes. Returns the account for which a lease is counted
    /// already, to be taken back if there is no grant.
    fn admit<'o>(&self, op: &'o Op, slot: &Slot, now: Timestamp) -> Result<Option<&'o str>, Retry> {
        let (Op::Acquire { request, .. } | Op::Set { request, .. }) = op else { return Ok(None) };
        for id in [request.session(), request.counted_by()].into_iter().flatten() {
            if self.core.sessions.is_over(id, now) {
                return Err(Unavailable::NoSession.into());
            }
        }
        if slot.lease_of(&request.owner).is_none() {
            if needs_room(op, slot) && !self.core.lock_stats.has_room(self.core.config.locks_max) {
                return Err(Unavailable::LocksMax.into());
            }
            if self.core.tokens.are_exhausted() {
                return Err(Unavailable::TokensExhausted.into());
            }
            if let Op::Acquire { wait: Some(_), .. } = op
                && slot.waiter_count() >= self.core.config.waiters_per_lock_max
                && !slot.is_queued(&request.owner)
            {
                return Err(Unavailable::WaitersMax.into());
            }
            if let Some(account) = request.account() {
                if self.core.quotas.reserve(account, self.core.config.leases_per_account_max) {
                    return Ok(Some(account));
                }
                let is_any_due = self.core.deadlines.next() <= now || self.core.expiring.try_lock().is_err();
                return Err(if is_any_due { Retry::AfterExpiry } else { Unavailable::AccountMax.into() });
            }
        }
        Ok(None)
    }

    /// Counts an owner that comes back after its lease has ended.
    fn note_late(&self, name: &LockName, op: &Op, hash: u64, now: Timestamp) {
        let (owner, late) = match op {
            Op::Release { owner, .. } | Op::Delete { if_owner: Some(owner) } => {
                (owner, &self.core.lock_stats.late_releases)
            }
            Op::Renew { owner, .. } => (owner, &self.core.lock_stats.late_renewals),
            _ => return,
        };
        if let Some(lost) = self.core.late_owners.came_back(|| self.core.hash.with_owner(hash, owner)) {
            late.observe(now.nanos_since(lost.at), 1);
            losses::log_late(name, op, &lost, now);
        }
    }

    /// One transition and what follows from it. Grants that reached nobody are given back.
    #[inline]
    pub(super) fn step_and_return(
        &self,
        table: &Table,
        name: &LockName,
        op: &Op,
        now: Timestamp,
        guarded: &mut Guarded<'_>,
    ) -> Result<Outcome, Unavailable> {
        let mut undelivered = VecDeque::new();
        let outcome = self.step(table, name, op, now, guarded, &mut undelivered)?;
        while let Some(op) = undelivered.pop_front() {
            self.step(table, name, &op, now, guarded, &mut undelivered)?;
        }
        Ok(outcome)
    }

    /// One transition and what follows from it. `undelivered` gets what gives back the grants that reached nobody.
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
        let mut effects = Effects::default();
        let mut env = EngineEnv { engine: self, epoch: table.epoch, now };
        let outcome = lock::apply(guarded.slot, op, now, &mut env, &mut effects);
        if changes_value(op, &outcome, &effects) {
            core.watches.changed(name);
        }
        if effects.is_empty() {
            return Ok(outcome);
        }
        // Should this fail, the slot has changed and the journal has not. Nothing is told of it: whoever looks asks
        // first whether the journal is down, and it stays down until this table is replaced.
        let records = effects.iter().filter_map(|effect| record_of(name, effect, &effects, guarded.slot));
        let seq = self.journal().append(table.epoch, records).map_err(Unavailable::Journal)?;
        guarded.changed_by(seq);
        if core.events.is_heard() {
            let events = effects.iter().filter_map(|effect| event_of(name, effect, &effects, guarded.slot));
            events.for_each(|event| core.events.push(seq, event));
        }
        for effect in effects.iter() {
            core.lock_stats.count(effect, now);
            losses::log_end(name, op, effect);
            self.note(name, effect, &effects, guarded, now);
            let Some((waiter, outcome)) = outcome_of(effect, seq) else { continue };
            let granted = match &outcome {
                WaitOutcome::Granted(token, _) => Some(*token),
                _ => None,
            };
            if !core.waiters.notify(waiter, outcome)
                && let Some(token) = granted
                && let Some(lease) = guarded.slot.lease(token)
            {
                undelivered.push_back(Op::RevertGrant { owner: lease.owner.clone(), token });
            }
        }
        Ok(outcome)
    }

    /// Adds a lease or waiter to a session, and sees to its end if the session has ended since the
    /// request was admitted.
    fn attach(&self, session: SessionId, name: &LockName, kind: MemberKind) {
        if self.core.sessions.attach(session, name, kind) {
            self.core.deadlines.alarm.armed(Timestamp::default());
        }
    }

    /// What sessions, quotas and the memory of late owners have to know of an effect.
    fn note(&self, name: &LockName, effect: &Effect, all: &Effects, guarded: &Guarded<'_>, now: Timestamp) {
        let core = &*self.core;
        match effect {
            Effect::Granted { token, waiter } => {
                let Some(lease) = all.granted(*token, guarded.slot) else { return };
                if let Some(session) = lease.session() {
                    self.attach(session, name, MemberKind::Lease);
                    if waiter.is_some() {
                        core.sessions.detach(session, name, MemberKind::Waiter);
                    }
                }
                if let Some(session) = lease.counted_by() {
                    core.sessions.count(session, name, true);
                }
                if waiter.is_some() {
                    // Whoever did not wait was counted when admitted.
                    lease.account().into_iter().for_each(|account| core.quotas.add(account));
                }
            }
            Effect::Ended { lease, how } => {
                if let Some(session) = lease.session() {
                    core.sessions.detach(session, name, MemberKind::Lease);
                }
                if let Some(session) = lease.counted_by() {
                    core.sessions.count(session, name, false);
                }
                lease.account().into_iter().for_each(|account| core.quotas.remove(account));
                if how.is_unclean() || *how == EndReason::Replaced {
                    let at = now.min(lease.deadline);
                    let lost = Lost { at, token: lease.token, origin: losses::origin_if_logged(lease) };
                    core.late_owners.ended(core.hash.with_owner(guarded.hash, &lease.owner), lost);
                }
            }
            Effect::Joined { session: Some(session), .. } => self.attach(*session, name, MemberKind::Waiter),
            Effect::WaiterLeft { session: Some(session), .. } => {
                core.sessions.detach(*session, name, MemberKind::Waiter);
            }
            _ => {}
        }
    }
}

/// Whether a lock has changed as far as WATCH is concerned: its holders, or when their leases end. As in Redis, a SET is a change
/// even if it changes nothing.
fn changes_value(op: &Op, outcome: &Outcome, effects: &Effects) -> bool {
    matches!((op, outcome), (Op::Set { .. }, Outcome::Granted { .. }))
        || effects.iter().any(|effect| match effect {
            Effect::Granted { .. } | Effect::Renewed { .. } | Effect::Ended { .. } => true,
            Effect::DelayStarted { .. }
            | Effect::DelayEnded
            | Effect::Joined { .. }
            | Effect::WaiterLeft { .. } => false,
        })
}

/// Whether an operation may add to the number of leases and lock-delays. A SET that replaces either does not.
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
            Some(Record::Granted(Box::new(StoredLease { name: name.clone(), lease })))
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

fn event_of(name: &LockName, effect: &Effect, all: &Effects, slot: &Slot) -> Option<Event> {
    let (kind, token, deadline) = match effect {
        Effect::Granted { token, .. } => (EventKind::Acquired, *token, all.granted(*token, slot)?.deadline),
        Effect::Renewed { token, deadline, .. } => (EventKind::Renewed, *token, *deadline),
        Effect::Ended { lease, how } => {
            let kind = match how {
                EndReason::Released | EndReason::Session { .. } => EventKind::Released,
                EndReason::Expired => EventKind::Expired,
                EndReason::Forced => EventKind::Forced,
                EndReason::Replaced => EventKind::Replaced,
            };
            (kind, lease.token, lease.deadline)
        }
        _ => return None,
    };
    Some(Event { number: 0, name: name.clone(), kind, token, deadline })
}

/// Who waits no more, and what it is told.
fn outcome_of(effect: &Effect, seq: Seq) -> Option<(WaiterId, WaitOutcome)> {
    match effect {
        Effect::Granted { token, waiter: Some((waiter, _)) } => {
            Some((*waiter, WaitOutcome::Granted(*token, seq)))
        }
        Effect::WaiterLeft { waiter, why, .. } => {
            let verdict = match why {
                LeaveReason::TimedOut | LeaveReason::Gone => WaitOutcome::TimedOut(seq),
                LeaveReason::SessionEnded => WaitOutcome::SessionEnded(seq),
                LeaveReason::Replaced => WaitOutcome::Replaced,
            };
            Some((*waiter, verdict))
        }
        _ => None,
    }
}
