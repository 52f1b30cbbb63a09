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
mod recovered;
mod rows;
mod state;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use self::backlog::{Backlog, Move};
use self::changes::ChangesText;
use self::checkpoints::{Checkpoints, lengthen_log};
use super::lock_file::LockFile;
use super::{Backend, JournalError, Loaded, Record};
use crate::lock::Timestamp;

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
CREATE VIEW leases AS
    WITH change AS (
        SELECT iif(c.type = 'array', json_extract(c.value, '$[0]'), c.value) AS token, c.value,
            iif(c.type = 'array', json_array_length(c.value), 0) AS length, changes.row * 16777216 + c.key AS place
        FROM changes, json_each(changes.leases) c),
    renewed AS (
        SELECT token, json_extract(value, '$[1]') AS deadline_ns, json_extract(value, '$[2]') AS lasts_ms,
            json_extract(value, '$[3]') AS renewals, max(place)
        FROM change WHERE length = 4 GROUP BY token),
    lease AS (
        SELECT * FROM held WHERE token NOT IN (SELECT token FROM change WHERE length > 4)
        UNION ALL
        SELECT
            json_extract(value, '$[0]'), json_extract(value, '$[1]'), CAST(json_extract(value,
            '$[2]') AS BLOB), CAST(json_extract(value, '$[3]') AS BLOB), json_extract(value,
            '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value,
            '$[7]'), json_extract(value, '$[8]'), json_extract(value, '$[9]'), json_extract(value,
            '$[10]'), json_extract(value, '$[11]'), json_extract(value, '$[12]'),
            json_extract(value, '$[13]'), json_extract(value, '$[14]'), json_extract(value, '$[15]'),
            json_extract(value, '$[16]'), json_extract(value, '$[17]'), json_extract(value, '$[18]')
        FROM change WHERE length = 19
        UNION ALL
        SELECT
            json_extract(value, '$[0]'), json_extract(value, '$[1]'), CAST(json_extract(value,
            '$[2]') AS BLOB), CAST(json_extract(value, '$[3]') AS BLOB), 1, json_extract(value,
            '$[5]'), json_extract(value, '$[5]'), json_extract(value, '$[4]') + 1000000 * json_extract(value,
            '$[5]'), json_extract(value, '$[4]'), 0, NULL, NULL, 0, NULL, NULL, NULL, NULL,
            json_extract(value, '$[6]'), json_extract(value, '$[7]')
        FROM change WHERE length = 8)
    SELECT
        l.token, l.db, l.key, l.owner, l.holders_max, l.ttl_ms,
        iif(r.token IS NULL, l.lasts_ms, r.lasts_ms) AS lasts_ms,
        iif(r.token IS NULL, l.deadline_ns, r.deadline_ns) AS deadline_ns, l.granted_ns,
        coalesce(r.renewals, l.renewals) AS renewals,
        l.max_hold_ms, l.delay_ms, l.delay_always, l.session, l.counted_by, l.account, l.meta, l.addr, l.client_name
    FROM lease l LEFT JOIN renewed r ON r.token = l.token
    WHERE l.token NOT IN (SELECT token FROM change WHERE length = 0);
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

/// An open database file.
#[derive(Debug)]
pub struct SqliteBackend {
    db: Connection,
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
        let path = &real(path)?;
        let lock_file = LockFile::acquire(path)?;
        let (db, checkpoints) = match open_locked(path) {
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
            backlog: Backlog::default(),
            text_bytes: 0,
            backlog_changes_max: BACKLOG_CHANGES_MAX,
            checkpoints,
            lock_file,
        })
    }
}

