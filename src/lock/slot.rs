//! The state of one lock: its holders, its queue, and its lock-delay after an unclean end.
//!
//! Guarantees: plain data with cheap look-ups. Not here: the rules (in `transition`), time (only
//! compared) and the lock's own name (the table knows it).

use super::effect::EndReason;
use super::index::{IndexedSet, Member};
use super::lease::{Lease, Request};
use super::mode::Mode;
use crate::domain::{FencingToken, Owner, SessionId, Timestamp, Ttl, WaiterId};

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
    Many(Box<IndexedSet<Lease>>),
}

/// What few locks have at any moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Contention {
    pub(super) queue: IndexedSet<Waiter>,
    pub(super) delay: Option<Delay>,
    /// The head of the queue is granted the lock by the next step: each grants a bounded number.
    pub(super) has_more_to_grant: bool,
    /// All leases are over; those that are still there are freed by the next steps.
    pub(super) revocation: Option<Revocation>,
}

/// The end of all leases of a lock at one instant, by one operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Revocation {
    pub(super) how: EndReason,
    pub(super) at: Timestamp,
}

/// Too many of the newest leases have ended to pass over; they must be freed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyEnded;

/// One lock: its holders, its queue, its delay. A free lock is [`Slot::is_vacant`] and need not
/// exist.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    pub(super) holders: Holders,
    pub(super) contention: Option<Box<Contention>>,
}

impl Slot {
    /// Whether nothing distinguishes this lock from one never used.
    pub fn is_vacant(&self) -> bool {
        matches!(self.holders, Holders::None) && self.contention.is_none()
    }

    /// The only lease in the common case: one exclusive holder, no extras, no queue. Then there is
    /// nothing else in the slot.
    pub fn plain_lease(&self) -> Option<&Lease> {
        match (&self.holders, &self.contention) {
            (Holders::One(lease), None) => {
                (lease.mode == Mode::Exclusive && lease.extra.is_none()).then_some(lease)
            }
            _ => None,
        }
    }

    /// Inverse of [`Slot::plain_lease`].
    pub fn of_plain_lease(lease: Lease) -> Slot {
        Slot { holders: Holders::One(lease), contention: None }
    }

    /// The earliest time at which something in this slot ends by itself, or [`Timestamp::default`]
    /// if there is something to do at once.
    pub fn next_deadline(&self) -> Timestamp {
        let holders = match &self.holders {
            Holders::None => Timestamp::NEVER,
            Holders::One(lease) => lease.deadline,
            Holders::Many(set) => set.next_deadline(),
        };
        match &self.contention {
            None => holders,
            Some(contention) if contention.has_more_to_grant || contention.revocation.is_some() => {
                Timestamp::default()
            }
            Some(contention) => {
                let delay = contention.delay.map_or(Timestamp::NEVER, |delay| delay.until);
                holders.min(contention.queue.next_deadline()).min(delay)
            }
        }
    }

