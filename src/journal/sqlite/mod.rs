//! The default backend: one SQLite file, readable with any SQLite tool while the server runs.
//!
//! Promise: `commit` returns after the write-ahead log is synced. What happens to leases in one commit is one row of the table
//! `changes`, so that a commit writes few pages, whatever it holds; rows move on into the table `held` later, the last state
//! of each lease only. The view `leases` shows the sum of both. This folder is the only place that names rusqlite.
//! Absent: an index on names (the table in memory has it).

mod backlog;
mod changes;
mod checkpoints;
mod compiled;
mod log_check;
mod recovered;
mod rows;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use self::backlog::{Backlog, Move};
use self::changes::ChangesText;
use self::checkpoints::{Checkpoints, lengthen_log};
use super::file_identity::FileIdentity;
use super::lock_file::LockFile;
use super::{Attempt, Backend, JournalError, Loaded, Record};
use crate::domain::Timestamp;

const SCHEMA_VERSION: i64 = 1;
/// Marks the file as ours ("octo"), for `file` and for refusing what is not.
const APPLICATION_ID: i64 = 0x6f63_746f;
/// How long another process may keep the database locked before that is an error.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
CREATE TABLE octostore (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema_version INTEGER NOT NULL,
    tokens_reserved INTEGER NOT NULL,
    boot_id TEXT,
    secret BLOB NOT NULL
) STRICT;
CREATE TABLE held (
    token INTEGER PRIMARY KEY,
    db INTEGER NOT NULL,
    key BLOB NOT NULL,
    owner BLOB NOT NULL,
    holders_max INTEGER, -- 1: exclusive; NULL: shared
    ttl_ms INTEGER,
    lasts_ms INTEGER, -- the TTL by which the deadline was last set
    deadline_ns INTEGER,
    granted_ns INTEGER NOT NULL,
    renewals INTEGER NOT NULL,
    max_hold_ms INTEGER,
    delay_ms INTEGER,
    delay_always INTEGER NOT NULL, -- 1: the delay is due after a clean end, too
    session TEXT,
    counted_by TEXT,
    account TEXT,
    meta TEXT,
    addr TEXT,
    client_name TEXT
) STRICT;
CREATE TABLE changes (
    row INTEGER PRIMARY KEY,
    leases TEXT NOT NULL
) STRICT;
CREATE TABLE delays (
    db INTEGER NOT NULL,
    key BLOB NOT NULL,
    until_ns INTEGER NOT NULL,
    length_ms INTEGER NOT NULL,
    PRIMARY KEY (db, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    account TEXT,
    ttl_ms INTEGER,
    deadline_ns INTEGER
) STRICT, WITHOUT ROWID;
";

/// What tools read. It is made again whenever its text is another one: it holds no data.
///
/// Keys and owners that are no text are arrays of bytes in `changes`. `unhex` would be simpler, and is
/// missing before SQLite 3.41.
const VIEW: &str = "\
CREATE VIEW leases AS
    WITH change AS (
        SELECT iif(c.type = 'array', json_extract(c.value, '$[0]'), c.value) AS token, c.value,
            iif(c.type = 'array', json_array_length(c.value), 0) AS length, changes.row * 16777216 + c.key AS place
        FROM changes, json_each(changes.leases) c),
    renewed AS (
        SELECT token, json_extract(value, '$[1]') AS deadline_ns, json_extract(value, '$[2]') AS lasts_ms,
            json_extract(value, '$[3]') AS renewals, max(place)
        FROM change WHERE length = 4 GROUP BY token),
    bytes AS (SELECT x'\
000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\
202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f\
404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f\
606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f\
808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f\
a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf\
c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf\
e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff' AS each),
    named AS (
        SELECT value, length,
            iif(json_type(value, '$[2]') = 'array',
                (SELECT CAST(group_concat(substr(each, b.value + 1, 1), '') AS BLOB)
                    FROM json_each(change.value, '$[2]') b, bytes),
                CAST(json_extract(value, '$[2]') AS BLOB)) AS key,
            iif(json_type(value, '$[3]') = 'array',
                (SELECT CAST(group_concat(substr(each, b.value + 1, 1), '') AS BLOB)
                    FROM json_each(change.value, '$[3]') b, bytes),
                CAST(json_extract(value, '$[3]') AS BLOB)) AS owner
        FROM change WHERE length > 4),
    lease AS (
        SELECT * FROM held WHERE token NOT IN (SELECT token FROM change WHERE length > 4)
        UNION ALL
        SELECT
            json_extract(value, '$[0]'), json_extract(value, '$[1]'), key, owner, json_extract(value,
            '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value,
            '$[7]'), json_extract(value, '$[8]'), json_extract(value, '$[9]'), json_extract(value,
            '$[10]'), json_extract(value, '$[11]'), json_extract(value, '$[12]'),
            json_extract(value, '$[13]'), json_extract(value, '$[14]'), json_extract(value, '$[15]'),
            json_extract(value, '$[16]'), json_extract(value, '$[17]'), json_extract(value, '$[18]')
        FROM named WHERE length = 19
        UNION ALL
        SELECT
            json_extract(value, '$[0]'), json_extract(value, '$[1]'), key, owner, 1, json_extract(value,
            '$[5]'), json_extract(value, '$[5]'), json_extract(value, '$[4]') + 1000000 * json_extract(value,
            '$[5]'), json_extract(value, '$[4]'), 0, NULL, NULL, 0, NULL, NULL, NULL, NULL,
            json_extract(value, '$[6]'), json_extract(value, '$[7]')
        FROM named WHERE length = 8)
    SELECT
        l.token, l.db, l.key, l.owner, l.holders_max, l.ttl_ms,
        iif(r.token IS NULL, l.lasts_ms, r.lasts_ms) AS lasts_ms,
        iif(r.token IS NULL, l.deadline_ns, r.deadline_ns) AS deadline_ns, l.granted_ns,
        coalesce(r.renewals, l.renewals) AS renewals,
        l.max_hold_ms, l.delay_ms, l.delay_always, l.session, l.counted_by, l.account, l.meta, l.addr, l.client_name
    FROM lease l LEFT JOIN renewed r ON r.token = l.token
    WHERE l.token NOT IN (SELECT token FROM change WHERE length = 0)";

/// Changes in `changes` from which on they move into `held`: fewer cost a burst of new locks a third of its speed. As many as a
/// hash map holds before it doubles once more.
const BACKLOG_CHANGES_MAX: usize = (1 << 18) / 8 * 7;
/// The same in bytes.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Leases that a commit moves at least, when it moves any.
const SWEEP_MIN: usize = 16;
/// Leases moved in one step when nothing else is to be done.
const CHANGES_PER_STEP: usize = 2_048;

/// Pages of the database kept in memory, in KiB.
const CACHE_KIB: i64 = 2_048;

/// What to do where the log is so damaged that durable commits cannot be read.
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
    /// The database and its log.
    files: [FileIdentity; 2],
    /// What a commit is to write, from before it found the database locked.
    staged: Option<Staged>,
    backlog: Backlog,
    backlog_changes_max: usize,
    /// Room for the text of the next commit, by the last one.
    text_bytes: usize,
    checkpoints: Checkpoints,
    /// Dropped after the database is closed.
    lock_file: LockFile,
}

