//! Lists: items in the order in which clients put them.
//!
//! Guarantees: each item has a position, an `i64`; positions are consecutive and grow outward from
//! where the list began, so that a change at an end touches one element. A change at an end and a
//! look-up by index take constant time. A change in the middle moves the items of the shorter side,
//! and takes time linear in their number.

use std::ops::{Deref, Range};

use either::Either;

use super::blocks::{BLOCK_LEN, Blocks};
use super::edit::Changes;
use super::packed::Packed;
use super::{Kind, Malformed};

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
    items: Items,
    /// The position of the first item.
    first: i64,
}

#[derive(Debug, Clone)]
enum Items {
    Packed(Packed),
    Blocks(Box<Blocks>),
}

impl Default for Items {
    fn default() -> Items {
        Items::Packed(Packed::default())
    }
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
        items.into_iter().for_each(|(_, item)| list.insert(End::Back, list.len(), item));
        Ok(list)
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Packed(packed) => packed.len(),
            Items::Blocks(blocks) => blocks.len(),
        }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at an index.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        match &self.items {
            Items::Packed(packed) => packed.get(index),
            Items::Blocks(blocks) => blocks.get(index),
        }
    }

    /// The items at these indexes, which are cut at the end of the list.
    pub fn range(
        &self,
        indexes: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator + Clone {
        match &self.items {
            Items::Packed(packed) => Either::Left(packed.range(indexes)),
            Items::Blocks(blocks) => Either::Right(blocks.range(indexes)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.items {
            Items::Packed(packed) => packed.bytes(),
            Items::Blocks(blocks) => blocks.bytes(),
        }
    }

    /// The field under which the item at an index is recorded.
    fn field(&self, index: usize) -> [u8; 8] {
        // No list lives long enough for its positions to wrap around.
        field_of(self.first.wrapping_add(index as i64))
    }

    /// The end from which a change at an index is nearer: the items between them get another
    /// position.
    fn nearer_end(&self, index: usize) -> End {
        if index < self.len() - index { End::Front } else { End::Back }
    }

    fn set(&mut self, index: usize, item: &[u8]) {
        match &mut self.items {
            Items::Packed(packed) if Packed::fits(item) => packed.set(index, item),
            _ => self.blocks().set(index, item),
        }
    }

    /// Adds an item before the one at an index, or at the end if the index is [`List::len`]. The
    /// items from there to `end` get the next position.
    fn insert(&mut self, end: End, index: usize, item: impl AsRef<[u8]> + Into<Box<[u8]>>) {
        match &mut self.items {
            Items::Packed(packed) if packed.len() < BLOCK_LEN && Packed::fits(item.as_ref()) => {
                packed.insert(index, item.as_ref());
            }
            _ => self.blocks().insert(index, item),
        }
        if matches!(end, End::Front) {
            self.first = self.first.wrapping_sub(1);
        }
    }

    /// Takes the item at an index out. Those from there to `end` get the position before.
    fn remove(&mut self, end: End, index: usize) -> Option<Box<[u8]>> {
        let item = match &mut self.items {
            Items::Packed(packed) => packed.take(index),
            Items::Blocks(blocks) => blocks.remove(index),
        };
        if matches!(end, End::Front) && item.is_some() {
            self.first = self.first.wrapping_add(1);
        }
        item
    }

    /// The blocks, which take the place of packed items.
    fn blocks(&mut self) -> &mut Blocks {
        if let Items::Packed(packed) = &self.items {
            let mut blocks = Box::<Blocks>::default();
            packed.iter().for_each(|item| blocks.insert(blocks.len(), item));
            self.items = Items::Blocks(blocks);
        }
        match &mut self.items {
            Items::Blocks(blocks) => blocks,
            Items::Packed(_) => unreachable!("they became blocks"),
        }
    }
}

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
        let item = self.list.remove(End::Front, 0)?;
        self.changes.gone(field);
        Some(item)
    }

    /// Takes the last item out.
    pub fn pop_back(&mut self) -> Option<Box<[u8]>> {
        let item = self.list.remove(End::Back, self.len().checked_sub(1)?)?;
        self.changes.gone(self.list.field(self.len()));
        Some(item)
    }

    /// Replaces the item at an index. Returns whether there is one.
    pub fn set(&mut self, index: usize, item: &[u8]) -> bool {
        if index >= self.len() {
            return false;
        }
        self.list.set(index, item);
        self.record(index..index + 1);
        true
    }

    /// Adds an item before the one at an index, or at the end for an index that is too high.
    pub fn insert(&mut self, index: usize, item: &[u8]) {
        let index = index.min(self.len());
        let end = self.list.nearer_end(index);
        self.list.insert(end, index, item);
        match end {
            End::Front => self.record(0..index + 1),
            End::Back => self.record(index..self.len()),
        }
    }

    /// Removes the item at an index, which must exist.
    fn remove(&mut self, index: usize) {
        let end = self.list.nearer_end(index);
        match end {
            End::Front => self.record_gone(0, 1),
            End::Back => self.record_gone(self.len() - 1, 1),
        }
        self.list.remove(end, index);
        match end {
            End::Front => self.record(0..index),
            End::Back => self.record(index..self.len()),
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
        match removed[..] {
            [] => {}
            [index] => self.remove(index),
            [first, .., last] => self.remove_all(&removed, first, last),
        }
        removed.len()
    }

    /// Removes the items at these indexes, of which `first` is the lowest and `last` the highest
    /// one. Everything behind the first gap moves down, or everything before the last gap moves up.
    fn remove_all(&mut self, removed: &[usize], first: usize, last: usize) {
        let (len, count) = (self.len(), removed.len());
        if len - first <= last + 1 - count {
            let mut gaps = removed.iter().rev().peekable();
            let list = &mut *self.list;
            let popped = (first..len).rev().filter_map(|index| Some((index, list.remove(End::Back, index)?)));
            let moved: Vec<_> = popped.filter(|(index, _)| gaps.next_if_eq(&index).is_none()).collect();
            moved.into_iter().rev().for_each(|(_, item)| list.insert(End::Back, list.len(), item));
            self.record(first..len - count);
            self.record_gone(len - count, count);
        } else {
            self.record_gone(0, count);
            let mut gaps = removed.iter().peekable();
            let list = &mut *self.list;
            let popped = (0..last + 1).filter_map(|index| Some((index, list.remove(End::Front, 0)?)));
            let moved: Vec<_> = popped.filter(|(index, _)| gaps.next_if_eq(&index).is_none()).collect();
            moved.into_iter().rev().for_each(|(_, item)| list.insert(End::Front, 0, item));
            self.record(0..last + 1 - count);
        }
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
