//! Lists: items in the order in which clients put them.
//!
//! Guarantees: each item has a position, an `i64`; positions are consecutive and grow outward from
//! where the list began, so that a change at an end touches one element. A change at an end takes
//! constant time. One in the middle moves the items of the shorter side, and takes time linear in
//! their number.

use std::collections::VecDeque;
use std::ops::{Deref, Range};

use super::edit::Changes;
use super::{Kind, Malformed};

/// Memory per item besides its bytes: its row, with room to grow, and one allocation.
const ITEM_BYTES: usize = 40;

/// A list with less room than this is not shrunk.
const CAPACITY_KEPT: usize = 64;

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
    items: VecDeque<Box<[u8]>>,
    /// The position of the first item.
    first: i64,
    /// Bytes of all items.
    text_bytes: usize,
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
        let text_bytes = items.iter().map(|(_, item)| item.len()).sum();
        Ok(List { items: items.into_iter().map(|(_, item)| item).collect(), first, text_bytes })
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The item at an index.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.items.get(index).map(|item| &**item)
    }

    /// The items at these indexes, which are cut at the end of the list.
    pub fn range(
        &self,
        indexes: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator + Clone {
        let end = indexes.end.min(self.len());
        self.items.range(indexes.start.min(end)..end).map(|item| &**item)
    }

    pub(super) fn bytes(&self) -> usize {
        self.text_bytes + self.len() * ITEM_BYTES
    }

    /// The field under which the item at an index is recorded.
    fn field(&self, index: usize) -> [u8; 8] {
        // No list lives long enough for its positions to wrap around.
        field_of(self.first.wrapping_add(index as i64))
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
        let item = self.list.items.pop_front()?;
        self.changes.gone(self.list.field(0));
        self.list.first = self.list.first.wrapping_add(1);
        Some(self.taken(item))
    }

    /// Takes the last item out.
    pub fn pop_back(&mut self) -> Option<Box<[u8]>> {
        let item = self.list.items.pop_back()?;
        self.changes.gone(self.list.field(self.len()));
        Some(self.taken(item))
    }

    /// Replaces the item at an index. Returns whether there is one.
    pub fn set(&mut self, index: usize, item: &[u8]) -> bool {
        let Some(old) = self.list.items.get_mut(index) else { return false };
        self.list.text_bytes = self.list.text_bytes - old.len() + item.len();
        *old = item.into();
        self.record(index..index + 1);
        true
    }

    /// Adds an item before the one at an index, or at the end for an index that is too high.
    pub fn insert(&mut self, index: usize, item: &[u8]) {
        let index = index.min(self.len());
        let is_in_first_half = index < self.len() - index;
        self.list.text_bytes += item.len();
        self.list.items.insert(index, item.into());
        if is_in_first_half {
            self.list.first = self.list.first.wrapping_sub(1);
            self.record(0..index + 1);
        } else {
            self.record(index..self.len());
        }
    }

    /// Removes items equal to `item`, at most `max` of them, starting at the front or at the back.
    /// Returns the number of removed items.
    pub fn remove_equal(&mut self, item: &[u8], max: usize, from_back: bool) -> usize {
        let equal = |(index, other): (usize, &[u8])| (other == item).then_some(index);
        let items = self.list.items.iter().map(|item| &**item).enumerate();
        let removed: Vec<usize> = if from_back {
            let mut found: Vec<usize> = items.rev().filter_map(equal).take(max).collect();
            found.reverse();
            found
        } else {
            items.filter_map(equal).take(max).collect()
        };
        let (Some(first), Some(last)) = (removed.first().copied(), removed.last().copied()) else { return 0 };
        let (mut index, mut next) = (0, removed.iter().copied().peekable());
        self.list.items.retain(|_| {
            index += 1;
            next.next_if_eq(&(index - 1)).is_none()
        });
        self.list.text_bytes -= removed.len() * item.len();
        // Everything behind the first gap moves down, or everything before the last gap moves up.
        let len = self.len();
        if len - first <= last + 1 - removed.len() {
            self.record(first..len);
            self.record_gone(len, removed.len());
        } else {
            self.record_gone(0, removed.len());
            self.list.first = self.list.first.wrapping_add(removed.len() as i64);
            self.record(0..last + 1 - removed.len());
        }
        self.shrink();
        removed.len()
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

    fn taken(&mut self, item: Box<[u8]>) -> Box<[u8]> {
        self.list.text_bytes -= item.len();
        self.shrink();
        item
    }

    fn shrink(&mut self) {
        let items = &mut self.list.items;
        if items.capacity() > CAPACITY_KEPT && items.len() < items.capacity() / 8 {
            items.shrink_to(2 * items.len());
        }
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
