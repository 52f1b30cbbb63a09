//! What the journal keeps, as absolute states.
//!
//! Promise: applying a batch twice is applying it once.

use crate::domain::{FencingToken, LockName, SessionId, Timestamp, Ttl};
use crate::lock::{Delay, Lease};

/// A lease and the lock it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLease {
    /// The lock.
    pub name: LockName,
    /// The lease.
    pub lease: Lease,
}

/// What changes in a lease when it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The lease.
    pub token: FencingToken,
    /// When it ends now.
    pub deadline: Timestamp,
    /// The TTL by which that was set.
    pub effective_ttl: Option<Ttl>,
    /// How often its deadline was moved so far.
    pub renewals: u32,
}

impl Renewal {
    /// The last one of a lease, or what would come to the same.
    pub fn of(lease: &Lease) -> Renewal {
        let Lease { token, deadline, effective_ttl, renewals, .. } = *lease;
        Renewal { token, deadline, effective_ttl, renewals }
    }

    /// Makes it so.
    pub fn apply_to(self, lease: &mut Lease) {
        (lease.deadline, lease.effective_ttl, lease.renewals) =
            (self.deadline, self.effective_ttl, self.renewals);
    }
}

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its unguessable name.
    pub id: SessionId,
    /// Its name for people.
    pub name: String,
    /// Whose it is, if that matters to whoever opened it.
    pub account: Option<Box<str>>,
    /// How long it lives without a keepalive; `None` for the session of a connection.
    pub ttl: Option<Ttl>,
    /// When it ends.
    pub deadline: Timestamp,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A new lease; its token was never in a record before.
    Granted(Box<StoredLease>),
    /// A lease has moved its deadline.
    Renewed(Renewal),
    /// The lease with this token is over.
    Ended(FencingToken),
    /// A lock rests.
    DelayStarted(LockName, Delay),
    /// A lock rests no more.
    DelayEnded(LockName),
    /// A session as it is now.
    Session(SessionRecord),
    /// A session is over.
    SessionEnded(SessionId),
    /// Tokens up to this one may be issued.
    TokensReserved(i64),
}

impl Record {
    /// Whether it is about a lease.
    pub fn is_of_a_lease(&self) -> bool {
        matches!(self, Record::Granted(_) | Record::Renewed(_) | Record::Ended(_))
    }
}
