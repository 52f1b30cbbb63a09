//! The default backend: one SQLite file, readable with any SQLite tool while the server runs.
//!
//! Promise: `commit` returns after the write-ahead log is synced. The fencing token is the primary key, so a
//! grant appends to the right edge of the B-tree; renewals are appended to a table of their own and folded into the
//! grants now and then, so that a commit never writes pages all over the file. The view `leases` shows the sum of
//! both. Checkpoints run on a thread of their own. The only file that names rusqlite.
//! Absent: an index on names (the table in memory has it).

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::lock_file::LockFile;
use super::record::{LeaseNet, Net};
use super::{Backend, JournalError, Loaded, Record, SessionRecord, StoredLease};
use crate::lock::{
    Delay, FencingToken, Lease, LeaseExtra, LockName, Mode, Origin, Owner, SessionId, Timestamp, Ttl,
};

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
    boot_id TEXT
) STRICT;
CREATE TABLE grants (
    token INTEGER PRIMARY KEY,
    db INTEGER NOT NULL,
    key BLOB NOT NULL,
    owner BLOB NOT NULL,
    mode TEXT NOT NULL,
    capacity INTEGER,
    ttl_ms INTEGER,
    deadline_ns INTEGER,
    granted_ns INTEGER NOT NULL,
    renewals INTEGER NOT NULL,
    max_hold_ms INTEGER,
    delay_ms INTEGER,
    session TEXT,
    meta TEXT,
    addr TEXT,
    client_name TEXT
) STRICT;
CREATE TABLE renewals (
    seq INTEGER PRIMARY KEY,
    token INTEGER NOT NULL,
    deadline_ns INTEGER,
    renewals INTEGER NOT NULL
) STRICT;
CREATE VIEW leases AS
    SELECT g.token, g.db, g.key, g.owner, g.mode, g.capacity, g.ttl_ms,
        CASE WHEN r.token IS NULL THEN g.deadline_ns ELSE r.deadline_ns END AS deadline_ns,
        g.granted_ns, coalesce(r.renewals, g.renewals) AS renewals,
        g.max_hold_ms, g.delay_ms, g.session, g.meta, g.addr, g.client_name
    FROM grants g
    LEFT JOIN (SELECT token, deadline_ns, renewals, max(seq) FROM renewals GROUP BY token) r ON r.token = g.token;
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
    ttl_ms INTEGER,
    deadline_ns INTEGER
) STRICT, WITHOUT ROWID;
";

/// Puts the last renewal of every lease into its grant.
const FOLD: &str = "
UPDATE grants SET deadline_ns = r.deadline_ns, renewals = r.renewals
    FROM (SELECT token, deadline_ns, renewals, max(seq) FROM renewals GROUP BY token) r WHERE grants.token = r.token;
DELETE FROM renewals;
";
/// Renewals kept apart before they are folded; when nothing else is to be done, fewer.
const RENEWALS_MAX: usize = 262_144;
const RENEWALS_MAX_IDLE: usize = 4_096;

/// Pages in the write-ahead log at which a checkpoint is due (4 MiB).
const CHECKPOINT_PAGES: usize = 1024;
/// The log is this long from the start: overwriting is much cheaper to sync than appending.
const LOG_BYTES: u64 = 8 << 20;
/// Pages of the database kept in memory, in KiB.
const CACHE_KIB: i64 = 65_536;

/// Moves every deadline to its full TTL from ?1; a NULL TTL stays without an end.
const REBASE: &str = "
UPDATE grants SET granted_ns = ?1, deadline_ns = CASE
    WHEN ttl_ms IS NULL AND max_hold_ms IS NULL THEN NULL
    ELSE ?1 + 1000000 * min(coalesce(ttl_ms, max_hold_ms), coalesce(max_hold_ms, ttl_ms)) END;
UPDATE delays SET until_ns = ?1 + 1000000 * length_ms;
UPDATE sessions SET deadline_ns = ?1 + 1000000 * ttl_ms;
";

/// An open database file.
#[derive(Debug)]
pub struct SqliteBackend {
    db: Connection,
    renewals: usize,
    checkpoints: Checkpoints,
    /// Dropped after the database is closed.
    lock_file: LockFile,
}

