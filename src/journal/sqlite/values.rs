//! The tables of values, their elements, and scripts.
//!
//! Elements have the order of their places. The elements of a value that is gone are left over in
//! their table, where nothing reads them, and are removed a few at a time.
//!
//! Guarantees: what is written is read again to the last field; rows that make no value are damage,
//! not a panic. Not here: transactions, and which rows are written when.

use rusqlite::{CachedStatement, Connection, params};
use rustc_hash::FxHashSet;

use super::fault::fault;
use super::rows::column;
use crate::domain::{FencingToken, Ttl};
use crate::journal::elements::{FieldAndValue, OrderedElements};
use crate::journal::log::columns::ValueColumns;
use crate::journal::log::compaction::Budget;
use crate::journal::log::replay::Replay;
use crate::journal::{JournalError, Record, ScriptHash, StoredValue};

/// The prepared statements that change the tables of values.
pub(super) struct ValueTables<'db> {
    put: CachedStatement<'db>,
    remove: CachedStatement<'db>,
    put_element: CachedStatement<'db>,
    remove_element: CachedStatement<'db>,
}

impl ValueTables<'_> {
    pub(super) fn of(db: &Connection) -> rusqlite::Result<ValueTables<'_>> {
        Ok(ValueTables {
            put: db
                .prepare_cached("INSERT OR REPLACE INTO keyed_values VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
            remove: db.prepare_cached("DELETE FROM keyed_values WHERE id = ?1")?,
            put_element: db.prepare_cached(
                "INSERT INTO elements VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT DO UPDATE SET value = excluded.value",
            )?,
            remove_element: db.prepare_cached("DELETE FROM elements WHERE id = ?1 AND field = ?2")?,
        })
    }

    /// Applies a change. A new element gets the place after `place`, which is then its place.
    pub(super) fn write(&mut self, change: &Record, place: &mut i64) -> rusqlite::Result<()> {
        match change {
            Record::ValuePut(stored) => {
                let StoredValue { id, token, name, kind, ttl, deadline } = &**stored;
                self.put.execute(params![
                    id.get(),
                    token.get(),
                    name.database(),
                    name.key(),
                    kind.name(),
                    ttl.map(Ttl::to_stored),
                    deadline.to_stored(),
                ])?;
            }
            Record::ValueGone(id) => {
                self.remove.execute([id.get()])?;
            }
            Record::Element { id, field, value: Some(value) } => {
                *place += 1;
                self.put_element.execute(params![id.get(), *place, field, value])?;
            }
            Record::Element { id, field, value: None } => {
                self.remove_element.execute(params![id.get(), field])?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The ids of all values in the tables.
pub(super) fn stored_ids(db: &Connection) -> rusqlite::Result<FxHashSet<i64>> {
    db.prepare("SELECT id FROM keyed_values")?.query_map([], |row| row.get(0))?.collect()
}

/// Passes every value to `each`, followed by its elements: the tables with the change log applied.
pub(super) fn read_values(
    db: &Connection,
    replay: &mut Replay,
    each: &mut dyn FnMut(Record),
) -> Result<(), JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows = db.prepare("SELECT * FROM keyed_values ORDER BY id").map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    while let Some(row) = rows.next().map_err(check)? {
        let columns = ValueColumns {
            id: column(row, 0)?,
            token: column(row, 1)?,
            db: column(row, 2)?,
            key: column(row, 3)?,
            kind: column(row, 4)?,
            ttl_ms: column(row, 5)?,
            deadline_ns: column(row, 6)?,
        };
        let stored = Box::new(columns.into_stored()?);
        let id = stored.id.get();
        read_logged_values(replay, id, each)?;
        let elements = read_elements(db, stored.id)?;
        match replay.next_value(id + 1) {
            None => pass_on(stored, elements.into_iter(), each),
            Some((_, changes)) => {
                let mut ordered = OrderedElements::default();
                elements.into_iter().for_each(|(field, value)| ordered.set(field, Some(value)));
                apply(Some((stored, ordered)), changes, each)?;
            }
        }
    }
    read_logged_values(replay, i64::MAX, each)
}

/// Passes those values below `before` to `each` that only the log has.
fn read_logged_values(
    replay: &mut Replay,
    before: i64,
    each: &mut dyn FnMut(Record),
) -> Result<(), JournalError> {
    while let Some((_, changes)) = replay.next_value(before) {
        apply(None, changes, each)?;
    }
    Ok(())
}

/// Passes on the state of a value after `changes`, if there is one.
fn apply(
    mut state: Option<(Box<StoredValue>, OrderedElements)>,
    changes: Vec<Record>,
    each: &mut dyn FnMut(Record),
) -> Result<(), JournalError> {
    for change in changes {
        match change {
            Record::ValuePut(put) => match &mut state {
                Some((stored, _)) => *stored = put,
                None => state = Some((put, OrderedElements::default())),
            },
            Record::Element { id, field, value } => match &mut state {
                Some((_, elements)) => elements.set(field, value),
                None => {
                    let what = format!("an element of the value {}, which was never created", id.get());
                    return Err(JournalError::corrupt(what));
                }
            },
            _ => state = None,
        }
    }
    if let Some((stored, elements)) = state {
        pass_on(stored, elements.into_elements(), each);
    }
    Ok(())
}

fn pass_on(
    stored: Box<StoredValue>,
    elements: impl Iterator<Item = FieldAndValue>,
    each: &mut dyn FnMut(Record),
) {
    let id = stored.id;
    each(Record::ValuePut(stored));
    for (field, value) in elements {
        each(Record::Element { id, field, value: Some(value) });
    }
}

/// The elements of a value in the table, in the order of their places.
fn read_elements(db: &Connection, id: FencingToken) -> Result<Vec<FieldAndValue>, JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows =
        db.prepare_cached("SELECT place, field, value FROM elements WHERE id = ?1").map_err(check)?;
    let mut rows = rows.query([id.get()]).map_err(check)?;
    let mut placed: Vec<(i64, FieldAndValue)> = Vec::new();
    while let Some(row) = rows.next().map_err(check)? {
        placed.push((column(row, 0)?, (column(row, 1)?, column(row, 2)?)));
    }
    placed.sort_unstable_by_key(|(place, _)| *place);
    Ok(placed.into_iter().map(|(_, element)| element).collect())
}

/// The ids of values that are gone and have elements left over.
pub(super) fn leftover_ids(db: &Connection) -> rusqlite::Result<Vec<i64>> {
    // One look per value instead of one per element.
    const FIND: &str = "
        WITH RECURSIVE ids (id) AS (
            SELECT min(id) FROM elements
            UNION ALL
            SELECT (SELECT min(id) FROM elements WHERE id > ids.id) FROM ids WHERE id IS NOT NULL)
        SELECT id FROM ids WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM keyed_values)";
    db.prepare(FIND)?.query_map([], |row| row.get(0))?.collect()
}

