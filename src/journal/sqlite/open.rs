//! Opening a database file.
//!
//! Guarantees: two paths to one file are one database; the write-ahead log is checked before SQLite
//! reads it, because SQLite cuts off what it cannot read. Not here: tables and pragmas.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::DamagedLog;
use super::checkpoint::{Checkpoints, lengthen_log};
use super::fault::fault;
use super::file_identity::FileIdentity;
use super::schema::{prepare, refuse_foreign};
use super::wal_check;
use crate::journal::JournalError;

/// How long another process may keep the database locked before a commit fails.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn open_locked(
    path: &Path,
    damaged_log: DamagedLog,
) -> Result<(Connection, [FileIdentity; 2], Checkpoints), JournalError> {
    let failed =
        |doing: &str, error: io::Error| JournalError::Io { what: format!("cannot {doing}: {error}") };
    let damage = wal_check::find_damage(path).map_err(|error| failed("check the write-ahead log", error))?;
    if let (Some(wal_check::Damage { what, commits }), DamagedLog::Refuse) = (&damage, damaged_log) {
        return Err(JournalError::DamagedLog { what: what.clone(), commits: *commits });
    }
    let mut db = Connection::open(path).map_err(|error| fault("open the database", &error))?;
    refuse_foreign(&db)?;
    if let Some(wal_check::Damage { what, commits }) = damage {
        tracing::warn!(database = %path.display(), "{what}: going on without {commits} commits, as --accept-damaged-log demands");
        discard_log(&db)?;
    }
    prepare(&mut db)?;
    lengthen_log(path).map_err(|error| failed("lengthen the write-ahead log", error))?;
    let identify =
        |path: &Path| FileIdentity::of(path).map_err(|error| failed("look at the database", error));
    let files = [identify(path)?, identify(&log_path(path))?];
    let checkpoints = Checkpoints::start(path, &files[0], &mut db)?;
    Ok((db, files, checkpoints))
}

/// The path of a database's write-ahead log.
pub(super) fn log_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// The path without links.
pub(super) fn real(path: &Path) -> Result<PathBuf, JournalError> {
    if path.as_os_str().is_empty() {
        return Err(JournalError::Path { what: "the name of a file is empty; give one".to_owned() });
    }
    match std::fs::canonicalize(path) {
        Ok(path) if path.is_dir() => {
            let what = format!("{} is a directory; name a file in it", path.display());
            Err(JournalError::Path { what })
        }
        Ok(path) if !path.is_file() => {
            // A device or a pipe stores nothing, and must get no files beside it.
            let what = format!("{} is not a regular file; name one, or --durability memory", path.display());
            Err(JournalError::Path { what })
        }
        Ok(path) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A new file. Through a dangling link, its lock file would get another name than its
            // own.
            if path.is_symlink() {
                let what = format!("{} is a link to nothing", path.display());
                return Err(JournalError::Path { what });
            }
            match path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
                Some(parent) => {
                    let what = format!("there is no directory {}; make it first", parent.display());
                    Err(JournalError::Path { what })
                }
                None => Ok(path.to_owned()),
            }
        }
        Err(error) => Err(JournalError::Io { what: format!("cannot open {}: {error}", path.display()) }),
    }
}

/// Moves the readable part of the log into the database and empties the log: the unreadable part
/// must not be found again behind later commits.
fn discard_log(db: &Connection) -> Result<(), JournalError> {
    let is_busy: bool = db
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(|error| fault("empty the write-ahead log", &error))?;
    if is_busy { Err(JournalError::Locked) } else { Ok(()) }
}