impl SqliteBackend {
    /// Opens the database at `path`, or makes it. Fails on files that are damaged, foreign, newer, or in use by another
    /// server.
    pub fn open(path: &Path) -> Result<SqliteBackend, JournalError> {
        SqliteBackend::open_with(path, DamagedLog::Refuse)
    }

    /// [`SqliteBackend::open`], even if durable commits in the log cannot be read.
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
            files,
            staged: None,
            backlog: Backlog::default(),
            text_bytes: 0,
            backlog_changes_max: BACKLOG_CHANGES_MAX,
            checkpoints,
            lock_file,
        })
    }
}

fn open_locked(
    path: &Path,
    damaged_log: DamagedLog,
) -> Result<(Connection, [FileIdentity; 2], Checkpoints), JournalError> {
    let failed =
        |doing: &str, error: io::Error| JournalError::Io { what: format!("cannot {doing}: {error}") };
    // Before SQLite opens the log: it cuts off what it cannot read.
    let damage = log_check::find_damage(path).map_err(|error| failed("check the write-ahead log", error))?;
    if let (Some(log_check::Damage { what, commits }), DamagedLog::Refuse) = (&damage, damaged_log) {
        return Err(JournalError::DamagedLog { what: what.clone(), commits: *commits });
    }
    let mut db = Connection::open(path).map_err(|error| fault("open the database", &error))?;
    refuse_foreign(&db)?;
    if let Some(log_check::Damage { what, commits }) = damage {
        tracing::warn!(database = %path.display(), "{what}: going on without {commits} commits, as told");
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

/// The write-ahead log of a database.
fn log_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// The file that a path leads to, through links, so that two paths to one file are one.
fn real(path: &Path) -> Result<PathBuf, JournalError> {
    match std::fs::canonicalize(path) {
        Ok(path) if path.is_dir() => {
            let what = format!("{} is a directory; name a file in it", path.display());
            Err(JournalError::Path { what })
        }
        Ok(path) if !path.is_file() => {
            // A device or a pipe keeps nothing, and nothing is to be left beside it.
            let what = format!("{} is not a regular file; name one, or --durability memory", path.display());
            Err(JournalError::Path { what })
        }
        Ok(path) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Nothing is there yet, or a link to nothing: its target would get a lock file under another name.
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

/// Refuses databases of other programs, before anything is written.
fn refuse_foreign(db: &Connection) -> Result<(), JournalError> {
    let check = |error| fault("open the database", &error);
    db.busy_timeout(BUSY_TIMEOUT).map_err(check)?;
    let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(check)?;
    match has_tables(db)? && application != APPLICATION_ID {
        true => Err(JournalError::Foreign),
        false => Ok(()),
    }
}

fn has_tables(db: &Connection) -> Result<bool, JournalError> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(|error| fault("open the database", &error))
}

/// Moves what can be read of the log into the database, and empties it: what cannot be read must not be
/// found again behind what is written next.
fn discard_log(db: &Connection) -> Result<(), JournalError> {
    let is_busy: bool = db
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(|error| fault("empty the write-ahead log", &error))?;
    if is_busy { Err(JournalError::Locked) } else { Ok(()) }
}

/// Sets and checks every pragma, and makes the tables.
fn prepare(db: &mut Connection) -> Result<(), JournalError> {
    let check = |error| fault("prepare the database", &error);
    db.set_prepared_statement_cache_capacity(32);
    let is_new = !has_tables(db)?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(check)?;
    if mode != "wal" {
        return Err(JournalError::Io { what: format!("the file system allows no write-ahead log ({mode})") });
    }
    // FULL syncs the log at every commit: what is acknowledged survives power loss.
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA locking_mode = NORMAL; PRAGMA foreign_keys = OFF")
        .map_err(check)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB).map_err(check)?;
    if is_new {
        let making = db.transaction().map_err(check)?;
        making.execute_batch(SCHEMA).map_err(check)?;
        making.execute_batch(VIEW).map_err(check)?;
        making.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}")).map_err(check)?;
        making
            .execute("INSERT INTO octostore VALUES (1, ?1, 0, NULL, randomblob(32))", [SCHEMA_VERSION])
            .map_err(check)?;
        making.commit().map_err(check)?;
    }
    let found: Option<i64> = db
        .query_row("SELECT schema_version FROM octostore", [], |row| row.get(0))
        .optional()
        .map_err(check)?;
    match found {
        Some(SCHEMA_VERSION) => {
            // Better not to start than to find out at the first lock that nothing can be written.
            db.execute("UPDATE octostore SET tokens_reserved = tokens_reserved", []).map_err(check)?;
            renew_view(db)
        }
        Some(found) if found > SCHEMA_VERSION => Err(JournalError::Newer { found, known: SCHEMA_VERSION }),
        found => Err(JournalError::Corrupt { what: format!("schema version {found:?}") }),
    }
}

/// Gives a database of an earlier version the view as it is now.
fn renew_view(db: &mut Connection) -> Result<(), JournalError> {
    let check = |error| fault("renew the view of leases", &error);
    let found: Option<String> = db
        .query_row("SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = 'leases'", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(check)?;
    if found.as_deref() == Some(VIEW) {
        return Ok(());
    }
    let renewing = db.transaction().map_err(check)?;
    renewing.execute_batch("DROP VIEW IF EXISTS leases").map_err(check)?;
    renewing.execute_batch(VIEW).map_err(check)?;
    renewing.commit().map_err(check)
}

/// What a commit writes, once it is known.
#[derive(Debug)]
struct Staged {
    /// The row of changes and its text, if there is one.
    row: Option<i64>,
    text: Vec<u8>,
    has_others: bool,
}

impl SqliteBackend {
    /// Enters a batch into the backlog.
    fn stage(&mut self, batch: &[Record]) -> Result<Staged, JournalError> {
        let mut text = ChangesText::with_capacity(self.text_bytes);
        let row = self.backlog.add(batch, &mut text);
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
            self.backlog.weigh_newest(text.len());
        }
        Ok(Staged { row, text, has_others })
    }

    /// Commits a batch, or what is staged of it. Only [`JournalError::Locked`] leaves it staged.
    fn write(&mut self, batch: &[Record]) -> Result<(), JournalError> {
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
        let is_full =
            self.backlog.changes() > self.backlog_changes_max || self.backlog.bytes() > BACKLOG_BYTES_MAX;
        // Fast enough to be through before as many changes have arrived again, and not faster: a lease that changes
        // meanwhile need not be written.
        let share = |leases| batch.len() * leases / self.backlog_changes_max + SWEEP_MIN;
        let to_move = self.backlog.sweeping().or(is_full.then_some(0)).map(share);
        let removal = to_move.is_none().then(|| self.backlog.plan_removal());
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
            None => plan_move(&mut self.backlog, &self.db, to_move.unwrap_or(SWEEP_MIN))?,
        };
        moved.last_row().map_or(Ok(()), |row| rows::remove_changes(&self.db, row)).map_err(failed)?;
        writing.map_or(Ok(()), Writing::commit)?;
        self.backlog.moved(moved);
        self.checkpoints.after_commit(&self.db);
        Ok(())
    }

    fn verify_if_due(&mut self) -> Result<(), JournalError> {
        if self.checkpoints.take_verification() { self.verify() } else { Ok(()) }
    }
}

