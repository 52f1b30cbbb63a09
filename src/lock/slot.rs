//! One lock's state: who holds it, who waits for it, and whether it rests after an unclean end.
//!
//! Promise: plain data with cheap look-ups. Absent: the rules (in `transition`), time (only compared) and
//! the lock's own name (the table knows it).

use std::sync::Arc;

use super::mode::Mode;
use super::roster::{Member, Roster};
use crate::domain::{FencingToken, Owner, SessionId, Timestamp, Ttl, WaiterId};

/// Where a grant came from, for people who ask who holds a lock. Shared by all grants of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The client's address, as text.
    pub addr: String,
    /// The client's name, if it set one.
    pub client_name: String,
}

/// What a client asks for when it asks for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who will hold it.
    pub owner: Owner,
    /// With how many others.
    pub mode: Mode,
    /// For how long; `None`: until released, or until the session ends.
    pub ttl: Option<Ttl>,
    /// Who asked.
    pub origin: Option<Arc<Origin>>,
    /// What most requests do not ask for.
    pub extra: Option<Box<LeaseExtra>>,
}

impl Request {
    /// A request for the whole lock, without anything that most do without.
    pub fn exclusive(owner: Owner, ttl: Option<Ttl>) -> Request {
        Request { owner, mode: Mode::Exclusive, ttl, origin: None, extra: None }
    }

    /// The same request for a lease with this `extra`.
    pub fn with(self, extra: LeaseExtra) -> Request {
        Request { extra: (extra != LeaseExtra::default()).then(|| Box::new(extra)), ..self }
    }

    /// The session the lease is to end with.
    pub fn session(&self) -> Option<SessionId> {
        self.extra.as_ref().and_then(|extra| extra.session)
    }

    /// The session that is to count it as its own, and not to end it.
    pub fn counted_by(&self) -> Option<SessionId> {
        self.extra.as_ref().and_then(|extra| extra.counted_by)
    }

    /// Whose quota of leases it is to count toward.
    pub fn account(&self) -> Option<&str> {
        self.extra.as_ref().and_then(|extra| extra.account.as_deref())
    }
}

/// A grant that lasts until its deadline, unless it is renewed, released or forced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it.
    pub owner: Owner,
    /// The number a resource checks; larger than that of every earlier grant of any lock.
    pub token: FencingToken,
    /// With how many others it is held.
    pub mode: Mode,
    /// The TTL it was granted with, which RENEW uses when it names none.
    pub ttl: Option<Ttl>,
    /// From this time on the lease is over, for every reader.
    pub deadline: Timestamp,
    /// The TTL by which the deadline was last set: what is left of the lease is never more.
    pub lasts: Option<Ttl>,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// How often its deadline was moved since.
    pub renewals: u32,
    /// Who asked for it.
    pub origin: Option<Arc<Origin>>,
    /// It was granted to a waiter, and nobody has shown yet that the owner knows of it. Not kept beyond the process.
    pub is_unclaimed: bool,
    /// What most leases do not have.
    pub extra: Option<Box<LeaseExtra>>,
}

/// The rarer properties of a [`Lease`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseExtra {
    /// The cap on the whole hold.
    pub max_hold: Option<Ttl>,
    /// The lock-delay after an unclean end.
    pub delay: Option<Ttl>,
    /// The lock-delay is due after a clean end, too.
    pub delays_after_release: bool,
    /// The session it ends with.
    pub session: Option<SessionId>,
    /// The session that counts it as its own, and does not end it.
    pub counted_by: Option<SessionId>,
    /// Whose quota of leases it counts toward.
    pub account: Option<Box<str>>,
    /// Free text for people.
    pub meta: Option<Box<str>>,
}

impl Lease {
    /// The lease by which a request is granted.
    pub fn grant(request: &Request, token: FencingToken, now: Timestamp) -> Lease {
        let mut lease = Lease {
            owner: request.owner.clone(),
            token,
            mode: request.mode,
            ttl: request.ttl,
            deadline: Timestamp::NEVER,
            lasts: request.ttl,
            granted_at: now,
            renewals: 0,
            origin: request.origin.clone(),
            is_unclaimed: false,
            extra: request.extra.clone(),
        };
        lease.deadline = lease.clip(now.after(request.ttl));
        lease
    }

