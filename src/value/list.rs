//! Lists: items in the order in which clients put them.
//!
//! Guarantees: each item has a position, an `i64`; positions are consecutive and grow outward from
//! where the list began, so that a change at an end touches one element. A change at an end and a
//! look-up by index take constant time. A change in the middle moves the items of the shorter side,
//! and takes time linear in their number.

use std::collections::VecDeque;
use std::ops::{Deref, Range};

use super::block::Block;
use super::edit::Changes;
use super::{Kind, Malformed};

/// Positions of a block. Few enough that a change in a block, which moves its items, takes about as
/// long as an allocation.
const BLOCK_LEN: usize = 64;

/// A list with room for fewer blocks than this is not shrunk.
const CAPACITY_KEPT: usize = 16;

/// An end of a list, or of a sorted set: the members with the lowest or the highest scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The first elements.
    Front,
    /// The last elements.
    Back,
}

impl End {
    /// Adds an item to this end of a list.
    pub fn push(self, list: &mut ListEdit<'_>, item: &[u8]) {
        match self {
            End::Front => list.push_front(item),
            End::Back => list.push_back(item),
        }
    }

    /// Takes the item at this end out of a list.
    pub fn pop(self, list: &mut ListEdit<'_>) -> Option<Box<[u8]>> {
        match self {
            End::Front => list.pop_front(),
            End::Back => list.pop_back(),
        }
    }

    /// The item at this end of a list.
    pub fn peek(self, list: &List) -> Option<&[u8]> {
        match self {
            End::Front => list.get(0),
            End::Back => list.len().checked_sub(1).and_then(|last| list.get(last)),
        }
    }

    /// Redis' word for an item that is added here.
    pub fn push_event(self) -> &'static str {
        match self {
            End::Front => "lpush",
            End::Back => "rpush",
        }
    }

    /// Redis' word for an item that is taken from here.
    pub fn pop_event(self) -> &'static str {
        match self {
            End::Front => "lpop",
            End::Back => "rpop",
        }
    }
}

/// Items in order.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Each has the items at [`BLOCK_LEN`] positions, the first of which is a multiple of that. None
    /// is empty; the first and the last may lack items at the ends of the list.
    blocks: VecDeque<Block>,
    /// The position of the first item.
    first: i64,
    len: usize,
    /// Memory of the contents of all blocks.
    block_bytes: usize,
}

impl List {
    pub(super) fn restore(elements: impl Iterator<Item = (Box<[u8]>, Box<[u8]>)>) -> Result<List, Malformed> {
        let mut items = Vec::with_capacity(elements.size_hint().0);
        for (field, item) in elements {
            let position =
                position_of(&field).ok_or(Malformed::new(Kind::List, "a position is malformed"))?;
            items.push((position, item));
        }
        items.sort_unstable_by_key(|(position, _)| *position);
        if !items.is_sorted_by(|(before, _), (after, _)| before.checked_add(1) == Some(*after)) {
            return Err(Malformed::new(Kind::List, "positions are not consecutive"));
        }
        let first = items.first().map_or(0, |(position, _)| *position);
        let mut list = List { first, ..List::default() };
        items.into_iter().for_each(|(_, item)| list.push_back(item));
        Ok(list)
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item at an index.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (block, offset) = (index < self.len).then(|| self.place_of(index))?;
        self.blocks.get(block)?.get(offset)
    }

    /// The items at these indexes, which are cut at the end of the list.
    pub fn range(
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

    pub(super) fn bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>() + self.block_bytes
    }

    /// The block with the position of the item at an index, and the index of the item in it.
    fn place_of(&self, index: usize) -> (usize, usize) {
        // Positions of the first block that are before the list.
        let before = self.first.rem_euclid(BLOCK_LEN as i64) as usize;
        match (before + index) / BLOCK_LEN {
            0 => (0, index),
            block => (block, (before + index) % BLOCK_LEN),
        }
    }

