//! Migration from schema version 2. This file does not change any more.
//!
//! Version 2 had no values and no scripts, and its change log was about leases only.

use rusqlite::Transaction;

use crate::journal::JournalError;
use crate::journal::sqlite::fault::fault;

/// Adds the tables of values and scripts.
pub(super) fn migrate(db: &Transaction<'_>) -> Result<(), JournalError> {
    let check = |error| fault("migrate the database", &error);
    db.execute_batch(
        "
DROP VIEW IF EXISTS leases;
ALTER TABLE changes RENAME COLUMN leases TO entries;
ALTER TABLE octostore ADD COLUMN moved_row INTEGER NOT NULL DEFAULT 0;
ALTER TABLE octostore ADD COLUMN moved_changes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE octostore ADD COLUMN last_place INTEGER NOT NULL DEFAULT 0;
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
UPDATE octostore SET schema_version = 3",
    )
    .map_err(check)?;
    db.pragma_update(None, "user_version", 3).map_err(check)
}
