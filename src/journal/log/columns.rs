//! The stored form of leases and values, in their tables and in the change log alike.
//!
//! Guarantees: what is written is read again to the last field; columns that make no lease or value
//! are damage, not a panic. [`COLUMNS`] gives the table, the view and the log their columns, and
//! [`value`] gives all of them their values. Not here: SQL statements, and the syntax of log
//! entries.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use crate::domain::{FencingToken, LockName, Owner, SessionId, Timestamp, Ttl};
use crate::journal::{JournalError, StoredLease, StoredValue};
use crate::lock::{Lease, LeaseExtra, Mode, Origin};
use crate::value::Kind;

/// A column of a lease.
#[derive(Debug)]
pub(in crate::journal) struct Column {
    pub(in crate::journal) name: &'static str,
    /// Its declaration in the table of leases.
    pub(in crate::journal) declaration: &'static str,
    /// Its value where a log entry ends before it, as an SQL expression over the other columns;
    /// `None` for a column that every entry has.
    pub(in crate::journal) default: Option<&'static str>,
}

const fn column(name: &'static str, declaration: &'static str) -> Column {
    Column { name, declaration, default: None }
}

const fn optional(name: &'static str, declaration: &'static str, default: &'static str) -> Column {
    Column { name, declaration, default: Some(default) }
}

/// The deadline that a lease was granted with; the latest one that fits, if the TTL is longer.
const DEADLINE_AS_GRANTED: &str =
    "granted_ns + min(1000000 * min(ttl_ms, 9223372036854), 9223372036854775807 - granted_ns)";

/// The columns of a lease in the order of the table and of log entries: what differs from its
/// default least often comes last, where an entry can leave it out.
pub(in crate::journal) const COLUMNS: [Column; 13] = [
    column("token", "INTEGER PRIMARY KEY"),
    column("key", "BLOB NOT NULL"),
    column("owner", "BLOB NOT NULL"),
    column("granted_ns", "INTEGER NOT NULL"),
    column("ttl_ms", "INTEGER"),
    optional("addr", "TEXT", "NULL"),
    optional("client_name", "TEXT", "iif(addr IS NULL, NULL, '')"),
    optional("db", "INTEGER NOT NULL", "0"),
    optional("extra", "TEXT", "NULL"), // a JSON object: see ExtraColumns
    optional("holders_max", "INTEGER", "1"), // 1: exclusive; NULL: shared
    optional("lasts_ms", "INTEGER", "ttl_ms"), // the TTL by which the deadline was last set
    optional("deadline_ns", "INTEGER", DEADLINE_AS_GRANTED),
    optional("renewals", "INTEGER NOT NULL", "0"),
];

/// The columns that every log entry has.
const REQUIRED: usize = 5;

const _: () = {
    let mut index = 0;
    while index < COLUMNS.len() {
        assert!(COLUMNS[index].default.is_none() == (index < REQUIRED), "required columns come first");
        index += 1;
    }
};

/// How many columns an entry about this lease must have: the others have their defaults.
pub(super) fn stated_columns(StoredLease { name, lease }: &StoredLease) -> usize {
    let is_default = [
        lease.origin.is_none(),
        lease.origin.as_ref().is_none_or(|origin| origin.client_name.is_empty()),
        name.database() == 0,
        lease.extra.is_none(),
        lease.mode == Mode::Exclusive,
        lease.effective_ttl == lease.ttl,
        lease.deadline == lease.granted_at.after(lease.ttl),
        lease.renewals == 0,
    ];
    const { assert!(REQUIRED + 8 == COLUMNS.len()) };
    REQUIRED + is_default.iter().rposition(|is_default| !is_default).map_or(0, |last| last + 1)
}

/// A value of a column.
#[derive(Debug)]
pub(in crate::journal) enum Value<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    /// A key or an owner.
    Bytes(&'a [u8]),
    /// The text of a JSON object.
    Json(String),
}

/// The value of the column at this index of [`COLUMNS`].
pub(in crate::journal) fn value(StoredLease { name, lease }: &StoredLease, column: usize) -> Value<'_> {
    fn integer<'a>(number: Option<impl Into<i64>>) -> Value<'a> {
        number.map_or(Value::Null, |number| Value::Integer(number.into()))
    }
    let millis = |ttl: Option<Ttl>| integer(ttl.map(Ttl::to_stored));
    let origin = lease.origin.as_deref();
    match column {
        0 => Value::Integer(lease.token.get()),
        1 => Value::Bytes(name.key()),
        2 => Value::Bytes(lease.owner.as_bytes()),
        3 => integer(lease.granted_at.to_stored()),
        4 => millis(lease.ttl),
        5 => origin.map_or(Value::Null, |origin| Value::Text(&origin.addr)),
        6 => origin.map_or(Value::Null, |origin| Value::Text(&origin.client_name)),
        7 => Value::Integer(name.database().into()),
        8 => {
            lease.extra.as_deref().map_or(Value::Null, |extra| Value::Json(ExtraColumns::of(extra).to_json()))
        }
        9 => integer(lease.mode.capacity()),
        10 => millis(lease.effective_ttl),
        11 => integer(lease.deadline.to_stored()),
        12 => Value::Integer(lease.renewals.into()),
        _ => unreachable!("a lease has {} columns", COLUMNS.len()),
    }
}

