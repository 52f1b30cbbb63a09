//! The transition function: one slot, one operation, one instant.
//!
//! Guarantees: total and deterministic (the same slot, operation, time, tokens and deliverability
//! give the same result); what was decided is returned as data, in the order in which it happened.
//! Every operation first frees what has ended by `now` (`expire_due`), and ends by granting the lock
//! to the head of the queue (`promote`), so a release, the choice of the successor and its token are
//! one step. Rare operations are not inlined: their code would spread that of a plain LOCK and UNLOCK
//! over more cache lines. Not here: IO, clocks, randomness, panics on any input.

mod expiry;

use super::effect::{Effect, Effects, EndReason, LeaveReason};
use super::lease::{Lease, Request};
use super::mode::Mode;
use super::slot::{Delay, Revocation, Slot, Waiter};
use crate::domain::{FencingToken, Owner, SessionId, Timestamp, Ttl, WaiterId};

/// What a transition needs from outside.
pub trait Env {
    /// The next fencing token: larger than every one taken before.
    fn take_token(&mut self) -> FencingToken;
    /// Why a waiter cannot be granted anything: it has no receiver, or its session is over.
    fn is_undeliverable(&mut self, waiter: &Waiter) -> Option<LeaveReason>;
}

/// What is asked of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Take the lock, wait for it, or be refused.
    Acquire {
        /// What is asked for.
        request: Request,
        /// Whom to tell and until when to queue; `None`: do not queue.
        wait: Option<(WaiterId, Timestamp)>,
    },
    /// Give the lock back.
    Release {
        /// Who holds it.
        owner: Owner,
        /// Only the acquisition with this token.
        token: Option<FencingToken>,
    },
    /// Revert a grant to a waiter that could not be delivered, unless the owner has learned of it
    /// meanwhile.
    RevertGrant {
        /// Who holds it.
        owner: Owner,
        /// The acquisition.
        token: FencingToken,
    },
    /// Move the deadline to a TTL from now; may shorten.
    Renew {
        /// Who holds it.
        owner: Owner,
        /// The new TTL; `None`: the one the lease was granted with.
        ttl: Option<Ttl>,
        /// Only the acquisition with this token.
        token: Option<FencingToken>,
    },
    /// Ends all leases, regardless of their owners. Where there are more than [`ENDS_PER_STEP`],
    /// all of them are over at once, the next steps free them, and any other operation is
    /// [`Outcome::Unsettled`] until that is done.
    Force,
    /// End what belongs to a session that has ended.
    EndSession {
        /// The session.
        session: SessionId,
        /// Its owner ended it, so no lock-delay is due.
        clean: bool,
    },
    /// A waiter goes away.
    CancelWait {
        /// Which one.
        waiter: WaiterId,
        /// The owner it queued for.
        owner: Owner,
    },
    /// Take the lock as Redis' SET does: the value is the owner. If its condition holds, it replaces all holders and any
    /// running lock-delay.
    Set {
        /// The new holder; always exclusive.
        request: Request,
        /// When to do it.
        condition: SetCondition,
        /// Keep the deadline of the lease that is replaced.
        keep_ttl: bool,
    },
    /// Releases all leases, as Redis' DEL does, in steps as [`Op::Force`].
    Delete {
        /// Only if this owner holds it.
        if_owner: Option<Owner>,
    },
    /// Move the deadline of the only holder, regardless of its owner, as Redis' PEXPIRE and PERSIST
    /// do.
    SetTtl {
        /// The new TTL; `None`: no end.
        ttl: Option<Ttl>,
    },
    /// Only settle: free what has ended.
    Inspect,
}

/// When [`Op::Set`] applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetCondition {
    /// Always.
    Always,
    /// Only if the lock is free and no lock-delay is running.
    IfFree,
    /// Only if it is held.
    IfHeld,
    /// Only if this owner holds it.
    IfOwner(Owner),
}

