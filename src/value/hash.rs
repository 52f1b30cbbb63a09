//! Hashes: fields with a value each.
//!
//! Guarantees: fields are in insertion order while there are few. Look-ups and changes take
//! constant time; a removal among few fields takes time linear in their number. Few short fields
//! are packed; a hash that has outgrown that stays a table, as in Redis.

use std::ops::Deref;

use either::Either;

use super::edit::Changes;
use super::elements::{Elements, ORDERED_MAX};
use super::packed::{Packed, are_equal};
use super::{ALLOCATION_BYTES, Kind, Malformed, PACKED_LEN_MAX};

/// Fields with a value each.
#[derive(Debug, Clone, Default)]
pub struct Hash {
    fields: Fields,
}

#[derive(Debug, Clone)]
enum Fields {
    /// Each field is followed by its value.
    Packed(Packed),
    Table(Box<Table>),
}

impl Default for Fields {
    fn default() -> Fields {
        Fields::Packed(Packed::default())
    }
}

#[derive(Debug, Clone)]
struct Table {
    elements: Elements<Box<[u8]>, Box<[u8]>>,
    /// Bytes of all fields and values.
    text_bytes: usize,
    /// There have never been too many or too long fields for the compact encoding.
    is_compact: bool,
}

impl Hash {
    pub(super) fn restore(elements: impl Iterator<Item = (Box<[u8]>, Box<[u8]>)>) -> Result<Hash, Malformed> {
        let mut hash = Hash::default();
        for (field, value) in elements {
            if !hash.put(&field, &value) {
                return Err(Malformed::new(Kind::Hash, "a field occurs twice"));
            }
        }
        Ok(hash)
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        match &self.fields {
            Fields::Packed(packed) => packed.len() / 2,
            Fields::Table(table) => table.elements.len(),
        }
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.fields {
            Fields::Packed(packed) => packed.get(packed_index(packed, field)? + 1),
            Fields::Table(table) => table.elements.get(field).map(|value| &**value),
        }
    }

    /// Whether a field exists.
    pub fn contains(&self, field: &[u8]) -> bool {
        match &self.fields {
            Fields::Packed(packed) => packed_index(packed, field).is_some(),
            Fields::Table(table) => table.elements.contains(field),
        }
    }

    /// The field at an index below [`Hash::len`], and its value. Any change may renumber the fields.
    pub fn get_index(&self, index: usize) -> Option<(&[u8], &[u8])> {
        match &self.fields {
            Fields::Packed(packed) => pairs(packed.range(2 * index..2 * index + 2)).next(),
            Fields::Table(table) => {
                table.elements.get_index(index).map(|(field, value)| (&**field, &**value))
            }
        }
    }

    /// All fields and their values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        match &self.fields {
            Fields::Packed(packed) => Either::Left(pairs(packed.iter())),
            Fields::Table(table) => {
                Either::Right(table.elements.iter().map(|(field, value)| (&**field, &**value)))
            }
        }
    }

    /// One step of an iteration that returns every field that exists from its first step to its
    /// last. The first step has cursor 0; a step that returns 0 was the last. As in Redis, a hash
    /// of compact encoding is returned whole; of another, a step returns at most `count` fields.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, impl Iterator<Item = (&[u8], &[u8])>) {
        match &self.fields {
            Fields::Table(table) if !table.is_compact => {
                let (next, fields) = table.elements.scan(cursor, count);
                (next, Either::Left(fields.map(|(field, value)| (&**field, &**value))))
            }
            _ => (0, Either::Right(self.iter())),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.fields {
            Fields::Packed(packed) => packed.bytes(),
            Fields::Table(table) => table.bytes(),
        }
    }

    /// Whether Redis would store it as a listpack.
    pub(super) fn is_compact(&self) -> bool {
        match &self.fields {
            Fields::Packed(_) => true,
            Fields::Table(table) => table.is_compact,
        }
    }

    /// Sets a field. Returns whether it is new.
    fn put(&mut self, field: &[u8], value: &[u8]) -> bool {
        if let Fields::Packed(packed) = &mut self.fields {
            let at = packed_index(packed, field);
            let has_room = at.is_some() || packed.len() < 2 * PACKED_LEN_MAX;
            if has_room && Packed::fits(field) && Packed::fits(value) {
                match at {
                    Some(at) => packed.set(at + 1, value),
                    None => packed.push(&[field, value]),
                }
                return at.is_none();
            }
        }
        self.table().put(field, value)
    }

    /// The table, which takes the place of packed fields.
    fn table(&mut self) -> &mut Table {
        if let Fields::Packed(packed) = &self.fields {
            let mut table = Table { elements: Elements::default(), text_bytes: 0, is_compact: true };
            for (field, value) in pairs(packed.iter()) {
                table.put(field, value);
            }
            self.fields = Fields::Table(Box::new(table));
        }
        match &mut self.fields {
            Fields::Table(table) => table,
            Fields::Packed(_) => unreachable!("it became a table"),
        }
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.fields {
            Fields::Packed(packed) => {
                let at = packed_index(packed, field);
                if let Some(at) = at {
                    packed.remove(at..at + 2);
                }
                at.is_some()
            }
            Fields::Table(table) => table.remove(field),
        }
    }
}

/// The index of a field among packed fields and values.
fn packed_index(packed: &Packed, field: &[u8]) -> Option<usize> {
    packed.find::<2>(|other| are_equal(other, field))
}

/// Packed fields and values as pairs.
fn pairs<'a>(
    strings: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone {
    strings.clone().step_by(2).zip(strings.skip(1).step_by(2))
}

impl Table {
    fn bytes(&self) -> usize {
        size_of::<Table>()
            + self.elements.bytes()
            + self.text_bytes
            + 2 * ALLOCATION_BYTES * self.elements.len()
    }

    /// Sets a field. Returns whether it is new.
    fn put(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.is_compact &= Packed::fits(field) && Packed::fits(value);
        self.text_bytes += value.len();
        if let Some(old) = self.elements.get_mut(field) {
            self.text_bytes -= old.len();
            *old = value.into();
            return false;
        }
        self.text_bytes += field.len();
        self.elements.insert(field.into(), value.into());
        self.is_compact &= self.elements.len() <= ORDERED_MAX;
        true
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.elements.remove(field);
        if let Some((field, value)) = &removed {
            self.text_bytes -= field.len() + value.len();
        }
        removed.is_some()
    }
}

/// Changes to a [`Hash`](struct@Hash).
#[derive(Debug)]
pub struct HashEdit<'a> {
    hash: &'a mut Hash,
    changes: &'a mut Changes,
}

impl<'a> HashEdit<'a> {
    pub(super) fn new(hash: &'a mut Hash, changes: &'a mut Changes) -> HashEdit<'a> {
        HashEdit { hash, changes }
    }

    /// Sets a field. Returns whether it is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.changes.put(field, value);
        self.hash.put(field, value)
    }

    /// Removes a field. Returns whether it existed.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.hash.remove(field);
        if removed {
            self.changes.gone(field);
        }
        removed
    }
}

impl Deref for HashEdit<'_> {
    type Target = Hash;
    fn deref(&self) -> &Hash {
        self.hash
    }
}
