//! The index of the change log: which rows still have something that the tables lack.
//!
//! Compaction moves the last state of each lease into the table `held`, and the changes of values
//! into their tables, and removes rows that are no longer needed. Of a grant only its row is
//! remembered: it is read again when it moves. Grants move in the order of rows, later changes in
//! the order of tokens. Both are roughly the order of `held`, so neighbours share a page. Changes of
//! values move in the order of the log, up to a [`Position`]. Rows are removed several at once:
//! where leases are short, the log stays small, and a commit seldom touches more than one page of
//! it.
//!
//! Guarantees: of all changes to a lease only the last one moves into `held`. A lease that ends
//! soon after its grant, or is renewed again and again, costs no row there. Not here: SQL, and when
//! compaction runs.

mod batch;
mod sweep;

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use self::batch::Lookahead;
pub(in crate::journal) use self::sweep::{Budget, Compaction, Position, Tables};
use self::sweep::{Opened, Sweep};
use super::entry::ChangesText;
use super::values::ValueIndex;
use crate::domain::FencingToken;
use crate::journal::{Record, Renewal};

/// Row numbers are below this. A commit takes one; numbers start again when all rows are gone.
pub(in crate::journal) const ROW_MAX: i64 = 1 << 38;
/// Without compaction, a commit removes unneeded rows once there are this many: neighbours share
/// pages.
const ROWS_AT_ONCE: usize = 64;
/// The same in bytes.
const ROW_BYTES_AT_ONCE: usize = 256 << 10;
/// The most rows, and about the most bytes, that one commit removes: clients wait for it.
const ROWS_AT_ONCE_MAX: usize = 4 * ROWS_AT_ONCE;
const ROW_BYTES_AT_ONCE_MAX: usize = 4 * ROW_BYTES_AT_ONCE;

/// What is known of the change log of an open database.
#[derive(Debug, Default)]
pub(in crate::journal) struct ChangeLog {
    /// The rows of grants that `held` lacks, by token.
    grants: FxHashMap<i64, i64>,
    /// The last change of a lease after its grant, by token.
    later: BTreeMap<i64, PendingChange>,
    values: ValueIndex,
    position: Position,
    /// In the order of their numbers, which have no gaps.
    rows: VecDeque<Row>,
    last_row: i64,
    /// Changes in all rows.
    changes: usize,
    /// Bytes of all rows.
    bytes: usize,
    sweep: Option<Sweep>,
    /// The part of a row that was read and has not moved yet; a cache.
    opened: Option<Opened>,
}

#[derive(Debug, Clone, Copy)]
struct PendingChange {
    row: i64,
    /// `None`: the lease is over, and `held` still has it.
    renewal: Option<Renewal>,
}

#[derive(Debug)]
struct Row {
    number: i64,
    changes: usize,
    bytes: usize,
    /// Grants in this row that `held` lacks.
    grants: usize,
    /// Changes of values in this row that their tables lack.
    values: usize,
    /// These, and the last changes of leases in this row.
    needed: usize,
}

impl Row {
    fn new(number: i64, changes: usize, bytes: usize) -> Row {
        Row { number, changes, bytes, grants: 0, values: 0, needed: 0 }
    }
}

impl ChangeLog {
    /// A log without rows beside tables that have values with these ids.
    pub(in crate::journal) fn beside(values: FxHashSet<i64>, position: Position) -> ChangeLog {
        ChangeLog { values: ValueIndex::of_stored(values), position, ..ChangeLog::default() }
    }

    /// Adds a row with the changes of a batch to leases and values: writes its content to `text`
    /// and returns its number, or `None` if the batch changes none. If the row does not become
    /// durable, this index is wrong, and the state must be loaded again.
    pub(in crate::journal) fn add(&mut self, batch: &[Record], text: &mut ChangesText) -> Option<i64> {
        let row = self.last_row + 1;
        self.rows.push_back(Row::new(row, 0, 0));
        let mut lookahead = Lookahead::of(batch);
        let mut changes = 0;
        for index in 0..batch.len() {
            if let Some(record) = lookahead.record_at(batch, index) {
                changes += usize::from(self.add_change(record, &mut lookahead, row, text));
            }
        }
        if changes == 0 {
            self.rows.pop_back();
            return None;
        }
        self.last_row = row;
        self.changes += changes;
        self.row(row).changes = changes;
        Some(row)
    }

    /// Adds a change to the newest row, unless it is without consequence. Returns whether it was
    /// added.
    fn add_change(
        &mut self,
        record: &Record,
        lookahead: &mut Lookahead,
        row: i64,
        text: &mut ChangesText,
    ) -> bool {
        match record {
            Record::Granted(stored) => {
                let token = stored.lease.token.get();
                if lookahead.has_ended(token) {
                    lookahead.leave_out(token);
                    return false;
                }
                text.granted(stored);
                self.granted(token, row);
            }
            Record::Renewed(renewal) => {
                if lookahead.has_ended(renewal.token.get()) {
                    return false;
                }
                text.renewed(renewal);
                self.renewed(*renewal, row);
            }
            Record::Ended(token) => {
                let token = token.get();
                if lookahead.is_left_out(token) {
                    return false;
                }
                text.ended(token);
                self.ended(token, row);
            }
            Record::ValuePut(_) | Record::Element { .. } | Record::ValueGone(_) => {
                let Some(id) = record.value_id().map(FencingToken::get) else { return false };
                let is_gone = matches!(record, Record::ValueGone(_));
                if if is_gone { !self.values.is_known(id) } else { lookahead.is_gone(id) } {
                    return false;
                }
                text.value_change(record);
                self.value_changed(id, is_gone, row);
            }
            _ => return false,
        }
        true
    }