    /// The session it ends with.
    pub fn session(&self) -> Option<SessionId> {
        self.extra.as_ref().and_then(|extra| extra.session)
    }

    /// The session that counts it as its own, and does not end it.
    pub fn counted_by(&self) -> Option<SessionId> {
        self.extra.as_ref().and_then(|extra| extra.counted_by)
    }

    /// Whose quota of leases it counts toward.
    pub fn account(&self) -> Option<&str> {
        self.extra.as_ref().and_then(|extra| extra.account.as_deref())
    }

    /// The lock-delay that is due after its end.
    pub(super) fn delay_after(&self, is_unclean: bool) -> Option<Ttl> {
        let extra = self.extra.as_ref()?;
        extra.delay.filter(|_| is_unclean || extra.delays_after_release)
    }

    /// Free text for people.
    pub fn meta(&self) -> Option<&str> {
        self.extra.as_ref().and_then(|extra| extra.meta.as_deref())
    }

    /// Until when it may be renewed; [`Timestamp::NEVER`] without MAXHOLD.
    pub fn hold_until(&self) -> Timestamp {
        match self.extra.as_ref().and_then(|extra| extra.max_hold) {
            Some(max_hold) => self.granted_at.after(Some(max_hold)),
            None => Timestamp::NEVER,
        }
    }

    /// Gives it its full length again from `now`, because the clock that it was granted by is gone.
    pub fn restart(&mut self, now: Timestamp) {
        self.granted_at = now;
        self.deadline = self.clip(now.after(self.lasts));
    }

    /// `deadline`, or the end of MAXHOLD if that is earlier.
    pub(super) fn clip(&self, deadline: Timestamp) -> Timestamp {
        deadline.min(self.hold_until())
    }

    /// Whether the lease is over at `now`, swept or not.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.deadline <= now
    }
}

impl Member for Lease {
    fn number(&self) -> i64 {
        self.token.get()
    }
    fn owner(&self) -> &Owner {
        &self.owner
    }
    fn deadline(&self) -> Timestamp {
        self.deadline
    }
    fn session(&self) -> Option<SessionId> {
        Lease::session(self)
    }
    fn capacity(&self) -> Option<u32> {
        self.mode.capacity()
    }
}

/// A request in the queue of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// Its place: smaller is nearer to the head.
    pub place: i64,
    /// Whom to tell.
    pub id: WaiterId,
    /// What it asked for.
    pub request: Request,
    /// Since when it queues.
    pub since: Timestamp,
    /// From this time on it is granted nothing.
    pub deadline: Timestamp,
}

impl Member for Waiter {
    fn number(&self) -> i64 {
        self.place
    }
    fn owner(&self) -> &Owner {
        &self.request.owner
    }
    fn deadline(&self) -> Timestamp {
        self.deadline
    }
    fn session(&self) -> Option<SessionId> {
        self.request.session()
    }
    fn capacity(&self) -> Option<u32> {
        // Only what is held limits others.
        None
    }
}

/// The rest a lock takes after an unclean end, so that a paused holder's last writes can land.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// No request is granted before this time, except a SET without NX.
    pub until: Timestamp,
    /// How long it is in all.
    pub length: Ttl,
}

#[derive(Debug, Clone, Default)]
pub(super) enum Holders {
    #[default]
    None,
    One(Lease),
    Many(Box<Roster<Lease>>),
}

/// What few locks have at any moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy {
    pub(super) queue: Roster<Waiter>,
    pub(super) delay: Option<Delay>,
    /// The head of the queue is to be granted the lock by the next step: one grants only so many.
    pub(super) has_more_to_grant: bool,
}

/// One lock: its holders, its queue, its delay. A free lock is [`Slot::is_vacant`] and need not exist.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    pub(super) holders: Holders,
    pub(super) busy: Option<Box<Busy>>,
}

