//! The hash table under hashes, sets and sorted sets.
//!
//! Guarantees: elements are in insertion order as long as there have never been more than
//! [`ORDERED_MAX`] of them. Each table has a hash key of its own, so a client cannot choose names
//! that collide. A table that has lost most of its elements gives memory back.
//! Not here: what the elements are, and how many bytes they take.

use std::borrow::Borrow;
use std::hash::{Hash, RandomState};
use std::ops::Range;

use indexmap::IndexMap;

/// Elements up to which a removal keeps the order of the others, which takes linear time. Above,
/// the last element takes the place of the removed one.
pub(super) const ORDERED_MAX: usize = 512;

/// A table with less room than this is not shrunk.
const CAPACITY_KEPT: usize = 64;

/// Names with a content each.
#[derive(Debug, Clone)]
pub(super) struct Elements<K, V>(IndexMap<K, V, RandomState>);

impl<K, V> Default for Elements<K, V> {
    fn default() -> Elements<K, V> {
        Elements(IndexMap::default())
    }
}

impl<K: Hash + Eq + Borrow<[u8]>, V> Elements<K, V> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&V> {
        self.0.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut V> {
        self.0.get_mut(name)
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn get_index(&self, index: usize) -> Option<(&K, &V)> {
        self.0.get_index(index)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> + Clone {
        self.0.iter()
    }

    /// Sets the content of an element, which keeps its place if it exists. Returns the old content.
    pub(super) fn insert(&mut self, name: K, content: V) -> Option<V> {
        self.0.insert(name, content)
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<(K, V)> {
        let index = self.0.get_index_of(name)?;
        let removed = if self.len() <= ORDERED_MAX {
            self.0.shift_remove_index(index)
        } else {
            self.0.swap_remove_index(index)
        };
        if self.0.capacity() > CAPACITY_KEPT && self.len() < self.0.capacity() / 8 {
            self.0.shrink_to(2 * self.len());
        }
        removed
    }

    /// Memory of the rows and of the index, without that of names and contents.
    pub(super) fn bytes(&self) -> usize {
        /// A hash, and a place in the index with the control byte and the spare room of a hash table.
        const HASH_AND_PLACE_BYTES: usize = 18;
        self.0.capacity() * (size_of::<(K, V)>() + HASH_AND_PLACE_BYTES)
    }

    /// One step of an iteration over all elements: at most `count` of them, and the cursor of the
    /// next step. The first step has cursor 0; a step that returns 0 was the last.
    pub(super) fn scan(&self, cursor: u64, count: usize) -> (u64, impl Iterator<Item = (&K, &V)>) {
        let (next, indexes) = scan_step(self.len(), cursor, count);
        (next, self.0.get_range(indexes).map(|slice| slice.iter()).into_iter().flatten())
    }
}

/// The indexes of one step of an iteration over `len` elements, and the cursor of the next step.
///
/// The iteration goes from the last index down, and the cursor is the number of elements still to
/// come, all of them at lower indices. An element never moves to a higher index while it exists: a
/// removal moves later ones down by one, or the last one into the gap, and new ones are appended.
/// So an element that exists throughout is returned at least once. One that moved down into the
/// part still to come is returned again.
pub(super) fn scan_step(len: usize, cursor: u64, count: usize) -> (u64, Range<usize>) {
    let end = match usize::try_from(cursor) {
        Ok(left @ 1..) => left.min(len),
        Ok(0) | Err(_) => len,
    };
    let start = end.saturating_sub(count.max(1));
    (start as u64, start..end)
}
