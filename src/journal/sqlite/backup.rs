//! Copies of a database: made beside a running server, and put back.
//!
//! Guarantees: a copy is one commit's state, whole or not there at all, and has been read back
//! before it gets its name. A database that is put back issues higher tokens than any server has
//! issued, whichever copy it is, if the clocks of the machines are right. Nothing is overwritten but
//! a copy by a newer one; a restore changes no copy. Not here: when to copy, and whether the records
//! make sense.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::fault::fault;
use super::load;
use super::lock_file::LockFile;
use super::open::{log_path, real};
use super::schema::{has_tables, prepare, refuse_foreign};
use super::token_floor::{self, FloorOrigin};
use super::wal_check;
use crate::clock::Clock;
use crate::journal::{JournalError, Loaded, Record};

/// Pages copied at once (256 KiB): few enough that a commit meanwhile is not delayed.
const PAGES_PER_STEP: i32 = 64;
/// Steps between two syncs, so that the disk never has to write much at once.
const STEPS_PER_SYNC: u32 = 16;
/// The copy pauses for this multiple of the time that its last step took.
const PAUSE_FACTOR: u32 = 3;

/// The whole state of a database.
#[derive(Debug)]
pub struct StoredState {
    /// As [`crate::journal::Backend::load`] passes them, with the stored deadlines.
    pub records: Vec<Record>,
    /// What there is besides.
    pub loaded: Loaded,
}

/// Whether a state makes sense; if not, why.
pub type Approve<'a> = &'a mut dyn FnMut(StoredState) -> Result<(), String>;

/// Copies `database`, which a server may be using, to `file`. The copy replaces another copy of that
/// name once `approve` has accepted it.
///
/// # Errors
///
/// If there is no such database, `file` is something other than a copy, or the copy is not good.
pub fn back_up(
    database: &Path,
    file: &Path,
    clock: &Clock,
    approve: Approve<'_>,
) -> Result<(), JournalError> {
    let database = existing(database)?;
    refuse_target(&database, file)?;
    let source = open_source(&database)?;
    let copy = Partial::create(file, ".partial")?;
    copy.fill(&source, Some(clock))?;
    let mut db = copy.open()?;
    approve(read_back(&mut db)?).map_err(JournalError::corrupt)?;
    copy.finish(db, file)
}

/// How the tokens of a restored database go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Tokens start above this one.
    pub tokens_above: i64,
    /// Where it comes from.
    pub origin: FloorOrigin,
}

/// Makes the copy in `file` the database at `database`. `token_floor` is a token above all that were
/// issued, if the operator knows one; the time of `clock` leads to another. The next start gives
/// every lease its full TTL.
///
/// # Errors
///
/// If there is a database already, a server uses it, the copy is not good, or tokens could repeat.
/// Then nothing has changed.
pub fn restore(
    file: &Path,
    database: &Path,
    token_floor: Option<i64>,
    clock: &Clock,
    approve: Approve<'_>,
) -> Result<Restored, JournalError> {
    let (file, database) = (existing(file)?, real(database)?);
    for path in [database.clone(), log_path(&database)] {
        if std::fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
            return Err(refused(format!("{} exists; move it away first", path.display())));
        }
    }
    let is_new = !database.exists();
    let mut lock_file = LockFile::acquire(&database)?;
    let restored = restore_locked(&file, &database, &mut lock_file, token_floor, clock, approve);
    if restored.is_err() {
        if is_new {
            // Empty, and made to be locked.
            let _ = std::fs::remove_file(&database);
        }
        lock_file.forget();
    }
    restored
}

