//! The index of the change log: which rows still have something that the table `held` lacks.
//!
//! Compaction moves the last state of each lease into `held` and removes rows that are no longer
//! needed. Of a grant only its row is remembered: it is read again when it moves. Grants move in
//! the order of rows, later changes in the order of tokens. Both are roughly the order of `held`,
//! so neighbours share a page. Rows are removed several at once: where leases are short, the log
//! stays small, and a commit seldom touches more than one page of it.
//!
//! Guarantees: of all changes to a lease only the last one moves into `held`. A lease that ends
//! soon after its grant, or is renewed again and again, costs no row there. Not here: SQL, and when
//! compaction runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustc_hash::FxHashMap;

use super::entry::{Change, ChangesText};
use crate::journal::{JournalError, Record, Renewal};

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
    /// These, and the last changes of leases in this row.
    needed: usize,
}

#[derive(Debug)]
struct Opened {
    row: i64,
    changed: VecDeque<(i64, Change)>,
}

/// A compaction of all rows up to one. Rows that are added meanwhile are left to the next sweep.
#[derive(Debug, Clone, Copy)]
struct Sweep {
    upto_row: i64,
    /// The position among rows with grants, and then among later changes.
    next_row: i64,
    next_token: i64,
    /// The number of leases in the log when the sweep began.
    leases: usize,
}

/// A planned step of compaction: leases to move, and rows to remove.
#[derive(Debug)]
pub(in crate::journal) struct Compaction {
    /// Tokens, and the rows that they no longer need.
    grants: Vec<(i64, i64)>,
    later: Vec<(i64, i64)>,
    sweep: Option<Sweep>,
    opened: Option<Opened>,
    rows: usize,
    last_row: Option<i64>,
}

impl Compaction {
    /// Rows up to this one are to be removed.
    pub(in crate::journal) fn last_row(&self) -> Option<i64> {
        self.last_row
    }
}

