//! A write transaction.
//!
//! Guarantees: it is rolled back unless it is committed. Not here: what is written.

use rusqlite::Connection;

use super::fault::fault;
use crate::journal::JournalError;

/// An open transaction. Its statements are prepared once: parsing them takes longer than a small
/// commit.
pub(super) struct Writing<'db> {
    db: &'db Connection,
    is_over: bool,
}

impl Writing<'_> {
    pub(super) fn begin(db: &Connection) -> Result<Writing<'_>, JournalError> {
        run(db, "BEGIN IMMEDIATE").map_err(|error| fault("begin a commit", &error))?;
        Ok(Writing { db, is_over: false })
    }

    pub(super) fn commit(mut self) -> Result<(), JournalError> {
        run(self.db, "COMMIT").map_err(|error| fault("commit", &error))?;
        self.is_over = true;
        Ok(())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_over && !self.db.is_autocommit() {
            // If this fails too, the state is loaded again before anything is written.
            let _ = run(self.db, "ROLLBACK");
        }
    }
}

fn run(db: &Connection, sql: &str) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute([]).map(drop)
}