fn restore_locked(
    file: &Path,
    database: &Path,
    lock_file: &mut LockFile,
    token_floor: Option<i64>,
    clock: &Clock,
    approve: Approve<'_>,
) -> Result<Restored, JournalError> {
    let source = open_source(file)?;
    let copy = Partial::create(database, ".restoring")?;
    copy.fill(&source, None)?;
    drop(source);
    let mut db = copy.open()?;
    let state = read_back(&mut db)?;
    let reserved = state.loaded.tokens_reserved;
    approve(state).map_err(JournalError::corrupt)?;
    let known = reserved.max(lock_file.tokens_reserved());
    let (tokens_above, origin) =
        token_floor::choose(token_floor, known, clock.wall_millis()).map_err(refused)?;
    db.execute("UPDATE octostore SET tokens_reserved = ?1, boot_id = NULL", [tokens_above])
        .map_err(|error| fault("write the tokens", &error))?;
    lock_file.reserve(tokens_above)?;
    copy.finish(db, database)?;
    Ok(Restored { tokens_above, origin })
}

fn refused(what: String) -> JournalError {
    JournalError::Path { what }
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> JournalError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => JournalError::Full,
        _ => JournalError::Io { what: format!("cannot {doing} {}: {error}", path.display()) },
    }
}

/// The path of a database that exists, without links.
pub(super) fn existing(path: &Path) -> Result<PathBuf, JournalError> {
    match real(path)? {
        found if found.exists() => Ok(found),
        found => Err(refused(format!("there is no database {}", found.display()))),
    }
}

/// Refuses to replace what is not a copy.
fn refuse_target(database: &Path, file: &Path) -> Result<(), JournalError> {
    let file = &real(file)?;
    if !file.exists() {
        return Ok(());
    }
    let mut lock_file = file.as_os_str().to_owned();
    lock_file.push(".lock");
    if file == database || Path::new(&lock_file).exists() {
        return Err(refused(format!("{} is the database of a server; name another file", file.display())));
    }
    refuse_foreign(&open_reading(file)?)
}

/// Opens a database of octostore to be read, whether or not a server uses it.
pub(super) fn open_source(path: &Path) -> Result<Connection, JournalError> {
    // While a server writes the log, it cannot be checked, and need not be.
    let damage = match is_served(path)? {
        true => None,
        false => wal_check::find_damage(path).map_err(|error| failed("check the log of", path, &error))?,
    };
    if let Some(wal_check::Damage { what, commits }) = damage {
        return Err(JournalError::DamagedLog { what, commits });
    }
    let db = open_reading(path)?;
    refuse_foreign(&db)?;
    refuse_part(path, &db)?;
    Ok(db)
}

/// Refuses what is left of a file whose copying ended early, if SQLite takes it for a whole one.
fn refuse_part(path: &Path, db: &Connection) -> Result<(), JournalError> {
    if !has_tables(db)? {
        return Err(JournalError::corrupt("the file is empty"));
    }
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    // Beside a log, the file may end anywhere: the log has the rest.
    if size(&log_path(path)) > 0 {
        return Ok(());
    }
    let page_size: u32 = db
        .pragma_query_value(None, "page_size", |row| row.get(0))
        .map_err(|error| fault("open the database", &error))?;
    match size(path) {
        bytes if bytes.is_multiple_of(page_size.into()) => Ok(()),
        bytes => Err(JournalError::corrupt(format!(
            "the file ends within a page, after {bytes} bytes: its end is missing"
        ))),
    }
}

fn open_reading(path: &Path) -> Result<Connection, JournalError> {
    let check = |error| fault("open the database", &error);
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(check)?;
    // The log is left to the server.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(check)?;
    Ok(db)
}

