//! Writing a batch: one row of the change log, the other records, and a share of compaction.
//!
//! Guarantees: a batch is written as a whole or not at all; a batch of changes to leases and values
//! alone is one statement. Not here: when batches are committed.

use rusqlite::Connection;

use super::SqliteBackend;
use super::fault::fault;
use super::transaction::Writing;
use super::{rows, values};
use crate::journal::log::compaction::{Budget, ChangeLog, Compaction, Tables};
use crate::journal::log::entry::{self, Change, ChangesText, RowContent};
use crate::journal::{Backend, JournalError, Record};

/// Changes in the log above which commits compact it. A smaller limit costs a burst of new locks a
/// third of its speed. A hash map holds this many entries before it doubles again.
pub(super) const LOG_CHANGES_MAX: usize = (1 << 18) / 8 * 7;
/// The same in bytes.
pub(super) const LOG_BYTES_MAX: usize = 64 << 20;
/// What a commit moves beyond its share, if it moves anything.
pub(super) const SWEEP_MIN: Budget = Budget { changes: 16, bytes: 256 << 10 };
/// What one step of idle compaction moves.
pub(super) const STEP: Budget = Budget { changes: 2_048, bytes: 4 << 20 };

/// What fails when a step of compaction does.
const COMPACT: &str = "compact the change log";

/// What a commit writes.
#[derive(Debug)]
pub(super) struct Staged {
    /// The number of its row of the change log.
    row: Option<i64>,
    text: Vec<u8>,
    has_others: bool,
}

impl SqliteBackend {
    /// Enters a batch into the index of the change log, and makes the text of its row.
    fn stage(&mut self, batch: &[Record]) -> Result<Staged, JournalError> {
        let mut text = ChangesText::with_capacity(self.text_bytes);
        let row = self.log.add(batch, &mut text);
        let has_others = batch.iter().any(|record| !record.is_of_a_lease() && record.value_id().is_none());
        let reserved = batch.iter().filter_map(|record| match record {
            Record::TokensReserved(upto) => Some(*upto),
            _ => None,
        });
        // Before the database: if that then fails, some tokens are never used.
        reserved.max().map_or(Ok(()), |upto| self.lock_file.reserve(upto))?;
        let text = text.into_bytes();
        if row.is_some() {
            self.text_bytes = text.len() + text.len() / 4;
            self.log.set_newest_bytes(text.len());
        }
        Ok(Staged { row, text, has_others })
    }

    /// Commits a batch, which may be staged already. Only [`JournalError::Locked`] leaves it
    /// staged.
    pub(super) fn write(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        self.verify_if_due()?;
        let staged = match self.staged.take() {
            Some(staged) => staged,
            None => self.stage(batch)?,
        };
        if staged.row.is_none() && !staged.has_others {
            return Ok(());
        }
        let written = self.write_staged(batch, &staged);
        if written == Err(JournalError::Locked) {
            self.staged = Some(staged);
        }
        written
    }

