//! Values beside locks: hashes, sets, sorted sets and lists, as plain data.
//!
//! Guarantees: operations are total and deterministic, except for the order of a hash table's
//! probes, which nothing shows. Every change goes through an [`Edit`], which records it as the new
//! state of the elements it touched. [`Value::restore`] makes the same value of the last state of
//! each element. The size in bytes is known without counting.
//! Not here: IO, clocks, random numbers, keys and their TTLs, locks, and what a command means.

mod block;
mod blocks;
mod edit;
mod elements;
mod hash;
mod kind;
mod list;
mod packed;
mod packed_ranking;
mod ranking;
mod set;
mod sorted_set;
#[cfg(test)]
mod tests;

use std::fmt;

pub use edit::{Edit, Element};
pub use hash::{Hash, HashEdit};
pub use kind::Kind;
pub use list::{End, List, ListEdit};
pub use set::{Set, SetEdit};
pub use sorted_set::{LexBound, Score, SetScore, SortedSet, SortedSetEdit};

/// A value of any kind.
#[derive(Debug, Clone)]
pub enum Value {
    /// Fields with a value each.
    Hash(Hash),
    /// Members without order.
    Set(Set),
    /// Members ordered by score.
    SortedSet(SortedSet),
    /// Items in the order in which clients put them.
    List(List),
}

impl Value {
    /// An empty value.
    pub fn new(kind: Kind) -> Value {
        match kind {
            Kind::Hash => Value::Hash(Hash::default()),
            Kind::Set => Value::Set(Set::default()),
            Kind::SortedSet => Value::SortedSet(SortedSet::default()),
            Kind::List => Value::List(List::default()),
        }
    }

    /// The value that consists of these elements, each the last state that an [`Edit`] recorded.
    /// Hashes and sets are in the order of the elements. A list is in the order of its positions.
    pub fn restore(
        kind: Kind,
        elements: impl IntoIterator<Item = (Box<[u8]>, Box<[u8]>)>,
    ) -> Result<Value, Malformed> {
        let elements = elements.into_iter();
        Ok(match kind {
            Kind::Hash => Value::Hash(Hash::restore(elements)?),
            Kind::Set => Value::Set(Set::restore(elements)?),
            Kind::SortedSet => Value::SortedSet(SortedSet::restore(elements)?),
            Kind::List => Value::List(List::restore(elements)?),
        })
    }

    /// The type.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Hash(_) => Kind::Hash,
            Value::Set(_) => Kind::Set,
            Value::SortedSet(_) => Kind::SortedSet,
            Value::List(_) => Kind::List,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Value::Hash(hash) => hash.len(),
            Value::Set(set) => set.len(),
            Value::SortedSet(sorted) => sorted.len(),
            Value::List(list) => list.len(),
        }
    }

    /// Whether there are no elements. Such a value must not stay in the keyspace.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes of memory the value takes, including the allocator's share. In constant
    /// time.
    pub fn bytes(&self) -> usize {
        size_of::<Value>()
            + match self {
                Value::Hash(hash) => hash.bytes(),
                Value::Set(set) => set.bytes(),
                Value::SortedSet(sorted) => sorted.bytes(),
                Value::List(list) => list.bytes(),
            }
    }

    /// The name that `OBJECT ENCODING` has for a value of this content in Redis 7.0.
    pub fn encoding(&self) -> &'static str {
        match self {
            Value::Hash(hash) if hash.is_compact() => "listpack",
            Value::Set(set) if set.is_compact() => "intset",
            Value::Hash(_) | Value::Set(_) => "hashtable",
            Value::SortedSet(sorted) if sorted.is_compact() => "listpack",
            Value::SortedSet(_) => "skiplist",
            Value::List(_) => "quicklist",
        }
    }
}

// There is one for each value, however small.
const _: () = assert!(size_of::<Value>() <= 32);

/// Elements that are none of a value of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    kind: Kind,
    why: &'static str,
}

impl Malformed {
    fn new(kind: Kind, why: &'static str) -> Malformed {
        Malformed { kind, why }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed elements of a {}: {}", self.kind.name(), self.why)
    }
}

impl std::error::Error for Malformed {}

/// Elements of the largest packed hash, set or sorted set. Looking through more of them takes
/// longer than a look-up in a hash table.
const PACKED_LEN_MAX: usize = 128;

/// What the allocator adds to an allocation of a few bytes, on average.
const ALLOCATION_BYTES: usize = 8;
