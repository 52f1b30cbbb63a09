//! What one commit did to leases and values, as one JSON text: a row of the change log.
//!
//! A text is an array of entries. An entry is one of these:
//!
//! * the token of a lease: the lease is over,
//! * `[1, …]`: a new lease, as its columns (`columns::COLUMNS`); columns at the end that have their
//!   defaults are left out,
//! * `[2, token, deadline_ns, lasts_ms, renewals]`: a renewal,
//! * `[3, id, token, db, key, kind, ttl_ms, deadline_ns]`: a value, new or changed,
//! * `[4, id]`: a value is gone,
//! * `[5, id, field, value]`: an element of a value,
//! * `[6, id, field]`: an element is gone.
//!
//! The first element of an array is its tag. Keys, owners, fields and their values are strings, or
//! arrays where they are not text: see `bytes`.
//!
//! Guarantees: any SQLite tool can read a text; a text with an unknown tag or anything else that
//! this file does not write is damage, not a panic. Not here: SQL.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::bytes::{self, Bytes};
use super::columns::{LeaseColumns, Value, ValueColumns, stated_columns, ttl_from, value};
use crate::domain::{FencingToken, Timestamp, Ttl};
use crate::journal::{JournalError, Record, Renewal, StoredLease, StoredValue};

/// The tag of a new lease.
pub(in crate::journal) const GRANTED: u8 = 1;
/// The tag of a renewal.
pub(in crate::journal) const RENEWED: u8 = 2;
const VALUE_PUT: u8 = 3;
const VALUE_GONE: u8 = 4;
const ELEMENT_PUT: u8 = 5;
const ELEMENT_GONE: u8 = 6;

/// What a row says about a lease.
#[derive(Debug)]
pub(in crate::journal) enum Change {
    /// It was granted.
    Granted(Box<StoredLease>),
    /// It was renewed.
    Renewed(Renewal),
    /// It is over.
    Ended,
}

/// Collects the changes of one commit.
pub(in crate::journal) struct ChangesText(Vec<u8>);

impl ChangesText {
    /// An empty text with room for `bytes` bytes.
    pub(in crate::journal) fn with_capacity(bytes: usize) -> ChangesText {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'[');
        ChangesText(text)
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// Adds a new lease. Nearly all bytes of the log are written here, so this is not left to
    /// serde, which takes twice as long.
    pub(in crate::journal) fn granted(&mut self, stored: &StoredLease) {
        self.separate();
        self.0.push(b'[');
        self.number(GRANTED);
        for column in 0..stated_columns(stored) {
            self.0.push(b',');
            match value(stored, column) {
                Value::Null => self.0.extend_from_slice(b"null"),
                Value::Integer(number) => self.number(number),
                Value::Text(text) => bytes::write_listed(&mut self.0, text.as_bytes()),
                Value::Bytes(bytes) => bytes::write_listed(&mut self.0, bytes),
                Value::Json(text) => self.0.extend_from_slice(text.as_bytes()),
            }
        }
        self.0.push(b']');
    }

    /// Adds a renewal.
    pub(in crate::journal) fn renewed(&mut self, renewal: &Renewal) {
        let Renewal { token, deadline, effective_ttl, renewals } = renewal;
        self.separate();
        self.serialize(&(
            RENEWED,
            token.get(),
            deadline.to_stored(),
            effective_ttl.map(Ttl::to_stored),
            renewals,
        ));
    }

    /// Adds the end of a lease.
    pub(in crate::journal) fn ended(&mut self, token: i64) {
        self.separate();
        self.number(token);
    }

    /// Adds a change of a value. Any other record is left out.
    pub(in crate::journal) fn value_change(&mut self, change: &Record) {
        match change {
            Record::ValuePut(stored) => self.value_put(stored),
            Record::ValueGone(id) => {
                self.begin(VALUE_GONE, *id);
                self.0.push(b']');
            }
            Record::Element { id, field, value } => {
                self.begin(if value.is_some() { ELEMENT_PUT } else { ELEMENT_GONE }, *id);
                for bytes in std::iter::once(field).chain(value) {
                    self.0.push(b',');
                    bytes::write_compact(&mut self.0, bytes);
                }
                self.0.push(b']');
            }
            _ => {}
        }
    }

