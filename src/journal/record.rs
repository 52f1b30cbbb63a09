//! What the journal stores: absolute states.
//!
//! Guarantees: applying a batch twice has the effect of applying it once. Not here: how records are
//! stored.

use crate::domain::{FencingToken, LockName, SessionId, Timestamp, Ttl};
use crate::lock::{Delay, Lease};

/// A lease and the name of its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLease {
    /// The lock.
    pub name: LockName,
    /// The lease.
    pub lease: Lease,
}

/// What a renewal changes in a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The lease.
    pub token: FencingToken,
    /// Its new deadline.
    pub deadline: Timestamp,
    /// The TTL by which the deadline was set.
    pub effective_ttl: Option<Ttl>,
    /// How often its deadline has been moved.
    pub renewals: u32,
}

impl Renewal {
    /// The renewal after which a lease is as it is.
    pub fn of(lease: &Lease) -> Renewal {
        let Lease { token, deadline, effective_ttl, renewals, .. } = *lease;
        Renewal { token, deadline, effective_ttl, renewals }
    }

    /// Applies the renewal.
    pub fn apply_to(self, lease: &mut Lease) {
        (lease.deadline, lease.effective_ttl, lease.renewals) =
            (self.deadline, self.effective_ttl, self.renewals);
    }
}

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its secret id.
    pub id: SessionId,
    /// Its name for display.
    pub name: String,
    /// The account that owns it, if it was opened by one.
    pub account: Option<Box<str>>,
    /// How long it lives without a keepalive; `None`: it ends with its connection.
    pub ttl: Option<Ttl>,
    /// When it ends.
    pub deadline: Timestamp,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A new lease; no earlier record has its token.
    Granted(Box<StoredLease>),
    /// A lease was renewed.
    Renewed(Renewal),
    /// The lease with this token is over.
    Ended(FencingToken),
    /// The delay of a lock has begun.
    DelayStarted(LockName, Delay),
    /// The delay of a lock is over.
    DelayEnded(LockName),
    /// The state of a session, new or changed.
    Session(SessionRecord),
    /// A session is over.
    SessionEnded(SessionId),
    /// Tokens up to this one may be issued.
    TokensReserved(i64),
}

/// What [`Record::size_bytes`] allows for everything of fixed size.
const FIXED_BYTES: usize = 256;

impl Record {
    /// The size by which a batch is measured: the bytes of all names and texts, and an allowance
    /// for the rest. An encoding that escapes bytes takes more.
    pub fn size_bytes(&self) -> usize {
        let texts = match self {
            Record::Granted(stored) => stored.name.as_bytes().len() + lease_text_bytes(&stored.lease),
            Record::DelayStarted(name, _) | Record::DelayEnded(name) => name.as_bytes().len(),
            Record::Session(session) => session.name.len() + session.account.as_ref().map_or(0, |a| a.len()),
            Record::Renewed(_) | Record::Ended(_) | Record::SessionEnded(_) | Record::TokensReserved(_) => 0,
        };
        FIXED_BYTES + texts
    }

    /// Whether the record is about a lease.
    pub fn is_of_a_lease(&self) -> bool {
        matches!(self, Record::Granted(_) | Record::Renewed(_) | Record::Ended(_))
    }
}

fn lease_text_bytes(lease: &Lease) -> usize {
    let origin = lease.origin.as_ref().map_or(0, |origin| origin.addr.len() + origin.client_name.len());
    let extra = lease.extra.as_ref().map_or(0, |extra| {
        let texts = [&extra.account, &extra.meta];
        texts.into_iter().flatten().map(|text| text.len()).sum()
    });
    lease.owner.as_bytes().len() + origin + extra
}