impl Backend for SqliteBackend {
    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        self.verify()?;
        self.staged = None;
        let (mut loaded, backlog) = state::load(&mut self.db, boot, now, each)?;
        self.backlog = backlog;
        loaded.tokens_reserved = loaded.tokens_reserved.max(self.lock_file.tokens_reserved());
        Ok(loaded)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        let written = self.write(batch);
        // Whatever comes of an error, this batch does not come again.
        self.staged = None;
        written
    }

    fn try_commit(&mut self, batch: &[Record]) -> Result<Attempt, JournalError> {
        let failed = |error| fault("commit", &error);
        self.db.busy_timeout(Duration::ZERO).map_err(failed)?;
        let written = self.write(batch);
        self.db.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        match written {
            Err(JournalError::Locked) if self.staged.is_some() => Ok(Attempt::WouldBlock),
            written => written.map(|()| Attempt::Committed),
        }
    }

    fn verify(&mut self) -> Result<(), JournalError> {
        self.files.iter().try_for_each(FileIdentity::verify)?;
        self.lock_file.verify()
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        let failed = |error| fault("move changes", &error);
        self.verify_if_due()?;
        if !self.backlog.is_empty() {
            let moving = Writing::begin(&self.db)?;
            let moved = plan_move(&mut self.backlog, &self.db, CHANGES_PER_STEP)?;
            moved.last_row().map_or(Ok(()), |row| rows::remove_changes(&self.db, row)).map_err(failed)?;
            moving.commit()?;
            self.backlog.moved(moved);
            self.checkpoints.after_commit(&self.db);
            if self.backlog.is_empty() {
                // All is quiet: what a burst took goes back to the system.
                self.db.execute_batch("PRAGMA shrink_memory").map_err(failed)?;
            }
        }
        Ok(!self.backlog.is_empty())
    }
}

