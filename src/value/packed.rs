//! Short byte strings one after another, in two allocations however many they are.
//!
//! Guarantees: a string takes its bytes, one byte for its length, and a small share of the room to
//! grow. Operations take time linear in the number of strings, at a few nanoseconds each, so this
//! is for small numbers of them.
//! Not here: what the strings mean, how many of them there are at most.

use std::ops::Range;

/// Longest string, in bytes.
pub(super) const PACKED_BYTES_MAX: usize = 64;
const _: () = assert!(PACKED_BYTES_MAX <= u8::MAX as usize);

/// Less unused memory than this is not given back.
const UNUSED_BYTES_KEPT: usize = 64;

/// Strings in the order of their indexes.
#[derive(Debug, Clone, Default)]
pub(super) struct Packed {
    lens: Vec<u8>,
    text: Vec<u8>,
}

impl Packed {
    /// Whether a string is short enough.
    pub(super) fn fits(string: &[u8]) -> bool {
        string.len() <= PACKED_BYTES_MAX
    }

    /// The number of strings.
    pub(super) fn len(&self) -> usize {
        self.lens.len()
    }

    /// Memory that was allocated.
    pub(super) fn bytes(&self) -> usize {
        self.lens.capacity() + self.text.capacity()
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        self.range(index..index.saturating_add(1)).next()
    }

    pub(super) fn iter(&self) -> PackedIter<'_> {
        PackedIter { lens: self.lens.iter(), text: &self.text }
    }

    /// The index of a string among the first ones of all groups of `N` strings.
    pub(super) fn find<const N: usize>(&self, string: &[u8]) -> Option<usize> {
        let (groups, _) = self.lens.as_chunks::<N>();
        let mut start = 0;
        for (group, lens) in groups.iter().enumerate() {
            let other = &self.text[start..start + usize::from(lens[0])];
            // Names that differ often do so at the end. Looking there first saves most comparisons.
            if other.len() == string.len() && other.last() == string.last() && other == string {
                return Some(group * N);
            }
            start += text_bytes(lens);
        }
        None
    }

    /// The strings at these indexes, which are cut at the end.
    pub(super) fn range(&self, indexes: Range<usize>) -> PackedIter<'_> {
        let end = indexes.end.min(self.len());
        let start = indexes.start.min(end);
        PackedIter { lens: self.lens[start..end].iter(), text: &self.text[self.text_range(start..end)] }
    }

    /// Adds a string before the one at an index, or at the end if the index is [`Packed::len`].
    pub(super) fn insert(&mut self, index: usize, string: &[u8]) {
        if index == self.len() {
            return self.push(string);
        }
        let start = text_bytes(&self.lens[..index]);
        reserve(&mut self.lens, 1);
        self.lens.insert(index, string.len() as u8);
        move_tail(&mut self.text, start, start + string.len());
        self.text[start..start + string.len()].copy_from_slice(string);
    }

    /// Adds a string at the end.
    pub(super) fn push(&mut self, string: &[u8]) {
        reserve(&mut self.lens, 1);
        self.lens.push(string.len() as u8);
        reserve(&mut self.text, string.len());
        self.text.extend_from_slice(string);
    }

    /// Replaces the string at an index below [`Packed::len`].
    pub(super) fn set(&mut self, index: usize, string: &[u8]) {
        let old = self.text_range(index..index + 1);
        self.lens[index] = string.len() as u8;
        move_tail(&mut self.text, old.end, old.start + string.len());
        self.text[old.start..old.start + string.len()].copy_from_slice(string);
        shrink(&mut self.text);
    }

    /// Removes the strings at these indexes, which must exist.
    pub(super) fn remove(&mut self, indexes: Range<usize>) {
        let removed = self.text_range(indexes.clone());
        self.lens.drain(indexes);
        self.text.drain(removed);
        shrink(&mut self.lens);
        shrink(&mut self.text);
    }

    /// Removes the last string.
    pub(super) fn pop(&mut self) -> Option<Box<[u8]>> {
        let len = usize::from(self.lens.pop()?);
        let start = self.text.len() - len;
        let string = self.text[start..].into();
        self.text.truncate(start);
        shrink(&mut self.lens);
        shrink(&mut self.text);
        Some(string)
    }

    fn text_range(&self, indexes: Range<usize>) -> Range<usize> {
        let start = text_bytes(&self.lens[..indexes.start]);
        start..start + text_bytes(&self.lens[indexes])
    }
}

/// The number of bytes of strings of these lengths.
fn text_bytes(lens: &[u8]) -> usize {
    lens.iter().map(|len| usize::from(*len)).sum()
}

