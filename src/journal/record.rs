//! What the journal stores: absolute states.
//!
//! Guarantees: applying a batch twice has the effect of applying it once. Not here: how records are
//! stored.

use crate::domain::{FencingToken, LockName, SessionId, Timestamp, Ttl};
use crate::lock::{Delay, Lease};
use crate::value::Kind;

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

/// A value as it is stored, without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredValue {
    /// Identifies the value and its elements for as long as the value exists, and is never used
    /// again: the token that the value took when it was created.
    pub id: FencingToken,
    /// Its fencing token: the id, or a later token if the value has been renamed.
    pub token: FencingToken,
    /// Its key.
    pub name: LockName,
    /// Its type.
    pub kind: Kind,
    /// The TTL by which the deadline was set; `None`: it has none.
    pub ttl: Option<Ttl>,
    /// When it ends.
    pub deadline: Timestamp,
}

/// SHA-1 of a script's body, which identifies the script.
pub type ScriptHash = [u8; 20];

/// One change of state.
///
/// Its tag is a word: after a tag of one byte, the rest would be copied at odd addresses, in pieces
/// that overlap, for which a processor waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(u64)]
pub enum Record {
    /// A new lease; no earlier record has its token. Not in a box: one thread would allocate it and
    /// another free it, which takes longer than moving it.
    Granted(StoredLease),
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
    /// The state of a value without its elements, new or changed. It precedes all records of its
    /// elements.
    ValuePut(Box<StoredValue>),
    /// The value with this id is gone, with all its elements.
    ValueGone(FencingToken),
    /// The state of one element of a value.
    Element {
        /// The id of the value.
        id: FencingToken,
        /// What identifies the element within the value.
        field: Box<[u8]>,
        /// What belongs to the field; `None`: the element is gone.
        value: Option<Box<[u8]>>,
    },
    /// A script, new or used again after a long time.
    ScriptPut {
        /// The hash of its body.
        sha: ScriptHash,
        /// Its text.
        body: Box<[u8]>,
    },
    /// A script is forgotten.
    ScriptGone {
        /// The hash of its body.
        sha: ScriptHash,
    },
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
            Record::ValuePut(stored) => stored.name.as_bytes().len(),
            Record::Element { field, value, .. } => {
                field.len() + value.as_ref().map_or(0, |value| value.len())
            }
            Record::ScriptPut { body, .. } => body.len(),
            Record::Renewed(_)
            | Record::Ended(_)
            | Record::SessionEnded(_)
            | Record::ValueGone(_)
            | Record::ScriptGone { .. }
            | Record::TokensReserved(_) => 0,
        };
        FIXED_BYTES + texts
    }

    /// Whether the record is about a lease.
    pub fn is_of_a_lease(&self) -> bool {
        matches!(self, Record::Granted(_) | Record::Renewed(_) | Record::Ended(_))
    }

    /// The id of the value that the record is about, if it is about one.
    pub fn value_id(&self) -> Option<FencingToken> {
        match self {
            Record::ValuePut(stored) => Some(stored.id),
            Record::ValueGone(id) | Record::Element { id, .. } => Some(*id),
            _ => None,
        }
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