/// Moves changes of up to `most` leases into `held`.
fn plan_move(backlog: &mut Backlog, db: &Connection, most: usize) -> Result<Move, JournalError> {
    let failed = |error| fault("move changes", &error);
    let mut held = rows::Held::of(db).map_err(failed)?;
    backlog.plan_move(
        most,
        |row| changes::read(&rows::changes_of(db, row).map_err(failed)?),
        |token, change| held.write(token, change).map_err(failed),
    )
}

/// A transaction that is taken back unless it is committed. Its statements are prepared once: parsing them takes longer than a
/// small commit.
struct Writing<'db> {
    db: &'db Connection,
    is_over: bool,
}

impl Writing<'_> {
    fn begin(db: &Connection) -> Result<Writing<'_>, JournalError> {
        run(db, "BEGIN IMMEDIATE").map_err(|error| fault("begin a commit", &error))?;
        Ok(Writing { db, is_over: false })
    }

    fn commit(mut self) -> Result<(), JournalError> {
        run(self.db, "COMMIT").map_err(|error| fault("commit", &error))?;
        self.is_over = true;
        Ok(())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_over && !self.db.is_autocommit() {
            // If this fails, too, then the state is loaded again before anything is written.
            let _ = run(self.db, "ROLLBACK");
        }
    }
}

fn run(db: &Connection, sql: &str) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute([]).map(drop)
}

fn fault(doing: &str, error: &rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full,
        Some(ErrorCode::ReadOnly) => JournalError::ReadOnly,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Locked,
        Some(ErrorCode::DatabaseCorrupt) => rows::damaged(error),
        Some(ErrorCode::NotADatabase) => JournalError::Foreign,
        _ => JournalError::Io { what: format!("cannot {doing}: {error}") },
    }
}

