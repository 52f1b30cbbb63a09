//! Records as text: one line for each run of changes to leases and values, as in the log of changes
//! of SQLite, and one JSON object for each other record.
//!
//! Guarantees: a text is read again to the last field, in the order of the records; any other text
//! is damage, not a panic. Not here: keys, and the size of values in etcd.

use serde::Deserialize;

use crate::domain::{LockName, SessionId, Timestamp, Ttl};
use crate::journal::log::bytes::{Bytes, write_compact};
use crate::journal::log::columns::{session_id_from, session_text, ttl_from};
use crate::journal::log::entry::{self, ChangesText};
use crate::journal::{JournalError, Record, ScriptHash, SessionRecord};
use crate::lock::Delay;

/// A record that is no change to a lease or a value.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Id, name, account, TTL, deadline.
    Session(String, String, Option<Box<str>>, Option<i64>, Option<i64>),
    SessionEnded(String),
    /// Database, key, end, length.
    Delay(u8, Bytes, Option<i64>, i64),
    DelayEnded(u8, Bytes),
    /// Hash, text.
    Script(String, Bytes),
    ScriptGone(String),
    Tokens(i64),
}

/// Records as text.
pub(super) fn encode(records: &[Record]) -> Vec<u8> {
    let mut text = Vec::with_capacity(records.iter().map(Record::size_bytes).sum());
    for run in records.chunk_by(|one, next| is_change(one) == is_change(next)) {
        if run.first().is_some_and(is_change) {
            let mut changes = ChangesText::with_capacity(0);
            for record in run {
                match record {
                    Record::Granted(stored) => changes.granted(stored),
                    Record::Renewed(renewal) => changes.renewed(renewal),
                    Record::Ended(token) => changes.ended(token.get()),
                    change => changes.value_change(change),
                }
            }
            text.extend_from_slice(&changes.into_bytes());
            text.push(b'\n');
        } else {
            run.iter().for_each(|record| encode_line(&mut text, record));
        }
    }
    text
}

/// Whether the record is a change to a lease or a value.
fn is_change(record: &Record) -> bool {
    record.is_of_a_lease() || record.value_id().is_some()
}

fn encode_line(text: &mut Vec<u8>, record: &Record) {
    let begin = |text: &mut Vec<u8>, name: &str| text.extend_from_slice(format!("{{\"{name}\":").as_bytes());
    match record {
        Record::Session(SessionRecord { id, name, account, ttl, deadline }) => {
            begin(text, "session");
            let ttl = ttl.map(Ttl::to_stored);
            json(text, &(session_text(*id), name, account, ttl, deadline.to_stored()));
        }
        Record::SessionEnded(id) => {
            begin(text, "session_ended");
            json(text, &session_text(*id));
        }
        Record::DelayStarted(name, Delay { until, length }) => {
            begin(text, "delay");
            text.extend_from_slice(format!("[{},", name.database()).as_bytes());
            write_compact(text, name.key());
            text.push(b',');
            json(text, &until.to_stored());
            text.extend_from_slice(format!(",{}]", length.to_stored()).as_bytes());
        }
        Record::DelayEnded(name) => {
            begin(text, "delay_ended");
            text.extend_from_slice(format!("[{},", name.database()).as_bytes());
            write_compact(text, name.key());
            text.push(b']');
        }
        Record::ScriptPut { sha, body } => {
            begin(text, "script");
            text.extend_from_slice(format!("[\"{}\",", hexadecimal(sha)).as_bytes());
            write_compact(text, body);
            text.push(b']');
        }
        Record::ScriptGone { sha } => {
            begin(text, "script_gone");
            json(text, &hexadecimal(sha));
        }
        Record::TokensReserved(upto) => {
            begin(text, "tokens");
            json(text, upto);
        }
        change => unreachable!("a change to a lease or a value: {change:?}"),
    }
    text.extend_from_slice(b"}\n");
}

fn json(text: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(text, value).unwrap_or_else(|_| unreachable!("a Vec takes all"));
}

/// Bytes as hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `N` bytes of hexadecimal digits.
pub(super) fn from_hexadecimal<const N: usize>(text: &str) -> Result<[u8; N], JournalError> {
    let wrong = || JournalError::corrupt(format!("not {N} bytes in hexadecimal digits"));
    if text.len() != 2 * N || !text.is_ascii() {
        return Err(wrong());
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

/// Passes the records of a text to `each`, in their order.
pub(super) fn decode(
    text: &[u8],
    each: &mut dyn FnMut(Record) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let text = std::str::from_utf8(text).map_err(JournalError::corrupt)?;
    for line in text.lines() {
        if line.starts_with('[') {
            entry::read_in_order(line, each)?;
        } else {
            each(decode_line(line)?)?;
        }
    }
    Ok(())
}

fn decode_line(line: &str) -> Result<Record, JournalError> {
    let name = |database, key: &Bytes| LockName::new(database, &key.0).map_err(JournalError::corrupt);
    let sha = |text: &str| -> Result<ScriptHash, JournalError> { from_hexadecimal(text) };
    Ok(match serde_json::from_str(line).map_err(JournalError::corrupt)? {
        Line::Session(id, name, account, ttl_ms, deadline_ns) => Record::Session(SessionRecord {
            id: session_id_from(&id)?,
            name,
            account,
            ttl: ttl_from(ttl_ms)?,
            deadline: Timestamp::from_stored(deadline_ns),
        }),
        Line::SessionEnded(id) => Record::SessionEnded(session_id_from(&id)?),
        Line::Delay(database, key, until_ns, length_ms) => {
            let length = ttl_from(Some(length_ms))?;
            let length = length.ok_or_else(|| JournalError::corrupt("a delay without a length"))?;
            let delay = Delay { until: Timestamp::from_stored(until_ns), length };
            Record::DelayStarted(name(database, &key)?, delay)
        }
        Line::DelayEnded(database, key) => Record::DelayEnded(name(database, &key)?),
        Line::Script(hash, body) => Record::ScriptPut { sha: sha(&hash)?, body: body.0.into() },
        Line::ScriptGone(hash) => Record::ScriptGone { sha: sha(&hash)? },
        Line::Tokens(upto) => Record::TokensReserved(upto),
    })
}

/// What names a session in keys.
pub(super) fn session_name(id: SessionId) -> String {
    session_text(id)
}
