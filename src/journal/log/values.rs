//! The index of the changes to values that the tables lack.
//!
//! Changes move in the order of the log and one by one: every change to an element is an absolute
//! state, and their order is the order in which a restart finds the elements. A value that is
//! created and gone before its changes have moved never reaches the tables.
//!
//! Guarantees: a change that is not needed any more is not moved. Not here: rows, and what a change
//! says.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::journal::Record;

/// Which values the tables have, and which rows have changes to values that they lack.
#[derive(Debug, Default)]
pub(super) struct ValueIndex {
    /// The values that the tables have.
    stored: FxHashSet<i64>,
    /// The rows with changes to a value, by its id.
    pending: FxHashMap<i64, PendingRows>,
    /// The changes in all of these rows.
    changes: usize,
}

/// Changes to one value in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowChanges {
    pub(super) row: i64,
    pub(super) count: usize,
}

/// The rows with changes to one value. Most values are filled by one request, and so by one row,
/// for which nothing is allocated.
#[derive(Debug)]
struct PendingRows {
    oldest: RowChanges,
    /// Oldest first.
    later: VecDeque<RowChanges>,
}

impl PendingRows {
    fn newest(&mut self) -> &mut RowChanges {
        self.later.back_mut().unwrap_or(&mut self.oldest)
    }

    fn contains(&self, row: i64) -> bool {
        self.oldest.row == row || self.later.binary_search_by_key(&row, |later| later.row).is_ok()
    }
}

/// A change that has moved to the tables.
#[derive(Debug)]
pub(super) struct MovedChange {
    pub(super) id: i64,
    pub(super) row: i64,
    effect: Effect,
}

/// What a moved change means for the table of values.
#[derive(Debug)]
enum Effect {
    Stored,
    Removed,
    Element,
}

impl MovedChange {
    /// A change of the value `id` in `row`.
    pub(super) fn new(id: i64, row: i64, change: &Record) -> MovedChange {
        let effect = match change {
            Record::ValuePut(_) => Effect::Stored,
            Record::ValueGone(_) => Effect::Removed,
            _ => Effect::Element,
        };
        MovedChange { id, row, effect }
    }

    /// Whether the value has left its table.
    pub(super) fn is_removal(&self) -> bool {
        matches!(self.effect, Effect::Removed)
    }
}

impl ValueIndex {
    /// An index for tables that have these values, and no changes.
    pub(super) fn of_stored(stored: FxHashSet<i64>) -> ValueIndex {
        ValueIndex { stored, ..ValueIndex::default() }
    }

    /// The number of changes to be moved.
    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    /// Whether the tables have the value.
    pub(super) fn is_stored(&self, id: i64) -> bool {
        self.stored.contains(&id)
    }

    /// Whether the tables or the log have the value.
    pub(super) fn is_known(&self, id: i64) -> bool {
        self.is_stored(id) || self.pending.contains_key(&id)
    }

    /// Adds a change to a value in `row`, the newest row.
    pub(super) fn add(&mut self, id: i64, row: i64) {
        self.changes += 1;
        let none = RowChanges { row, count: 0 };
        let rows = self.pending.entry(id).or_insert(PendingRows { oldest: none, later: VecDeque::new() });
        if rows.newest().row != row {
            rows.later.push_back(none);
        }
        rows.newest().count += 1;
    }

    /// Removes all changes to a value, and returns them by row.
    pub(super) fn forget(&mut self, id: i64) -> Vec<RowChanges> {
        let rows = self.pending.remove(&id);
        let rows = rows.into_iter().flat_map(|rows| std::iter::once(rows.oldest).chain(rows.later));
        let rows: Vec<RowChanges> = rows.collect();
        self.changes -= rows.iter().map(|row| row.count).sum::<usize>();
        rows
    }

    /// Whether `row` has changes to the value that are to be moved.
    pub(super) fn is_needed(&self, id: i64, row: i64) -> bool {
        self.pending.get(&id).is_some_and(|rows| rows.contains(row))
    }

    /// Applies that a change, the oldest one to its value, has moved.
    pub(super) fn moved(&mut self, moved: &MovedChange) {
        match moved.effect {
            Effect::Stored => drop(self.stored.insert(moved.id)),
            Effect::Removed => drop(self.stored.remove(&moved.id)),
            Effect::Element => {}
        }
        let Some(rows) = self.pending.get_mut(&moved.id) else { return };
        (rows.oldest.count, self.changes) = (rows.oldest.count - 1, self.changes - 1);
        if rows.oldest.count == 0 {
            match rows.later.pop_front() {
                Some(next) => rows.oldest = next,
                None => drop(self.pending.remove(&moved.id)),
            }
        }
    }

    /// Gives the memory of a burst back.
    pub(super) fn shrink(&mut self) {
        const SMALL: usize = 4096;
        if self.pending.is_empty() && self.pending.capacity() > SMALL {
            self.pending = FxHashMap::default();
        }
    }
}
