//! What a key holds: a lock, whose owner is the string of Redis' commands, or a value.
//!
//! Guarantees: never both. A key without either is a lock that is vacant.
//! Not here: how an entry stores it, rules.

use std::sync::Arc;

use crate::domain::{FencingToken, LockName, Timestamp, Ttl};
use crate::lock::{Lease, Mode, Slot};
use crate::value::{Kind, Value};

/// Memory of a common lock besides its name and owner: its entry, its places in the table and in the
/// expiry index, and two allocations.
const LOCK_BYTES: usize = 96;

/// Memory of the entry of a value and of its place in the table.
const ENTRY_BYTES: usize = 80;

/// What a key holds.
#[derive(Debug)]
pub enum Content {
    /// A lock, held or not.
    Lock(Slot),
    /// A value, never empty.
    Value(Box<KeyedValue>),
}

/// The type of a key that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A lock whose newest holder has this mode.
    Lock(Mode),
    /// A value.
    Value(Kind),
}

/// A value and what belongs to its key.
#[derive(Debug)]
pub struct KeyedValue {
    pub(in crate::engine) name: LockName,
    /// What its elements are stored under: the token that it took when it was created.
    pub(in crate::engine) id: FencingToken,
    pub(in crate::engine) token: FencingToken,
    pub(in crate::engine) ttl: Option<Ttl>,
    pub(in crate::engine) deadline: Timestamp,
    /// Shared only with those who read a large value without the guard of its key.
    pub(in crate::engine) value: Arc<Value>,
}

impl Default for Content {
    fn default() -> Content {
        Content::Lock(Slot::default())
    }
}

impl Content {
    /// The type of the key; `None` if it does not exist. A lock that only rests does not exist.
    pub fn kind(&self) -> Option<KeyKind> {
        match self {
            Content::Lock(slot) => slot.newest().map(|lease| KeyKind::Lock(lease.mode)),
            Content::Value(keyed) => Some(KeyKind::Value(keyed.value.kind())),
        }
    }

    /// Whether the key exists.
    pub fn exists(&self) -> bool {
        match self {
            Content::Lock(slot) => slot.newest().is_some(),
            Content::Value(_) => true,
        }
    }

    /// The fencing token of the newest holder, or of the value.
    pub fn token(&self) -> Option<FencingToken> {
        match self {
            Content::Lock(slot) => slot.newest().map(|lease| lease.token),
            Content::Value(keyed) => Some(keyed.token),
        }
    }

    /// Whether a holder or the value has this fencing token.
    pub fn has_token(&self, token: FencingToken) -> bool {
        match self {
            Content::Lock(slot) => slot.lease(token).is_some(),
            Content::Value(keyed) => keyed.token == token,
        }
    }

    /// When the lease of the newest holder or the value ends, [`Timestamp::NEVER`] included; `None`
    /// if the key does not exist.
    pub fn deadline(&self) -> Option<Timestamp> {
        match self {
            Content::Lock(slot) => slot.newest().map(|lease| lease.deadline),
            Content::Value(keyed) => Some(keyed.deadline),
        }
    }

    /// The lease of the newest holder; `None` for a value.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Content::Lock(slot) => slot.newest(),
            Content::Value(_) => None,
        }
    }

    /// The value; `None` for a lock.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Content::Lock(_) => None,
            Content::Value(keyed) => Some(&keyed.value),
        }
    }

    /// [`Content::value`], to be kept as it is now while the key changes.
    pub(in crate::engine) fn shared_value(&self) -> Option<&Arc<Value>> {
        match self {
            Content::Lock(_) => None,
            Content::Value(keyed) => Some(&keyed.value),
        }
    }

    /// About how many bytes of memory the key takes; `None` if it does not exist.
    pub fn bytes(&self, name: &LockName) -> Option<u64> {
        match self {
            Content::Lock(slot) => slot.newest().map(|newest| {
                let text = name.as_bytes().len() + newest.owner.as_bytes().len();
                (LOCK_BYTES + text + size_of::<Lease>() * (slot.holder_count().saturating_sub(1))) as u64
            }),
            Content::Value(keyed) => Some(keyed.bytes()),
        }
    }

    /// Whether nothing distinguishes this key from one never used.
    pub(in crate::engine) fn is_vacant(&self) -> bool {
        matches!(self, Content::Lock(slot) if slot.is_vacant())
    }

    /// When the first thing of the key ends by itself.
    pub(in crate::engine) fn next_deadline(&self) -> Timestamp {
        match self {
            Content::Lock(slot) => slot.next_deadline(),
            Content::Value(keyed) => keyed.deadline,
        }
    }
}

impl KeyedValue {
    /// Besides the value: the entry, its place in the table, and the two counters of the [`Arc`].
    const FIXED_BYTES: usize = size_of::<KeyedValue>() + ENTRY_BYTES + 2 * size_of::<usize>();

    /// About how many bytes of memory it takes.
    pub(in crate::engine) fn bytes(&self) -> u64 {
        (Self::FIXED_BYTES + self.name.as_bytes().len() + self.value.bytes()) as u64
    }
}