    /// The lease granted last. Call after the slot is settled: an expired lease is not skipped.
    pub fn newest(&self) -> Option<&Lease> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => Some(lease),
            Holders::Many(set) => set.last(),
        }
    }

    /// The newest of the leases that have not ended, as `is_live` says. Looks at no more than `max`
    /// of them.
    pub fn newest_live(
        &self,
        is_live: &dyn Fn(&Lease) -> bool,
        max: usize,
    ) -> Result<Option<&Lease>, TooManyEnded> {
        if self.is_revoked() {
            return Ok(None);
        }
        match self.holders().rev().take(max).find(|lease| is_live(lease)) {
            None if self.holder_count() > max => Err(TooManyEnded),
            newest => Ok(newest),
        }
    }

    /// All holders, the oldest grant first.
    pub fn holders(&self) -> impl DoubleEndedIterator<Item = &Lease> {
        let (one, many) = match &self.holders {
            Holders::None => (None, None),
            Holders::One(lease) => (Some(lease), None),
            Holders::Many(set) => (None, Some(set.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// How many hold it.
    pub fn holder_count(&self) -> usize {
        match &self.holders {
            Holders::None => 0,
            Holders::One(_) => 1,
            Holders::Many(set) => set.len(),
        }
    }

    /// The lease with this token.
    pub fn lease(&self, token: FencingToken) -> Option<&Lease> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => (lease.token == token).then_some(lease),
            Holders::Many(set) => set.get(token.get()),
        }
    }

    /// The lease of this owner.
    pub fn lease_of(&self, owner: &Owner) -> Option<&Lease> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => (lease.owner == *owner).then_some(lease),
            Holders::Many(set) => set.number_of(owner).and_then(|token| set.get(token)),
        }
    }

    /// The tokens of the leases that end with a session, in order.
    pub(super) fn tokens_of(&self, session: SessionId) -> impl Iterator<Item = FencingToken> {
        let (one, many) = match &self.holders {
            Holders::None => (None, None),
            Holders::One(lease) => ((lease.session() == Some(session)).then_some(lease.token), None),
            Holders::Many(set) => {
                let leases = set.of_session(session).filter_map(|number| set.get(number));
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
            Holders::Many(set) => set.smallest_capacity(),
        }
    }

    /// How many leases and waiters end with a session.
    pub fn session_members(&self) -> usize {
        let holders = match &self.holders {
            Holders::None => 0,
            Holders::One(lease) => usize::from(lease.session().is_some()),
            Holders::Many(set) => set.sessions().len(),
        };
        holders + self.contention.as_ref().map_or(0, |contention| contention.queue.sessions().len())
    }

    /// The sessions that leases and waiters end with; one may come several times.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        let (one, many) = match &self.holders {
            Holders::None => (None, None),
            Holders::One(lease) => (lease.session(), None),
            Holders::Many(set) => (None, Some(set.sessions())),
        };
        let queue = self.contention.iter().flat_map(|contention| contention.queue.sessions());
        one.into_iter().chain(many.into_iter().flatten()).chain(queue)
    }

    /// Whether a lease or a waiter ends with this session.
    pub fn has_session(&self, session: SessionId) -> bool {
        let is_held = match &self.holders {
            Holders::None => false,
            Holders::One(lease) => lease.session() == Some(session),
            Holders::Many(set) => set.of_session(session).next().is_some(),
        };
        is_held
            || self
                .contention
                .as_ref()
                .is_some_and(|contention| contention.queue.of_session(session).next().is_some())
    }

    /// All waiters, the head of the queue first.
    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.contention.iter().flat_map(|contention| contention.queue.iter())
    }

    /// Whether this owner waits.
    pub fn is_queued(&self, owner: &Owner) -> bool {
        self.contention.as_ref().is_some_and(|contention| contention.queue.number_of(owner).is_some())
    }

    /// How many wait.
    pub fn waiter_count(&self) -> usize {
        self.contention.as_ref().map_or(0, |contention| contention.queue.len())
    }

    /// Whether the next step grants the lock to more of those who wait.
    pub(super) fn has_more_to_grant(&self) -> bool {
        self.contention.as_ref().is_some_and(|contention| contention.has_more_to_grant)
    }

    /// The end of all leases, if some of them are still to be freed.
    pub(super) fn revocation(&self) -> Option<Revocation> {
        self.contention.as_ref().and_then(|contention| contention.revocation)
    }

    /// Whether all leases are over, and some of them still to be freed.
    pub(super) fn is_revoked(&self) -> bool {
        self.revocation().is_some()
    }

    /// The running lock-delay.
    pub fn delay(&self) -> Option<Delay> {
        self.contention.as_ref().and_then(|contention| contention.delay)
    }

    /// Puts a recovered lease back. Its token and owner must not be present, its mode must mix.
    pub fn restore(&mut self, lease: Lease) {
        self.add_holder(Lease { is_unacknowledged: false, ..lease });
    }

    /// Puts a recovered delay back.
    pub fn restore_delay(&mut self, delay: Delay) {
        self.contention_mut().delay = Some(delay);
    }

    pub(super) fn contention_mut(&mut self) -> &mut Contention {
        self.contention.get_or_insert_default()
    }

    pub(super) fn drop_contention_if_empty(&mut self) {
        self.contention.take_if(|contention| {
            contention.delay.is_none() && contention.queue.len() == 0 && contention.revocation.is_none()
        });
    }

    pub(super) fn add_holder(&mut self, lease: Lease) {
        match self.holders {
            Holders::None => self.holders = Holders::One(lease),
            _ => self.add_another_holder(lease),
        }
    }

    #[inline(never)]
    fn add_another_holder(&mut self, lease: Lease) {
        let mut set = match std::mem::take(&mut self.holders) {
            Holders::Many(set) => set,
            Holders::None => Box::default(),
            Holders::One(first) => {
                let mut set = Box::<IndexedSet<Lease>>::default();
                set.insert(first);
                set
            }
        };
        set.insert(lease);
        self.holders = Holders::Many(set);
    }

    #[inline]
    pub(super) fn remove_holder(&mut self, token: FencingToken) -> Option<Lease> {
        match &mut self.holders {
            Holders::One(lease) if lease.token == token => match std::mem::take(&mut self.holders) {
                Holders::One(lease) => Some(lease),
                _ => None,
            },
            Holders::Many(_) => self.remove_one_of_many(token),
            _ => None,
        }
    }

    #[inline(never)]
    fn remove_one_of_many(&mut self, token: FencingToken) -> Option<Lease> {
        let Holders::Many(set) = &mut self.holders else { return None };
        let removed = set.remove(token.get());
        if set.len() == 0 {
            self.holders = Holders::None;
        }
        removed
    }

    pub(super) fn update_holder<R>(
        &mut self,
        token: FencingToken,
        change: impl FnOnce(&mut Lease) -> R,
    ) -> Option<R> {
        match &mut self.holders {
            Holders::One(lease) if lease.token == token => Some(change(lease)),
            Holders::Many(set) => set.update(token.get(), change),
            _ => None,
        }
    }

    /// The token of a lease that ended at `now` or earlier.
    pub(super) fn due_holder(&self, now: Timestamp) -> Option<FencingToken> {
        match &self.holders {
            Holders::None => None,
            Holders::One(lease) => lease.is_over(now).then_some(lease.token),
            Holders::Many(set) => set.due(now).and_then(|number| set.get(number)).map(|lease| lease.token),
        }
    }
}