    /// Adds a row that was stored earlier. Call it in the order of rows, before anything else.
    pub(in crate::journal) fn recover_row(&mut self, number: i64, changes: usize, bytes: usize) {
        self.rows.push_back(Row::new(number, changes, bytes));
        (self.last_row, self.changes, self.bytes) = (number, self.changes + changes, self.bytes + bytes);
    }

    /// Whether the tables or the log have a value.
    pub(in crate::journal) fn has_value(&self, id: i64) -> bool {
        self.values.is_known(id)
    }

    /// `row`, the newest one, has a change of a value; `is_gone`: its end.
    pub(in crate::journal) fn value_changed(&mut self, id: i64, is_gone: bool, row: i64) {
        if is_gone {
            for released in self.values.forget(id) {
                let row = self.row(released.row);
                (row.values, row.needed) = (row.values - released.count, row.needed - released.count);
            }
            if !self.values.is_stored(id) {
                // Its end is in a later row than its other changes, so that row is removed later.
                return;
            }
        }
        self.values.add(id, row);
        let row = self.row(row);
        (row.values, row.needed) = (row.values + 1, row.needed + 1);
    }

    fn row(&mut self, number: i64) -> &mut Row {
        let first = self.rows.front().map_or(0, |row| row.number);
        &mut self.rows[(number - first) as usize]
    }

    /// `row` has the grant of a lease that `held` lacks.
    pub(in crate::journal) fn granted(&mut self, token: i64, row: i64) {
        self.grants.insert(token, row);
        let row = self.row(row);
        (row.grants, row.needed) = (row.grants + 1, row.needed + 1);
    }

    /// `row` has the last renewal of a lease.
    pub(in crate::journal) fn renewed(&mut self, renewal: Renewal, row: i64) {
        self.later(renewal.token.get(), PendingChange { row, renewal: Some(renewal) });
    }

    /// `row` has the end of a lease.
    pub(in crate::journal) fn ended(&mut self, token: i64, row: i64) {
        match self.grants.remove(&token) {
            None => self.later(token, PendingChange { row, renewal: None }),
            // Its end is in a later row than its grant, so that row is removed later.
            Some(grant) => {
                self.needs_no_grant(grant);
                if let Some(later) = self.later.remove(&token) {
                    self.row(later.row).needed -= 1;
                }
            }
        }
        self.shrink();
    }

    fn later(&mut self, token: i64, later: PendingChange) {
        self.row(later.row).needed += 1;
        if let Some(before) = self.later.insert(token, later) {
            self.row(before.row).needed -= 1;
        }
    }

    fn needs_no_grant(&mut self, row: i64) {
        let row = self.row(row);
        (row.grants, row.needed) = (row.grants - 1, row.needed - 1);
    }

    fn shrink(&mut self) {
        const SMALL: usize = 4096;
        if self.grants.is_empty() && self.grants.capacity() > SMALL {
            self.grants = FxHashMap::default();
        }
        self.values.shrink();
    }

    /// Sets the length of the text of the newest row.
    pub(in crate::journal) fn set_newest_bytes(&mut self, bytes: usize) {
        if let Some(row) = self.rows.back_mut() {
            row.bytes = bytes;
            self.bytes += bytes;
        }
    }

    /// The number of changes in all rows.
    pub(in crate::journal) fn changes(&self) -> usize {
        self.changes
    }

    /// The length of all rows.
    pub(in crate::journal) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the log has no rows.
    pub(in crate::journal) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How much there was to be moved when the current sweep began; `None` without a sweep.
    pub(in crate::journal) fn sweeping(&self) -> Option<usize> {
        self.sweep.map(|sweep| sweep.changes)
    }

    /// Applies a plan that has become durable. Nothing may change between planning and this call.
    pub(in crate::journal) fn compacted(&mut self, plan: Compaction) {
        for (token, row) in plan.grants {
            self.grants.remove(&token);
            self.needs_no_grant(row);
        }
        for (token, row) in plan.later {
            self.later.remove(&token);
            self.row(row).needed -= 1;
        }
        for moved in plan.values {
            self.values.moved(&moved);
            let row = self.row(moved.row);
            (row.values, row.needed) = (row.values - 1, row.needed - 1);
        }
        (self.sweep, self.opened, self.position) = (plan.sweep, plan.opened, plan.position);
        for row in self.rows.drain(..plan.rows) {
            self.changes -= row.changes;
            self.bytes -= row.bytes;
        }
        if self.rows.is_empty() {
            // Numbers may start again.
            (self.last_row, self.sweep, self.opened) = (0, None, None);
        }
        self.shrink();
    }
}