/// Removes elements of a value that is gone. Returns whether none is left.
pub(super) fn remove_leftovers(db: &Connection, id: i64, mut budget: Budget) -> rusqlite::Result<bool> {
    let mut rows =
        db.prepare_cached("SELECT field, length(value) FROM elements WHERE id = ?1 ORDER BY field LIMIT ?2")?;
    let mut rows = rows.query(params![id, i64::try_from(budget.changes).unwrap_or(i64::MAX)])?;
    let mut last: Option<Vec<u8>> = None;
    while !budget.is_spent()
        && let Some(row) = rows.next()?
    {
        let field: Vec<u8> = row.get(0)?;
        budget.spend(field.len() + row.get::<_, u32>(1)? as usize);
        last = Some(field);
    }
    drop(rows);
    if let Some(last) = last {
        db.prepare_cached("DELETE FROM elements WHERE id = ?1 AND field <= ?2")?
            .execute(params![id, last])?;
    }
    Ok(!budget.is_spent())
}

/// Writes a script, as the last one.
pub(super) fn put_script(db: &Connection, sha: &ScriptHash, body: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO scripts VALUES (NULL, ?1, ?2)")?
        .execute(params![sha_text(sha), body])?;
    Ok(())
}

/// Removes a script.
pub(super) fn remove_script(db: &Connection, sha: &ScriptHash) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM scripts WHERE sha1 = ?1")?.execute([sha_text(sha)])?;
    Ok(())
}

/// Passes every script to `each`.
pub(super) fn read_scripts(db: &Connection, each: &mut dyn FnMut(Record)) -> Result<(), JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows = db.prepare("SELECT sha1, body FROM scripts ORDER BY number").map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    while let Some(row) = rows.next().map_err(check)? {
        each(Record::ScriptPut { sha: sha_from(&column::<String>(row, 0)?)?, body: column(row, 1)? });
    }
    Ok(())
}

fn sha_text(sha: &ScriptHash) -> String {
    sha.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha_from(text: &str) -> Result<ScriptHash, JournalError> {
    let corrupt = || JournalError::corrupt("a script's hash that is not 40 hexadecimal digits");
    let mut sha = ScriptHash::default();
    if text.len() != 2 * sha.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(corrupt());
    }
    for (index, byte) in sha.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| corrupt())?;
    }
    Ok(sha)
}