    /// The field under which the item at an index is recorded.
    fn field(&self, index: usize) -> [u8; 8] {
        // No list lives long enough for its positions to wrap around.
        field_of(self.first.wrapping_add(index as i64))
    }

    /// Changes a block that exists.
    fn change<R>(&mut self, block: usize, change: impl FnOnce(&mut Block) -> R) -> R {
        let block = &mut self.blocks[block];
        let before = block.bytes();
        let result = change(block);
        self.block_bytes = self.block_bytes - before + block.bytes();
        result
    }

    fn push_front(&mut self, item: impl AsRef<[u8]> + Into<Box<[u8]>>) {
        self.first = self.first.wrapping_sub(1);
        self.len += 1;
        if self.blocks.is_empty() || self.place_of(1) == (1, 0) {
            self.reserve_block();
            self.blocks.push_front(Block::default());
        }
        self.change(0, |block| block.insert(0, item));
    }

    fn push_back(&mut self, item: impl AsRef<[u8]> + Into<Box<[u8]>>) {
        let (block, offset) = self.place_of(self.len);
        self.len += 1;
        if block == self.blocks.len() {
            self.reserve_block();
            self.blocks.push_back(Block::default());
        }
        self.change(block, |block| block.insert(offset, item));
    }

    /// Makes room for one block. Room for more of them would be much of the memory of a small list.
    fn reserve_block(&mut self) {
        if self.blocks.is_empty() {
            self.blocks.reserve_exact(1);
        }
    }

    fn pop_front(&mut self) -> Option<Box<[u8]>> {
        let item = (!self.is_empty()).then(|| self.change(0, Block::pop_front))?;
        self.first = self.first.wrapping_add(1);
        self.len -= 1;
        if self.blocks.front().is_some_and(Block::is_empty) {
            let block = self.blocks.pop_front();
            self.removed(block);
        }
        item
    }

    fn pop_back(&mut self) -> Option<Box<[u8]>> {
        let item = self.blocks.len().checked_sub(1).map(|last| self.change(last, Block::pop_back))?;
        self.len -= 1;
        if self.blocks.back().is_some_and(Block::is_empty) {
            let block = self.blocks.pop_back();
            self.removed(block);
        }
        item
    }

    fn removed(&mut self, block: Option<Block>) {
        self.block_bytes -= block.map_or(0, |block| block.bytes());
        if self.blocks.capacity() > CAPACITY_KEPT && self.blocks.len() < self.blocks.capacity() / 8 {
            self.blocks.shrink_to(2 * self.blocks.len());
        }
    }
}

/// Items of a list.
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

/// The bytes of a position: they sort as positions do.
fn field_of(position: i64) -> [u8; 8] {
    (position ^ i64::MIN).to_be_bytes()
}

fn position_of(field: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(field.try_into().ok()?) ^ i64::MIN)
}

/// Changes to a [`List`].
#[derive(Debug)]
pub struct ListEdit<'a> {
    list: &'a mut List,
    changes: &'a mut Changes,
}

