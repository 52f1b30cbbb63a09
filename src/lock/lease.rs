//! Requests, and the leases by which they are granted.
//!
//! Guarantees: plain data, and what follows from one lease alone. Not here: who may hold what
//! (`transition.rs`), and when a lease ends (`transition/expiry.rs`).

use std::sync::Arc;

use super::index::Member;
use super::mode::Mode;
use crate::domain::{FencingToken, Owner, SessionId, Timestamp, Ttl};

/// Where a grant came from, for people who ask who holds a lock. Shared by all grants of one
/// connection.
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
    #[inline]
    pub fn exclusive(owner: Owner, ttl: Option<Ttl>) -> Request {
        Request { owner, mode: Mode::Exclusive, ttl, origin: None, extra: None }
    }

    /// The same request for a lease with this `extra`.
    #[inline]
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
    /// Its owner.
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
    pub effective_ttl: Option<Ttl>,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// How often its deadline was moved since.
    pub renewals: u32,
    /// Who asked for it.
    pub origin: Option<Arc<Origin>>,
    /// It was granted to a waiter, and no request has shown yet that the owner knows of it. Not
    /// kept beyond the process.
    pub is_unacknowledged: bool,
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
            effective_ttl: request.ttl,
            granted_at: now,
            renewals: 0,
            origin: request.origin.clone(),
            is_unacknowledged: false,
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
        self.deadline = self.clip(now.after(self.effective_ttl));
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