fn open_locked(path: &Path) -> Result<(Connection, Checkpoints), JournalError> {
    let mut db = Connection::open(path).map_err(|error| fault("open the database", &error))?;
    prepare(&mut db)?;
    lengthen_log(path).map_err(|error| JournalError::Io {
        what: format!("cannot lengthen the write-ahead log: {error}"),
    })?;
    let checkpoints = Checkpoints::start(path, &mut db)?;
    Ok((db, checkpoints))
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

/// Sets and checks every pragma, and makes the tables.
fn prepare(db: &mut Connection) -> Result<(), JournalError> {
    let check = |error| fault("prepare the database", &error);
    db.busy_timeout(BUSY_TIMEOUT).map_err(check)?;
    db.set_prepared_statement_cache_capacity(32);
    let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(check)?;
    let tables: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(check)?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(JournalError::Foreign);
    }
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(check)?;
    if mode != "wal" {
        return Err(JournalError::Io { what: format!("the file system allows no write-ahead log ({mode})") });
    }
    // FULL syncs the log at every commit: what is acknowledged survives power loss.
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA locking_mode = NORMAL; PRAGMA foreign_keys = OFF")
        .map_err(check)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB).map_err(check)?;
    if tables == 0 {
        let making = db.transaction().map_err(check)?;
        making.execute_batch(SCHEMA).map_err(check)?;
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
            Ok(())
        }
        Some(found) if found > SCHEMA_VERSION => Err(JournalError::Newer { found, known: SCHEMA_VERSION }),
        found => Err(JournalError::Corrupt { what: format!("schema version {found:?}") }),
    }
}

impl Backend for SqliteBackend {
    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        let (mut loaded, backlog) = state::load(&mut self.db, boot, now, each)?;
        self.backlog = backlog;
        loaded.tokens_reserved = loaded.tokens_reserved.max(self.lock_file.tokens_reserved());
        Ok(loaded)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        let failed = |error| fault("commit", &error);
        let records = batch.len();
        let mut text = ChangesText::with_capacity(self.text_bytes);
        let row = self.backlog.add(batch, &mut text);
        let has_others = batch.iter().any(|record| !record.is_of_a_lease());
        if row.is_none() && !has_others {
            return Ok(());
        }
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
        let is_full =
            self.backlog.changes() > self.backlog_changes_max || self.backlog.bytes() > BACKLOG_BYTES_MAX;
        // Fast enough to be through before as many changes have arrived again, and not faster: a lease that changes
        // meanwhile need not be written.
        let share = |leases| records * leases / self.backlog_changes_max + SWEEP_MIN;
        let to_move = self.backlog.sweeping().or(is_full.then_some(0)).map(share);
        let removal = to_move.is_none().then(|| self.backlog.plan_removal());
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
        row.map_or(Ok(()), |row| rows::put_changes(&self.db, row, &text)).map_err(failed)?;
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

    fn maintain(&mut self) -> Result<bool, JournalError> {
        let failed = |error| fault("move changes", &error);
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
    use crate::journal::{Renewal, StoredLease};
    use crate::lock::{FencingToken, Lease, LockName, Mode, Origin, Owner, Ttl};

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
        let lasts = Ttl::from_millis(9).ok();
        let renewal =
            Renewal { deadline: Timestamp::from_nanos(6), lasts, renewals: 1, token: renewed.lease.token };
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

    fn granted(tokens: std::ops::Range<i64>) -> Vec<Record> {
        tokens.map(|token| Record::Granted(lease(token, 7))).collect()
    }

    /// Every other one is like most leases of a server.
    fn lease(token: i64, deadline: u64) -> Box<StoredLease> {
        let mut lease = Lease {
            owner: Owner::new(if token % 3 == 0 { b"\0\xff" } else { "w\"\u{1F512}".as_bytes() }).unwrap(),
            token: FencingToken::new(token).unwrap(),
            mode: Mode::Exclusive,
            ttl: None,
            lasts: None,
            is_unclaimed: false,
            deadline: Timestamp::from_nanos(deadline),
            granted_at: Timestamp::from_nanos(1),
            renewals: 0,
            origin: None,
            extra: None,
        };
        if token % 2 == 0 {
            lease.ttl = Ttl::from_millis(deadline + 1).ok();
            lease.lasts = lease.ttl;
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
        lasts: Option<u32>,
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
                lasts: lease.lasts.map(Ttl::as_millis),
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
                lasts: row.get(4)?,
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
                            lasts: Ttl::from_millis(step + 1).ok(),
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
