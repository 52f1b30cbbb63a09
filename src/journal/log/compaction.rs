//! Rows of the table `changes` that say something that the table `held` does not say.
//!
//! Promise: of all changes to a lease only the last is ever moved into `held`, so a lease that ends soon after its grant, or is
//! renewed again and again, costs no row there. Of a grant is only known in which row it is: it is read again when it moves.
//! Grants move in the order of rows, later changes in the order of tokens, which both is about that of `held`, so that neighbours
//! share a page. Rows go once nothing in them is the only word of anything, several at once: where leases are short that table
//! stays small, and a commit seldom touches more than one page of it. Absent: SQL, and what is written when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustc_hash::FxHashMap;

use super::entry::{Change, ChangesText};
use crate::journal::{JournalError, Record, Renewal};

/// Rows have smaller numbers; a commit takes one, and they start again whenever all rows are gone.
pub(in crate::journal) const ROW_MAX: i64 = 1 << 38;
/// At rest, rows go when there are so many that have nothing left to say, or so many bytes of them: neighbours share pages.
const ROWS_AT_ONCE: usize = 64;
const ROW_BYTES_AT_ONCE: usize = 256 << 10;
/// No more go in one commit, which somebody waits for: so many rows, or the first ones that have so many bytes.
const ROWS_AT_ONCE_MAX: usize = 4 * ROWS_AT_ONCE;
const ROW_BYTES_AT_ONCE_MAX: usize = 4 * ROW_BYTES_AT_ONCE;

/// The log of an open database.
#[derive(Debug, Default)]
pub(in crate::journal) struct ChangeLog {
    /// The rows of grants that `held` does not have, by token.
    grants: FxHashMap<i64, i64>,
    /// The last change of a lease after its grant, by token.
    later: BTreeMap<i64, PendingChange>,
    /// Their numbers have no gaps.
    rows: VecDeque<Row>,
    last_row: i64,
    /// Changes in all rows.
    changes: usize,
    /// Bytes of all rows.
    bytes: usize,
    sweep: Option<Sweep>,
    /// What was read of a row and has not moved yet; if it is not there it is read again.
    opened: Option<Opened>,
}

#[derive(Debug, Clone, Copy)]
struct PendingChange {
    row: i64,
    /// `None`: the lease is over, and `held` has it.
    renewal: Option<Renewal>,
}

#[derive(Debug)]
struct Row {
    number: i64,
    changes: usize,
    bytes: usize,
    /// Grants in it that `held` does not have.
    grants: usize,
    /// These, and last changes of leases.
    needed: usize,
}

#[derive(Debug)]
struct Opened {
    row: i64,
    changed: VecDeque<(i64, Change)>,
}

/// A walk over all there is. What comes meanwhile is left to the next one.
#[derive(Debug, Clone, Copy)]
struct Sweep {
    upto_row: i64,
    /// Where it goes on among rows with grants, and then among later changes.
    next_row: i64,
    next_token: i64,
    /// How many leases there were when it began.
    leases: usize,
}

/// A step of moving, or of removing only.
#[derive(Debug)]
pub(in crate::journal) struct Compaction {
    /// Tokens, and the rows that they need no more.
    grants: Vec<(i64, i64)>,
    later: Vec<(i64, i64)>,
    sweep: Option<Sweep>,
    opened: Option<Opened>,
    rows: usize,
    last_row: Option<i64>,
}

impl Compaction {
    /// All rows up to this one are to be removed.
    pub(in crate::journal) fn last_row(&self) -> Option<i64> {
        self.last_row
    }
}

impl ChangeLog {
    /// Adds a row with what a batch does to leases, unless that comes to nothing: `text` gets its content, and its number
    /// is answered. Should the row not become durable, the log is of no use any more, and the state is to be loaded again.
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
        // Granted and over within this batch: nobody needs to know.
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