impl Slot {
    /// Whether nothing distinguishes this lock from one never used.
    pub fn is_vacant(&self) -> bool {
        matches!(self.holders, Holders::None) && self.busy.is_none()
    }

    /// The only lease, if this lock is like most: held exclusively, with nothing extra, while nobody waits. Then there is
    /// nothing else in the slot.
    pub fn plain_lease(&self) -> Option<&Lease> {
        match (&self.holders, &self.busy) {
            (Holders::One(lease), None) => {
                (lease.mode == Mode::Exclusive && lease.extra.is_none()).then_some(lease)
            }
            _ => None,
        }
    }

    /// The reverse of [`Slot::plain_lease`].
    pub fn of_plain_lease(lease: Lease) -> Slot {
        Slot { holders: Holders::One(lease), busy: None }
    }

    /// The earliest time at which something in this slot ends by itself, or [`Timestamp::default`] if there is something to do at
    /// once.
    pub fn next_deadline(&self) -> Timestamp {
        let holders = match &self.holders {
            Holders::None => Timestamp::NEVER,
            Holders::One(lease) => lease.deadline,
            Holders::Many(roster) => roster.next_deadline(),
        };
        match &self.busy {
            None => holders,
            Some(busy) if busy.has_more_to_grant => Timestamp::default(),
            Some(busy) => {
                let delay = busy.delay.map_or(Timestamp::NEVER, |delay| delay.until);
                holders.min(busy.queue.next_deadline()).min(delay)
            }
        }
    }

