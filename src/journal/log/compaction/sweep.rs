//! One step of compaction: what it moves, and which rows it removes.
//!
//! Guarantees: the index does not change before the step is durable; a step moves little more than
//! its budget. Not here: SQL.

use std::cmp::Ordering;

use super::{ChangeLog, ROW_BYTES_AT_ONCE, ROW_BYTES_AT_ONCE_MAX, ROWS_AT_ONCE, ROWS_AT_ONCE_MAX, Row};
use crate::domain::FencingToken;
use crate::journal::log::entry::{Change, RowContent};
use crate::journal::log::values::MovedChange;
use crate::journal::{JournalError, Record};

/// How far changes of values have moved into their tables. It is stored with what has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::journal) struct Position {
    /// Of this row only a part has moved, and of those before it everything.
    pub(in crate::journal) row: i64,
    /// The number of changes of values in that row that have moved.
    pub(in crate::journal) changes: usize,
    /// The place of the element that was inserted last. Elements of a value have the order of their
    /// places.
    pub(in crate::journal) place: i64,
}

impl Position {
    /// The number of changes of values in a row that have moved; `None`: all.
    pub(in crate::journal) fn moved_of(self, row: i64) -> Option<usize> {
        match row.cmp(&self.row) {
            Ordering::Less => None,
            Ordering::Equal => Some(self.changes),
            Ordering::Greater => Some(0),
        }
    }
}

/// How much one step may move.
#[derive(Debug, Clone, Copy)]
pub(in crate::journal) struct Budget {
    /// Changes. The step ends after that many.
    pub(in crate::journal) changes: usize,
    /// Bytes, as far as their number depends on what is moved. The change that exceeds it is the
    /// last one of the step.
    pub(in crate::journal) bytes: usize,
}

impl Budget {
    /// Accounts for a change.
    pub(in crate::journal) fn spend(&mut self, bytes: usize) {
        self.changes = self.changes.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether the step ends.
    pub(in crate::journal) fn is_spent(&self) -> bool {
        self.changes == 0 || self.bytes == 0
    }
}

/// What compaction reads, and where it moves what it finds.
pub(in crate::journal) trait Tables {
    /// Reads a row of the log.
    fn read(&mut self, row: i64) -> Result<RowContent, JournalError>;

    /// Applies the sum of what has happened to a lease.
    fn write_lease(&mut self, token: i64, change: &Change) -> Result<(), JournalError>;

    /// Applies a change of a value. A new element gets the place after `place`, which is then its
    /// place.
    fn write_value(&mut self, change: &Record, place: &mut i64) -> Result<(), JournalError>;
}

#[derive(Debug)]
pub(super) struct Opened {
    row: i64,
    content: RowContent,
    /// The number of changes of values before those in `content`.
    values_before: usize,
}

/// A compaction of all rows up to one. Rows that are added meanwhile are left to the next sweep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep {
    upto_row: i64,
    /// The position among rows with grants or values, and then among later changes.
    next_row: i64,
    next_token: i64,
    /// How much there was to be moved when the sweep began.
    pub(super) changes: usize,
}

/// A planned step of compaction: leases to move, and rows to remove.
#[derive(Debug)]
pub(in crate::journal) struct Compaction {
    /// Tokens, and the rows that they no longer need.
    pub(super) grants: Vec<(i64, i64)>,
    pub(super) later: Vec<(i64, i64)>,
    pub(super) values: Vec<MovedChange>,
    pub(super) position: Position,
    is_position_new: bool,
    pub(super) sweep: Option<Sweep>,
    pub(super) opened: Option<Opened>,
    pub(super) rows: usize,
    last_row: Option<i64>,
}

impl Compaction {
    /// Rows up to this one are to be removed.
    pub(in crate::journal) fn last_row(&self) -> Option<i64> {
        self.last_row
    }

    /// The position to be stored with this step; `None`: it is as before.
    pub(in crate::journal) fn new_position(&self) -> Option<Position> {
        self.is_position_new.then_some(self.position)
    }

    /// The ids of values that this step has removed from their table.
    pub(in crate::journal) fn removed_values(&self) -> impl Iterator<Item = i64> {
        self.values.iter().filter(|moved| moved.is_removal()).map(|moved| moved.id)
    }
}

impl ChangeLog {
    /// Plans to move nothing, and to remove unneeded rows; `None`: there are few.
    pub(in crate::journal) fn plan_removal(&mut self) -> Option<Compaction> {
        let are_few = |rows, bytes| rows < ROWS_AT_ONCE && bytes < ROW_BYTES_AT_ONCE;
        if are_few(self.rows.len(), self.bytes) {
            return None;
        }
        let mut plan = self.no_compaction(self.sweep);
        let bytes = self.removable(&mut plan);
        if are_few(plan.rows, bytes) {
            self.opened = plan.opened;
            return None;
        }
        self.note_position(&mut plan);
        Some(plan)
    }

    fn no_compaction(&mut self, sweep: Option<Sweep>) -> Compaction {
        Compaction {
            grants: Vec::new(),
            later: Vec::new(),
            values: Vec::new(),
            position: self.position,
            is_position_new: false,
            sweep,
            opened: self.opened.take(),
            rows: 0,
            last_row: None,
        }
    }