impl<'a> ListEdit<'a> {
    pub(super) fn new(list: &'a mut List, changes: &'a mut Changes) -> ListEdit<'a> {
        ListEdit { list, changes }
    }

    /// Adds an item at the front.
    pub fn push_front(&mut self, item: &[u8]) {
        self.insert(0, item);
    }

    /// Adds an item at the back.
    pub fn push_back(&mut self, item: &[u8]) {
        self.insert(self.len(), item);
    }

    /// Takes the first item out.
    pub fn pop_front(&mut self) -> Option<Box<[u8]>> {
        let field = self.list.field(0);
        let item = self.list.pop_front()?;
        self.changes.gone(field);
        Some(item)
    }

    /// Takes the last item out.
    pub fn pop_back(&mut self) -> Option<Box<[u8]>> {
        let item = self.list.pop_back()?;
        self.changes.gone(self.list.field(self.len()));
        Some(item)
    }

    /// Replaces the item at an index. Returns whether there is one.
    pub fn set(&mut self, index: usize, item: &[u8]) -> bool {
        if index >= self.len() {
            return false;
        }
        let (block, offset) = self.list.place_of(index);
        self.list.change(block, |block| block.set(offset, item));
        self.record(index..index + 1);
        true
    }

    /// Adds an item before the one at an index, or at the end for an index that is too high.
    pub fn insert(&mut self, index: usize, item: &[u8]) {
        let len = self.len();
        let index = index.min(len);
        if index < len - index {
            let moved: Vec<_> = (0..index).filter_map(|_| self.list.pop_front()).collect();
            self.list.push_front(item);
            moved.into_iter().rev().for_each(|item| self.list.push_front(item));
            self.record(0..index + 1);
        } else {
            let moved: Vec<_> = (index..len).filter_map(|_| self.list.pop_back()).collect();
            self.list.push_back(item);
            moved.into_iter().rev().for_each(|item| self.list.push_back(item));
            self.record(index..len + 1);
        }
    }

    /// Removes items equal to `item`, at most `max` of them, starting at the front or at the back.
    /// Returns the number of removed items.
    pub fn remove_equal(&mut self, item: &[u8], max: usize, from_back: bool) -> usize {
        let equal = |(index, other): (usize, &[u8])| (other == item).then_some(index);
        let items = self.range(0..self.len()).enumerate();
        let removed: Vec<usize> = if from_back {
            let mut found: Vec<usize> = items.rev().filter_map(equal).take(max).collect();
            found.reverse();
            found
        } else {
            items.filter_map(equal).take(max).collect()
        };
        let (Some(first), Some(last)) = (removed.first().copied(), removed.last().copied()) else { return 0 };
        let (len, count) = (self.len(), removed.len());
        // Everything behind the first gap moves down, or everything before the last gap moves up.
        if len - first <= last + 1 - count {
            let mut gaps = removed.into_iter().rev().peekable();
            let popped = (first..len).rev().filter_map(|index| Some((index, self.list.pop_back()?)));
            let moved: Vec<_> = popped.filter(|(index, _)| gaps.next_if_eq(index).is_none()).collect();
            moved.into_iter().rev().for_each(|(_, item)| self.list.push_back(item));
            self.record(first..len - count);
            self.record_gone(len - count, count);
        } else {
            self.record_gone(0, count);
            let mut gaps = removed.into_iter().peekable();
            let popped = (0..last + 1).filter_map(|index| Some((index, self.list.pop_front()?)));
            let moved: Vec<_> = popped.filter(|(index, _)| gaps.next_if_eq(index).is_none()).collect();
            moved.into_iter().rev().for_each(|(_, item)| self.list.push_front(item));
            self.record(0..last + 1 - count);
        }
        count
    }

    /// Removes all items but those at these indexes. As in Redis, that is a change even if all
    /// items stay.
    pub fn keep(&mut self, indexes: Range<usize>) {
        self.changes.touch();
        let behind = self.len().saturating_sub(indexes.end.max(indexes.start));
        let before = indexes.start.min(self.len());
        (0..behind).for_each(|_| drop(self.pop_back()));
        (0..before).for_each(|_| drop(self.pop_front()));
    }

    /// Records the items at these indexes as they are now.
    fn record(&mut self, indexes: Range<usize>) {
        for (index, item) in indexes.clone().zip(self.list.range(indexes)) {
            self.changes.put(self.list.field(index), item);
        }
    }

    /// Records that `count` positions from that of an index on have no item.
    fn record_gone(&mut self, index: usize, count: usize) {
        (index..index + count).for_each(|index| self.changes.gone(self.list.field(index)));
    }
}

impl Deref for ListEdit<'_> {
    type Target = List;
    fn deref(&self) -> &List {
        self.list
    }
}
