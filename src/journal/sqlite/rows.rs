//! Rows and what they stand for.
//!
//! Promise: what was written is read again to the last field; a row that makes no lease is damage, not a panic.
//! Absent: transactions, and which rows are written when.

use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, params};
use serde::Deserialize;

use super::fault::fault;
use crate::journal::log::entry::Change;
use crate::journal::{JournalError, Renewal, SessionRecord, StoredLease};
use crate::lock::{
    Delay, FencingToken, Lease, LeaseExtra, LockName, Mode, Origin, Owner, SessionId, Timestamp, Ttl,
};

/// The table `held`.
pub(in crate::journal) struct Held<'db> {
    put: CachedStatement<'db>,
    renew: CachedStatement<'db>,
    remove: CachedStatement<'db>,
}

impl Held<'_> {
    pub(in crate::journal) fn of(db: &Connection) -> rusqlite::Result<Held<'_>> {
        Ok(Held {
            put: db.prepare_cached(
                "INSERT OR REPLACE INTO held VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)",
            )?,
            renew: db.prepare_cached(
                "UPDATE held SET deadline_ns = ?2, lasts_ms = ?3, renewals = ?4 WHERE token = ?1",
            )?,
            remove: db.prepare_cached("DELETE FROM held WHERE token = ?1")?,
        })
    }

    /// Writes what a lease has come to.
    pub(in crate::journal) fn write(&mut self, token: i64, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Granted(stored) => self.put(stored)?,
            Change::Renewed(renewal) => {
                let Renewal { deadline, lasts, renewals, .. } = renewal;
                self.renew.execute(params![
                    token,
                    deadline.to_stored(),
                    lasts.map(Ttl::as_millis),
                    renewals
                ])?;
            }
            Change::Ended => {
                self.remove.execute([token])?;
            }
        }
        Ok(())
    }

    fn put(&mut self, StoredLease { name, lease }: &StoredLease) -> rusqlite::Result<()> {
        let extra = lease.extra.as_deref();
        let millis = |ttl: Option<Ttl>| ttl.map(Ttl::as_millis);
        self.put.execute(params![
            lease.token.get(),
            name.database(),
            name.key(),
            lease.owner.as_bytes(),
            lease.mode.capacity(),
            millis(lease.ttl),
            millis(lease.lasts),
            lease.deadline.to_stored(),
            lease.granted_at.to_stored(),
            lease.renewals,
            millis(extra.and_then(|extra| extra.max_hold)),
            millis(extra.and_then(|extra| extra.delay)),
            extra.is_some_and(|extra| extra.delays_after_release),
            lease.session().map(session_text),
            lease.counted_by().map(session_text),
            lease.account(),
            lease.meta(),
            lease.origin.as_ref().map(|origin| origin.addr.as_str()),
            lease.origin.as_ref().map(|origin| origin.client_name.as_str()),
        ])?;
        Ok(())
    }
}

/// Writes what happened to leases in one commit.
pub(in crate::journal) fn put_changes(db: &Connection, row: i64, text: &[u8]) -> rusqlite::Result<()> {
    let text = ToSqlOutput::Borrowed(ValueRef::Text(text));
    db.prepare_cached("INSERT INTO changes VALUES (?1, ?2)")?.execute(params![row, text])?;
    Ok(())
}

/// The text of a row of `changes`.
pub(in crate::journal) fn changes_of(db: &Connection, row: i64) -> rusqlite::Result<String> {
    db.prepare_cached("SELECT leases FROM changes WHERE row = ?1")?.query_row([row], |row| row.get(0))
}

/// Removes the rows of `changes` up to this one.
pub(in crate::journal) fn remove_changes(db: &Connection, row: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM changes WHERE row <= ?1")?.execute([row])?;
    Ok(())
}

/// Moves the mark under which tokens may be issued; never back.
pub(in crate::journal) fn reserve_tokens(db: &Connection, upto: i64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE octostore SET tokens_reserved = max(tokens_reserved, ?1)")?.execute([upto])?;
    Ok(())
}

/// Writes a delay, or that there is none.
pub(in crate::journal) fn put_delay(
    db: &Connection,
    name: &LockName,
    delay: Option<Delay>,
) -> rusqlite::Result<()> {
    match delay {
        Some(delay) => {
            db.prepare_cached("INSERT OR REPLACE INTO delays VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                name.database(),
                name.key(),
                delay.until.to_stored(),
                delay.length.as_millis()
            ])?
        }
        None => db
            .prepare_cached("DELETE FROM delays WHERE db = ?1 AND key = ?2")?
            .execute(params![name.database(), name.key()])?,
    };
    Ok(())
}

/// Writes a session.
pub(in crate::journal) fn put_session(db: &Connection, session: &SessionRecord) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        session_text(session.id),
        session.name,
        session.account.as_deref(),
        session.ttl.map(Ttl::as_millis),
        session.deadline.to_stored(),
    ])?;
    Ok(())
}

/// Removes a session.
pub(in crate::journal) fn remove_session(db: &Connection, id: SessionId) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM sessions WHERE id = ?1")?.execute([session_text(id)])?;
    Ok(())
}