    /// Takes a row that was there before. In the order of rows, and before anything else.
    pub(in crate::journal) fn recover_row(&mut self, number: i64, changes: usize, bytes: usize) {
        self.rows.push_back(Row { number, changes, bytes, grants: 0, needed: 0 });
        (self.last_row, self.changes, self.bytes) = (number, self.changes + changes, self.bytes + bytes);
    }

    fn row(&mut self, number: i64) -> &mut Row {
        let first = self.rows.front().map_or(0, |row| row.number);
        &mut self.rows[(number - first) as usize]
    }

    /// The row has the grant of a lease that the table does not have.
    pub(in crate::journal) fn granted(&mut self, token: i64, row: i64) {
        self.grants.insert(token, row);
        let row = self.row(row);
        (row.grants, row.needed) = (row.grants + 1, row.needed + 1);
    }

    /// The row has the last renewal of a lease.
    pub(in crate::journal) fn renewed(&mut self, renewal: Renewal, row: i64) {
        self.later(renewal.token.get(), PendingChange { row, renewal: Some(renewal) });
    }

    /// The row has the end of a lease.
    pub(in crate::journal) fn ended(&mut self, token: i64, row: i64) {
        match self.grants.remove(&token) {
            None => self.later(token, PendingChange { row, renewal: None }),
            // Its end is in a later row than its grant, and stays longer.
            Some(grant) => {
                self.needs_no_grant(grant);
                if let Some(later) = self.later.remove(&token) {
                    self.row(later.row).needed -= 1;
                }
            }
        }
        self.give_back_memory();
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

    fn give_back_memory(&mut self) {
        const SMALL: usize = 4096;
        if self.grants.is_empty() && self.grants.capacity() > SMALL {
            self.grants = FxHashMap::default();
        }
    }

    /// Notes how long the text of the newest row is.
    pub(in crate::journal) fn weigh_newest(&mut self, bytes: usize) {
        if let Some(row) = self.rows.back_mut() {
            row.bytes = bytes;
            self.bytes += bytes;
        }
    }

    /// Changes in all rows.
    pub(in crate::journal) fn changes(&self) -> usize {
        self.changes
    }

    /// Bytes of all rows.
    pub(in crate::journal) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no row.
    pub(in crate::journal) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many leases needed rows when the sweep began that is not through yet.
    pub(in crate::journal) fn sweeping(&self) -> Option<usize> {
        self.sweep.map(|sweep| sweep.leases)
    }

    /// Moves nothing: rows go if there are many that can.
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

    /// Goes on with the sweep, or begins one: passes what `held` has to learn of up to `max` leases to `write`. `read` answers
    /// what a row says, each lease once. All rows go that can. Nothing changes here before [`ChangeLog::compacted`]: only then is it
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

    /// Whether none is left.
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

    /// How the sweep goes on, if it is not through.
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

    /// Plans to remove the first rows that have nothing left to say. Their bytes.
    fn removable(&self, plan: &mut Compaction) -> usize {
        let mut settled: Vec<i64> = plan.grants.iter().chain(&plan.later).map(|(_, row)| *row).collect();
        settled.sort_unstable();
        let mut settled = settled.into_iter().peekable();
        let mut bytes = 0;
        for row in &self.rows {
            let mut needed = row.needed;
            while settled.next_if_eq(&row.number).is_some() {
                needed -= 1;
            }
            if needed > 0 || plan.rows == ROWS_AT_ONCE_MAX || bytes >= ROW_BYTES_AT_ONCE_MAX {
                break;
            }
            (plan.rows, plan.last_row, bytes) = (plan.rows + 1, Some(row.number), bytes + row.bytes);
        }
        bytes
    }

    /// Notes that what was planned is durable. Between the two nothing else may change.
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
            // Nothing is needed either: a number is worth nothing any more.
            (self.last_row, self.sweep, self.opened) = (0, None, None);
        }
        self.give_back_memory();
    }
}
