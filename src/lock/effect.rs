//! What a transition did, as data.
//!
//! Guarantees: effects are in the order in which they happened, and one alone, as mostly, costs no
//! allocation. Not here: what the caller makes of them.

use super::lease::Lease;
use super::slot::{Delay, Slot};
use crate::domain::{FencingToken, SessionId, Timestamp, Ttl, WaiterId};

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// By its owner, or by a DEL.
    Released,
    /// By its deadline.
    Expired,
    /// By an operator.
    Forced,
    /// With its session.
    Session {
        /// The session's owner closed it.
        clean: bool,
    },
    /// By a SET.
    Replaced,
}

impl EndReason {
    /// Whether the holder may not know that it lost the lock, so that a lock-delay is due.
    pub fn is_unclean(self) -> bool {
        matches!(self, EndReason::Expired | EndReason::Forced | EndReason::Session { clean: false })
    }
}

/// Why a waiter left the queue without a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveReason {
    /// Its time to wait is over.
    TimedOut,
    /// Its session ended.
    SessionEnded,
    /// The same owner asked again; that request has its place now.
    Replaced,
    /// It went away, or a grant could not have been delivered.
    Gone,
}

/// Something that happened, to be journaled, told or counted by the caller, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A new lease. It is in the slot, unless a later effect ends it: see [`Effects::granted`].
    Granted {
        /// Its token.
        token: FencingToken,
        /// The waiter that it was granted to, and since when that waited.
        waiter: Option<(WaiterId, Timestamp)>,
    },
    /// A lease changed its deadline.
    Renewed {
        /// Which one.
        token: FencingToken,
        /// When it ends now.
        deadline: Timestamp,
        /// The TTL by which that was set.
        effective_ttl: Option<Ttl>,
        /// How often its deadline was moved so far.
        renewals: u32,
    },
    /// A lease is over.
    Ended {
        /// The lease as it was.
        lease: Lease,
        /// How it ended.
        how: EndReason,
    },
    /// A lock-delay began, or a running one became longer.
    DelayStarted {
        /// The delay.
        delay: Delay,
        /// None was running, that this one prolongs.
        is_first: bool,
    },
    /// The lock-delay is over, or a SET replaced it.
    DelayEnded,
    /// A request joined the queue.
    Joined {
        /// Which one.
        waiter: WaiterId,
        /// The session it ends with.
        session: Option<SessionId>,
    },
    /// A waiter left the queue without a grant.
    WaiterLeft {
        /// Which one.
        waiter: WaiterId,
        /// The session it belonged to.
        session: Option<SessionId>,
        /// Why.
        why: LeaveReason,
    },
}

/// The effects of one transition.
#[derive(Debug, Default)]
pub struct Effects {
    first: Option<Effect>,
    more: Vec<Effect>,
}

impl Effects {
    #[inline]
    pub(super) fn push(&mut self, effect: Effect) {
        match self.first {
            None => self.first = Some(effect),
            Some(_) => self.more.push(effect),
        }
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Effect> {
        self.first.iter().chain(&self.more)
    }

    /// The lease that [`Effect::Granted`] is about, after the transition: as it is in the slot, or
    /// as it was at its end.
    pub fn granted<'a>(&'a self, token: FencingToken, slot: &'a Slot) -> Option<&'a Lease> {
        slot.lease(token).or_else(|| {
            self.iter().find_map(|effect| match effect {
                Effect::Ended { lease, .. } if lease.token == token => Some(lease),
                _ => None,
            })
        })
    }
}