/// The result of an [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The owner holds the lock under this token.
    Granted {
        /// Its fencing token.
        token: FencingToken,
        /// Whether it held it already, under the same token.
        already_held: bool,
    },
    /// The request waits.
    Queued,
    /// Not granted.
    Refused(Refusal),
    /// This many leases were ended.
    Released(u32),
    /// The deadline is now this.
    Renewed {
        /// The new deadline.
        deadline: Timestamp,
    },
    /// Not held by that owner, or not under that token.
    NotHeld,
    /// The lock is shared or limited, and the operation is for one holder.
    NotExclusive,
    /// It is done, and has no other result.
    Done,
    /// More has ended, by now or with a session, than one step frees; nothing else was done.
    /// Apply it again.
    Unsettled,
}

/// Why a lock was not granted; checked in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The owner holds the lock in another mode.
    OtherMode(Mode),
    /// The owner's lease ends with another session than the request's, or only one of them ends
    /// with a session.
    OtherSession,
    /// A lock-delay runs after an unclean end.
    Delayed,
    /// Held by others, or others wait for it.
    Held,
    /// The condition of a SET does not hold.
    Condition,
}

/// Leases that one transition ends because of their deadline or session. Waiters whose time or
/// session is over count, too. [`Op::Set`] alone replaces all holders in one transition, however
/// many there are.
pub const ENDS_PER_STEP: usize = 256;
/// Waiters that one transition grants a lock to, or finds gone. The rest is for the next, which is
/// due at once.
pub const PROMOTIONS_PER_STEP: usize = 256;

/// Applies `op` at `now`. What happened is appended to `effects`, in order. Where more than
/// [`ENDS_PER_STEP`] leases and waiters have ended by `now`, that number is freed and the outcome
/// is [`Outcome::Unsettled`].
pub fn apply(slot: &mut Slot, op: &Op, now: Timestamp, env: &mut impl Env, effects: &mut Effects) -> Outcome {
    let mut step = Step { slot, now, env, effects };
    if !step.expire_due() {
        return Outcome::Unsettled;
    }
    let outcome = step.run(op);
    step.promote();
    step.slot.drop_contention_if_empty();
    debug_assert_eq!(super::invariants::check(slot, now), Ok(()));
    outcome
}

struct Step<'a, E: Env> {
    slot: &'a mut Slot,
    now: Timestamp,
    env: &'a mut E,
    effects: &'a mut Effects,
}

