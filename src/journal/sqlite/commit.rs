//! Writing a batch: one row of the change log, the other records, and a share of compaction.
//!
//! Guarantees: a batch is written as a whole or not at all; a batch of changes to leases alone is
//! one statement. Not here: when batches are committed.

use rusqlite::Connection;

use super::SqliteBackend;
use super::fault::fault;
use super::rows;
use super::transaction::Writing;
use crate::journal::log::compaction::{ChangeLog, Compaction};
use crate::journal::log::entry::{self, ChangesText};
use crate::journal::{Backend, JournalError, Record};

/// Changes in the log above which commits compact it. A smaller limit costs a burst of new locks a
/// third of its speed. A hash map holds this many entries before it doubles again.
pub(super) const LOG_CHANGES_MAX: usize = (1 << 18) / 8 * 7;
/// The same in bytes.
pub(super) const LOG_BYTES_MAX: usize = 64 << 20;
/// The fewest leases that a commit moves, if it moves any.
pub(super) const SWEEP_MIN: usize = 16;
/// Leases moved in one step of idle compaction.
pub(super) const CHANGES_PER_STEP: usize = 2_048;

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
        let has_others = batch.iter().any(|record| !record.is_of_a_lease());
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
        let Staged { row, text, has_others } = staged;
        let is_full = self.log.changes() > self.log_changes_max || self.log.bytes() > LOG_BYTES_MAX;
        // Fast enough to finish before as many changes have arrived again, and not faster: a lease
        // that changes meanwhile need not be moved.
        let share = |leases| batch.len() * leases / self.log_changes_max + SWEEP_MIN;
        let to_move = self.log.sweeping().or(is_full.then_some(0)).map(share);
        let removal = to_move.is_none().then(|| self.log.plan_removal());
        let is_one_statement = !has_others && removal.as_ref().is_some_and(|plan| plan.last_row().is_none());
        let writing = if is_one_statement { None } else { Some(Writing::begin(&self.db)?) };
        for record in batch {
            match record {
                Record::DelayStarted(name, delay) => rows::put_delay(&self.db, name, Some(*delay)),
                Record::DelayEnded(name) => rows::put_delay(&self.db, name, None),
                Record::Session(session) => rows::put_session(&self.db, session),
                Record::SessionEnded(id) => rows::remove_session(&self.db, *id),
                Record::TokensReserved(upto) => rows::reserve_tokens(&self.db, *upto),
                Record::Granted(_) | Record::Renewed(_) | Record::Ended(_) => Ok(()),
            }
            .map_err(failed)?;
        }
        row.map_or(Ok(()), |row| rows::put_changes(&self.db, row, text)).map_err(failed)?;
        let moved = match removal {
            Some(plan) => plan,
            None => plan_compaction(&mut self.log, &self.db, to_move.unwrap_or(SWEEP_MIN))?,
        };
        moved.last_row().map_or(Ok(()), |row| rows::remove_changes(&self.db, row)).map_err(failed)?;
        writing.map_or(Ok(()), Writing::commit)?;
        self.log.compacted(moved);
        self.checkpoints.after_commit(&self.db);
        Ok(())
    }

    pub(super) fn verify_if_due(&mut self) -> Result<(), JournalError> {
        if self.checkpoints.take_verification() { self.verify() } else { Ok(()) }
    }
}

/// Moves the states of up to `max` leases into `held`.
pub(super) fn plan_compaction(
    log: &mut ChangeLog,
    db: &Connection,
    max: usize,
) -> Result<Compaction, JournalError> {
    let failed = |error| fault("compact the change log", &error);
    let mut held = rows::Held::of(db).map_err(failed)?;
    log.plan_compaction(
        max,
        |row| entry::read(&rows::changes_of(db, row).map_err(failed)?),
        |token, change| held.write(token, change).map_err(failed),
    )
}