pub(in crate::journal) fn session_text(id: SessionId) -> String {
    format!("{:032x}", id.0)
}

pub(in crate::journal) fn column<T: FromSql>(row: &Row<'_>, index: usize) -> Result<T, JournalError> {
    row.get(index).map_err(|error| fault("read a row", &error))
}

pub(in crate::journal) fn damaged(what: impl ToString) -> JournalError {
    JournalError::Corrupt { what: what.to_string() }
}

pub(in crate::journal) fn ttl_from(millis: Option<i64>) -> Result<Option<Ttl>, JournalError> {
    millis.map(|millis| Ttl::from_millis(u64::try_from(millis).unwrap_or(0)).map_err(damaged)).transpose()
}

pub(in crate::journal) fn session_id_from(text: &str) -> Result<SessionId, JournalError> {
    u128::from_str_radix(text, 16).map(SessionId).map_err(|_| damaged("a session id that is not hexadecimal"))
}

pub(in crate::journal) fn name_from(
    row: &Row<'_>,
    database: usize,
    key: usize,
) -> Result<LockName, JournalError> {
    LockName::new(column(row, database)?, &column::<Vec<u8>>(row, key)?).map_err(damaged)
}

pub(in crate::journal) fn session_from(row: &Row<'_>) -> Result<SessionRecord, JournalError> {
    Ok(SessionRecord {
        id: session_id_from(&column::<String>(row, 0)?)?,
        name: column(row, 1)?,
        account: column::<Option<String>>(row, 2)?.map(String::into_boxed_str),
        ttl: ttl_from(column(row, 3)?)?,
        deadline: Timestamp::from_stored(column(row, 4)?),
    })
}

/// The columns of `held`, as rows and as JSON have them, in this order.
#[derive(Debug, Deserialize)]
pub(in crate::journal) struct LeaseColumns(
    i64,            // token
    u8,             // db
    Bytes,          // key
    Bytes,          // owner
    Option<u32>,    // holders_max
    Option<i64>,    // ttl_ms
    Option<i64>,    // lasts_ms
    Option<i64>,    // deadline_ns
    i64,            // granted_ns
    u32,            // renewals
    Option<i64>,    // max_hold_ms
    Option<i64>,    // delay_ms
    u8,             // delay_always
    Option<String>, // session
    Option<String>, // counted_by
    Option<String>, // account
    Option<String>, // meta
    Option<String>, // addr
    Option<String>, // client_name
);

/// A key or an owner.
#[derive(Debug)]
pub(in crate::journal) struct Bytes(pub(in crate::journal) Vec<u8>);

impl FromSql for Bytes {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Bytes> {
        value.as_blob().map(|bytes| Bytes(bytes.to_vec()))
    }
}

pub(in crate::journal) fn lease_from_row(row: &Row<'_>) -> Result<StoredLease, JournalError> {
    lease_from(LeaseColumns(
        column(row, 0)?,
        column(row, 1)?,
        column(row, 2)?,
        column(row, 3)?,
        column(row, 4)?,
        column(row, 5)?,
        column(row, 6)?,
        column(row, 7)?,
        column(row, 8)?,
        column(row, 9)?,
        column(row, 10)?,
        column(row, 11)?,
        column(row, 12)?,
        column(row, 13)?,
        column(row, 14)?,
        column(row, 15)?,
        column(row, 16)?,
        column(row, 17)?,
        column(row, 18)?,
    ))
}

pub(in crate::journal) fn lease_from(columns: LeaseColumns) -> Result<StoredLease, JournalError> {
    let LeaseColumns(
        token,
        database,
        key,
        owner,
        holders_max,
        ttl,
        lasts,
        deadline,
        granted,
        renewals,
        max_hold,
        delay,
        delay_always,
        session,
        counted_by,
        account,
        meta,
        addr,
        client_name,
    ) = columns;
    let id = |text: Option<String>| text.as_deref().map(session_id_from).transpose();
    let extra = LeaseExtra {
        max_hold: ttl_from(max_hold)?,
        delay: ttl_from(delay)?,
        delays_after_release: delay_always != 0,
        session: id(session)?,
        counted_by: id(counted_by)?,
        account: account.map(String::into_boxed_str),
        meta: meta.map(String::into_boxed_str),
    };
    let origin = addr.map(|addr| Arc::new(Origin { addr, client_name: client_name.unwrap_or_default() }));
    let lease = Lease {
        owner: Owner::new(&owner.0).map_err(damaged)?,
        token: FencingToken::new(token).map_err(damaged)?,
        mode: holders_max.map_or(Ok(Mode::Shared), Mode::limit).map_err(damaged)?,
        ttl: ttl_from(ttl)?,
        deadline: Timestamp::from_stored(deadline),
        lasts: ttl_from(lasts)?,
        granted_at: Timestamp::from_stored(Some(granted)),
        renewals,
        origin,
        is_unclaimed: false,
        extra: (extra != LeaseExtra::default()).then(|| Box::new(extra)),
    };
    Ok(StoredLease { name: LockName::new(database, &key.0).map_err(damaged)?, lease })
}