    fn value_put(&mut self, StoredValue { id, token, name, kind, ttl, deadline }: &StoredValue) {
        self.begin(VALUE_PUT, *id);
        self.0.push(b',');
        self.number(token.get());
        self.0.push(b',');
        self.number(name.database());
        self.0.push(b',');
        bytes::write_compact(&mut self.0, name.key());
        self.0.push(b',');
        bytes::write_compact(&mut self.0, kind.name().as_bytes());
        for number in [ttl.map(Ttl::to_stored), deadline.to_stored()] {
            self.0.push(b',');
            match number {
                Some(number) => self.number(number),
                None => self.0.extend_from_slice(b"null"),
            }
        }
        self.0.push(b']');
    }

    /// Begins an array about the value with this id.
    fn begin(&mut self, tag: u8, id: FencingToken) {
        self.separate();
        self.0.push(b'[');
        self.number(tag);
        self.0.push(b',');
        self.number(id.get());
    }

    fn separate(&mut self) {
        if !self.is_empty() {
            self.0.push(b',');
        }
    }

    fn serialize(&mut self, value: &impl Serialize) {
        serde_json::to_writer(&mut self.0, value).unwrap_or_else(|_| unreachable!("a Vec takes all"));
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// The whole text, in UTF-8.
    pub(in crate::journal) fn into_bytes(mut self) -> Vec<u8> {
        self.0.push(b']');
        self.0
    }
}

enum Entry {
    Lease(LeaseEntry),
    Value(Record),
}

enum LeaseEntry {
    Ended(i64),
    Renewed { token: i64, deadline_ns: Option<i64>, lasts_ms: Option<i64>, renewals: u32 },
    Granted(Box<LeaseColumns>),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        struct TokenOrTagged;
        impl<'de> Visitor<'de> for TokenOrTagged {
            type Value = Entry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token or a tagged array")
            }
            fn visit_u64<E: Error>(self, token: u64) -> Result<Entry, E> {
                let ended = |token| Entry::Lease(LeaseEntry::Ended(token));
                i64::try_from(token).map(ended).map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Entry, A::Error> {
                let tag = required(&mut items, "a tag")?;
                let lease = match tag {
                    GRANTED => LeaseEntry::Granted(Box::new(granted_columns(&mut items)?)),
                    RENEWED => LeaseEntry::Renewed {
                        token: required(&mut items, "token")?,
                        deadline_ns: required(&mut items, "deadline_ns")?,
                        lasts_ms: required(&mut items, "lasts_ms")?,
                        renewals: required(&mut items, "renewals")?,
                    },
                    VALUE_PUT..=ELEMENT_GONE => return value_change(tag, &mut items).map(Entry::Value),
                    _ => return Err(A::Error::custom(format!("an entry with the unknown tag {tag}"))),
                };
                Ok(Entry::Lease(lease))
            }
        }
        deserializer.deserialize_any(TokenOrTagged)
    }
}

fn required<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    items: &mut A,
    name: &'static str,
) -> Result<T, A::Error> {
    items.next_element()?.ok_or_else(|| A::Error::custom(format!("an entry without {name}")))
}

/// In the order and with the defaults of `COLUMNS`.
fn granted_columns<'de, A: SeqAccess<'de>>(items: &mut A) -> Result<LeaseColumns, A::Error> {
    let (token, key, owner) = (required(items, "token")?, required(items, "key")?, required(items, "owner")?);
    let (granted_ns, ttl_ms) = (required(items, "granted_ns")?, required::<Option<i64>, A>(items, "ttl_ms")?);
    let addr = items.next_element()?.unwrap_or_default();
    let client_name = items.next_element()?.unwrap_or_default();
    let db = items.next_element()?.unwrap_or_default();
    let extra = items.next_element()?.unwrap_or_default();
    let holders_max = items.next_element()?.unwrap_or(Some(1));
    let lasts_ms = items.next_element()?.unwrap_or(ttl_ms);
    let deadline_ns = match items.next_element()? {
        Some(deadline_ns) => deadline_ns,
        None => {
            let ttl = ttl_from(ttl_ms).map_err(A::Error::custom)?;
            Timestamp::from_stored(Some(granted_ns)).after(ttl).to_stored()
        }
    };
    let renewals = items.next_element()?.unwrap_or_default();
    Ok(LeaseColumns {
        token,
        key,
        owner,
        granted_ns,
        ttl_ms,
        addr,
        client_name,
        db,
        extra,
        holders_max,
        lasts_ms,
        deadline_ns,
        renewals,
    })
}

