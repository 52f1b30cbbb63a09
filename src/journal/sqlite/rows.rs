//! Rows and what they stand for.
//!
//! Guarantees: a row that is written is read again to the last field; a row with values out of
//! range is damage, not a panic. Not here: transactions, and which rows are written when.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, params, params_from_iter};

use super::fault::fault;
use crate::domain::{LockName, SessionId, Timestamp, Ttl};
use crate::journal::log::bytes::Bytes;
use crate::journal::log::columns::{
    COLUMNS, ExtraColumns, LeaseColumns, Value, session_id_from, session_text, ttl_from, value,
};
use crate::journal::log::compaction::{Position, ROW_MAX};
use crate::journal::log::entry::Change;
use crate::journal::{JournalError, Renewal, SessionRecord, StoredLease};
use crate::lock::Delay;

/// The prepared statements that change the table `held`.
pub(super) struct Held<'db> {
    put: CachedStatement<'db>,
    renew: CachedStatement<'db>,
    remove: CachedStatement<'db>,
}

impl Held<'_> {
    pub(super) fn of(db: &Connection) -> rusqlite::Result<Held<'_>> {
        let values = vec!["?"; COLUMNS.len()].join(",");
        Ok(Held {
            put: db.prepare_cached(&format!("INSERT OR REPLACE INTO held VALUES ({values})"))?,
            renew: db.prepare_cached(
                "UPDATE held SET deadline_ns = ?2, lasts_ms = ?3, renewals = ?4 WHERE token = ?1",
            )?,
            remove: db.prepare_cached("DELETE FROM held WHERE token = ?1")?,
        })
    }

    /// Applies the sum of what has happened to a lease.
    pub(super) fn write(&mut self, token: i64, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Granted(stored) => self.put(stored)?,
            Change::Renewed(renewal) => {
                let Renewal { deadline, effective_ttl, renewals, .. } = renewal;
                self.renew.execute(params![
                    token,
                    deadline.to_stored(),
                    effective_ttl.map(Ttl::to_stored),
                    renewals
                ])?;
            }
            Change::Ended => {
                self.remove.execute([token])?;
            }
        }
        Ok(())
    }

    /// Writes a lease.
    pub(super) fn put(&mut self, stored: &StoredLease) -> rusqlite::Result<()> {
        self.put.execute(params_from_iter((0..COLUMNS.len()).map(|column| value(stored, column)))).map(drop)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::Json(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// A row of `held`, in the order of [`COLUMNS`].
pub(super) fn lease_from(row: &Row<'_>) -> Result<StoredLease, JournalError> {
    let columns = LeaseColumns {
        token: column(row, 0)?,
        key: column(row, 1)?,
        owner: column(row, 2)?,
        granted_ns: column(row, 3)?,
        ttl_ms: column(row, 4)?,
        addr: column(row, 5)?,
        client_name: column(row, 6)?,
        db: column(row, 7)?,
        extra: column(row, 8)?,
        holders_max: column(row, 9)?,
        lasts_ms: column(row, 10)?,
        deadline_ns: column(row, 11)?,
        renewals: column(row, 12)?,
    };
    columns.into_stored()
}

impl FromSql for Bytes {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Bytes> {
        value.as_blob().map(|bytes| Bytes(bytes.to_vec()))
    }
}

impl FromSql for ExtraColumns {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<ExtraColumns> {
        serde_json::from_str(value.as_str()?).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// Adds a row to the change log.
pub(super) fn put_changes(db: &Connection, row: i64, text: &[u8]) -> rusqlite::Result<()> {
    let text = ToSqlOutput::Borrowed(ValueRef::Text(text));
    db.prepare_cached("INSERT INTO changes VALUES (?1, ?2)")?.execute(params![row, text])?;
    Ok(())
}

/// The text of a row of the change log.
pub(super) fn changes_of(db: &Connection, row: i64) -> rusqlite::Result<String> {
    db.prepare_cached("SELECT entries FROM changes WHERE row = ?1")?.query_row([row], |row| row.get(0))
}

/// Removes the rows of the change log up to `row`.
pub(super) fn remove_changes(db: &Connection, row: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM changes WHERE row <= ?1")?.execute([row])?;
    Ok(())
}

/// Places of elements are below this. None is used twice, and no server inserts as many elements.
const PLACE_MAX: i64 = 1 << 62;

/// How far changes of values have moved.
pub(super) fn position(db: &Connection) -> Result<Position, JournalError> {
    const FIND: &str = "SELECT moved_row, moved_changes, last_place FROM octostore";
    let position = |row: &Row<'_>| {
        let changes = column::<u32>(row, 1)? as usize;
        Ok(Position { row: column(row, 0)?, changes, place: column(row, 2)? })
    };
    let found = db.query_row(FIND, [], |row| Ok(position(row)));
    let position: Position = found.map_err(|error| fault("read the database", &error))??;
    if !(0..ROW_MAX).contains(&position.row) || !(0..PLACE_MAX).contains(&position.place) {
        return Err(JournalError::corrupt(format!("changes moved up to {position:?}")));
    }
    Ok(position)
}

/// Writes how far changes of values have moved.
pub(super) fn put_position(db: &Connection, position: Position) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE octostore SET moved_row = ?1, moved_changes = ?2, last_place = ?3")?
        .execute(params![position.row, position.changes as i64, position.place])?;
    Ok(())
}

/// Raises the highest token that may be issued; never lowers it.
pub(super) fn reserve_tokens(db: &Connection, upto: i64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE octostore SET tokens_reserved = max(tokens_reserved, ?1)")?.execute([upto])?;
    Ok(())
}

/// Writes the delay of a lock, or removes it.
pub(super) fn put_delay(db: &Connection, name: &LockName, delay: Option<Delay>) -> rusqlite::Result<()> {
    match delay {
        Some(delay) => {
            db.prepare_cached("INSERT OR REPLACE INTO delays VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                name.database(),
                name.key(),
                delay.until.to_stored(),
                delay.length.to_stored()
            ])?
        }
        None => db
            .prepare_cached("DELETE FROM delays WHERE db = ?1 AND key = ?2")?
            .execute(params![name.database(), name.key()])?,
    };
    Ok(())
}

/// Writes a session.
pub(super) fn put_session(db: &Connection, session: &SessionRecord) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        session_text(session.id),
        session.name,
        session.account.as_deref(),
        session.ttl.map(Ttl::to_stored),
        session.deadline.to_stored(),
    ])?;
    Ok(())
}

/// Removes a session.
pub(super) fn remove_session(db: &Connection, id: SessionId) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM sessions WHERE id = ?1")?.execute([session_text(id)])?;
    Ok(())
}

/// A value of a row; one that is not of its type is damage.
pub(super) fn column<T: FromSql>(row: &Row<'_>, index: usize) -> Result<T, JournalError> {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    row.get(index).map_err(|error| match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => {
            JournalError::corrupt(error)
        }
        error => fault("read a row", &error),
    })
}

pub(super) fn name_from(row: &Row<'_>, database: usize, key: usize) -> Result<LockName, JournalError> {
    LockName::new(column(row, database)?, &column::<Vec<u8>>(row, key)?).map_err(JournalError::corrupt)
}

pub(super) fn session_from(row: &Row<'_>) -> Result<SessionRecord, JournalError> {
    Ok(SessionRecord {
        id: session_id_from(&column::<String>(row, 0)?)?,
        name: column(row, 1)?,
        account: column::<Option<String>>(row, 2)?.map(String::into_boxed_str),
        ttl: ttl_from(column(row, 3)?)?,
        deadline: Timestamp::from_stored(column(row, 4)?),
    })
}
