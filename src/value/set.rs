//! Sets: members without order.
//!
//! Guarantees: members are in insertion order while there are few. Look-ups and changes take
//! constant time; a removal among few members takes time linear in their number.

use std::ops::Deref;

use super::edit::Changes;
use super::elements::{Elements, ORDERED_MAX};
use super::{Kind, Malformed};

/// Memory per member besides its bytes: its row, its share of the index, and one allocation.
const MEMBER_BYTES: usize = 48;

/// Members without order.
#[derive(Debug, Clone, Default)]
pub struct Set {
    members: Elements<Box<[u8]>, ()>,
    /// Bytes of all members.
    text_bytes: usize,
    /// Members that are no integers.
    texts: usize,
}

impl Set {
    pub(super) fn restore(elements: impl Iterator<Item = (Box<[u8]>, Box<[u8]>)>) -> Result<Set, Malformed> {
        let mut set = Set::default();
        for (member, value) in elements {
            if !value.is_empty() {
                return Err(Malformed::new(Kind::Set, "a member has a value"));
            }
            if !set.put(member) {
                return Err(Malformed::new(Kind::Set, "a member occurs twice"));
            }
        }
        Ok(set)
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has this member.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.members.contains(member)
    }

    /// The member at an index below [`Set::len`]. Any change may renumber the members.
    pub fn get_index(&self, index: usize) -> Option<&[u8]> {
        self.members.get_index(index).map(|(member, ())| &**member)
    }

    /// All members.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.members.iter().map(|(member, ())| &**member)
    }

    /// One step of an iteration that returns every member that exists from its first step to its
    /// last. The first step has cursor 0; a step that returns 0 was the last. As in Redis, a set
    /// of compact encoding is returned whole; of another, a step returns at most `count` members.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, impl Iterator<Item = &[u8]>) {
        let (cursor, count) = if self.is_compact() { (0, self.len()) } else { (cursor, count) };
        let (next, members) = self.members.scan(cursor, count);
        (next, members.map(|(member, ())| &**member))
    }

    pub(super) fn bytes(&self) -> usize {
        self.text_bytes + self.len() * MEMBER_BYTES
    }

    /// Whether Redis would store it as an intset.
    pub(super) fn is_compact(&self) -> bool {
        self.len() <= ORDERED_MAX && self.texts == 0
    }

    /// Adds a member. Returns whether it is new.
    fn put(&mut self, member: Box<[u8]>) -> bool {
        let (len, is_text) = (member.len(), !is_integer(&member));
        let is_new = self.members.insert(member, ()).is_none();
        if is_new {
            self.text_bytes += len;
            self.texts += usize::from(is_text);
        }
        is_new
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        let removed = self.members.remove(member).is_some();
        if removed {
            self.text_bytes -= member.len();
            self.texts -= usize::from(!is_integer(member));
        }
        removed
    }
}

/// Adds members to a set that no key has, such as the result of an intersection.
impl<'m> Extend<&'m [u8]> for Set {
    fn extend<M: IntoIterator<Item = &'m [u8]>>(&mut self, members: M) {
        for member in members {
            if !self.contains(member) {
                self.put(member.into());
            }
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
        let is_new = !self.set.contains(member) && self.set.put(member.into());
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