/// What is stored of a lease, as it is read.
#[derive(Debug)]
pub(in crate::journal) struct LeaseColumns {
    pub(in crate::journal) token: i64,
    pub(in crate::journal) key: Bytes,
    pub(in crate::journal) owner: Bytes,
    pub(in crate::journal) granted_ns: i64,
    pub(in crate::journal) ttl_ms: Option<i64>,
    pub(in crate::journal) addr: Option<String>,
    pub(in crate::journal) client_name: Option<String>,
    pub(in crate::journal) db: u8,
    pub(in crate::journal) extra: Option<ExtraColumns>,
    pub(in crate::journal) holders_max: Option<u32>,
    pub(in crate::journal) lasts_ms: Option<i64>,
    pub(in crate::journal) deadline_ns: Option<i64>,
    pub(in crate::journal) renewals: u32,
}

impl LeaseColumns {
    /// The lease; fails on values out of range.
    pub(in crate::journal) fn into_stored(self) -> Result<StoredLease, JournalError> {
        let client_name = self.client_name.unwrap_or_default();
        let lease = Lease {
            owner: Owner::new(&self.owner.0).map_err(JournalError::corrupt)?,
            token: FencingToken::new(self.token).map_err(JournalError::corrupt)?,
            mode: self.holders_max.map_or(Ok(Mode::Shared), Mode::limit).map_err(JournalError::corrupt)?,
            ttl: ttl_from(self.ttl_ms)?,
            deadline: Timestamp::from_stored(self.deadline_ns),
            effective_ttl: ttl_from(self.lasts_ms)?,
            granted_at: Timestamp::from_stored(Some(self.granted_ns)),
            renewals: self.renewals,
            origin: self.addr.map(|addr| Arc::new(Origin { addr, client_name })),
            is_unacknowledged: false,
            extra: self.extra.map(ExtraColumns::into_extra).transpose()?,
        };
        let name = LockName::new(self.db, &self.key.0).map_err(JournalError::corrupt)?;
        Ok(StoredLease { name, lease })
    }
}

/// The attributes that few leases have: a JSON object in one column. Another attribute is a field
/// here, and a line in [`ExtraColumns::VIEW`] if the view shows it; no table changes. Unknown
/// attributes are refused as corrupt, so raise the schema version with a new one: an older server
/// then names the reason.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::journal) struct ExtraColumns {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::journal) max_hold_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::journal) delay_ms: Option<i64>,
    /// The delay is due after a clean end, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::journal) delay_always: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::journal) session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::journal) counted_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::journal) account: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::journal) meta: Option<Box<str>>,
}

impl ExtraColumns {
    /// The attributes as the view of leases shows them: name, and value where there is none.
    pub(in crate::journal) const VIEW: [(&str, &str); 7] = [
        ("max_hold_ms", "NULL"),
        ("delay_ms", "NULL"),
        ("delay_always", "0"),
        ("session", "NULL"),
        ("counted_by", "NULL"),
        ("account", "NULL"),
        ("meta", "NULL"),
    ];

    fn of(extra: &LeaseExtra) -> ExtraColumns {
        let millis = |ttl: Option<Ttl>| ttl.map(Ttl::to_stored);
        ExtraColumns {
            max_hold_ms: millis(extra.max_hold),
            delay_ms: millis(extra.delay),
            delay_always: extra.delays_after_release,
            session: extra.session.map(session_text),
            counted_by: extra.counted_by.map(session_text),
            account: extra.account.clone(),
            meta: extra.meta.clone(),
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| unreachable!("texts and numbers are valid JSON"))
    }

    fn into_extra(self) -> Result<Box<LeaseExtra>, JournalError> {
        let id = |text: Option<String>| text.as_deref().map(session_id_from).transpose();
        Ok(Box::new(LeaseExtra {
            max_hold: ttl_from(self.max_hold_ms)?,
            delay: ttl_from(self.delay_ms)?,
            delays_after_release: self.delay_always,
            session: id(self.session)?,
            counted_by: id(self.counted_by)?,
            account: self.account,
            meta: self.meta,
        }))
    }
}

/// What is stored of a value, as it is read.
#[derive(Debug)]
pub(in crate::journal) struct ValueColumns {
    pub(in crate::journal) id: i64,
    pub(in crate::journal) token: i64,
    pub(in crate::journal) db: u8,
    pub(in crate::journal) key: Bytes,
    pub(in crate::journal) kind: String,
    pub(in crate::journal) ttl_ms: Option<i64>,
    pub(in crate::journal) deadline_ns: Option<i64>,
}

impl ValueColumns {
    /// The value; fails on values out of range.
    pub(in crate::journal) fn into_stored(self) -> Result<StoredValue, JournalError> {
        let kind = Kind::from_name(&self.kind);
        Ok(StoredValue {
            id: FencingToken::new(self.id).map_err(JournalError::corrupt)?,
            token: FencingToken::new(self.token).map_err(JournalError::corrupt)?,
            name: LockName::new(self.db, &self.key.0).map_err(JournalError::corrupt)?,
            kind: kind.ok_or_else(|| JournalError::corrupt("a value of an unknown type"))?,
            ttl: ttl_from(self.ttl_ms)?,
            deadline: Timestamp::from_stored(self.deadline_ns),
        })
    }
}

pub(in crate::journal) fn session_text(id: SessionId) -> String {
    format!("{:032x}", id.0)
}

pub(in crate::journal) fn session_id_from(text: &str) -> Result<SessionId, JournalError> {
    let id = u128::from_str_radix(text, 16);
    id.map(SessionId).map_err(|_| JournalError::corrupt("a session id that is not hexadecimal"))
}

pub(in crate::journal) fn ttl_from(millis: Option<i64>) -> Result<Option<Ttl>, JournalError> {
    let ttl = |millis| Ttl::from_millis(u64::try_from(millis).unwrap_or(0)).map_err(JournalError::corrupt);
    millis.map(ttl).transpose()
}