impl SqliteBackend {
    /// Opens the database at `path`, or makes it. Fails on files that are damaged, foreign, newer, or in use by another
    /// server.
    pub fn open(path: &Path) -> Result<SqliteBackend, JournalError> {
        let lock_file = LockFile::acquire(path)?;
        let mut db = Connection::open(path).map_err(|error| fault("open the database", &error))?;
        prepare(&mut db)?;
        let renewals: i64 = db
            .query_row("SELECT count(*) FROM renewals", [], |row| row.get(0))
            .map_err(|error| fault("read the database", &error))?;
        lengthen_log(path).map_err(|error| JournalError::Io {
            what: format!("cannot lengthen the write-ahead log: {error}"),
        })?;
        let checkpoints = Checkpoints::start(path, &mut db)?;
        let renewals = usize::try_from(renewals).unwrap_or(0);
        Ok(SqliteBackend { db, renewals, checkpoints, lock_file })
    }
}

/// Fills the log with zeros, which SQLite takes for the end of what is valid, up to its working length.
fn lengthen_log(database: &Path) -> io::Result<()> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    let mut log = OpenOptions::new().append(true).create(true).open(path)?;
    let missing = LOG_BYTES.saturating_sub(log.metadata()?.len());
    io::copy(&mut io::repeat(0).take(missing), &mut log)?;
    log.sync_all()
}