impl ChangeLog {
    /// Adds a row with the changes of a batch to leases: writes its content to `text` and returns
    /// its number, or `None` if the batch changes no lease. If the row does not become durable,
    /// this index is wrong, and the state must be loaded again.
    pub(in crate::journal) fn add(&mut self, batch: &[Record], text: &mut ChangesText) -> Option<i64> {
        let row = self.last_row + 1;
        self.rows.push_back(Row { number: row, changes: 0, bytes: 0, grants: 0, needed: 0 });
        let mut changes = 0;
        let mut ended: Vec<i64> = batch
            .iter()
            .filter_map(|record| if let Record::Ended(token) = record { Some(token.get()) } else { None })
            .collect();
        ended.sort_unstable();
        let is_over = |token| ended.binary_search(&token).is_ok();
        // Granted and over within this batch: neither is stored.
        let mut never = BTreeSet::new();
        for record in batch {
            match record {
                Record::Granted(stored) => {
                    let token = stored.lease.token.get();
                    if is_over(token) {
                        never.insert(token);
                        continue;
                    }
                    text.granted(stored);
                    self.granted(token, row);
                }
                Record::Renewed(renewal) => {
                    let token = renewal.token.get();
                    if is_over(token) {
                        continue;
                    }
                    text.renewed(renewal);
                    self.renewed(*renewal, row);
                }
                Record::Ended(token) => {
                    let token = token.get();
                    if never.contains(&token) {
                        continue;
                    }
                    text.ended(token);
                    self.ended(token, row);
                }
                _ => continue,
            }
            changes += 1;
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

    /// Adds a row that was stored earlier. Call it in the order of rows, before anything else.
    pub(in crate::journal) fn recover_row(&mut self, number: i64, changes: usize, bytes: usize) {
        self.rows.push_back(Row { number, changes, bytes, grants: 0, needed: 0 });
        (self.last_row, self.changes, self.bytes) = (number, self.changes + changes, self.bytes + bytes);
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

    /// The number of leases in the log when the current sweep began; `None` without a sweep.
    pub(in crate::journal) fn sweeping(&self) -> Option<usize> {
        self.sweep.map(|sweep| sweep.leases)
    }

    /// Plans to move nothing, and to remove unneeded rows if there are many.
    pub(in crate::journal) fn plan_removal(&mut self) -> Compaction {
        let mut plan = self.no_compaction(self.sweep);
        let bytes = self.removable(&mut plan);
        if plan.rows < ROWS_AT_ONCE && bytes < ROW_BYTES_AT_ONCE {
            (plan.rows, plan.last_row) = (0, None);
        }
        plan
    }

    fn no_compaction(&mut self, sweep: Option<Sweep>) -> Compaction {
        let (grants, later) = (Vec::new(), Vec::new());
        Compaction { grants, later, sweep, opened: self.opened.take(), rows: 0, last_row: None }
    }

    /// Continues the sweep, or begins one: passes the states of up to `max` leases to `write`, and
    /// plans to remove the rows that are then unneeded. `read` returns the changes in a row, one
    /// for each lease. The index itself changes with [`ChangeLog::compacted`], once the step is
    /// durable.
    pub(in crate::journal) fn plan_compaction(
        &mut self,
        max: usize,
        read: impl FnMut(i64) -> Result<VecDeque<(i64, Change)>, JournalError>,
        mut write: impl FnMut(i64, &Change) -> Result<(), JournalError>,
    ) -> Result<Compaction, JournalError> {
        let leases = self.grants.len() + self.later.len();
        let begun = Sweep { upto_row: self.last_row, next_row: 0, next_token: i64::MIN, leases };
        let mut sweep = self.sweep.unwrap_or(begun);
        let mut plan = self.no_compaction(None);
        plan.sweep = match self.move_grants(&mut sweep, max, &mut plan, read, &mut write)? {
            true => self.move_later(sweep, max, &mut plan, write)?,
            false => Some(sweep),
        };
        self.removable(&mut plan);
        Ok(plan)
    }

    /// Moves grants; returns whether the sweep is through with them.
    fn move_grants(
        &self,
        sweep: &mut Sweep,
        max: usize,
        plan: &mut Compaction,
        mut read: impl FnMut(i64) -> Result<VecDeque<(i64, Change)>, JournalError>,
        write: &mut impl FnMut(i64, &Change) -> Result<(), JournalError>,
    ) -> Result<bool, JournalError> {
        let first = self.rows.front().map_or(0, |row| row.number);
        let rows = self.rows.iter().skip(usize::try_from(sweep.next_row - first).unwrap_or(0));
        for row in rows.take_while(|row| row.number <= sweep.upto_row) {
            sweep.next_row = row.number;
            if row.grants == 0 {
                continue;
            }
            if plan.grants.len() >= max {
                return Ok(false);
            }
            let mut opened = match plan.opened.take() {
                Some(opened) if opened.row == row.number => opened,
                _ => Opened { row: row.number, changed: read(row.number)? },
            };
            while plan.grants.len() < max
                && let Some((token, mut change)) = opened.changed.pop_front()
            {
                if self.grants.get(&token) != Some(&row.number) {
                    continue;
                }
                if let (Some(later), Change::Granted(stored)) = (self.later.get(&token), &mut change) {
                    later.renewal.into_iter().for_each(|renewal| renewal.apply_to(&mut stored.lease));
                    plan.later.push((token, later.row));
                }
                write(token, &change)?;
                plan.grants.push((token, row.number));
            }
            if !opened.changed.is_empty() {
                plan.opened = Some(opened);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves later changes; returns the rest of the sweep, or `None` if it is through.
    fn move_later(
        &self,
        sweep: Sweep,
        max: usize,
        plan: &mut Compaction,
        mut write: impl FnMut(i64, &Change) -> Result<(), JournalError>,
    ) -> Result<Option<Sweep>, JournalError> {
        let mut left = max.saturating_sub(plan.grants.len());
        for (token, later) in self.later.range(sweep.next_token..) {
            if later.row > sweep.upto_row || self.grants.contains_key(token) {
                continue;
            }
            if left == 0 {
                return Ok(Some(Sweep { next_token: *token, ..sweep }));
            }
            left -= 1;
            write(*token, &later.renewal.map_or(Change::Ended, Change::Renewed))?;
            plan.later.push((*token, later.row));
        }
        Ok(None)
    }

    /// Plans to remove the first rows if they are unneeded; returns their bytes.
    fn removable(&self, plan: &mut Compaction) -> usize {
        let mut moved: Vec<i64> = plan.grants.iter().chain(&plan.later).map(|(_, row)| *row).collect();
        moved.sort_unstable();
        let mut moved = moved.into_iter().peekable();
        let mut bytes = 0;
        for row in &self.rows {
            let mut needed = row.needed;
            while moved.next_if_eq(&row.number).is_some() {
                needed -= 1;
            }
            if needed > 0 || plan.rows == ROWS_AT_ONCE_MAX || bytes >= ROW_BYTES_AT_ONCE_MAX {
                break;
            }
            (plan.rows, plan.last_row, bytes) = (plan.rows + 1, Some(row.number), bytes + row.bytes);
        }
        bytes
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
        (self.sweep, self.opened) = (plan.sweep, plan.opened);
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
