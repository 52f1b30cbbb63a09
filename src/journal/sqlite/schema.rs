//! The tables, the view of leases, and what a database is set to.
//!
//! Guarantees: a file that is foreign or newer is refused by name before anything is written. A
//! database of an older version is migrated in one transaction: it is either as it was or as new.
//! Not here: what the rows say.

mod version_1;
mod version_2;

use std::fmt::Write;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::fault::fault;
use super::open::BUSY_TIMEOUT;
use crate::journal::JournalError;
use crate::journal::log::columns::{COLUMNS, Column, ExtraColumns};
use crate::journal::log::entry::{GRANTED, RENEWED};

/// Stored as `user_version`. Version 1 left that at 0 and had its number in the table `octostore`.
pub(super) const SCHEMA_VERSION: i64 = 3;
/// Marks the file as ours ("octo"), for `file` and for refusing what is not.
const APPLICATION_ID: i64 = 0x6f63_746f;

/// All tables but `held`. The column `schema_version` is for a server that knows version 1 only: it
/// refuses a database where another number is in there.
const TABLES: &str = "
CREATE TABLE octostore (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema_version INTEGER NOT NULL,
    tokens_reserved INTEGER NOT NULL,
    boot_id TEXT,
    secret BLOB NOT NULL,
    moved_row INTEGER NOT NULL DEFAULT 0, -- these three: see log::compaction::Position
    moved_changes INTEGER NOT NULL DEFAULT 0,
    last_place INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE changes (
    row INTEGER PRIMARY KEY,
    entries TEXT NOT NULL
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
CREATE TABLE keyed_values (
    id INTEGER PRIMARY KEY,
    token INTEGER NOT NULL,
    db INTEGER NOT NULL,
    key BLOB NOT NULL,
    kind TEXT NOT NULL,
    ttl_ms INTEGER,
    deadline_ns INTEGER
) STRICT;
CREATE TABLE elements (
    id INTEGER NOT NULL,
    place INTEGER NOT NULL,
    field BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (id, field)
) STRICT, WITHOUT ROWID;
CREATE TABLE scripts (
    number INTEGER PRIMARY KEY,
    sha1 TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL
) STRICT;
";

/// Joins what `each` makes of the lease's columns.
fn columns(separator: &str, each: impl FnMut((usize, &Column)) -> String) -> String {
    COLUMNS.iter().enumerate().map(each).collect::<Vec<_>>().join(separator)
}

/// The table of leases.
fn held() -> String {
    let columns = columns(",\n    ", |(_, column)| format!("{} {}", column.name, column.declaration));
    format!("CREATE TABLE held (\n    {columns}\n) STRICT;\n")
}

/// The view `leases`, which is what people and tools read: the table `held` with the change log
/// applied. It holds no data, and is made again whenever its text has changed.
///
/// Keys and owners that are not text are arrays of bytes in the log. `unhex` would be simpler, and
/// is missing before SQLite 3.41.
fn view() -> String {
    let names = columns(", ", |(_, column)| column.name.to_owned());
    let stated = columns(",\n            ", |(index, column)| {
        let place = index + 1;
        match column.name {
            name @ ("key" | "owner") => format!("{} AS {name}", bytes_at(place)),
            name => format!("json_extract(value, '$[{place}]') AS {name}"),
        }
    });
    let completed = columns(",\n            ", |(index, column)| match column.default {
        None => column.name.to_owned(),
        Some(default) => {
            format!("iif(length > {}, {name}, {default}) AS {name}", index + 1, name = column.name)
        }
    });
    let all_bytes = (0..=u8::MAX).fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    let extra = ExtraColumns::VIEW
        .map(|(name, default)| format!("coalesce(json_extract(l.extra, '$.{name}'), {default}) AS {name}"));
    let extra = extra.join(",\n        ");
    format!(
        "\
CREATE VIEW leases AS
    WITH entry AS (
        SELECT c.value, changes.row * 16777216 + c.key AS place,
            iif(c.type = 'array', json_array_length(c.value), 0) AS length,
            iif(c.type = 'array', json_extract(c.value, '$[0]'), 0) AS tag,
            iif(c.type = 'array', json_extract(c.value, '$[1]'), c.value) AS token
        FROM changes, json_each(changes.entries) c),
    renewed AS (
        SELECT token, json_extract(value, '$[2]') AS deadline_ns, json_extract(value, '$[3]') AS lasts_ms,
            json_extract(value, '$[4]') AS renewals, max(place)
        FROM entry WHERE tag = {RENEWED} GROUP BY token),
    bytes AS (SELECT x'{all_bytes}' AS each),
    stated AS (
        SELECT
            {stated},
            length
        FROM entry WHERE tag = {GRANTED}),
    lease AS (
        SELECT {names}
        FROM held WHERE token NOT IN (SELECT token FROM entry WHERE tag = {GRANTED})
        UNION ALL
        SELECT
            {completed}
        FROM stated)
    SELECT
        l.token, l.db, l.key, l.owner, l.holders_max, l.ttl_ms,
        iif(r.token IS NULL, l.lasts_ms, r.lasts_ms) AS lasts_ms,
        iif(r.token IS NULL, l.deadline_ns, r.deadline_ns) AS deadline_ns, l.granted_ns,
        coalesce(r.renewals, l.renewals) AS renewals,
        {extra},
        l.addr, l.client_name
    FROM lease l LEFT JOIN renewed r ON r.token = l.token
    WHERE l.token NOT IN (SELECT token FROM entry WHERE tag = 0)"
    )
}

/// The bytes at a place of a log entry, which has them as text or as an array.
fn bytes_at(place: usize) -> String {
    format!(
        "iif(json_type(value, '$[{place}]') = 'array',
                (SELECT CAST(group_concat(substr(each, b.value + 1, 1), '') AS BLOB)
                    FROM json_each(entry.value, '$[{place}]') b, bytes),
                CAST(json_extract(value, '$[{place}]') AS BLOB))"
    )
}

/// Pages of the database kept in memory, in KiB.
const CACHE_KIB: i64 = 2_048;

/// Refuses databases of other programs and of newer versions, before anything is written.
pub(super) fn refuse_foreign(db: &Connection) -> Result<(), JournalError> {
    let check = |error| fault("open the database", &error);
    db.busy_timeout(BUSY_TIMEOUT).map_err(check)?;
    if !has_tables(db)? {
        return Ok(());
    }
    let application: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(check)?;
    if application != APPLICATION_ID {
        return Err(JournalError::Foreign);
    }
    match stored_version(db)? {
        1..=SCHEMA_VERSION => Ok(()),
        found if found > SCHEMA_VERSION => Err(JournalError::Newer { found, known: SCHEMA_VERSION }),
        found => Err(JournalError::corrupt(format!("schema version {found}"))),
    }
}

/// Whether there is anything in a database.
pub(super) fn has_tables(db: &Connection) -> Result<bool, JournalError> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(|error| fault("open the database", &error))
}