fn value_change<'de, A: SeqAccess<'de>>(tag: u8, items: &mut A) -> Result<Record, A::Error> {
    let id = FencingToken::new(required(items, "id")?).map_err(A::Error::custom)?;
    let mut bytes = |name| required::<Bytes, A>(items, name).map(|bytes| bytes.0.into_boxed_slice());
    Ok(match tag {
        VALUE_GONE => Record::ValueGone(id),
        ELEMENT_PUT => Record::Element { id, field: bytes("field")?, value: Some(bytes("value")?) },
        ELEMENT_GONE => Record::Element { id, field: bytes("field")?, value: None },
        _ => {
            let columns = ValueColumns {
                id: id.get(),
                token: required(items, "token")?,
                db: required(items, "db")?,
                key: required(items, "key")?,
                kind: required(items, "kind")?,
                ttl_ms: required(items, "ttl_ms")?,
                deadline_ns: required(items, "deadline_ns")?,
            };
            Record::ValuePut(Box::new(columns.into_stored().map_err(A::Error::custom)?))
        }
    })
}

impl LeaseEntry {
    fn into_change(self) -> Result<(i64, Change), JournalError> {
        Ok(match self {
            LeaseEntry::Ended(token) => (token, Change::Ended),
            LeaseEntry::Renewed { token, deadline_ns, lasts_ms, renewals } => {
                let renewal = Renewal {
                    token: FencingToken::new(token).map_err(JournalError::corrupt)?,
                    deadline: Timestamp::from_stored(deadline_ns),
                    effective_ttl: ttl_from(lasts_ms)?,
                    renewals,
                };
                (token, Change::Renewed(renewal))
            }
            LeaseEntry::Granted(columns) => {
                (columns.token, Change::Granted(Box::new(columns.into_stored()?)))
            }
        })
    }
}

/// What a row of the change log says.
#[derive(Debug, Default)]
pub(in crate::journal) struct RowContent {
    /// One change for each lease, with its token: the sum of its entries.
    pub(in crate::journal) leases: VecDeque<(i64, Change)>,
    /// All changes of values, in their order.
    pub(in crate::journal) values: VecDeque<Record>,
}

/// Reads a row.
pub(in crate::journal) fn read(text: &str) -> Result<RowContent, JournalError> {
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(JournalError::corrupt)?;
    let mut values = VecDeque::new();
    let mut leases = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry {
            Entry::Value(change) => values.push_back(change),
            Entry::Lease(entry) => leases.push(entry.into_change()),
        }
    }
    Ok(RowContent { leases: merge(leases.into_iter())?, values })
}

/// Passes the records that a text stands for to `each`, in their order.
#[cfg(feature = "etcd")]
pub(in crate::journal) fn read_in_order(
    text: &str,
    each: &mut dyn FnMut(Record) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(JournalError::corrupt)?;
    entries.into_iter().try_for_each(|entry| {
        each(match entry {
            Entry::Value(change) => change,
            Entry::Lease(lease) => match lease.into_change()? {
                (_, Change::Granted(stored)) => Record::Granted(*stored),
                (_, Change::Renewed(renewal)) => Record::Renewed(renewal),
                (token, Change::Ended) => {
                    Record::Ended(FencingToken::new(token).map_err(JournalError::corrupt)?)
                }
            },
        })
    })
}

/// Makes one change for each lease of the changes of one commit.
pub(in crate::journal) fn merge(
    all: impl ExactSizeIterator<Item = Result<(i64, Change), JournalError>>,
) -> Result<VecDeque<(i64, Change)>, JournalError> {
    let mut changes: VecDeque<(i64, Change)> = VecDeque::with_capacity(all.len());
    let mut places: HashMap<i64, usize> = HashMap::with_capacity(all.len());
    for change in all {
        let (token, change) = change?;
        let place = *places.entry(token).or_insert(changes.len());
        if place == changes.len() {
            changes.push_back((token, change));
            continue;
        }
        match (&mut changes[place].1, change) {
            (Change::Granted(stored), Change::Renewed(renewal)) => renewal.apply_to(&mut stored.lease),
            (Change::Renewed(first), Change::Renewed(renewal)) => *first = renewal,
            _ => {
                let what = format!("a row of changes has contradictory entries about token {token}");
                return Err(JournalError::corrupt(what));
            }
        }
    }
    Ok(changes)
}