    fn write_staged(&mut self, batch: &[Record], staged: &Staged) -> Result<(), JournalError> {
        let failed = |error| fault("commit", &error);
        let put_row = |db: &Connection| {
            staged.row.map_or(Ok(()), |row| rows::put_changes(db, row, &staged.text)).map_err(failed)
        };
        let is_full = self.log.changes() > self.log_changes_max || self.log.bytes() > LOG_BYTES_MAX;
        // Fast enough to finish before as much has arrived again, and not faster: a lease that
        // changes meanwhile need not be moved.
        let share = |changes| Budget {
            changes: batch.len() * changes / self.log_changes_max + SWEEP_MIN.changes,
            bytes: 2 * staged.text.len() + SWEEP_MIN.bytes,
        };
        let to_move = self.log.sweeping().or(is_full.then_some(0)).map(share);
        let removal = if to_move.is_none() { self.log.plan_removal() } else { None };
        let is_one_row = to_move.is_none() && removal.is_none() && !staged.has_others;
        if is_one_row && self.leftovers.is_empty() {
            // A statement is a transaction.
            put_row(&self.db)?;
            self.checkpoints.after_commit(&self.db);
            return Ok(());
        }
        let writing = Writing::begin(&self.db)?;
        for record in batch {
            match record {
                Record::DelayStarted(name, delay) => rows::put_delay(&self.db, name, Some(*delay)),
                Record::DelayEnded(name) => rows::put_delay(&self.db, name, None),
                Record::Session(session) => rows::put_session(&self.db, session),
                Record::SessionEnded(id) => rows::remove_session(&self.db, *id),
                Record::TokensReserved(upto) => rows::reserve_tokens(&self.db, *upto),
                Record::ScriptPut { sha, body } => values::put_script(&self.db, sha, body),
                Record::ScriptGone { sha } => values::remove_script(&self.db, sha),
                // In the row of the change log.
                Record::Granted(_) | Record::Renewed(_) | Record::Ended(_) => Ok(()),
                Record::ValuePut(_) | Record::ValueGone(_) | Record::Element { .. } => Ok(()),
            }
            .map_err(failed)?;
        }
        put_row(&self.db)?;
        let moved = match to_move {
            Some(budget) => Some(plan_compaction(&mut self.log, &self.db, budget)?),
            None => removal,
        };
        moved.as_ref().map_or(Ok(()), |moved| finish_step(&self.db, moved))?;
        let budget = Budget { changes: batch.len() + SWEEP_MIN.changes, ..SWEEP_MIN };
        let is_clean = self.remove_leftovers(budget)?;
        writing.commit()?;
        self.step_is_durable(moved, is_clean);
        Ok(())
    }

    /// Removes elements of the first value with leftovers. Returns whether it has none any more.
    pub(super) fn remove_leftovers(&self, budget: Budget) -> Result<bool, JournalError> {
        let removed = |id: &i64| values::remove_leftovers(&self.db, *id, budget);
        self.leftovers.front().map_or(Ok(false), removed).map_err(|error| fault(COMPACT, &error))
    }

    /// Applies a step of compaction that has become durable, if there was one. `is_clean`: the first
    /// value with leftovers has none any more.
    pub(super) fn step_is_durable(&mut self, moved: Option<Compaction>, is_clean: bool) {
        if is_clean {
            self.leftovers.pop_front();
        }
        if let Some(moved) = moved {
            self.leftovers.extend(moved.removed_values());
            self.log.compacted(moved);
        }
        self.checkpoints.after_commit(&self.db);
    }

    pub(super) fn verify_if_due(&mut self) -> Result<(), JournalError> {
        if self.checkpoints.take_verification() { self.verify() } else { Ok(()) }
    }
}

/// Moves as much as `budget` allows out of the log.
pub(super) fn plan_compaction(
    log: &mut ChangeLog,
    db: &Connection,
    budget: Budget,
) -> Result<Compaction, JournalError> {
    let failed = |error| fault(COMPACT, &error);
    let mut tables = LiveTables {
        db,
        held: rows::Held::of(db).map_err(failed)?,
        values: values::ValueTables::of(db).map_err(failed)?,
    };
    log.plan_compaction(budget, &mut tables)
}

/// Writes what a step of compaction has planned beside what it moves.
pub(super) fn finish_step(db: &Connection, plan: &Compaction) -> Result<(), JournalError> {
    let failed = |error| fault(COMPACT, &error);
    plan.last_row().map_or(Ok(()), |row| rows::remove_changes(db, row)).map_err(failed)?;
    plan.new_position().map_or(Ok(()), |position| rows::put_position(db, position)).map_err(failed)
}

/// The tables that compaction moves changes into.
struct LiveTables<'db> {
    db: &'db Connection,
    held: rows::Held<'db>,
    values: values::ValueTables<'db>,
}

impl Tables for LiveTables<'_> {
    fn read(&mut self, row: i64) -> Result<RowContent, JournalError> {
        entry::read(&rows::changes_of(self.db, row).map_err(|error| fault(COMPACT, &error))?)
    }

    fn write_lease(&mut self, token: i64, change: &Change) -> Result<(), JournalError> {
        self.held.write(token, change).map_err(|error| fault(COMPACT, &error))
    }

    fn write_value(&mut self, change: &Record, place: &mut i64) -> Result<(), JournalError> {
        self.values.write(change, place).map_err(|error| fault(COMPACT, &error))
    }
}