    /// Continues the sweep, or begins one: moves as much as `budget` allows to `tables`, and plans
    /// to remove the rows that are then unneeded. The index itself changes with
    /// [`ChangeLog::compacted`], once the step is durable.
    pub(in crate::journal) fn plan_compaction(
        &mut self,
        mut budget: Budget,
        tables: &mut impl Tables,
    ) -> Result<Compaction, JournalError> {
        let changes = self.grants.len() + self.later.len() + self.values.changes();
        let begun = Sweep { upto_row: self.last_row, next_row: 0, next_token: i64::MIN, changes };
        let mut sweep = self.sweep.unwrap_or(begun);
        let mut plan = self.no_compaction(None);
        plan.sweep = match self.move_rows(&mut sweep, &mut budget, &mut plan, tables)? {
            true => self.move_later(sweep, budget, &mut plan, tables)?,
            false => Some(sweep),
        };
        self.removable(&mut plan);
        self.note_position(&mut plan);
        Ok(plan)
    }

    /// Plans to store the position if it differs from the stored one.
    fn note_position(&self, plan: &mut Compaction) {
        if plan.rows == self.rows.len() {
            // Numbers of rows may start again.
            plan.position = Position { place: plan.position.place, ..Position::default() };
        }
        plan.is_position_new = plan.position != self.position;
    }

    /// Moves grants and values; returns whether the sweep is through with them.
    fn move_rows(
        &self,
        sweep: &mut Sweep,
        budget: &mut Budget,
        plan: &mut Compaction,
        tables: &mut impl Tables,
    ) -> Result<bool, JournalError> {
        let first = self.rows.front().map_or(0, |row| row.number);
        let rows = self.rows.iter().skip(usize::try_from(sweep.next_row - first).unwrap_or(0));
        for row in rows.take_while(|row| row.number <= sweep.upto_row) {
            sweep.next_row = row.number;
            if row.grants == 0 && row.values == 0 {
                continue;
            }
            if budget.is_spent() {
                return Ok(false);
            }
            let mut opened = match plan.opened.take() {
                Some(opened) if opened.row == row.number => opened,
                _ => self.open(row, tables)?,
            };
            self.move_grants(&mut opened, budget, plan, tables)?;
            self.move_values(&mut opened, budget, plan, tables)?;
            if !opened.content.leases.is_empty() || !opened.content.values.is_empty() {
                plan.opened = Some(opened);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open(&self, row: &Row, tables: &mut impl Tables) -> Result<Opened, JournalError> {
        let mut content = tables.read(row.number)?;
        let mut values_before = 0;
        if row.values == 0 {
            content.values.clear();
        } else if row.number == self.position.row {
            values_before = self.position.changes;
            content.values.drain(..values_before.min(content.values.len()));
        }
        Ok(Opened { row: row.number, content, values_before })
    }

    fn move_grants(
        &self,
        opened: &mut Opened,
        budget: &mut Budget,
        plan: &mut Compaction,
        tables: &mut impl Tables,
    ) -> Result<(), JournalError> {
        while !budget.is_spent()
            && let Some((token, mut change)) = opened.content.leases.pop_front()
        {
            if self.grants.get(&token) != Some(&opened.row) {
                continue;
            }
            let mut bytes = 0;
            if let Change::Granted(stored) = &mut change {
                if let Some(later) = self.later.get(&token) {
                    later.renewal.into_iter().for_each(|renewal| renewal.apply_to(&mut stored.lease));
                    plan.later.push((token, later.row));
                }
                bytes = stored.name.key().len() + stored.lease.owner.as_bytes().len();
            }
            tables.write_lease(token, &change)?;
            plan.grants.push((token, opened.row));
            budget.spend(bytes);
        }
        Ok(())
    }

    fn move_values(
        &self,
        opened: &mut Opened,
        budget: &mut Budget,
        plan: &mut Compaction,
        tables: &mut impl Tables,
    ) -> Result<(), JournalError> {
        while !budget.is_spent()
            && let Some(change) = opened.content.values.pop_front()
        {
            opened.values_before += 1;
            (plan.position.row, plan.position.changes) = (opened.row, opened.values_before);
            let Some(id) = change.value_id().map(FencingToken::get) else { continue };
            if !self.values.is_needed(id, opened.row) {
                continue;
            }
            tables.write_value(&change, &mut plan.position.place)?;
            plan.values.push(MovedChange::new(id, opened.row, &change));
            budget.spend(change.size_bytes());
        }
        Ok(())
    }

    /// Moves later changes; returns the rest of the sweep, or `None` if it is through.
    fn move_later(
        &self,
        sweep: Sweep,
        mut budget: Budget,
        plan: &mut Compaction,
        tables: &mut impl Tables,
    ) -> Result<Option<Sweep>, JournalError> {
        for (token, later) in self.later.range(sweep.next_token..) {
            if later.row > sweep.upto_row || self.grants.contains_key(token) {
                continue;
            }
            if budget.is_spent() {
                return Ok(Some(Sweep { next_token: *token, ..sweep }));
            }
            budget.spend(0);
            tables.write_lease(*token, &later.renewal.map_or(Change::Ended, Change::Renewed))?;
            plan.later.push((*token, later.row));
        }
        Ok(None)
    }

    /// Plans to remove the first rows if they are unneeded; returns their bytes.
    fn removable(&self, plan: &mut Compaction) -> usize {
        let leases = plan.grants.iter().chain(&plan.later).map(|(_, row)| *row);
        let mut moved: Vec<i64> = leases.chain(plan.values.iter().map(|moved| moved.row)).collect();
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
}
