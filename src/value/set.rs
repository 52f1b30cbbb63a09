//! Sets: members without order.
//!
//! Guarantees: members are in insertion order while there are few. Look-ups and changes take
//! constant time; a removal among few members takes time linear in their number. Few short members
//! are packed; a set that has outgrown that stays a table.

use std::ops::Deref;

use either::Either;

use super::edit::Changes;
use super::elements::{Elements, ORDERED_MAX, scan_step};
use super::packed::{Packed, are_equal};
use super::{ALLOCATION_BYTES, Kind, Malformed, PACKED_LEN_MAX};

/// Members without order.
#[derive(Debug, Clone)]
pub struct Set {
    members: Members,
    /// There have never been too many members, or others than integers, for the compact encoding.
    is_compact: bool,
}

#[derive(Debug, Clone)]
enum Members {
    Packed(Packed),
    Table(Box<Table>),
}

#[derive(Debug, Clone, Default)]
struct Table {
    elements: Elements<Box<[u8]>, ()>,
    /// Bytes of all members.
    text_bytes: usize,
}

impl Default for Set {
    fn default() -> Set {
        Set { members: Members::Packed(Packed::default()), is_compact: true }
    }
}

impl Set {
    pub(super) fn restore(elements: impl Iterator<Item = (Box<[u8]>, Box<[u8]>)>) -> Result<Set, Malformed> {
        let mut set = Set::default();
        for (member, value) in elements {
            if !value.is_empty() {
                return Err(Malformed::new(Kind::Set, "a member has a value"));
            }
            if !set.put(&member) {
                return Err(Malformed::new(Kind::Set, "a member occurs twice"));
            }
        }
        Ok(set)
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        match &self.members {
            Members::Packed(packed) => packed.len(),
            Members::Table(table) => table.elements.len(),
        }
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has this member.
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.members {
            Members::Packed(packed) => packed_index(packed, member).is_some(),
            Members::Table(table) => table.elements.contains(member),
        }
    }

    /// The member at an index below [`Set::len`]. Any change may renumber the members.
    pub fn get_index(&self, index: usize) -> Option<&[u8]> {
        match &self.members {
            Members::Packed(packed) => packed.get(index),
            Members::Table(table) => table.elements.get_index(index).map(|(member, ())| &**member),
        }
    }

    /// All members.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        match &self.members {
            Members::Packed(packed) => Either::Left(packed.iter()),
            Members::Table(table) => Either::Right(table.elements.iter().map(|(member, ())| &**member)),
        }
    }

    /// One step of an iteration that returns every member that exists from its first step to its
    /// last. The first step has cursor 0; a step that returns 0 was the last. As in Redis, a set
    /// of compact encoding is returned whole; of another, a step returns at most `count` members.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, impl Iterator<Item = &[u8]>) {
        let (cursor, count) = if self.is_compact { (0, self.len()) } else { (cursor, count) };
        match &self.members {
            Members::Packed(packed) => {
                let (next, indexes) = scan_step(packed.len(), cursor, count);
                (next, Either::Left(packed.range(indexes)))
            }
            Members::Table(table) => {
                let (next, members) = table.elements.scan(cursor, count);
                (next, Either::Right(members.map(|(member, ())| &**member)))
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.members {
            Members::Packed(packed) => packed.bytes(),
            Members::Table(table) => table.bytes(),
        }
    }

    /// Whether Redis would store it as an intset.
    pub(super) fn is_compact(&self) -> bool {
        self.is_compact
    }

    /// Adds a member. Returns whether it is new.
    fn put(&mut self, member: &[u8]) -> bool {
        if self.contains(member) {
            return false;
        }
        self.is_compact &= self.len() < ORDERED_MAX && is_integer(member);
        match &mut self.members {
            Members::Packed(packed) if packed.len() < PACKED_LEN_MAX && Packed::fits(member) => {
                packed.push(&[member]);
            }
            Members::Packed(packed) => {
                let mut table = Box::<Table>::default();
                packed.iter().for_each(|member| table.add(member));
                table.add(member);
                self.members = Members::Table(table);
            }
            Members::Table(table) => table.add(member),
        }
        true
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.members {
            Members::Packed(packed) => {
                let index = packed_index(packed, member);
                if let Some(index) = index {
                    packed.remove(index..index + 1);
                }
                index.is_some()
            }
            Members::Table(table) => table.remove(member),
        }
    }
}

/// The index of a member among packed ones.
fn packed_index(packed: &Packed, member: &[u8]) -> Option<usize> {
    packed.find::<1>(|other| are_equal(other, member))
}

impl Table {
    fn bytes(&self) -> usize {
        size_of::<Table>() + self.elements.bytes() + self.text_bytes + ALLOCATION_BYTES * self.elements.len()
    }

    /// Adds a member, which must not be there yet.
    fn add(&mut self, member: &[u8]) {
        self.text_bytes += member.len();
        self.elements.insert(member.into(), ());
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        let removed = self.elements.remove(member);
        if removed.is_some() {
            self.text_bytes -= member.len();
        }
        removed.is_some()
    }
}

/// Adds members to a set that no key has, such as the result of an intersection.
impl<'m> Extend<&'m [u8]> for Set {
    fn extend<M: IntoIterator<Item = &'m [u8]>>(&mut self, members: M) {
        for member in members {
            self.put(member);
        }
    }
}

/// Whether these are the digits of an integer as Redis writes it.
fn is_integer(member: &[u8]) -> bool {
    const DIGITS_MAX: usize = 20;
    let digits = member.strip_prefix(b"-").unwrap_or(member);
    let is_plain = matches!((digits, member), ([b'0'], [b'0']) | ([b'1'..=b'9', ..], _));
    let text = Some(member).filter(|member| is_plain && member.len() <= DIGITS_MAX);
    text.and_then(|text| std::str::from_utf8(text).ok()).is_some_and(|text| text.parse::<i64>().is_ok())
}

/// Changes to a [`Set`].
#[derive(Debug)]
pub struct SetEdit<'a> {
    set: &'a mut Set,
    changes: &'a mut Changes,
}

impl<'a> SetEdit<'a> {
    pub(super) fn new(set: &'a mut Set, changes: &'a mut Changes) -> SetEdit<'a> {
        SetEdit { set, changes }
    }

    /// Adds a member. Returns whether it is new.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        let is_new = self.set.put(member);
        if is_new {
            self.changes.put(member, []);
        }
        is_new
    }

    /// Removes a member. Returns whether it existed.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let removed = self.set.remove(member);
        if removed {
            self.changes.gone(member);
        }
        removed
    }
}

impl Deref for SetEdit<'_> {
    type Target = Set;
    fn deref(&self) -> &Set {
        self.set
    }
}

#[cfg(test)]
mod tests {
    use super::is_integer;

    #[test]
    fn integers_are_what_redis_writes() {
        for text in ["0", "7", "-7", "10", "9223372036854775807", "-9223372036854775808"] {
            assert!(is_integer(text.as_bytes()), "{text:?}");
        }
        for text in ["", "-", "-0", "01", "+1", " 1", "1 ", "1a", "1.0", "9223372036854775808", "\u{663}"] {
            assert!(!is_integer(text.as_bytes()), "{text:?}");
        }
    }
}
