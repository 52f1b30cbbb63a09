//! Writing a batch.
//!
//! Guarantees: a batch is written whole or not at all.
//! Not here: when a batch is committed.

use rusqlite::Connection;

use super::SqliteBackend;
use super::fault::fault;
use super::rows;
use super::transaction::Writing;
use crate::journal::log::compaction::{ChangeLog, Compaction};
use crate::journal::log::entry::{self, ChangesText};
use crate::journal::{Backend, JournalError, Record};

/// Changes in `changes` from which on they move into `held`: fewer cost a burst of new locks a third of its speed. As many as a
/// hash map holds before it doubles once more.
pub(super) const LOG_CHANGES_MAX: usize = (1 << 18) / 8 * 7;
/// The same in bytes.
pub(super) const LOG_BYTES_MAX: usize = 64 << 20;
/// Leases that a commit moves at least, when it moves any.
pub(super) const SWEEP_MIN: usize = 16;
/// Leases moved in one step when nothing else is to be done.
pub(super) const CHANGES_PER_STEP: usize = 2_048;

/// What a commit writes, once it is known.
#[derive(Debug)]
pub(super) struct Staged {
    /// The row of changes and its text, if there is one.
    row: Option<i64>,
    text: Vec<u8>,
    has_others: bool,
}

impl SqliteBackend {
    /// Enters a batch into the log.
    pub(super) fn stage(&mut self, batch: &[Record]) -> Result<Staged, JournalError> {
        let mut text = ChangesText::with_capacity(self.text_bytes);
        let row = self.log.add(batch, &mut text);
        let has_others = batch.iter().any(|record| !record.is_of_a_lease());
        let reserved = batch.iter().filter_map(|record| match record {
            Record::TokensReserved(upto) => Some(*upto),
            _ => None,
        });
        // Ahead of the database: should that fail, some tokens are never used.
        reserved.max().map_or(Ok(()), |upto| self.lock_file.reserve(upto))?;
        let text = text.into_bytes();
        if row.is_some() {
            self.text_bytes = text.len() + text.len() / 4;
            self.log.weigh_newest(text.len());
        }
        Ok(Staged { row, text, has_others })
    }

    /// Commits a batch, or what is staged of it. Only [`JournalError::Locked`] leaves it staged.
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

    pub(super) fn write_staged(&mut self, batch: &[Record], staged: &Staged) -> Result<(), JournalError> {
        let failed = |error| fault("commit", &error);
        let Staged { row, text, has_others } = staged;
        let is_full = self.log.changes() > self.log_changes_max || self.log.bytes() > LOG_BYTES_MAX;
        // Fast enough to be through before as many changes have arrived again, and not faster: a lease that changes
        // meanwhile need not be written.
        let share = |leases| batch.len() * leases / self.log_changes_max + SWEEP_MIN;
        let to_move = self.log.sweeping().or(is_full.then_some(0)).map(share);
        let removal = to_move.is_none().then(|| self.log.plan_removal());
        let is_one_statement = !has_others && removal.as_ref().is_some_and(|plan| plan.last_row().is_none());
        let writing = if is_one_statement { None } else { Some(Writing::begin(&self.db)?) };
        for record in batch {
            match record {
                Record::DelayStarted(name, delay) => rows::put_delay(&self.db, name, Some(*delay)),
                Record::DelayEnded(name) => rows::put_delay(&self.db, name, None),
                Record::SessionOpened(session) => rows::put_session(&self.db, session),
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

/// Moves changes of up to `max` leases into `held`.
pub(super) fn plan_compaction(
    log: &mut ChangeLog,
    db: &Connection,
    max: usize,
) -> Result<Compaction, JournalError> {
    let failed = |error| fault("move changes", &error);
    let mut held = rows::Held::of(db).map_err(failed)?;
    log.plan_compaction(
        max,
        |row| entry::read(&rows::changes_of(db, row).map_err(failed)?),
        |token, change| held.write(token, change).map_err(failed),
    )
}
