//! The file beside a database that one server at a time can hold, and that stores the highest
//! reserved token.
//!
//! Guarantees: while a [`LockFile`] lives, no other process gets one for the same path; on Linux,
//! none for the same database under any path, even if the lock file is removed. A restored old copy
//! of the database issues no token twice, because the highest reserved token is stored here, too.
//! Not here: the content of the database.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::file_identity::FileIdentity;
use crate::journal::JournalError;

/// The held file.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    /// The database file, locked as well.
    database: Option<File>,
    identity: FileIdentity,
    path: PathBuf,
    tokens_reserved: i64,
    /// The lock file was empty before.
    is_new: bool,
    /// The database was not empty before.
    had_database: bool,
}

/// A longer file is not a lock file; the rest of it is not read.
const BYTES_MAX: u64 = 1024;

fn fault(doing: &str, path: &Path, error: &io::Error) -> JournalError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::Full,
        io::ErrorKind::ReadOnlyFilesystem => JournalError::ReadOnly,
        _ => JournalError::Io { what: format!("cannot {doing} {}: {error}", path.display()) },
    }
}

fn field<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn lock(file: &File, path: &Path, text: &str) -> Result<(), JournalError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(JournalError::InUse { process: field(text, "process") })
        }
        Err(std::fs::TryLockError::Error(error)) => Err(fault("lock", path, &error)),
    }
}

/// Locks the database file, where such a lock is independent of SQLite's locks on ranges of it. The
/// file must stay open while SQLite has it open, because closing it would drop SQLite's locks.
fn lock_database(path: &Path, text: &str) -> Result<Option<File>, JournalError> {
    if cfg!(not(target_os = "linux")) {
        return Ok(None);
    }
    let file = open(path)?;
    lock(&file, path, text)?;
    Ok(Some(file))
}

fn read(file: &mut File, path: &Path) -> Result<String, JournalError> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(|error| fault("read", path, &error))?;
    // A loss of power may leave zeros in a new file.
    Ok(String::from_utf8_lossy(&bytes).trim_matches('\0').to_owned())
}

fn refuse_foreign(text: &str, path: &Path) -> Result<(), JournalError> {
    if text.is_empty() || field::<i64>(text, "tokens_reserved").is_some() {
        return Ok(());
    }
    let what =
        format!("{} is not a lock file of octostore; remove it, or choose another --data", path.display());
    Err(JournalError::Path { what })
}

fn open(path: &Path) -> Result<File, JournalError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    opened.map_err(|error| fault("open", path, &error))
}

impl LockFile {
    /// Acquires the file beside `database`: its name with `.lock` appended.
    pub(super) fn acquire(database: &Path) -> Result<LockFile, JournalError> {
        let had_database = std::fs::metadata(database).is_ok_and(|file| file.len() > 0);
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let mut file = open(&path)?;
        let text = &read(&mut file, &path)?;
        lock(&file, &path, text)?;
        refuse_foreign(text, &path)?;
        let tokens_reserved = field(text, "tokens_reserved").unwrap_or(0);
        let (is_new, database) = (text.is_empty(), lock_database(database, text)?);
        let identity = FileIdentity::of(&path).map_err(|error| fault("look at", &path, &error))?;
        let mut lock_file =
            LockFile { file, database, identity, path, tokens_reserved, is_new, had_database };
        lock_file.write()?;
        Ok(lock_file)
    }

    /// Warns if the database and this file do not belong together. Call it once the database is
    /// known to be one of octostore.
    pub(super) fn warn_of_mismatch(&self, database: &Path) {
        if self.had_database && self.is_new {
            tracing::warn!(
                database = %database.display(),
                "there was no {} beside the database: if this is an old copy, tokens issued since may be issued again; \
                 start with --token-floor above them",
                self.path.display()
            );
        }
        if !self.had_database && self.tokens_reserved > 0 {
            tracing::warn!(
                database = %database.display(),
                "the database that was here is gone, and its locks with it; tokens go on above those it issued"
            );
        }
    }

