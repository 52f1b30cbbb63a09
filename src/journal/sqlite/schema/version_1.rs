//! Migration from schema version 1, of octostore 0.1.0. This file does not change any more.
//!
//! Version 1 had a column for each attribute of a lease, and told log entries apart by their
//! length.
//!
//! Guarantees: every lease is found again, and what would be refused without a migration is
//! refused. Not here: sessions, delays and tokens, which version 2 stores in the same way.

use rusqlite::{Connection, Row, Transaction};
use serde::Deserialize;

use super::held;
use crate::domain::{FencingToken, Timestamp};
use crate::journal::log::bytes::Bytes;
use crate::journal::log::columns::{ExtraColumns, LeaseColumns, ttl_from};
use crate::journal::log::entry::{Change, RowContent, merge};
use crate::journal::log::replay::Replay;
use crate::journal::sqlite::fault::fault;
use crate::journal::sqlite::load::{read_changes, read_leases};
use crate::journal::sqlite::rows::{self, column};
use crate::journal::{JournalError, Renewal, StoredLease};

/// Moves all leases, those of the change log too, into the table of version 2.
pub(super) fn migrate(db: &Transaction<'_>) -> Result<(), JournalError> {
    let check = |error| fault("migrate the database", &error);
    db.execute_batch("DROP VIEW IF EXISTS leases; ALTER TABLE held RENAME TO held_1").map_err(check)?;
    db.execute_batch(&held()).map_err(check)?;
    move_leases(db)?;
    db.execute_batch("DROP TABLE held_1; DELETE FROM changes; UPDATE octostore SET schema_version = 2")
        .map_err(check)?;
    db.pragma_update(None, "user_version", 2).map_err(check)
}

fn move_leases(db: &Connection) -> Result<(), JournalError> {
    let check = |error| fault("migrate a lease", &error);
    let mut replay = Replay::default();
    read_changes(db, "SELECT row, leases FROM changes ORDER BY row", |number, text| {
        replay.row(number, text.len(), RowContent { leases: read(text)?, ..RowContent::default() })
    })?;
    let mut held = rows::Held::of(db).map_err(check)?;
    let select = "SELECT * FROM held_1 ORDER BY token";
    read_leases(db, select, lease_from, &mut replay, &mut |stored| held.put(&stored).map_err(check))
}

fn lease_from(row: &Row<'_>) -> Result<StoredLease, JournalError> {
    let columns = Columns(
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
    );
    columns.into_current().into_stored()
}

/// The columns of `held`, and of most entries of the log.
#[derive(Deserialize)]
struct Columns(
    i64,              // token
    u8,               // db
    Bytes,            // key
    Bytes,            // owner
    Option<u32>,      // holders_max
    Option<i64>,      // ttl_ms
    Option<i64>,      // lasts_ms
    Option<i64>,      // deadline_ns
    i64,              // granted_ns
    u32,              // renewals
    Option<i64>,      // max_hold_ms
    Option<i64>,      // delay_ms
    u8,               // delay_always
    Option<String>,   // session
    Option<String>,   // counted_by
    Option<Box<str>>, // account
    Option<Box<str>>, // meta
    Option<String>,   // addr
    Option<String>,   // client_name
);

impl Columns {
    fn into_current(self) -> LeaseColumns {
        let extra = ExtraColumns {
            max_hold_ms: self.10,
            delay_ms: self.11,
            delay_always: self.12 != 0,
            session: self.13,
            counted_by: self.14,
            account: self.15,
            meta: self.16,
        };
        LeaseColumns {
            token: self.0,
            db: self.1,
            key: self.2,
            owner: self.3,
            holders_max: self.4,
            ttl_ms: self.5,
            lasts_ms: self.6,
            deadline_ns: self.7,
            granted_ns: self.8,
            renewals: self.9,
            addr: self.17,
            client_name: self.18,
            extra: (extra != ExtraColumns::default()).then_some(extra),
        }
    }
}

/// An entry about an exclusive lease without rare attributes, as it was granted.
#[derive(Deserialize)]
struct PlainColumns(
    i64,            // token
    u8,             // db
    Bytes,          // key
    Bytes,          // owner
    i64,            // granted_ns
    Option<i64>,    // ttl_ms
    Option<String>, // addr
    Option<String>, // client_name
);

impl PlainColumns {
    fn into_current(self) -> Result<LeaseColumns, JournalError> {
        let deadline = Timestamp::from_stored(Some(self.4)).after(ttl_from(self.5)?);
        Ok(LeaseColumns {
            token: self.0,
            db: self.1,
            key: self.2,
            owner: self.3,
            holders_max: Some(1),
            ttl_ms: self.5,
            lasts_ms: self.5,
            deadline_ns: deadline.to_stored(),
            granted_ns: self.4,
            renewals: 0,
            addr: self.6,
            client_name: self.7,
            extra: None,
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Ended(i64),
    Renewed(i64, Option<i64>, Option<i64>, u32),
    Plain(PlainColumns),
    Granted(Box<Columns>),
}

impl Entry {
    fn into_change(self) -> Result<(i64, Change), JournalError> {
        let granted =
            |columns: LeaseColumns| Ok((columns.token, Change::Granted(Box::new(columns.into_stored()?))));
        match self {
            Entry::Ended(token) => Ok((token, Change::Ended)),
            Entry::Renewed(token, deadline_ns, lasts_ms, renewals) => {
                let renewal = Renewal {
                    token: FencingToken::new(token).map_err(JournalError::corrupt)?,
                    deadline: Timestamp::from_stored(deadline_ns),
                    effective_ttl: ttl_from(lasts_ms)?,
                    renewals,
                };
                Ok((token, Change::Renewed(renewal)))
            }
            Entry::Plain(columns) => granted(columns.into_current()?),
            Entry::Granted(columns) => granted(columns.into_current()),
        }
    }
}

fn read(text: &str) -> Result<std::collections::VecDeque<(i64, Change)>, JournalError> {
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(JournalError::corrupt)?;
    merge(entries.into_iter().map(Entry::into_change))
}
