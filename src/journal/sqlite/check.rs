//! The check of a database that no server uses.
//!
//! Guarantees: the database is not changed. Not here: whether the records make sense.

use std::path::Path;

use rusqlite::Connection;

use super::backup::{StoredState, existing, integrity_findings, open_source};
use super::lock_file::LockFile;
use super::schema::{SCHEMA_VERSION, fresh, stored_version};
use super::{fault::fault, load};
use crate::journal::JournalError;

/// What [`check`] finds.
#[derive(Debug)]
pub struct Checked {
    /// What is wrong with the file.
    pub findings: Vec<String>,
    /// What the database holds, if it can be read.
    pub state: Option<StoredState>,
    /// The schema version, if an older release wrote the database: the next start migrates it, and
    /// only the file is checked before that.
    pub older_version: Option<i64>,
}

/// Checks the file, its schema, and whether it can be read.
///
/// # Errors
///
/// If it cannot be checked: it is not there, in use, or not a database of octostore.
pub fn check(database: &Path) -> Result<Checked, JournalError> {
    let database = existing(database)?;
    let lock_file = LockFile::acquire(&database)?;
    let checked = check_locked(&database);
    lock_file.forget();
    checked
}

fn check_locked(database: &Path) -> Result<Checked, JournalError> {
    let mut checked = Checked { findings: Vec::new(), state: None, older_version: None };
    let mut db = match open_source(database) {
        Ok(db) => db,
        // Damage is what this is about; anything else is no database of octostore.
        Err(fault @ (JournalError::DamagedLog { .. } | JournalError::Corrupt { .. })) => {
            checked.findings.push(fault.what());
            return Ok(checked);
        }
        Err(error) => return Err(error),
    };
    match integrity_findings(&db) {
        Ok(findings) => checked.findings.extend(findings),
        Err(fault) => checked.findings.push(fault.what()),
    }
    match stored_version(&db) {
        Ok(SCHEMA_VERSION) => {}
        Ok(version) => {
            checked.older_version = Some(version);
            return Ok(checked);
        }
        Err(fault) => checked.findings.push(fault.what()),
    }
    match schema_findings(&db) {
        Ok(findings) => checked.findings.extend(findings),
        Err(fault) => checked.findings.push(fault.what()),
    }
    let mut records = Vec::new();
    match load::read(&mut db, &mut |record| records.push(record)) {
        Ok(loaded) => checked.state = Some(StoredState { records, loaded }),
        Err(fault) => checked.findings.push(fault.what()),
    }
    checked.findings.dedup();
    Ok(checked)
}

/// Tables that do not have the columns of a new database.
fn schema_findings(db: &Connection) -> Result<Vec<String>, JournalError> {
    let expected = columns(&fresh()?)?;
    let found = columns(db)?;
    let missing = expected.iter().filter(|column| !found.contains(column));
    let findings = missing.map(|column| format!("schema: there is no {column}"));
    let extra = found.iter().filter(|column| !expected.contains(column));
    let extra = extra.map(|column| format!("schema: {column} is not one of octostore's"));
    Ok(findings.chain(extra).collect())
}

/// Every column of every table, with its type. Litestream keeps tables of its own in what it copies.
fn columns(db: &Connection) -> Result<Vec<String>, JournalError> {
    const COLUMNS: &str = "
        SELECT 'column ' || c.name || ' ' || c.type || iif(c.\"notnull\", ' NOT NULL', '') || ' of table ' || t.name
        FROM sqlite_schema t, pragma_table_info(t.name) c
        WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT GLOB '_litestream_*'
        ORDER BY t.name, c.cid";
    let check = |error| fault("read the schema", &error);
    let mut rows = db.prepare(COLUMNS).map_err(check)?;
    let rows = rows.query_map([], |row| row.get(0)).map_err(check)?;
    rows.collect::<Result<_, _>>().map_err(check)
}
