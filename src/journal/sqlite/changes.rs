//! What happened to leases in one commit, as one JSON text: a row of the table `changes`.
//!
//! Promise: any SQLite tool can read it; a text that is not ours is damage, not a panic. An element is a new lease (an array
//! of the columns of `held`), a renewal (token, deadline_ns, lasts_ms, renewals) or, for a lease that is over, its token. Keys and
//! owners are strings, or arrays of bytes where they are no text. Absent: SQL.

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::backlog::Change;
use super::rows::{Bytes, LeaseColumns, damaged, lease_from, session_text, ttl_from};
use crate::journal::{JournalError, Renewal, StoredLease};
use crate::lock::{FencingToken, Timestamp, Ttl};

/// Collects the changes of one commit.
pub(super) struct ChangesText(Vec<u8>);

impl ChangesText {
    pub(super) fn with_capacity(bytes: usize) -> ChangesText {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'[');
        ChangesText(text)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    pub(super) fn granted(&mut self, stored: &StoredLease) {
        let StoredLease { name, lease } = stored;
        let extra = lease.extra.as_deref();
        let millis = |ttl: Option<Ttl>| ttl.map(Ttl::as_millis);
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
            lease.origin.as_ref().map(|origin| origin.addr.as_str()),
            lease.origin.as_ref().map(|origin| origin.client_name.as_str()),
        ));
    }

    pub(super) fn renewed(&mut self, renewal: &Renewal) {
        let lasts = renewal.lasts.map(Ttl::as_millis);
        self.push(&(renewal.token.get(), renewal.deadline.to_stored(), lasts, renewal.renewals));
    }

    pub(super) fn ended(&mut self, token: i64) {
        self.push(&token);
    }

    fn push(&mut self, change: &impl Serialize) {
        if !self.is_empty() {
            self.0.push(b',');
        }
        serde_json::to_writer(&mut self.0, change).unwrap_or_else(|_| unreachable!("a Vec takes all"));
    }

    pub(super) fn into_text(mut self) -> String {
        self.0.push(b']');
        String::from_utf8(self.0).unwrap_or_else(|_| unreachable!("JSON is UTF-8"))
    }
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
    Granted(Box<LeaseColumns>),
}

/// Passes every change in a text to `each`, with its token.
pub(super) fn read(text: &str, mut each: impl FnMut(i64, Change)) -> Result<(), JournalError> {
    for element in serde_json::from_str::<Vec<Element>>(text).map_err(damaged)? {
        match element {
            Element::Ended(token) => each(token, Change::Ended),
            Element::Renewed(token, deadline, lasts, renewals) => {
                let renewal = Renewal {
                    token: FencingToken::new(token).map_err(damaged)?,
                    deadline: Timestamp::from_stored(deadline),
                    lasts: ttl_from(lasts)?,
                    renewals,
                };
                each(token, Change::Renewed(renewal));
            }
            Element::Granted(columns) => {
                let stored = lease_from(*columns)?;
                each(stored.lease.token.get(), Change::Granted(Box::new(stored)));
            }
        }
    }
    Ok(())
}
