//! The tables, and what a database is set to.
//!
//! Guarantees: a file that is foreign or newer is refused by name before anything is written.
//! Not here: what the rows say.

use rusqlite::{Connection, OptionalExtension};

use super::fault::fault;
use super::open::BUSY_TIMEOUT;
use crate::journal::JournalError;

pub(super) const SCHEMA_VERSION: i64 = 1;
/// Marks the file as ours ("octo"), for `file` and for refusing what is not.
pub(super) const APPLICATION_ID: i64 = 0x6f63_746f;

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

/// Pages of the database kept in memory, in KiB.
const CACHE_KIB: i64 = 2_048;

/// Refuses databases of other programs, before anything is written.
pub(super) fn refuse_foreign(db: &Connection) -> Result<(), JournalError> {
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

/// Sets and checks every pragma, and makes the tables.
pub(super) fn prepare(db: &mut Connection) -> Result<(), JournalError> {
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
