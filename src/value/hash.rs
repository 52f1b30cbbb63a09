//! Hashes: fields with a value each.
//!
//! Guarantees: fields are in insertion order while there are few. Look-ups and changes take
//! constant time; a removal among few fields takes time linear in their number.

use std::ops::Deref;

use super::edit::Changes;
use super::elements::{Elements, ORDERED_MAX};
use super::{COMPACT_ELEMENT_BYTES_MAX, Kind, Malformed};

/// Memory per field besides its bytes: its row, its share of the index, and two allocations.
const FIELD_BYTES: usize = 80;

/// Fields with a value each.
#[derive(Debug, Clone, Default)]
pub struct Hash {
    fields: Elements<Box<[u8]>, Box<[u8]>>,
    /// Bytes of all fields and values.
    text_bytes: usize,
    /// Fields that are too long for the compact encoding, or whose values are.
    long: usize,
}

impl Hash {
    pub(super) fn restore(elements: impl Iterator<Item = (Box<[u8]>, Box<[u8]>)>) -> Result<Hash, Malformed> {
        let mut hash = Hash::default();
        for (field, value) in elements {
            if !hash.put(field, value) {
                return Err(Malformed::new(Kind::Hash, "a field occurs twice"));
            }
        }
        Ok(hash)
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(|value| &**value)
    }

    /// Whether a field exists.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.fields.contains(field)
    }

    /// The field at an index below [`Hash::len`], and its value. Any change may renumber the fields.
    pub fn get_index(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.fields.get_index(index).map(|(field, value)| (&**field, &**value))
    }

    /// All fields and their values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.fields.iter().map(|(field, value)| (&**field, &**value))
    }

    /// One step of an iteration that returns every field that exists from its first step to its
    /// last. The first step has cursor 0; a step that returns 0 was the last. As in Redis, a hash
    /// of compact encoding is returned whole; of another, a step returns at most `count` fields.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, impl Iterator<Item = (&[u8], &[u8])>) {
        let (cursor, count) = if self.is_compact() { (0, self.len()) } else { (cursor, count) };
        let (next, fields) = self.fields.scan(cursor, count);
        (next, fields.map(|(field, value)| (&**field, &**value)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.text_bytes + self.len() * FIELD_BYTES
    }

    /// Whether Redis would store it as a listpack.
    pub(super) fn is_compact(&self) -> bool {
        self.len() <= ORDERED_MAX && self.long == 0
    }

    /// Sets a field. Returns whether it is new.
    fn put(&mut self, field: Box<[u8]>, value: Box<[u8]>) -> bool {
        let field_len = field.len();
        self.add(field_len, value.len());
        match self.fields.insert(field, value) {
            None => true,
            Some(old) => {
                self.subtract(field_len, old.len());
                false
            }
        }
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.fields.remove(field);
        if let Some((field, value)) = &removed {
            self.subtract(field.len(), value.len());
        }
        removed.is_some()
    }

    fn add(&mut self, field_len: usize, value_len: usize) {
        self.text_bytes += field_len + value_len;
        self.long += usize::from(is_long(field_len, value_len));
    }

    fn subtract(&mut self, field_len: usize, value_len: usize) {
        self.text_bytes -= field_len + value_len;
        self.long -= usize::from(is_long(field_len, value_len));
    }
}

fn is_long(field_len: usize, value_len: usize) -> bool {
    field_len.max(value_len) > COMPACT_ELEMENT_BYTES_MAX
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
        self.hash.put(field.into(), value.into())
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
