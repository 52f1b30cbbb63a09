//! Errors of SQLite as errors of the journal.

use rusqlite::ErrorCode;

use crate::journal::JournalError;

/// The journal's error for an error that SQLite returned while `doing` something.
pub(super) fn fault(doing: &str, error: &rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full,
        Some(ErrorCode::ReadOnly) => JournalError::ReadOnly,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Locked,
        Some(ErrorCode::DatabaseCorrupt) => JournalError::corrupt(error),
        Some(ErrorCode::NotADatabase) => JournalError::Foreign,
        _ => JournalError::Io { what: format!("cannot {doing}: {error}") },
    }
}