/// Moves what starts at `from` to `to`, and makes the text longer or shorter by the difference.
fn move_tail(text: &mut Vec<u8>, from: usize, to: usize) {
    let len = text.len();
    if to > from {
        reserve(text, to - from);
        text.resize(len + to - from, 0);
    }
    text.copy_within(from..len, to);
    text.truncate(len + to - from);
}

/// Makes room for `additional` elements. Grows in smaller steps than a vector does by itself: moving
/// a few hundred bytes takes little time, and unused memory would be what packing saves.
pub(super) fn reserve<T>(vec: &mut Vec<T>, additional: usize) {
    let needed = vec.len() + additional;
    if needed > vec.capacity() {
        // In the steps of an allocator's sizes, four to eight of them from one power of two to the
        // next, nothing is lost to rounding.
        let bytes = needed * size_of::<T>();
        let step = (bytes / 8).next_power_of_two().max(16);
        let wanted = bytes.next_multiple_of(step) / size_of::<T>();
        vec.reserve_exact(wanted - vec.len());
    }
}

/// Gives memory back when more than half is unused.
pub(super) fn shrink<T>(vec: &mut Vec<T>) {
    let unused = (vec.capacity() - vec.len()) * size_of::<T>();
    if unused > UNUSED_BYTES_KEPT && vec.len() < vec.capacity() / 2 {
        vec.shrink_to(vec.len() + vec.len() / 8);
    }
}

/// Strings in the order of their indexes.
#[derive(Debug, Clone)]
pub(super) struct PackedIter<'a> {
    lens: std::slice::Iter<'a, u8>,
    text: &'a [u8],
}

impl<'a> Iterator for PackedIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(*self.lens.next()?);
        let (string, text) = self.text.split_at(len);
        self.text = text;
        Some(string)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lens.size_hint()
    }
}

impl<'a> DoubleEndedIterator for PackedIter<'a> {
    fn next_back(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(*self.lens.next_back()?);
        let (text, string) = self.text.split_at(self.text.len() - len);
        self.text = text;
        Some(string)
    }
}

impl ExactSizeIterator for PackedIter<'_> {}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn packed_strings_do_what_a_vector_does(
            changes in vec((0u8..8, 0usize..200, 0usize..=PACKED_BYTES_MAX), 0..300),
            indexes in (0usize..150, 0usize..150),
        ) {
            let (mut packed, mut model) = (Packed::default(), Vec::<Vec<u8>>::new());
            for (choice, at, len) in changes {
                let string: Vec<u8> = (0..len).map(|n| (n + at) as u8).collect();
                let index = at % model.len().max(1);
                match choice {
                    0..4 => {
                        packed.insert(index, &string);
                        model.insert(index, string);
                    }
                    4 => {
                        packed.push(&string);
                        model.push(string);
                    }
                    5 if index < model.len() => {
                        packed.set(index, &string);
                        model[index] = string;
                    }
                    6 if len % 4 == 0 => prop_assert_eq!(packed.pop().map(Vec::from), model.pop()),
                    6 => {
                        let removed = index..model.len().min(index + 1 + len / 16);
                        packed.remove(removed.clone());
                        model.drain(removed);
                    }
                    _ => {}
                }
                prop_assert!(packed.iter().eq(&model));
            }
            prop_assert_eq!(packed.len(), model.len());
            prop_assert!(packed.iter().rev().eq(model.iter().rev()));
            prop_assert!((0..=model.len()).map_while(|n| packed.get(n)).eq(&model));
            for string in model.iter().chain([&vec![0; PACKED_BYTES_MAX + 1]]) {
                prop_assert_eq!(packed.find::<1>(string), model.iter().position(|other| other == string));
                let first_of_pair = model.chunks_exact(2).position(|pair| pair[0] == *string);
                prop_assert_eq!(packed.find::<2>(string), first_of_pair.map(|pair| 2 * pair));
            }
            let end = indexes.1.min(model.len());
            let expected = &model[indexes.0.min(end)..end];
            prop_assert!(packed.range(indexes.0..indexes.1).eq(expected));
            prop_assert_eq!(packed.range(indexes.0..indexes.1).len(), expected.len());
            let mut both_ends = packed.iter();
            both_ends.next();
            both_ends.next_back();
            prop_assert!(both_ends.eq(model.get(1..model.len().max(2) - 1).into_iter().flatten()));
        }
    }

    #[test]
    fn memory_follows_the_strings() {
        let mut packed = Packed::default();
        assert_eq!(packed.bytes(), 0);
        for n in 1..=64 {
            packed.push(&[0; 16]);
            assert!(packed.bytes() <= n * 20 + 32, "{n}: {}", packed.bytes());
        }
        packed.remove(1..64);
        assert!(packed.bytes() <= 17 + 2 * UNUSED_BYTES_KEPT, "{}", packed.bytes());
    }
}
