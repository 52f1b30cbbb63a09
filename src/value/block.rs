//! A part of a list: items that follow each other.
//!
//! Guarantees: short items are packed. A longer one makes boxes of all items of its block, so that
//! no change moves more than the bytes of a block of short items.
//! Not here: how many items a block has.

use std::collections::VecDeque;
use std::ops::Range;

use either::Either;

use super::ALLOCATION_BYTES;
use super::packed::Packed;

/// Items in order.
#[derive(Debug, Clone)]
pub(super) enum Block {
    Packed(Packed),
    Boxes(Box<Boxes>),
}

#[derive(Debug, Clone)]
pub(super) struct Boxes {
    items: VecDeque<Box<[u8]>>,
    /// Bytes of all items.
    text_bytes: usize,
}

impl Default for Block {
    fn default() -> Block {
        Block::Packed(Packed::default())
    }
}

impl Block {
    /// The number of items.
    pub(super) fn len(&self) -> usize {
        match self {
            Block::Packed(packed) => packed.len(),
            Block::Boxes(boxes) => boxes.items.len(),
        }
    }

    /// Whether there are no items.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes of memory the items take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Block::Packed(packed) => packed.bytes(),
            Block::Boxes(boxes) => boxes.bytes(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        match self {
            Block::Packed(packed) => packed.get(index),
            Block::Boxes(boxes) => boxes.items.get(index).map(|item| &**item),
        }
    }

    /// The items at these indexes, which must exist.
    pub(super) fn range(&self, indexes: Range<usize>) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        match self {
            Block::Packed(packed) => Either::Left(packed.range(indexes)),
            Block::Boxes(boxes) => Either::Right(boxes.items.range(indexes).map(|item| &**item)),
        }
    }

    /// Adds an item before the one at an index, or at the end if the index is [`Block::len`].
    pub(super) fn insert(&mut self, index: usize, item: impl AsRef<[u8]> + Into<Box<[u8]>>) {
        match self {
            Block::Packed(packed) if Packed::fits(item.as_ref()) => packed.insert(index, item.as_ref()),
            _ => {
                let boxes = self.boxes();
                boxes.text_bytes += item.as_ref().len();
                boxes.items.insert(index, item.into());
            }
        }
    }

    /// Replaces the item at an index below [`Block::len`].
    pub(super) fn set(&mut self, index: usize, item: &[u8]) {
        match self {
            Block::Packed(packed) if Packed::fits(item) => packed.set(index, item),
            _ => {
                let Boxes { items, text_bytes } = self.boxes();
                *text_bytes = *text_bytes - items[index].len() + item.len();
                items[index] = item.into();
            }
        }
    }

    /// Takes the item at an index out.
    pub(super) fn take(&mut self, index: usize) -> Option<Box<[u8]>> {
        match self {
            Block::Packed(packed) => packed.take(index),
            Block::Boxes(boxes) => boxes.items.remove(index).inspect(|item| boxes.text_bytes -= item.len()),
        }
    }

    /// Makes boxes of packed items.
    fn boxes(&mut self) -> &mut Boxes {
        if let Block::Packed(packed) = self {
            let text_bytes = packed.iter().map(<[u8]>::len).sum();
            *self =
                Block::Boxes(Box::new(Boxes { items: packed.iter().map(Box::from).collect(), text_bytes }));
        }
        match self {
            Block::Boxes(boxes) => boxes,
            Block::Packed(_) => unreachable!("the items became boxes"),
        }
    }
}

impl Boxes {
    fn bytes(&self) -> usize {
        size_of::<Boxes>()
            + self.items.capacity() * size_of::<Box<[u8]>>()
            + self.text_bytes
            + self.items.len() * ALLOCATION_BYTES
    }
}
