//! Short byte strings one after another, in one allocation however many they are.
//!
//! Guarantees: a string takes its bytes and one byte for its length. Nothing is allocated in
//! advance: the room to grow is what the allocator rounds up by. Operations take time linear in the
//! number of strings, at a few nanoseconds each, so this is for small numbers of them.
//! Not here: what the strings mean, how many of them there are at most.

use std::mem;
use std::ops::Range;

use super::ALLOCATION_BYTES;

/// Longest string that values pack, in bytes.
pub(super) const PACKED_BYTES_MAX: usize = 64;

/// Bytes of the number of strings.
const COUNT_BYTES: usize = size_of::<u16>();

/// Strings of at most 255 bytes in the order of their indexes.
#[derive(Debug, Clone, Default)]
pub(super) struct Packed {
    /// Empty, or: the number of strings, their lengths in a byte each, and the strings.
    bytes: Box<[u8]>,
}

impl Packed {
    /// Whether a string is short enough to be packed.
    pub(super) fn fits(string: &[u8]) -> bool {
        string.len() <= PACKED_BYTES_MAX
    }

    /// The number of strings.
    pub(super) fn len(&self) -> usize {
        self.bytes.first_chunk().map_or(0, |count| u16::from_le_bytes(*count).into())
    }

    /// Whether there are no strings.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// About how many bytes of memory the strings take.
    pub(super) fn bytes(&self) -> usize {
        if self.is_empty() { 0 } else { self.bytes.len() + ALLOCATION_BYTES }
    }

    /// The lengths of the strings, and the strings.
    fn parts(&self) -> (&[u8], &[u8]) {
        match self.bytes.split_at_checked(COUNT_BYTES) {
            Some((_, rest)) => rest.split_at(self.len()),
            None => (&[], &[]),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        self.range(index..index.saturating_add(1)).next()
    }

    pub(super) fn iter(&self) -> PackedIter<'_> {
        let (lens, text) = self.parts();
        PackedIter { lens: lens.iter(), text }
    }

    /// The index of the first wanted string among the first ones of all groups of `N` strings.
    pub(super) fn find<const N: usize>(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let (lens, text) = self.parts();
        let (groups, _) = lens.as_chunks::<N>();
        let mut start = 0;
        for (group, lens) in groups.iter().enumerate() {
            if is_wanted(&text[start..start + usize::from(lens[0])]) {
                return Some(group * N);
            }
            start += text_bytes(lens);
        }
        None
    }

