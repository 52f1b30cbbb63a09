//! Any number of items in order, in blocks.
//!
//! Guarantees: a look-up by index and a change at an end take constant time. A change in the middle
//! moves one item from block to block, for each block of the shorter side.
//! Not here: under which positions items are recorded, and few short items.

use std::collections::VecDeque;
use std::ops::Range;

use super::block::Block;

/// Items of a block. Few enough that a change in a block, which moves its items, takes about as
/// long as an allocation.
pub(super) const BLOCK_LEN: usize = 64;

/// With room for fewer blocks than this, memory is not given back.
const CAPACITY_KEPT: usize = 16;

/// Items in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks {
    /// None is empty. All have [`BLOCK_LEN`] places; only at the start of the first one and at the
    /// end of the last one are places without an item.
    blocks: VecDeque<Block>,
    /// Places of the first block that are before the first item.
    unused: usize,
    len: usize,
    /// Memory of the contents of all blocks.
    block_bytes: usize,
}

impl Blocks {
    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// About how many bytes of memory the items take.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Blocks>() + self.blocks.capacity() * size_of::<Block>() + self.block_bytes
    }

    /// The item at an index.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let (block, offset) = (index < self.len).then(|| self.place_of(index))?;
        self.blocks.get(block)?.get(offset)
    }

    /// The items at these indexes, which are cut at the end.
    pub(super) fn range(
        &self,
        indexes: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator + Clone {
        let end = indexes.end.min(self.len);
        let start = indexes.start.min(end);
        let (first_block, from) = self.place_of(start);
        let (last_block, last) = self.place_of(end.saturating_sub(1));
        let blocks = if start < end { first_block..last_block + 1 } else { 0..0 };
        let items = blocks.flat_map(move |index| {
            let block = &self.blocks[index];
            let from = if index == first_block { from } else { 0 };
            let to = if index == last_block { last + 1 } else { block.len() };
            block.range(from..to)
        });
        Items { items, left: end - start }
    }

    /// The block with the item at an index, and the index of the item in it.
    fn place_of(&self, index: usize) -> (usize, usize) {
        match (self.unused + index) / BLOCK_LEN {
            0 => (0, index),
            block => (block, (self.unused + index) % BLOCK_LEN),
        }
    }

    /// Changes a block that exists.
    fn change<R>(&mut self, block: usize, change: impl FnOnce(&mut Block) -> R) -> R {
        let block = &mut self.blocks[block];
        let before = block.bytes();
        let result = change(block);
        self.block_bytes = self.block_bytes - before + block.bytes();
        result
    }

    /// Replaces the item at an index below [`Blocks::len`].
    pub(super) fn set(&mut self, index: usize, item: &[u8]) {
        let (block, offset) = self.place_of(index);
        self.change(block, |block| block.set(offset, item));
    }

    /// Adds an item before the one at an index, or at the end if the index is [`Blocks::len`].
    pub(super) fn insert(&mut self, index: usize, item: impl AsRef<[u8]> + Into<Box<[u8]>>) {
        let (block, offset) = self.place_of(index);
        if block == self.blocks.len() {
            self.blocks.push_back(Block::default());
        }
        self.change(block, |block| block.insert(offset, item));
        if index < self.len - index {
            self.move_one_to_the_front(block);
        } else {
            self.move_one_to_the_back(block);
        }
        self.len += 1;
    }

    /// Makes a block that has an item too many as it was, in favour of those before it.
    fn move_one_to_the_front(&mut self, block: usize) {
        for block in (1..=block).rev() {
            if let Some(item) = self.change(block, |block| block.take(0)) {
                self.change(block - 1, |block| block.insert(block.len(), item));
            }
        }
        if self.unused == 0
            && let Some(item) = self.change(0, |block| block.take(0))
        {
            self.blocks.push_front(Block::default());
            self.change(0, |block| block.insert(0, item));
            self.unused = BLOCK_LEN;
        }
        self.unused -= 1;
    }

    /// Makes a block that has an item too many as it was, in favour of those behind it.
    fn move_one_to_the_back(&mut self, block: usize) {
        for block in block..self.blocks.len() {
            let places = if block == 0 { BLOCK_LEN - self.unused } else { BLOCK_LEN };
            if self.blocks[block].len() > places
                && let Some(item) = self.change(block, |block| block.take(places))
            {
                if block + 1 == self.blocks.len() {
                    self.blocks.push_back(Block::default());
                }
                self.change(block + 1, |block| block.insert(0, item));
            }
        }
    }

    /// Takes the item at an index out.
    pub(super) fn remove(&mut self, index: usize) -> Option<Box<[u8]>> {
        let (block, offset) = (index < self.len).then(|| self.place_of(index))?;
        let removed = self.change(block, |block| block.take(offset));
        if index < self.len - index {
            for block in (1..=block).rev() {
                let last = self.blocks[block - 1].len() - 1;
                if let Some(item) = self.change(block - 1, |block| block.take(last)) {
                    self.change(block, |block| block.insert(0, item));
                }
            }
            self.unused += 1;
            if self.blocks[0].is_empty() {
                let block = self.blocks.pop_front();
                self.dropped(block);
                self.unused = 0;
            }
        } else {
            for block in block + 1..self.blocks.len() {
                if let Some(item) = self.change(block, |block| block.take(0)) {
                    self.change(block - 1, |block| block.insert(block.len(), item));
                }
            }
            if self.blocks.back().is_some_and(Block::is_empty) {
                let block = self.blocks.pop_back();
                self.dropped(block);
            }
        }
        self.len -= 1;
        removed
    }

    fn dropped(&mut self, block: Option<Block>) {
        self.block_bytes -= block.map_or(0, |block| block.bytes());
        if self.blocks.capacity() > CAPACITY_KEPT && self.blocks.len() < self.blocks.capacity() / 8 {
            self.blocks.shrink_to(2 * self.blocks.len());
        }
    }
}

/// Items, and how many there are.
#[derive(Debug, Clone)]
struct Items<I> {
    items: I,
    left: usize,
}

impl<I: Iterator> Iterator for Items<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.left = self.left.saturating_sub(1);
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: DoubleEndedIterator> DoubleEndedIterator for Items<I> {
    fn next_back(&mut self) -> Option<I::Item> {
        self.left = self.left.saturating_sub(1);
        self.items.next_back()
    }
}

impl<I: Iterator> ExactSizeIterator for Items<I> {}