    /// The lease granted last. Call after the slot is settled: an expired lease is not skipped.
    pub fn newest(&self) -> Option<&Lease> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => Some(lease),
            Holders::Many(roster) => roster.last(),
        }
    }

    /// The newest of the leases that `is_wanted` is true of.
    pub fn newest_where(&self, is_wanted: &dyn Fn(&Lease) -> bool) -> Option<&Lease> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => Some(lease).filter(|lease| is_wanted(lease)),
            Holders::Many(roster) => roster.last_where(is_wanted),
        }
    }

    /// All holders, the oldest grant first.
    pub fn holders(&self) -> impl Iterator<Item = &Lease> {
        let (one, many) = match &self.holders {
            Holders::None => (None, None),
            Holders::One(lease) => (Some(lease), None),
            Holders::Many(roster) => (None, Some(roster.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// How many hold it.
    pub fn holder_count(&self) -> usize {
        match &self.holders {
            Holders::None => 0,
            Holders::One(_) => 1,
            Holders::Many(roster) => roster.len(),
        }
    }

    /// The lease with this token.
    pub fn lease(&self, token: FencingToken) -> Option<&Lease> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => (lease.token == token).then_some(lease),
            Holders::Many(roster) => roster.get(token.get()),
        }
    }

    /// The lease of this owner.
    pub fn lease_of(&self, owner: &Owner) -> Option<&Lease> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => (lease.owner == *owner).then_some(lease),
            Holders::Many(roster) => roster.number_of(owner).and_then(|token| roster.get(token)),
        }
    }

    /// The tokens of the leases that end with a session, in order.
    pub(super) fn tokens_of(&self, session: SessionId) -> impl Iterator<Item = FencingToken> {
        let (one, many) = match &self.holders {
            Holders::None => (None, None),
            Holders::One(lease) => ((lease.session() == Some(session)).then_some(lease.token), None),
            Holders::Many(roster) => {
                let leases = roster.of_session(session).filter_map(|number| roster.get(number));
                (None, Some(leases.map(|lease| lease.token)))
            }
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The smallest number of holders that any holder allows; `None` without a bound.
    pub fn smallest_capacity(&self) -> Option<u32> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => lease.mode.capacity(),
            Holders::Many(roster) => roster.smallest_capacity(),
        }
    }

    /// How many leases and waiters end with a session.
    pub fn session_members(&self) -> usize {
        let holders = match &self.holders {
            Holders::None => 0,
            Holders::One(lease) => usize::from(lease.session().is_some()),
            Holders::Many(roster) => roster.sessions().len(),
        };
        holders + self.busy.as_ref().map_or(0, |busy| busy.queue.sessions().len())
    }

    /// The sessions that leases and waiters end with; one may come several times.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        let (one, many) = match &self.holders {
            Holders::None => (None, None),
            Holders::One(lease) => (lease.session(), None),
            Holders::Many(roster) => (None, Some(roster.sessions())),
        };
        let queue = self.busy.iter().flat_map(|busy| busy.queue.sessions());
        one.into_iter().chain(many.into_iter().flatten()).chain(queue)
    }

    /// Whether a lease or a waiter ends with this session.
    pub fn has_session(&self, session: SessionId) -> bool {
        let is_held = match &self.holders {
            Holders::None => false,
            Holders::One(lease) => lease.session() == Some(session),
            Holders::Many(roster) => roster.of_session(session).next().is_some(),
        };
        is_held || self.busy.as_ref().is_some_and(|busy| busy.queue.of_session(session).next().is_some())
    }

    /// All waiters, the head of the queue first.
    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.busy.iter().flat_map(|busy| busy.queue.iter())
    }

    /// Whether this owner waits.
    pub fn is_queued(&self, owner: &Owner) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.queue.number_of(owner).is_some())
    }

    /// How many wait.
    pub fn waiter_count(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.queue.len())
    }

    /// Whether the next step grants the lock to more of those who wait.
    pub(super) fn has_more_to_grant(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.has_more_to_grant)
    }

    /// The running lock-delay.
    pub fn delay(&self) -> Option<Delay> {
        self.busy.as_ref().and_then(|busy| busy.delay)
    }

    /// Puts a recovered lease back. Its token and owner must not be present, its mode must mix.
    pub fn restore(&mut self, lease: Lease) {
        self.add_holder(Lease { is_unclaimed: false, ..lease });
    }

    /// Puts a recovered delay back.
    pub fn restore_delay(&mut self, delay: Delay) {
        self.busy_mut().delay = Some(delay);
    }

    pub(super) fn busy_mut(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    pub(super) fn drop_busy_if_empty(&mut self) {
        if self.busy.as_ref().is_some_and(|busy| busy.delay.is_none() && busy.queue.len() == 0) {
            self.busy = None;
        }
    }

    pub(super) fn add_holder(&mut self, lease: Lease) {
        match &mut self.holders {
            Holders::None => self.holders = Holders::One(lease),
            Holders::Many(roster) => roster.insert(lease),
            Holders::One(_) => {
                let mut roster = Box::<Roster<Lease>>::default();
                if let Holders::One(first) = std::mem::take(&mut self.holders) {
                    roster.insert(first);
                }
                roster.insert(lease);
                self.holders = Holders::Many(roster);
            }
        }
    }

    pub(super) fn remove_holder(&mut self, token: FencingToken) -> Option<Lease> {
        match &mut self.holders {
            Holders::One(lease) if lease.token == token => match std::mem::take(&mut self.holders) {
                Holders::One(lease) => Some(lease),
                _ => None,
            },
            Holders::Many(roster) => {
                let removed = roster.remove(token.get());
                if roster.len() == 0 {
                    self.holders = Holders::None;
                }
                removed
            }
            _ => None,
        }
    }

    pub(super) fn update_holder<R>(
        &mut self,
        token: FencingToken,
        change: impl FnOnce(&mut Lease) -> R,
    ) -> Option<R> {
        match &mut self.holders {
            Holders::One(lease) if lease.token == token => Some(change(lease)),
            Holders::Many(roster) => roster.update(token.get(), change),
            _ => None,
        }
    }

    /// The token of a lease that ended at `now` or earlier.
    pub(super) fn due_holder(&self, now: Timestamp) -> Option<FencingToken> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => lease.is_over(now).then_some(lease.token),
            Holders::Many(roster) => {
                roster.due(now).and_then(|number| roster.get(number)).map(|lease| lease.token)
            }
        }
    }
}