/// Moves pages from the log into the database file, beside the commits.
#[derive(Debug)]
struct Checkpoints {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicUsize>,
    /// Asks the thread for a checkpoint; dropped to end it.
    ask: Option<SyncSender<()>>,
    /// The thread has moved most pages; the few that came meanwhile are for the next commit to move.
    is_moved: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    fn start(database: &Path, db: &mut Connection) -> Result<Checkpoints, JournalError> {
        let pages = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&pages);
        // Also turns SQLite's own checkpoints, which would run inside a commit, off.
        db.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            seen.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
        .map_err(|error| fault("watch the write-ahead log", &error))?;
        let own = Connection::open(database).map_err(|error| fault("open the database", &error))?;
        let (ask, asked) = sync_channel(1);
        let is_moved = Arc::new(AtomicBool::new(false));
        let moved = Arc::clone(&is_moved);
        let thread = std::thread::Builder::new()
            .name("octostore-ckpt".into())
            .spawn(move || {
                for () in asked {
                    // What fails here is tried again at the next commit, which then says so.
                    let _ = checkpoint(&own);
                    moved.store(true, Ordering::Release);
                }
            })
            .map_err(|error| JournalError::Io { what: format!("cannot start a thread: {error}") })?;
        Ok(Checkpoints { pages, ask: Some(ask), is_moved, thread: Some(thread) })
    }

    /// Call after each commit.
    fn after_commit(&self, db: &Connection) {
        if self.is_moved.swap(false, Ordering::AcqRel) {
            // The rest is small. Once all pages are moved the log is written from its start again. A failure loses
            // nothing: the pages stay in the log.
            let _ = checkpoint(db);
        } else if self.pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES
            && let Some(ask) = &self.ask
        {
            // Full: it has been asked already.
            let _ = ask.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

fn checkpoint(db: &Connection) -> rusqlite::Result<()> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
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
        making.execute("INSERT INTO octostore VALUES (1, ?1, 0, NULL)", [SCHEMA_VERSION]).map_err(check)?;
        making.commit().map_err(check)?;
    }
    let found: Option<i64> = db
        .query_row("SELECT schema_version FROM octostore", [], |row| row.get(0))
        .optional()
        .map_err(check)?;
    match found {
        Some(SCHEMA_VERSION) => Ok(()),
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
        let check = |error| fault("read the database", &error);
        let reading = self.db.transaction().map_err(check)?;
        let (tokens_reserved, stored_boot): (i64, Option<String>) = reading
            .query_row("SELECT tokens_reserved, boot_id FROM octostore", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .map_err(check)?;
        let rebooted = boot.is_none() || stored_boot.as_deref() != boot;
        reading.execute_batch(FOLD).map_err(check)?;
        if rebooted {
            for statement in REBASE.split_inclusive(';').filter(|text| !text.trim().is_empty()) {
                reading.execute(statement, [now.to_stored()]).map_err(check)?;
            }
            reading.execute("UPDATE octostore SET boot_id = ?1", [boot]).map_err(check)?;
        }
        {
            let mut rows =
                reading.prepare("SELECT id, name, ttl_ms, deadline_ns FROM sessions").map_err(check)?;
            let mut rows = rows.query([]).map_err(check)?;
            while let Some(row) = rows.next().map_err(check)? {
                each(Record::SessionOpened(session_from(row)?));
            }
            let mut rows =
                reading.prepare("SELECT db, key, until_ns, length_ms FROM delays").map_err(check)?;
            let mut rows = rows.query([]).map_err(check)?;
            while let Some(row) = rows.next().map_err(check)? {
                let length = ttl_from(column(row, 3)?)?.ok_or_else(|| damaged("a delay without a length"))?;
                let until = Timestamp::from_stored(Some(column(row, 2)?));
                each(Record::DelayStarted(name_from(row, 0, 1)?, Delay { until, length }));
            }
            let mut rows = reading.prepare("SELECT * FROM grants ORDER BY token").map_err(check)?;
            let mut rows = rows.query([]).map_err(check)?;
            while let Some(row) = rows.next().map_err(check)? {
                each(Record::Granted(lease_from(row)?));
            }
        }
        reading.commit().map_err(check)?;
        self.renewals = 0;
        let tokens_reserved = tokens_reserved.max(self.lock_file.tokens_reserved());
        Ok(Loaded { tokens_reserved, rebooted })
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        let net = Net::of(batch);
        if net.is_empty() {
            return Ok(());
        }
        let failed = |error| fault("commit", &error);
        let writing = self.db.transaction().map_err(|error| fault("begin a commit", &error))?;
        let mut renewals = self.renewals + write(&writing, &net).map_err(failed)?;
        if renewals >= RENEWALS_MAX {
            writing.execute_batch(FOLD).map_err(failed)?;
            renewals = 0;
        }
        writing.commit().map_err(failed)?;
        self.renewals = renewals;
        self.checkpoints.after_commit(&self.db);
        net.tokens_reserved.map_or(Ok(()), |upto| self.lock_file.reserve(upto))
    }

    fn maintain(&mut self) -> Result<(), JournalError> {
        if self.renewals >= RENEWALS_MAX_IDLE {
            let failed = |error| fault("fold renewals", &error);
            let folding = self.db.transaction().map_err(failed)?;
            folding.execute_batch(FOLD).map_err(failed)?;
            folding.commit().map_err(failed)?;
            self.renewals = 0;
        }
        Ok(())
    }
}

/// Writes what a batch comes to. Answers how many renewals that adds.
fn write(db: &Connection, net: &Net<'_>) -> rusqlite::Result<usize> {
    let mut put_lease = db.prepare_cached(
        "INSERT OR REPLACE INTO grants VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)",
    )?;
    let mut remove_lease = db.prepare_cached("DELETE FROM grants WHERE token = ?1")?;
    let mut put_renewal =
        db.prepare_cached("INSERT INTO renewals (token, deadline_ns, renewals) VALUES (?1, ?2, ?3)")?;
    let mut renewals = 0;
    for (token, change) in &net.leases {
        let StoredLease { name, lease } = match change {
            LeaseNet::Granted(stored) => stored,
            LeaseNet::Renewed(StoredLease { lease, .. }) => {
                put_renewal.execute(params![token.get(), lease.deadline.to_stored(), lease.renewals])?;
                renewals += 1;
                continue;
            }
            LeaseNet::Ended => {
                remove_lease.execute([token.get()])?;
                continue;
            }
        };
        let extra = lease.extra.as_deref();
        let millis = |ttl: Option<Ttl>| ttl.map(Ttl::as_millis);
        put_lease.execute(params![
            token.get(),
            name.database(),
            name.key(),
            lease.owner.as_bytes(),
            mode_name(lease.mode),
            lease.mode.capacity(),
            millis(lease.ttl),
            lease.deadline.to_stored(),
            lease.granted_at.to_stored(),
            lease.renewals,
            millis(extra.and_then(|extra| extra.max_hold)),
            millis(extra.and_then(|extra| extra.delay)),
            lease.session().map(session_text),
            lease.meta(),
            lease.origin.as_ref().map(|origin| origin.addr.as_str()),
            lease.origin.as_ref().map(|origin| origin.client_name.as_str()),
        ])?;
    }
    for (name, delay) in &net.delays {
        match delay {
            Some(delay) => {
                db.prepare_cached("INSERT OR REPLACE INTO delays VALUES (?1, ?2, ?3, ?4)")?.execute(
                    params![name.database(), name.key(), delay.until.to_stored(), delay.length.as_millis()],
                )?
            }
            None => db
                .prepare_cached("DELETE FROM delays WHERE db = ?1 AND key = ?2")?
                .execute(params![name.database(), name.key()])?,
        };
    }
    for (id, session) in &net.sessions {
        match session {
            Some(session) => db
                .prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![
                    session_text(*id),
                    session.name,
                    session.ttl.map(Ttl::as_millis),
                    session.deadline.to_stored(),
                ])?,
            None => db.prepare_cached("DELETE FROM sessions WHERE id = ?1")?.execute([session_text(*id)])?,
        };
    }
    if let Some(upto) = net.tokens_reserved {
        db.prepare_cached("UPDATE octostore SET tokens_reserved = max(tokens_reserved, ?1)")?
            .execute([upto])?;
    }
    Ok(renewals)
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
        Mode::Limit(_) => "limit",
    }
}

