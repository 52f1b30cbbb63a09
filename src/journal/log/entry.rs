//! What happened to leases in one commit, as one JSON text: a row of the table `changes`.
//!
//! Promise: any SQLite tool can read it; a text that is not ours is damage, not a panic. An element is one of these:
//!
//! * a new lease: an array of the columns of `held`,
//! * a new lease like most, exclusive and without anything rare: token, db, key, owner, granted_ns, ttl_ms, addr, client_name,
//! * a renewal: token, deadline_ns, lasts_ms, renewals,
//! * for a lease that is over, its token.
//!
//! Keys and owners are strings, or arrays of bytes where they are no text. Absent: SQL.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::journal::sqlite::rows::{Bytes, LeaseColumns, damaged, lease_from, session_text, ttl_from};
use crate::journal::{JournalError, Renewal, StoredLease};
use crate::lock::{FencingToken, Lease, LockName, Mode, Origin, Owner, Request, Timestamp, Ttl};

/// What a row says of a lease.
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
    pub(in crate::journal) fn with_capacity(bytes: usize) -> ChangesText {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'[');
        ChangesText(text)
    }

    pub(in crate::journal) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    pub(in crate::journal) fn granted(&mut self, stored: &StoredLease) {
        let StoredLease { name, lease } = stored;
        let extra = lease.extra.as_deref();
        let millis = |ttl: Option<Ttl>| ttl.map(Ttl::as_millis);
        let addr = lease.origin.as_ref().map(|origin| origin.addr.as_str());
        let client_name = lease.origin.as_ref().map(|origin| origin.client_name.as_str());
        if is_plain(lease) {
            // The order of `PlainLease`. Nearly all there is to write is written here: as serde does it, in half the time.
            self.next();
            self.0.push(b'[');
            self.number(lease.token.get());
            self.0.push(b',');
            self.number(name.database());
            self.0.push(b',');
            self.text(name.key());
            self.0.push(b',');
            self.text(lease.owner.as_bytes());
            self.0.push(b',');
            self.number_or_null(lease.granted_at.to_stored());
            self.0.push(b',');
            self.number_or_null(millis(lease.ttl));
            for text in [addr, client_name] {
                self.0.push(b',');
                match text {
                    Some(text) => self.text(text.as_bytes()),
                    None => self.0.extend_from_slice(b"null"),
                }
            }
            self.0.push(b']');
            return;
        }
        self.push(&GrantedColumns(
            lease.token.get(),
            name.database(),
            Text(name.key()),
            Text(lease.owner.as_bytes()),
            lease.mode.capacity(),
            millis(lease.ttl),
            millis(lease.lasts),
            lease.deadline.to_stored(),
            lease.granted_at.to_stored(),
            lease.renewals,
            millis(extra.and_then(|extra| extra.max_hold)),
            millis(extra.and_then(|extra| extra.delay)),
            u8::from(extra.is_some_and(|extra| extra.delays_after_release)),
            lease.session().map(session_text),
            lease.counted_by().map(session_text),
            lease.account(),
            lease.meta(),
            addr,
            client_name,
        ));
    }

    pub(in crate::journal) fn renewed(&mut self, renewal: &Renewal) {
        let lasts = renewal.lasts.map(Ttl::as_millis);
        self.push(&(renewal.token.get(), renewal.deadline.to_stored(), lasts, renewal.renewals));
    }

    pub(in crate::journal) fn ended(&mut self, token: i64) {
        self.next();
        self.number(token);
    }

    fn next(&mut self) {
        if !self.is_empty() {
            self.0.push(b',');
        }
    }

    fn push(&mut self, change: &impl Serialize) {
        self.next();
        self.serialize(change);
    }

    fn serialize(&mut self, value: &impl Serialize) {
        serde_json::to_writer(&mut self.0, value).unwrap_or_else(|_| unreachable!("a Vec takes all"));
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn number_or_null(&mut self, number: Option<impl itoa::Integer>) {
        match number {
            Some(number) => self.number(number),
            None => self.0.extend_from_slice(b"null"),
        }
    }

    fn text(&mut self, text: &[u8]) {
        if text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
            self.0.push(b'"');
            self.0.extend_from_slice(text);
            self.0.push(b'"');
        } else {
            self.serialize(&Text(text));
        }
    }

    /// UTF-8.
    pub(in crate::journal) fn into_bytes(mut self) -> Vec<u8> {
        self.0.push(b']');
        self.0
    }
}