    /// The strings at these indexes, which are cut at the end.
    pub(super) fn range(&self, indexes: Range<usize>) -> PackedIter<'_> {
        let (lens, text) = self.parts();
        let end = indexes.end.min(lens.len());
        let start = indexes.start.min(end);
        let (before, lens) = (text_bytes(&lens[..start]), &lens[start..end]);
        PackedIter { lens: lens.iter(), text: &text[before..before + text_bytes(lens)] }
    }

    /// Adds a string before the one at an index, or at the end if the index is [`Packed::len`].
    pub(super) fn insert(&mut self, index: usize, string: &[u8]) {
        self.splice(index..index, &[string]);
    }

    /// Adds strings at the end.
    pub(super) fn push(&mut self, strings: &[&[u8]]) {
        let end = self.len();
        self.splice(end..end, strings);
    }

    /// Replaces the string at an index below [`Packed::len`].
    pub(super) fn set(&mut self, index: usize, string: &[u8]) {
        self.splice(index..index + 1, &[string]);
    }

    /// Removes the strings at these indexes, which must exist.
    pub(super) fn remove(&mut self, indexes: Range<usize>) {
        self.splice(indexes, &[]);
    }

    /// Takes the string at an index out.
    pub(super) fn take(&mut self, index: usize) -> Option<Box<[u8]>> {
        let string = self.get(index)?.into();
        self.remove(index..index + 1);
        Some(string)
    }

    /// Replaces the strings at these indexes, which must exist, by others.
    fn splice(&mut self, indexes: Range<usize>, strings: &[&[u8]]) {
        let (lens, _) = self.parts();
        let count = lens.len() - indexes.len() + strings.len();
        if count == 0 {
            self.bytes = Box::default();
            return;
        }
        // Two ranges are replaced: of the lengths, and of the text.
        let old_lens = COUNT_BYTES + indexes.start..COUNT_BYTES + indexes.end;
        let old_text_start = COUNT_BYTES + lens.len() + text_bytes(&lens[..indexes.start]);
        let old_text = old_text_start..old_text_start + text_bytes(&lens[indexes]);
        let mut bytes = Vec::from(mem::take(&mut self.bytes));
        let old_len = bytes.len().max(COUNT_BYTES);
        let text_len: usize = strings.iter().map(|string| string.len()).sum();
        let new_len = old_len - old_lens.len() - old_text.len() + strings.len() + text_len;
        if new_len > bytes.len() {
            bytes.reserve_exact(new_len - bytes.len());
            bytes.resize(new_len, 0);
        }
        // What is between the two ranges moves, and what is behind them.
        let (middle, tail) = (old_lens.end..old_text.start, old_text.end..old_len);
        let (new_middle, new_tail) = (old_lens.start + strings.len(), new_len - tail.len());
        let mut text = new_middle + middle.len();
        if new_tail > tail.start {
            move_within(&mut bytes, tail, new_tail);
            move_within(&mut bytes, middle, new_middle);
        } else {
            move_within(&mut bytes, middle, new_middle);
            move_within(&mut bytes, tail, new_tail);
            bytes.truncate(new_len);
        }
        bytes[..COUNT_BYTES].copy_from_slice(&(count as u16).to_le_bytes());
        for (index, string) in strings.iter().enumerate() {
            bytes[old_lens.start + index] = string.len() as u8;
            bytes[text..text + string.len()].copy_from_slice(string);
            text += string.len();
        }
        self.bytes = bytes.into_boxed_slice();
    }
}

/// Whether two strings are equal. Names that differ often do so at the end: looking there first
/// saves most comparisons.
pub(super) fn are_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.last() == other.last() && one == other
}

fn move_within(bytes: &mut [u8], from: Range<usize>, to: usize) {
    if from.start != to {
        bytes.copy_within(from, to);
    }
}

/// The number of bytes of strings of these lengths.
fn text_bytes(lens: &[u8]) -> usize {
    lens.iter().map(|len| u32::from(*len)).sum::<u32>() as usize
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
                    0..3 => {
                        packed.insert(index, &string);
                        model.insert(index, string);
                    }
                    3 | 4 => {
                        let other = vec![0; len / 2];
                        packed.push(&[&string, &other]);
                        model.extend([string, other]);
                    }
                    5 if index < model.len() => {
                        packed.set(index, &string);
                        model[index] = string;
                    }
                    6 if len % 4 == 0 => {
                        let expected = (index < model.len()).then(|| model.remove(index));
                        prop_assert_eq!(packed.take(index).map(Vec::from), expected);
                    }
                    6 => {
                        let removed = index..model.len().min(index + 1 + len / 8);
                        packed.remove(removed.clone());
                        model.drain(removed);
                    }
                    _ => {}
                }
                prop_assert!(packed.iter().eq(&model));
                let bytes = model.iter().map(|string| string.len() + 1).sum::<usize>() + COUNT_BYTES;
                prop_assert_eq!(packed.bytes.len(), if model.is_empty() { 0 } else { bytes });
            }
            prop_assert_eq!((packed.len(), packed.is_empty()), (model.len(), model.is_empty()));
            prop_assert!(packed.iter().rev().eq(model.iter().rev()));
            prop_assert!((0..=model.len()).map_while(|n| packed.get(n)).eq(&model));
            for string in model.iter().chain([&vec![0; PACKED_BYTES_MAX + 1]]) {
                let is_wanted = |other: &[u8]| are_equal(other, string);
                prop_assert_eq!(packed.find::<1>(is_wanted), model.iter().position(|other| other == string));
                let first_of_pair = model.chunks_exact(2).position(|pair| pair[0] == *string);
                prop_assert_eq!(packed.find::<2>(is_wanted), first_of_pair.map(|pair| 2 * pair));
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
}