/// The schema version of a database that has tables.
pub(super) fn stored_version(db: &Connection) -> Result<i64, JournalError> {
    let check = |error| fault("read the schema version", &error);
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(check)?;
    if version != 0 {
        return Ok(version);
    }
    let version = db.query_row("SELECT schema_version FROM octostore", [], |row| row.get(0)).optional();
    version.map_err(check)?.ok_or_else(|| JournalError::corrupt("no schema version"))
}

/// Sets and checks every pragma, and makes or migrates the tables.
pub(super) fn prepare(db: &mut Connection) -> Result<(), JournalError> {
    set_pragmas(db)?;
    if !has_tables(db)? {
        return in_transaction(db, "make the tables", create);
    }
    while let version @ ..SCHEMA_VERSION = stored_version(db)? {
        tracing::info!("migrating the database from schema version {version} to {}", version + 1);
        match version {
            1 => in_transaction(db, "migrate the database", version_1::migrate)?,
            2 => in_transaction(db, "migrate the database", version_2::migrate)?,
            found => return Err(JournalError::corrupt(format!("schema version {found}"))),
        }
    }
    // Better not to start than to find out at the first lock that nothing can be written.
    db.execute("UPDATE octostore SET tokens_reserved = tokens_reserved", [])
        .map_err(|error| fault("write to the database", &error))?;
    update_view(db)
}

fn set_pragmas(db: &Connection) -> Result<(), JournalError> {
    let check = |error| fault("prepare the database", &error);
    db.set_prepared_statement_cache_capacity(32);
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(check)?;
    if mode != "wal" {
        return Err(JournalError::Io { what: format!("the file system allows no write-ahead log ({mode})") });
    }
    // FULL syncs the log at every commit: what is acknowledged survives power loss.
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA locking_mode = NORMAL; PRAGMA foreign_keys = OFF")
        .map_err(check)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB).map_err(check)
}

fn in_transaction(
    db: &mut Connection,
    doing: &str,
    work: impl FnOnce(&Transaction<'_>) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let check = |error| fault(doing, &error);
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(check)?;
    work(&transaction)?;
    transaction.commit().map_err(check)
}

/// A new database in memory, to compare others with.
pub(super) fn fresh() -> Result<Connection, JournalError> {
    let mut db = Connection::open_in_memory().map_err(|error| fault("make a database", &error))?;
    in_transaction(&mut db, "make the tables", create)?;
    Ok(db)
}

fn create(db: &Transaction<'_>) -> Result<(), JournalError> {
    let check = |error| fault("make the tables", &error);
    for statements in [TABLES, &held(), &view()] {
        db.execute_batch(statements).map_err(check)?;
    }
    db.pragma_update(None, "application_id", APPLICATION_ID).map_err(check)?;
    db.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(check)?;
    db.execute("INSERT INTO octostore VALUES (1, ?1, 0, NULL, randomblob(32), 0, 0, 0)", [SCHEMA_VERSION])
        .map(drop)
        .map_err(check)
}

/// Replaces the view if its text is not the current one.
fn update_view(db: &mut Connection) -> Result<(), JournalError> {
    const FIND: &str = "SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = 'leases'";
    const DOING: &str = "update the view of leases";
    let check = |error| fault(DOING, &error);
    let found: Option<String> = db.query_row(FIND, [], |row| row.get(0)).optional().map_err(check)?;
    let view = view();
    if found.as_deref() == Some(&view) {
        return Ok(());
    }
    in_transaction(db, DOING, |db| {
        db.execute_batch("DROP VIEW IF EXISTS leases").map_err(check)?;
        db.execute_batch(&view).map_err(check)
    })
}