/// Whether the rest can be told from eight columns.
fn is_plain(lease: &Lease) -> bool {
    lease.extra.is_none()
        && lease.mode == Mode::Exclusive
        && lease.renewals == 0
        && lease.lasts == lease.ttl
        && lease.deadline == lease.granted_at.after(lease.ttl)
}

/// [`LeaseColumns`] on their way out.
#[derive(Serialize)]
struct GrantedColumns<'a>(
    i64,
    u8,
    Text<'a>,
    Text<'a>,
    Option<u32>,
    Option<u32>,
    Option<u32>,
    Option<i64>,
    Option<i64>,
    u32,
    Option<u32>,
    Option<u32>,
    u8,
    Option<String>,
    Option<String>,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
);

struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            // SQLite's JSON functions end a text at NUL.
            Ok(text) if !self.0.contains(&0) => serializer.serialize_str(text),
            _ => serializer.collect_seq(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct TextOrBytes;
        impl<'de> Visitor<'de> for TextOrBytes {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an array of bytes")
            }
            fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = items.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_any(TextOrBytes)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Ended(i64),
    Renewed(i64, Option<i64>, Option<i64>, u32),
    Plain(PlainLease),
    Granted(Box<LeaseColumns>),
}

#[derive(Deserialize)]
struct PlainLease(
    i64,            // token
    u8,             // db
    Bytes,          // key
    Bytes,          // owner
    i64,            // granted_ns
    Option<i64>,    // ttl_ms
    Option<String>, // addr
    Option<String>, // client_name
);

impl PlainLease {
    fn stored(self) -> Result<StoredLease, JournalError> {
        let PlainLease(token, database, key, owner, granted, ttl, addr, client_name) = self;
        let origin = addr.map(|addr| Origin { addr, client_name: client_name.unwrap_or_default() });
        let request = Request {
            origin: origin.map(Arc::new),
            ..Request::exclusive(Owner::new(&owner.0).map_err(damaged)?, ttl_from(ttl)?)
        };
        let token = FencingToken::new(token).map_err(damaged)?;
        let lease = Lease::grant(&request, token, Timestamp::from_stored(Some(granted)));
        Ok(StoredLease { name: LockName::new(database, &key.0).map_err(damaged)?, lease })
    }
}

/// The changes in a text, with their tokens: of each lease the sum of what is said of it.
pub(in crate::journal) fn read(text: &str) -> Result<VecDeque<(i64, Change)>, JournalError> {
    let elements: Vec<Element> = serde_json::from_str(text).map_err(damaged)?;
    let mut changes: VecDeque<(i64, Change)> = VecDeque::with_capacity(elements.len());
    let mut places: HashMap<i64, usize> = HashMap::with_capacity(elements.len());
    for element in elements {
        let (token, change) = match element {
            Element::Ended(token) => (token, Change::Ended),
            Element::Renewed(token, deadline, lasts, renewals) => {
                let renewal = Renewal {
                    token: FencingToken::new(token).map_err(damaged)?,
                    deadline: Timestamp::from_stored(deadline),
                    lasts: ttl_from(lasts)?,
                    renewals,
                };
                (token, Change::Renewed(renewal))
            }
            Element::Plain(plain) => granted(plain.stored()?),
            Element::Granted(columns) => granted(lease_from(*columns)?),
        };
        let Some(place) = places.insert(token, changes.len()) else {
            changes.push_back((token, change));
            continue;
        };
        places.insert(token, place);
        match (&mut changes[place].1, change) {
            (Change::Granted(stored), Change::Renewed(renewal)) => renewal.apply_to(&mut stored.lease),
            (Change::Renewed(first), Change::Renewed(renewal)) => *first = renewal,
            _ => return Err(damaged(format!("a row of changes says contradictory things of token {token}"))),
        }
    }
    Ok(changes)
}

fn granted(stored: StoredLease) -> (i64, Change) {
    (stored.lease.token.get(), Change::Granted(Box::new(stored)))
}
