//! The default backend: one SQLite file, readable with any SQLite tool while the server runs.
//!
//! The changes of one commit to leases and values are one row of the table `changes`, the change
//! log, so a commit writes few pages, whatever it contains. Compaction later moves the last state
//! of each lease into the table `held`, and the changes of values into the tables `keyed_values`
//! and `elements`. The view `leases` shows all leases.
//!
//! Guarantees: `commit` returns after the write-ahead log is synced. This folder alone names
//! rusqlite. Not here: an index on names (the table in memory has it).

mod backup;
mod check;
mod checkpoint;
mod commit;
mod compiled;
mod fault;
mod file_identity;
mod load;
mod lock_file;
mod open;
mod rows;
mod schema;
mod token_floor;
mod transaction;
mod values;
mod wal_check;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use self::checkpoint::Checkpoints;
use self::commit::{LOG_CHANGES_MAX, STEP, Staged, finish_step, plan_compaction};
use self::fault::fault;
use self::file_identity::FileIdentity;
use self::load::Found;
use self::lock_file::LockFile;
use self::open::{BUSY_TIMEOUT, open_locked, real};
use self::transaction::Writing;
use super::log::compaction::ChangeLog;
use super::{Attempt, Backend, BackendTraits, JournalError, Loaded, Record};
use crate::domain::Timestamp;

pub use backup::{Approve, Restored, StoredState, back_up, restore};
pub use check::{Checked, check};
pub use token_floor::FloorOrigin;

/// What to do if the write-ahead log is damaged and durable commits cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DamagedLog {
    /// Do not open the database.
    #[default]
    Refuse,
    /// Go on without these commits.
    Discard,
}

/// An open database file.
#[derive(Debug)]
pub struct SqliteBackend {
    db: Connection,
    /// How long `db` waits for another process that has the database locked.
    busy_timeout: Duration,
    /// The database and its write-ahead log.
    files: [FileIdentity; 2],
    /// The batch of a commit that has found the database locked.
    staged: Option<Staged>,
    log: ChangeLog,
    /// Values that are gone and have elements in the table.
    leftovers: VecDeque<i64>,
    log_changes_max: usize,
    /// The capacity for the text of the next commit, estimated from the last one.
    text_bytes: usize,
    checkpoints: Checkpoints,
    /// Dropped after the database is closed.
    lock_file: LockFile,
}

impl SqliteBackend {
    /// Opens or creates the database at `path`. Fails if the file is damaged, foreign, newer, or in
    /// use by another server.
    pub fn open(path: &Path) -> Result<SqliteBackend, JournalError> {
        SqliteBackend::open_with(path, DamagedLog::Refuse)
    }

    fn has_maintenance(&self) -> bool {
        !self.log.is_empty() || !self.leftovers.is_empty()
    }

    fn set_busy_timeout(&mut self, timeout: Duration) -> Result<(), JournalError> {
        if self.busy_timeout != timeout {
            self.db
                .busy_timeout(timeout)
                .map_err(|error| fault("change the time to wait for locks", &error))?;
            self.busy_timeout = timeout;
        }
        Ok(())
    }

    /// Like [`SqliteBackend::open`], with a choice for a damaged write-ahead log.
    pub fn open_with(path: &Path, damaged_log: DamagedLog) -> Result<SqliteBackend, JournalError> {
        let path = &real(path)?;
        let lock_file = LockFile::acquire(path)?;
        let (db, files, checkpoints) = match open_locked(path, damaged_log) {
            Ok(opened) => opened,
            Err(error) => {
                lock_file.forget();
                return Err(error);
            }
        };
        lock_file.warn_of_mismatch(path);
        compiled::report(&db);
        Ok(SqliteBackend {
            db,
            busy_timeout: BUSY_TIMEOUT,
            files,
            staged: None,
            log: ChangeLog::default(),
            leftovers: VecDeque::new(),
            text_bytes: 0,
            log_changes_max: LOG_CHANGES_MAX,
            checkpoints,
            lock_file,
        })
    }
}

impl Backend for SqliteBackend {
    fn traits(&self) -> BackendTraits {
        BackendTraits::LOCAL
    }

    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        self.verify()?;
        self.set_busy_timeout(BUSY_TIMEOUT)?;
        self.staged = None;
        let Found { mut loaded, log, leftovers } = load::load(&mut self.db, boot, now, each)?;
        (self.log, self.leftovers) = (log, leftovers.into());
        loaded.tokens_reserved = loaded.tokens_reserved.max(self.lock_file.tokens_reserved());
        Ok(loaded)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        self.set_busy_timeout(BUSY_TIMEOUT)?;
        let written = self.write(batch);
        // After an error this batch is not committed again.
        self.staged = None;
        written
    }

    fn try_commit(&mut self, batch: &[Record]) -> Result<Attempt, JournalError> {
        self.set_busy_timeout(Duration::ZERO)?;
        match self.write(batch) {
            Err(JournalError::Locked) if self.staged.is_some() => Ok(Attempt::WouldBlock),
            written => written.map(|()| Attempt::Committed),
        }
    }

    fn verify(&mut self) -> Result<(), JournalError> {
        self.files.iter().try_for_each(FileIdentity::verify)?;
        self.lock_file.verify()
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        let failed = |error| fault("compact the change log", &error);
        self.verify_if_due()?;
        self.set_busy_timeout(BUSY_TIMEOUT)?;
        if self.has_maintenance() {
            let moving = Writing::begin(&self.db)?;
            let moved = plan_compaction(&mut self.log, &self.db, STEP)?;
            finish_step(&self.db, &moved)?;
            let is_clean = self.remove_leftovers(STEP)?;
            moving.commit()?;
            self.step_is_durable(Some(moved), is_clean);
            if !self.has_maintenance() {
                // Give the memory of a burst back to the system.
                self.db.execute_batch("PRAGMA shrink_memory").map_err(failed)?;
            }
        }
        Ok(self.has_maintenance())
    }
}

/// Changes a database as another program would.
#[cfg(test)]
pub(super) fn run_sql(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[cfg(test)]
mod tests;