    /// Restores the file if it was removed and the lock on the database has kept other servers out
    /// meanwhile; fails if there is no such lock.
    pub(super) fn verify(&mut self) -> Result<(), JournalError> {
        let Err(error) = self.identity.verify() else { return Ok(()) };
        let JournalError::Replaced { what } = &error else { return Err(error) };
        if self.database.is_none() {
            return Err(error);
        }
        let mut file = open(&self.path)?;
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            // Another server is trying to start; the lock on the database refuses it. The next
            // check restores the file.
            return Ok(());
        }
        refuse_foreign(&read(&mut file, &self.path)?, &self.path)?;
        tracing::warn!("{what}; restoring it");
        self.identity = FileIdentity::of(&self.path).map_err(|error| fault("look at", &self.path, &error))?;
        self.file = file;
        self.write()
    }

    /// Removes the file if it was new: the database beside it is not one of octostore.
    pub(super) fn forget(self) {
        if self.is_new {
            // A file that stays does no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// The highest reserved token that this file has seen.
    pub(super) fn tokens_reserved(&self) -> i64 {
        self.tokens_reserved
    }

    /// Stores durably that tokens up to `upto` may be issued.
    pub(super) fn reserve(&mut self, upto: i64) -> Result<(), JournalError> {
        if upto > self.tokens_reserved {
            self.tokens_reserved = upto;
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), JournalError> {
        // The length is fixed, so that the file is overwritten in place and never gets shorter.
        let (process, tokens) = (std::process::id(), self.tokens_reserved);
        let text = format!("process {process:>20}\ntokens_reserved {tokens:>20}\n");
        let written = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(text.as_bytes()))
            .and_then(|()| self.file.sync_data());
        written.map_err(|error| fault("write", &self.path, &error))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // A process that another thread is just starting has duplicates of the descriptors until it
        // executes its program, so that closing them here would not release the locks.
        for file in [Some(&self.file), self.database.as_ref()].into_iter().flatten() {
            let _ = file.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_exclusive_and_tokens_persist() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("db");
        let mut held = LockFile::acquire(&database).unwrap();
        let process = Some(std::process::id());
        assert_eq!(LockFile::acquire(&database).unwrap_err(), JournalError::InUse { process });
        held.reserve(4096).unwrap();
        held.reserve(17).unwrap();
        drop(held);
        assert_eq!(LockFile::acquire(&database).unwrap().tokens_reserved(), 4096);
        let held = LockFile::acquire(&database).unwrap();
        std::fs::remove_file(dir.path().join("db.lock")).unwrap();
        if cfg!(target_os = "linux") {
            let refused = LockFile::acquire(&database).unwrap_err();
            assert!(
                matches!(refused, JournalError::InUse { .. }),
                "the database itself is locked: {refused}"
            );
        }
        drop(held);
        std::fs::write(dir.path().join("db.lock"), b"\0\0\0").unwrap();
        assert_eq!(LockFile::acquire(&database).unwrap().tokens_reserved(), 0);
    }

    #[test]
    fn a_foreign_file_is_refused_and_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("Cargo.lock");
        for content in ["version = 4\n", "\u{fffd}"] {
            std::fs::write(&theirs, content).unwrap();
            let refused = LockFile::acquire(&dir.path().join("Cargo")).unwrap_err();
            assert!(matches!(refused, JournalError::Path { .. }), "{refused}");
            assert_eq!(std::fs::read_to_string(&theirs).unwrap(), content);
        }
    }

    #[test]
    fn a_refused_database_gets_no_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        let notes = dir.path().join("notes");
        let text = "just text, long enough to be no database of any kind".repeat(20);
        std::fs::write(&notes, &text).unwrap();
        crate::journal::SqliteBackend::open(&notes).unwrap_err();
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!((left, std::fs::read_to_string(&notes).unwrap()), (vec!["notes".into()], text));
    }
}