/// Changes a database behind the server's back.
#[cfg(test)]
pub(super) fn run_sql(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::domain::{FencingToken, LockName, Owner, Ttl};
    use crate::journal::{Renewal, StoredLease};
    use crate::lock::{Lease, Mode, Origin};

    #[test]
    fn housekeeping_that_fails_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        let all = granted(1..6000);
        for batch in all.chunks(1000) {
            backend.commit(batch).unwrap();
        }
        // No page more for the file: as a full disk.
        let pages: i64 = backend.db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        backend.db.pragma_update(None, "max_page_count", pages).unwrap();
        let mut steps = 0;
        let failure = loop {
            match backend.maintain() {
                Ok(true) => steps += 1,
                end => break end,
            }
        };
        assert_eq!(failure, Err(JournalError::Full), "after {steps} steps");
        backend.db.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        while backend.maintain().unwrap() {}
        drop(backend);
        let mut found = Vec::new();
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
        assert!(found == all, "{} of {}", found.len(), all.len());
    }

    #[test]
    fn loading_writes_nothing_and_needs_no_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        for first in [1, 4000] {
            backend.commit(&granted(first..first + 3000)).unwrap();
            backend.maintain().unwrap();
        }
        drop(backend);
        let mut backend = SqliteBackend::open(&path).unwrap();
        let (mut found, before) = (0, backend.db.total_changes());
        backend.load(Some("b"), Timestamp::default(), &mut |_| found += 1).unwrap();
        assert_eq!((found, backend.db.total_changes()), (6000, before));
        assert!(!backend.backlog.is_empty(), "there was something to move");
        while backend.maintain().unwrap() {}
        assert_eq!(view(&path).len(), 6000);
    }

    #[test]
    fn what_is_over_stays_over_although_its_grant_is_still_in_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut backend = SqliteBackend::open(&path).unwrap();
        let load = |backend: &mut SqliteBackend| {
            let mut tokens = Vec::new();
            let mut each = |record| {
                if let Record::Granted(stored) = record {
                    tokens.push(stored.lease.token.get());
                }
            };
            backend.load(Some("b"), Timestamp::default(), &mut each).unwrap();
            tokens
        };
        load(&mut backend);
        let most = CHANGES_PER_STEP as i64 + 2;
        backend.commit(&granted(1..most + 1)).unwrap();
        // All but the last two are in `held`, and the row stays for those.
        assert_eq!(backend.maintain(), Ok(true));
        backend.commit(&[Record::Ended(FencingToken::new(1).unwrap())]).unwrap();
        for _ in 0..2 {
            drop(backend);
            backend = SqliteBackend::open(&path).unwrap();
            assert!(load(&mut backend) == (2..=most).collect::<Vec<_>>());
        }
        while backend.maintain().unwrap() {}
        assert!(load(&mut backend) == (2..=most).collect::<Vec<_>>());
    }

    #[test]
    fn a_reboot_gives_a_lease_the_length_of_a_renewal_that_was_not_moved() {
        let dir = tempfile::tempdir().unwrap();
        let mut backend = SqliteBackend::open(&dir.path().join("db")).unwrap();
        let load = |backend: &mut SqliteBackend, boot, now| {
            let mut found = Vec::new();
            backend.load(Some(boot), Timestamp::from_nanos(now), &mut |record| found.push(record)).unwrap();
            found
        };
        load(&mut backend, "first", 0);
        backend.commit(&[Record::Granted(lease(2, 4))]).unwrap();
        while backend.maintain().unwrap() {}
        let mut renewed = lease(2, 4);
        let effective_ttl = Ttl::from_millis(9).ok();
        let renewal = Renewal {
            deadline: Timestamp::from_nanos(6),
            effective_ttl,
            renewals: 1,
            token: renewed.lease.token,
        };
        backend.commit(&[Record::Renewed(renewal)]).unwrap();
        renewal.apply_to(&mut renewed.lease);
        renewed.lease.restart(Timestamp::from_nanos(1_000));
        assert_eq!(load(&mut backend, "second", 1_000), [Record::Granted(renewed)]);
        assert!(backend.backlog.is_empty());
    }

    #[test]
    fn rows_that_contradict_each_other_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let plain = r#"[1,0,"k","me",5,7,null,null]"#;
        for (row, held, first, second, boot) in [
            (0, false, plain, "[]", "b"),
            (1_i64 << 38, false, plain, "[]", "b"),
            (1, false, plain, plain, "b"),
            (1, false, "1", plain, "b"),
            (1, false, "[1,9,9,1]", "[]", "b"),
            (1, false, "[1,9,9,1]", "[]", "another"),
            (1, true, r#"[1,0,"other","me",5,7,null,null]"#, "[]", "b"),
            (1, true, r#"[1,0,"other","me",5,7,null,null]"#, "[]", "another"),
            (1, true, "1", "[1,9,9,1]", "b"),
        ] {
            let _ = std::fs::remove_file(&path);
            let mut backend = SqliteBackend::open(&path).unwrap();
            backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
            if held {
                backend.commit(&[Record::Granted(lease(1, 7))]).unwrap();
                while backend.maintain().unwrap() {}
            }
            drop(backend);
            let second = if second == "[]" { String::new() } else { format!(",({row} + 1, '[{second}]')") };
            run_sql(&path, &format!("INSERT INTO changes VALUES ({row}, '[{first}]'){second}"));
            let mut backend = SqliteBackend::open(&path).unwrap();
            let loaded = backend.load(Some(boot), Timestamp::default(), &mut |_| {});
            assert!(
                matches!(loaded, Err(JournalError::Corrupt { .. })),
                "{row} {held} {first} {second} {boot}"
            );
        }
    }

    #[test]
    fn a_table_out_of_order_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        backend.commit(&granted(1..6)).unwrap();
        while backend.maintain().unwrap() {}
        let root: u32 = backend
            .db
            .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'held'", [], |row| row.get(0))
            .unwrap();
        drop(backend);
        run_sql(&path, "INSERT INTO changes VALUES (1, '[3]'); PRAGMA wal_checkpoint(TRUNCATE)");
        let mut bytes = std::fs::read(&path).unwrap();
        let page = (root as usize - 1) * 4096;
        // A leaf: from byte 8 on it has the places of its cells, each the length of its row and then the token.
        assert_eq!(bytes[page], 13);
        let token = |cell: usize| {
            let place = page + 8 + 2 * cell;
            page + usize::from(u16::from_be_bytes([bytes[place], bytes[place + 1]])) + 1
        };
        let (second, fifth) = (token(1), token(4));
        assert_eq!((bytes[second], bytes[fifth]), (2, 5));
        bytes.swap(second, fifth);
        std::fs::write(&path, bytes).unwrap();
        let mut backend = SqliteBackend::open(&path).unwrap();
        let loaded = backend.load(Some("b"), Timestamp::default(), &mut |_| {});
        assert!(matches!(loaded, Err(JournalError::Corrupt { .. })), "{loaded:?}");
    }

    /// Keys and owners as the view has them, by token.
    fn names(path: &Path) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
        let db = Connection::open(path).unwrap();
        let mut rows = db.prepare("SELECT token, key, owner FROM leases ORDER BY token").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn the_view_shows_binary_keys_as_they_are_in_a_database_of_0_1_0_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        run_sql(&path, include_str!("../../../tests/it/data/binary_keys_0.1.0.sql"));
        assert_eq!(names(&path)[1].1, b"[255,254]", "as that version showed it");
        let mut backend = SqliteBackend::open(&path).unwrap();
        let expected = vec![
            (1, b"plain".to_vec(), b"worker".to_vec()),
            (2, vec![0xff, 0xfe], b"\0\x01\x80owner".to_vec()),
            (3, (0..=255).collect(), b"worker".to_vec()),
        ];
        let load = |backend: &mut SqliteBackend| {
            let mut found = Vec::new();
            let mut each = |record| {
                let Record::Granted(stored) = record else { panic!("not a lease: {record:?}") };
                let (key, owner) = (stored.name.key().to_vec(), stored.lease.owner.as_bytes().to_vec());
                found.push((stored.lease.token.get(), key, owner));
            };
            let boot = "2f9d9e6b-0d8c-4b6e-8f43-1f5a8f0c7a11";
            backend.load(Some(boot), Timestamp::default(), &mut each).unwrap();
            found
        };
        assert_eq!(names(&path), expected, "while they are in the rows of changes");
        assert_eq!(load(&mut backend), expected);
        while backend.maintain().unwrap() {}
        assert_eq!(names(&path), expected, "once they have moved");
        let other = Box::new(StoredLease {
            name: LockName::new(0, b"\0\xfe").unwrap(),
            lease: lease(9, 7).lease.clone(),
        });
        backend.commit(&[Record::Granted(other)]).unwrap();
        assert_eq!(names(&path)[3], (9, b"\0\xfe".to_vec(), b"\0\xff".to_vec()));
    }

    #[test]
    fn a_commit_that_must_not_wait_leaves_a_locked_database_to_one_that_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        backend.backlog_changes_max = 20;
        let other = Connection::open(&path).unwrap();
        let mut expected = 0;
        // One statement, several, and with changes on their way.
        let batches = [granted(1..3), vec![Record::TokensReserved(90)], granted(3..40), granted(40..60)];
        for batch in batches {
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            for _ in 0..2 {
                assert_eq!(backend.try_commit(&batch), Ok(Attempt::WouldBlock));
            }
            assert_eq!(view(&path).len(), expected);
            other.execute_batch("ROLLBACK").unwrap();
            backend.commit(&batch).unwrap();
            expected += batch.iter().filter(|record| record.is_of_a_lease()).count();
            assert_eq!(view(&path).len(), expected);
        }
        assert_eq!(backend.try_commit(&granted(60..61)), Ok(Attempt::Committed));
        let mut found = Vec::new();
        backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
        assert_eq!(found, granted(1..61));
    }

    #[test]
    fn a_server_whose_database_is_gone_stops_and_leaves_that_of_another_alone() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().join("db");
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        backend.commit(&granted(1..3)).unwrap();
        let files = ["db", "db-wal", "db-shm", "db.lock"];
        let move_all = |from: &Path, to: &Path| {
            files.iter().for_each(|file| std::fs::rename(from.join(file), to.join(file)).unwrap());
        };
        let is_replaced =
            |result: &Result<(), JournalError>| matches!(result, Err(JournalError::Replaced { .. }));
        for file in ["db", "db-wal"] {
            std::fs::rename(dir.path().join(file), elsewhere.path().join(file)).unwrap();
            assert!(is_replaced(&backend.verify()), "{file}");
            let loaded = backend.load(Some("b"), Timestamp::default(), &mut |_| {}).map(drop);
            assert!(is_replaced(&loaded), "{file}");
            std::fs::rename(elsewhere.path().join(file), dir.path().join(file)).unwrap();
            assert_eq!(backend.verify(), Ok(()), "{file} is back");
        }
        move_all(dir.path(), elsewhere.path());
        backend.checkpoints.demand_verification();
        assert!(is_replaced(&backend.commit(&granted(3..4))));
        let mut other = SqliteBackend::open(&path).unwrap();
        other.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        other.commit(&granted(7..8)).unwrap();
        assert!(is_replaced(&backend.verify()));
        drop(backend);
        other.commit(&granted(8..9)).unwrap();
        drop(other);
        for (path, expected) in [(path, 7..9), (elsewhere.path().join("db"), 1..3)] {
            let mut backend = SqliteBackend::open(&path).unwrap();
            let mut found = Vec::new();
            backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
            assert_eq!(found, granted(expected));
        }
    }

    #[test]
    fn a_log_that_is_removed_stops_the_server_and_its_commits_are_kept_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        backend.commit(&granted(1..9)).unwrap();
        std::fs::remove_file(log_path(&path)).unwrap();
        assert!(matches!(backend.verify(), Err(JournalError::Replaced { .. })));
        drop(backend);
        let mut backend = SqliteBackend::open(&path).unwrap();
        let mut found = Vec::new();
        backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
        assert_eq!(found, granted(1..9));
    }

    #[test]
    fn a_lock_file_that_is_removed_comes_back_while_the_database_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lock_file) = (dir.path().join("db"), dir.path().join("db.lock"));
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        backend.commit(&[Record::TokensReserved(4096)]).unwrap();
        std::fs::remove_file(&lock_file).unwrap();
        if cfg!(not(target_os = "linux")) {
            return assert!(matches!(backend.verify(), Err(JournalError::Replaced { .. })));
        }
        // What a second server leaves that finds the database locked.
        assert!(matches!(SqliteBackend::open(&path), Err(JournalError::InUse { .. })));
        assert_eq!(backend.verify(), Ok(()));
        assert!(std::fs::read_to_string(&lock_file).unwrap().contains(" 4096\n"));
        let process = Some(std::process::id());
        assert_eq!(SqliteBackend::open(&path).unwrap_err(), JournalError::InUse { process });
        std::fs::write(&lock_file, "").unwrap();
        std::fs::remove_file(&lock_file).unwrap();
        std::fs::write(&lock_file, "somebody's notes").unwrap();
        assert!(matches!(backend.verify(), Err(JournalError::Path { .. })));
        assert_eq!(std::fs::read_to_string(&lock_file).unwrap(), "somebody's notes");
    }

    /// A folder that needs no disk, where there is one.
    pub(super) fn in_memory() -> tempfile::TempDir {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
    }

    pub(super) fn granted(tokens: std::ops::Range<i64>) -> Vec<Record> {
        tokens.map(|token| Record::Granted(lease(token, 7))).collect()
    }

    /// Every other one is like most leases of a server.
    fn lease(token: i64, deadline: u64) -> Box<StoredLease> {
        let mut lease = Lease {
            owner: Owner::new(if token % 3 == 0 { b"\0\xff" } else { "w\"\u{1F512}".as_bytes() }).unwrap(),
            token: FencingToken::new(token).unwrap(),
            mode: Mode::Exclusive,
            ttl: None,
            effective_ttl: None,
            is_unacknowledged: false,
            deadline: Timestamp::from_nanos(deadline),
            granted_at: Timestamp::from_nanos(1),
            renewals: 0,
            origin: None,
            extra: None,
        };
        if token % 2 == 0 {
            lease.ttl = Ttl::from_millis(deadline + 1).ok();
            lease.effective_ttl = lease.ttl;
            lease.restart(Timestamp::from_nanos(deadline));
            lease.origin = Some(Arc::new(Origin { addr: "127.0.0.1:1".into(), client_name: "c".into() }));
        }
        Box::new(StoredLease { name: LockName::new(0, token.to_string().as_bytes()).unwrap(), lease })
    }

    /// What tools read of a lease.
    #[derive(Debug, PartialEq)]
    struct Shown {
        token: i64,
        deadline: i64,
        granted: i64,
        ttl: Option<u32>,
        effective_ttl: Option<u32>,
        renewals: u32,
        addr: Option<String>,
    }

    impl Shown {
        fn of(lease: &Lease) -> Shown {
            Shown {
                token: lease.token.get(),
                deadline: lease.deadline.to_stored().unwrap(),
                granted: lease.granted_at.to_stored().unwrap(),
                ttl: lease.ttl.map(Ttl::as_millis),
                effective_ttl: lease.effective_ttl.map(Ttl::as_millis),
                renewals: lease.renewals,
                addr: lease.origin.as_ref().map(|origin| origin.addr.clone()),
            }
        }
    }

    /// Every row of the view.
    fn view(path: &Path) -> Vec<Shown> {
        let db = Connection::open(path).unwrap();
        let mut rows = db
            .prepare("SELECT token, deadline_ns, granted_ns, ttl_ms, lasts_ms, renewals, addr FROM leases ORDER BY token")
            .unwrap();
        let rows = rows.query_map([], |row| {
            Ok(Shown {
                token: row.get(0)?,
                deadline: row.get(1)?,
                granted: row.get(2)?,
                ttl: row.get(3)?,
                effective_ttl: row.get(4)?,
                renewals: row.get(5)?,
                addr: row.get(6)?,
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn the_view_and_a_restart_show_the_same_wherever_the_changes_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut random = 1u64;
        let mut below = |bound: usize| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 33) as usize % bound
        };
        let mut expected: BTreeMap<i64, Box<StoredLease>> = BTreeMap::new();
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        backend.backlog_changes_max = 20;
        let mut next = 8;
        for step in 0..400 {
            let mut batch = Vec::new();
            for _ in 0..below(8) {
                let known = expected.keys().nth(below(expected.len().max(1))).copied();
                match (below(3), known) {
                    (1, Some(token)) => {
                        let stored = expected.get_mut(&token).unwrap();
                        let renewal = Renewal {
                            token: stored.lease.token,
                            deadline: Timestamp::from_nanos(step),
                            effective_ttl: Ttl::from_millis(step + 1).ok(),
                            renewals: stored.lease.renewals + 1,
                        };
                        batch.push(Record::Renewed(renewal));
                        renewal.apply_to(&mut stored.lease);
                    }
                    (2, Some(token)) => {
                        batch.push(Record::Ended(FencingToken::new(token).unwrap()));
                        expected.remove(&token);
                    }
                    _ => {
                        // Requests that run at the same time may be recorded in another order than that of
                        // their tokens.
                        let token = next ^ 7;
                        let stored = lease(token, step);
                        batch.push(Record::Granted(stored.clone()));
                        expected.insert(token, stored);
                        next += 1;
                    }
                }
            }
            backend.commit(&batch).unwrap();
            assert!(backend.backlog.changes() <= 200);
            match below(40) {
                0 => {
                    backend.maintain().unwrap();
                }
                1 => {
                    drop(backend);
                    backend = SqliteBackend::open(&path).unwrap();
                    let mut found = Vec::new();
                    backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
                    let all: Vec<_> = expected.values().cloned().map(Record::Granted).collect();
                    assert_eq!(found, all, "step {step}");
                    backend.backlog_changes_max = 20;
                }
                _ => {}
            }
            let shown: Vec<_> = expected.values().map(|stored| Shown::of(&stored.lease)).collect();
            assert_eq!(view(&path), shown, "step {step}");
        }
        while backend.maintain().unwrap() {}
        assert_eq!((backend.backlog.changes(), backend.backlog.bytes()), (0, 0));
    }
}