/// Whether a server has the database open.
fn is_served(path: &Path) -> Result<bool, JournalError> {
    let mut lock_file = path.as_os_str().to_owned();
    lock_file.push(".lock");
    let Ok(file) = File::open(lock_file) else { return Ok(false) };
    Ok(matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

/// Checks a copy as a whole, and reads it.
fn read_back(db: &mut Connection) -> Result<StoredState, JournalError> {
    if let Some(finding) = integrity_findings(db)?.into_iter().next() {
        return Err(JournalError::corrupt(finding));
    }
    let mut records = Vec::new();
    let loaded = load::read(db, &mut |record| records.push(record))?;
    Ok(StoredState { records, loaded })
}

/// What SQLite's own check finds.
pub(super) fn integrity_findings(db: &Connection) -> Result<Vec<String>, JournalError> {
    let check = |error| fault("check the database", &error);
    let mut rows = db.prepare("PRAGMA integrity_check").map_err(check)?;
    let rows = rows.query_map([], |row| row.get::<_, String>(0)).map_err(check)?;
    let rows: Vec<String> = rows.collect::<Result<_, _>>().map_err(check)?;
    Ok(rows.into_iter().filter(|row| row != "ok").collect())
}

/// A copy that is not complete. Removed when dropped.
struct Partial {
    path: PathBuf,
    /// Locked: another process does not use the same name.
    file: File,
    /// It is complete: `path` may be another one.
    has_name: bool,
}

impl Partial {
    /// Makes an empty file beside `target`.
    fn create(target: &Path, suffix: &str) -> Result<Partial, JournalError> {
        let mut path = target.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| failed("make", &path, &error))?;
        if file.try_lock().is_err() {
            return Err(refused(format!("another process writes {}", path.display())));
        }
        // What an earlier one has left when it was killed.
        file.set_len(0).map_err(|error| failed("make", &path, &error))?;
        let partial = Partial { path, file, has_name: false };
        partial.remove_companions();
        Ok(partial)
    }

    /// Removes what SQLite may have left beside it.
    fn remove_companions(&self) {
        for suffix in ["-wal", "-shm", "-journal"] {
            let mut path = self.path.as_os_str().to_owned();
            path.push(suffix);
            let _ = std::fs::remove_file(path);
        }
    }

    fn open(&self) -> Result<Connection, JournalError> {
        let mut db = Connection::open(&self.path).map_err(|error| fault("open the copy", &error))?;
        prepare(&mut db)?;
        // One file, without a log beside it.
        let alone = |db: &Connection| db.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()));
        alone(&db).map_err(|error| fault("complete the copy", &error))?;
        Ok(db)
    }

    /// Copies the state that `source` has now, with pauses if there is a clock to measure them.
    fn fill(&self, source: &Connection, clock: Option<&Clock>) -> Result<(), JournalError> {
        let check = |error| fault("copy the database", &error);
        let mut db = Connection::open(&self.path).map_err(check)?;
        // The file is synced here.
        db.execute_batch("PRAGMA synchronous = OFF").map_err(check)?;
        // One state for all steps: otherwise, each commit of the server would start the copy again.
        source.execute_batch("BEGIN").map_err(check)?;
        source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(check)?;
        let copying = Backup::new(source, &mut db).map_err(check)?;
        for step in 1.. {
            let began = clock.map(Clock::now);
            match copying.step(PAGES_PER_STEP).map_err(check)? {
                StepResult::Done => break,
                // Locked for a moment.
                StepResult::Busy | StepResult::Locked => std::thread::sleep(Duration::from_millis(10)),
                _ => {}
            }
            if step % STEPS_PER_SYNC == 0 {
                self.file.sync_data().map_err(|error| failed("write", &self.path, &error))?;
            }
            if let (Some(clock), Some(began)) = (clock, began) {
                let took = Duration::from_nanos(clock.now().nanos_since(began));
                std::thread::sleep(took * PAUSE_FACTOR);
            }
        }
        drop(copying);
        source.execute_batch("COMMIT").map_err(check)
    }

    /// Gives the copy its name, durably.
    fn finish(mut self, db: Connection, target: &Path) -> Result<(), JournalError> {
        db.close().map_err(|(_, error)| fault("complete the copy", &error))?;
        self.file.sync_all().map_err(|error| failed("write", &self.path, &error))?;
        std::fs::rename(&self.path, target).map_err(|error| failed("write", target, &error))?;
        self.has_name = true;
        let folder = target.parent().filter(|folder| !folder.as_os_str().as_bytes().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("write", folder, &error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename, another process may be using the path. A file that stays is written over.
        if !self.has_name {
            self.remove_companions();
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