impl<E: Env> Step<'_, E> {
    fn run(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Acquire { request, wait } => self.acquire(request, *wait),
            Op::Release { owner, token } => match self.held(owner, *token) {
                None => Outcome::NotHeld,
                Some(token) => {
                    self.end(token, EndReason::Released);
                    Outcome::Released(1)
                }
            },
            Op::RevertGrant { owner, token } => match self.slot.lease_of(owner) {
                Some(lease) if lease.token == *token && lease.is_unacknowledged => {
                    self.end(*token, EndReason::Released);
                    Outcome::Released(1)
                }
                _ => Outcome::NotHeld,
            },
            Op::Renew { owner, ttl, token } => match self.held(owner, *token) {
                None => Outcome::NotHeld,
                Some(token) => {
                    self.claim(token);
                    self.renew(token, |lease| ttl.or(lease.ttl))
                }
            },
            Op::Force => Outcome::Released(self.revoke_all(EndReason::Forced)),
            Op::EndSession { session, clean } => self.end_session(*session, *clean),
            Op::CancelWait { waiter, owner } => self.leave(*waiter, owner),
            Op::Set { request, condition, keep_ttl } => self.set(request, condition, *keep_ttl),
            Op::Delete { if_owner } => self.delete(if_owner.as_ref()),
            Op::SetTtl { ttl } => match self.slot.newest() {
                None => Outcome::NotHeld,
                Some(lease) if lease.mode != Mode::Exclusive => Outcome::NotExclusive,
                Some(lease) => {
                    let token = lease.token;
                    self.renew(token, |_| *ttl)
                }
            },
            Op::Inspect => Outcome::Done,
        }
    }

    fn acquire(&mut self, request: &Request, wait: Option<(WaiterId, Timestamp)>) -> Outcome {
        if self.slot.lease_of(&request.owner).is_some() {
            return self.acquire_again(request);
        }
        if self.slot.waiter_count() == 0 && self.has_room_for(request.mode) {
            return Outcome::Granted { token: self.grant(request, None), already_held: false };
        }
        self.queue(request, wait)
    }

    /// A request of the owner that holds the lock.
    #[inline(never)]
    fn acquire_again(&mut self, request: &Request) -> Outcome {
        let Some(lease) = self.slot.lease_of(&request.owner) else { return Outcome::NotHeld };
        if lease.mode != request.mode {
            return Outcome::Refused(Refusal::OtherMode(lease.mode));
        }
        // Either it would end with a session the request does not name, or it would not end
        // when the request says.
        if lease.session() != request.session() {
            return Outcome::Refused(Refusal::OtherSession);
        }
        let (token, was) = (lease.token, lease.deadline);
        let deadline = lease.clip(self.now.after(request.ttl));
        self.claim(token);
        if deadline > was {
            self.move_deadline(token, deadline, request.ttl);
        }
        Outcome::Granted { token, already_held: true }
    }

    /// Queues a request, in the place of an earlier one of its owner. Refuses one that does not wait.
    #[inline(never)]
    fn queue(&mut self, request: &Request, wait: Option<(WaiterId, Timestamp)>) -> Outcome {
        let Some((id, deadline)) = wait.filter(|(_, deadline)| *deadline > self.now) else {
            return Outcome::Refused(match self.slot.delay() {
                Some(_) => Refusal::Delayed,
                None => Refusal::Held,
            });
        };
        let contention = self.slot.contention_mut();
        let place = contention.queue.number_of(&request.owner);
        let mut waiter = Waiter { place: 0, id, request: request.clone(), since: self.now, deadline };
        match place.and_then(|place| contention.queue.remove(place)) {
            Some(first) => {
                (waiter.place, waiter.since) = (first.place, first.since);
                self.effects.push(left(&first, LeaveReason::Replaced));
            }
            None => waiter.place = contention.queue.last().map_or(0, |last| last.place + 1),
        }
        self.effects.push(Effect::Joined { waiter: id, session: request.session() });
        contention.queue.insert(waiter);
        Outcome::Queued
    }

    #[inline(never)]
    fn end_session(&mut self, session: SessionId, clean: bool) -> Outcome {
        let tokens: Vec<_> = self.slot.tokens_of(session).take(ENDS_PER_STEP).collect();
        for token in &tokens {
            self.end(*token, EndReason::Session { clean });
        }
        if let Some(contention) = self.slot.contention.as_mut() {
            let places: Vec<_> = contention.queue.of_session(session).take(ENDS_PER_STEP).collect();
            for waiter in places.into_iter().filter_map(|place| contention.queue.remove(place)) {
                self.effects.push(left(&waiter, LeaveReason::SessionEnded));
            }
        }
        if self.slot.has_session(session) {
            Outcome::Unsettled
        } else {
            Outcome::Released(tokens.len() as u32)
        }
    }

    #[inline(never)]
    fn leave(&mut self, id: WaiterId, owner: &Owner) -> Outcome {
        let Some(contention) = self.slot.contention.as_mut() else { return Outcome::NotHeld };
        let place = contention.queue.number_of(owner);
        match place.filter(|place| contention.queue.get(*place).is_some_and(|waiter| waiter.id == id)) {
            None => Outcome::NotHeld,
            Some(place) => {
                if let Some(waiter) = contention.queue.remove(place) {
                    self.effects.push(left(&waiter, LeaveReason::Gone));
                }
                Outcome::Done
            }
        }
    }

    #[inline(never)]
    fn set(&mut self, request: &Request, condition: &SetCondition, keep_ttl: bool) -> Outcome {
        let held = self.slot.newest().is_some();
        let met = match condition {
            SetCondition::Always => true,
            SetCondition::IfFree => !held,
            SetCondition::IfHeld => held,
            SetCondition::IfOwner(owner) => match self.slot.newest() {
                Some(lease) if lease.mode != Mode::Exclusive => return Outcome::NotExclusive,
                lease => lease.is_some_and(|lease| lease.owner == *owner),
            },
        };
        if !met {
            return Outcome::Refused(Refusal::Condition);
        }
        if *condition == SetCondition::IfFree && self.slot.delay().is_some() {
            return Outcome::Refused(Refusal::Delayed);
        }
        let kept = match self.slot.newest() {
            Some(lease) if keep_ttl => Some((lease.ttl, lease.effective_ttl, lease.deadline)),
            _ => None,
        };
        // The holder's own SET is a renewal: a new token would fence off a holder that never lost
        // the lock.
        if let Some(lease) = self.slot.newest()
            && lease.mode == Mode::Exclusive
            && lease.owner == request.owner
        {
            let token = lease.token;
            self.claim(token);
            if !keep_ttl {
                self.renew(token, |_| request.ttl);
            }
            return Outcome::Granted { token, already_held: true };
        }
        self.end_all(EndReason::Replaced);
        self.end_delay();
        if let Some(contention) = self.slot.contention.as_mut()
            && let Some(place) = contention.queue.number_of(&request.owner)
            && let Some(waiter) = contention.queue.remove(place)
        {
            self.effects.push(left(&waiter, LeaveReason::Replaced));
        }
        let token = self.env.take_token();
        let mut lease = Lease::grant(request, token, self.now);
        if let Some(kept) = kept {
            (lease.ttl, lease.effective_ttl, lease.deadline) = kept;
        }
        self.hold(lease, None);
        Outcome::Granted { token, already_held: false }
    }

    #[inline(never)]
    fn delete(&mut self, if_owner: Option<&Owner>) -> Outcome {
        let Some(lease) = self.slot.newest() else { return Outcome::NotHeld };
        if let Some(owner) = if_owner {
            if lease.mode != Mode::Exclusive {
                return Outcome::NotExclusive;
            }
            if lease.owner != *owner {
                return Outcome::NotHeld;
            }
        }
        Outcome::Released(self.revoke_all(EndReason::Released))
    }

    /// The token under which `owner` holds the lock, if it is `token` or any will do.
    fn held(&self, owner: &Owner, token: Option<FencingToken>) -> Option<FencingToken> {
        let held = self.slot.lease_of(owner)?.token;
        (token.is_none() || token == Some(held)).then_some(held)
    }

    #[inline(never)]
    fn renew(&mut self, token: FencingToken, ttl: impl FnOnce(&Lease) -> Option<Ttl>) -> Outcome {
        match self.slot.lease(token) {
            None => Outcome::NotHeld,
            Some(lease) => {
                let ttl = ttl(lease);
                let deadline = lease.clip(self.now.after(ttl));
                self.move_deadline(token, deadline, ttl);
                Outcome::Renewed { deadline }
            }
        }
    }

    /// The owner knows of its lease: from here on only the owner gives it back.
    fn claim(&mut self, token: FencingToken) {
        let _ = self.slot.update_holder(token, |lease| lease.is_unacknowledged = false);
    }

    fn move_deadline(&mut self, token: FencingToken, deadline: Timestamp, effective_ttl: Option<Ttl>) {
        let renewed = self.slot.update_holder(token, |lease| {
            (lease.deadline, lease.effective_ttl) = (deadline, effective_ttl);
            lease.renewals = lease.renewals.saturating_add(1);
            lease.renewals
        });
        if let Some(renewals) = renewed {
            self.effects.push(Effect::Renewed { token, deadline, effective_ttl, renewals });
        }
    }

    fn end(&mut self, token: FencingToken, how: EndReason) {
        self.end_at(token, how, self.now);
    }

    fn end_at(&mut self, token: FencingToken, how: EndReason, at: Timestamp) {
        let Some(lease) = self.slot.lease(token) else { return };
        // A SET hands the lock over at that instant: nothing can rest between.
        let delay = lease.delay_after(how.is_unclean()).filter(|_| how != EndReason::Replaced);
        if let Some(length) = delay {
            // An expiry that is noticed late started its delay when the lease ended.
            let from = if how == EndReason::Expired { lease.deadline } else { at };
            self.start_delay(Delay { until: from.after(Some(length)), length });
        }
        if let Some(lease) = self.slot.remove_holder(token) {
            self.effects.push(Effect::Ended { lease, how });
        }
    }

    /// Starts a delay, unless one runs that is longer.
    #[inline(never)]
    fn start_delay(&mut self, delay: Delay) {
        let running = self.slot.delay();
        if running.is_none_or(|running| running.until < delay.until) {
            self.slot.contention_mut().delay = Some(delay);
            self.effects.push(Effect::DelayStarted { delay, is_first: running.is_none() });
        }
    }

    /// Ends all leases, and frees them.
    fn end_all(&mut self, how: EndReason) {
        while let Some(token) = self.slot.newest().map(|lease| lease.token) {
            self.end(token, how);
        }
    }

    /// Ends all leases. Where there are very many, the next steps free most of them, before they do
    /// anything else.
    #[inline(never)]
    fn revoke_all(&mut self, how: EndReason) -> u32 {
        let holders = self.slot.holder_count();
        if holders > ENDS_PER_STEP {
            self.slot.contention_mut().revocation = Some(Revocation { how, at: self.now });
            self.free_revoked(&mut { ENDS_PER_STEP });
        } else {
            self.end_all(how);
        }
        holders as u32
    }

    /// Frees the leases that [`Step::revoke_all`] has left, at most `room` of them. `false`: there
    /// are more.
    #[inline]
    fn free_revoked(&mut self, room: &mut usize) -> bool {
        self.slot.revocation().is_none_or(|revocation| self.go_on_revoking(revocation, room))
    }

    #[cold]
    fn go_on_revoking(&mut self, Revocation { how, at }: Revocation, room: &mut usize) -> bool {
        while let Some(token) = self.slot.newest().map(|lease| lease.token) {
            if *room == 0 {
                return false;
            }
            *room -= 1;
            self.end_at(token, how, at);
        }
        self.slot.contention_mut().revocation = None;
        true
    }

    /// Ends the lock-delay, if one is running.
    fn end_delay(&mut self) {
        if self.slot.contention.as_mut().is_some_and(|contention| contention.delay.take().is_some()) {
            self.effects.push(Effect::DelayEnded);
        }
    }

    /// Grants the lock to the head of the queue for as long as there is room, to at most
    /// [`PROMOTIONS_PER_STEP`] in one step.
    #[inline]
    fn promote(&mut self) {
        if self.slot.contention.is_some() {
            self.promote_waiters();
        }
    }

    #[inline(never)]
    fn promote_waiters(&mut self) {
        let mut room = PROMOTIONS_PER_STEP;
        loop {
            let Some(contention) = self.slot.contention.as_mut() else { return };
            contention.has_more_to_grant = false;
            let Some(head) = contention.queue.first() else { return };
            let (place, mode) = (head.place, head.request.mode);
            let is_undeliverable = self.env.is_undeliverable(head);
            if is_undeliverable.is_none() && !self.has_room_for(mode) {
                return;
            }
            let contention = self.slot.contention_mut();
            if room == 0 {
                contention.has_more_to_grant = true;
                return;
            }
            room -= 1;
            let Some(waiter) = contention.queue.remove(place) else { return };
            match is_undeliverable {
                None => drop(self.grant(&waiter.request, Some((waiter.id, waiter.since)))),
                Some(why) => self.effects.push(left(&waiter, why)),
            }
        }
    }

    fn has_room_for(&self, mode: Mode) -> bool {
        if self.slot.delay().is_some() || self.slot.is_revoked() {
            return false;
        }
        let Some(newest) = self.slot.newest() else { return true };
        // All holders are of one kind; of limits, the smallest of those that hold it counts.
        newest.mode.mixes_with(mode)
            && [mode.capacity(), self.slot.smallest_capacity()]
                .into_iter()
                .flatten()
                .all(|capacity| self.slot.holder_count() < capacity as usize)
    }

    fn grant(&mut self, request: &Request, waiter: Option<(WaiterId, Timestamp)>) -> FencingToken {
        let token = self.env.take_token();
        let lease = Lease { is_unacknowledged: waiter.is_some(), ..Lease::grant(request, token, self.now) };
        self.hold(lease, waiter);
        token
    }

    fn hold(&mut self, lease: Lease, waiter: Option<(WaiterId, Timestamp)>) {
        self.effects.push(Effect::Granted { token: lease.token, waiter });
        self.slot.add_holder(lease);
    }
}

fn left(waiter: &Waiter, why: LeaveReason) -> Effect {
    Effect::WaiterLeft { waiter: waiter.id, session: waiter.request.session(), why }
}