fn session_text(id: SessionId) -> String {
    format!("{:032x}", id.0)
}

fn column<T: rusqlite::types::FromSql>(row: &Row<'_>, index: usize) -> Result<T, JournalError> {
    row.get(index).map_err(|error| fault("read a row", &error))
}

fn damaged(what: impl ToString) -> JournalError {
    JournalError::Corrupt { what: what.to_string() }
}

fn ttl_from(millis: Option<i64>) -> Result<Option<Ttl>, JournalError> {
    millis.map(|millis| Ttl::from_millis(u64::try_from(millis).unwrap_or(0)).map_err(damaged)).transpose()
}

fn session_id_from(text: &str) -> Result<SessionId, JournalError> {
    u128::from_str_radix(text, 16).map(SessionId).map_err(|_| damaged("a session id that is not hexadecimal"))
}

fn name_from(row: &Row<'_>, database: usize, key: usize) -> Result<LockName, JournalError> {
    LockName::new(column(row, database)?, &column::<Vec<u8>>(row, key)?).map_err(damaged)
}

fn session_from(row: &Row<'_>) -> Result<SessionRecord, JournalError> {
    Ok(SessionRecord {
        id: session_id_from(&column::<String>(row, 0)?)?,
        name: column(row, 1)?,
        ttl: ttl_from(column(row, 2)?)?,
        deadline: Timestamp::from_stored(column(row, 3)?),
    })
}

fn lease_from(row: &Row<'_>) -> Result<StoredLease, JournalError> {
    let capacity: Option<u32> = column(row, 5)?;
    let mode = match column::<String>(row, 4)?.as_str() {
        "exclusive" => Mode::Exclusive,
        "shared" => Mode::Shared,
        "limit" => Mode::limit(capacity.unwrap_or(0)).map_err(damaged)?,
        other => return Err(damaged(format!("a lease of mode {other:?}"))),
    };
    let extra = LeaseExtra {
        max_hold: ttl_from(column(row, 10)?)?,
        delay: ttl_from(column(row, 11)?)?,
        session: column::<Option<String>>(row, 12)?.as_deref().map(session_id_from).transpose()?,
        meta: column::<Option<String>>(row, 13)?.map(String::into_boxed_str),
    };
    let addr: Option<String> = column(row, 14)?;
    let lease = Lease {
        owner: Owner::new(&column::<Vec<u8>>(row, 3)?).map_err(damaged)?,
        token: FencingToken::new(column(row, 0)?).map_err(damaged)?,
        mode,
        ttl: ttl_from(column(row, 6)?)?,
        deadline: Timestamp::from_stored(column(row, 7)?),
        granted_at: Timestamp::from_stored(Some(column(row, 8)?)),
        renewals: column(row, 9)?,
        origin: match addr {
            Some(addr) => Some(Arc::new(Origin {
                addr,
                client_name: column::<Option<_>>(row, 15)?.unwrap_or_default(),
            })),
            None => None,
        },
        extra: (extra != LeaseExtra::default()).then(|| Box::new(extra)),
    };
    Ok(StoredLease { name: name_from(row, 1, 2)?, lease })
}

fn fault(doing: &str, error: &rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full,
        Some(ErrorCode::ReadOnly) => JournalError::ReadOnly,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Locked,
        Some(ErrorCode::DatabaseCorrupt) => damaged(error),
        Some(ErrorCode::NotADatabase) => JournalError::Foreign,
        _ => JournalError::Io { what: format!("cannot {doing}: {error}") },
    }
}

/// Changes a database behind the server's back.
#[cfg(test)]
pub(super) fn run_sql(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}
