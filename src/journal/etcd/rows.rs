//! Rows: one key for each lease, renewal, session, delay, value, element and script that the folded
//! part of the log has left.
//!
//! A row begins with the place in the log of what it says, and a line break; a record follows, as in
//! the log. The row of an element has the place of its addition: elements are in that order. A row
//! that is too large for one key is `@` and the place; its parts are below its key, under the place.
//!
//! Guarantees: a row whose parts are not all there is never read. Not here: which rows are written.

use sha2::{Digest, Sha256};

use super::codec::{self, hexadecimal, session_name};
use super::transport::Write;
use crate::domain::{FencingToken, LockName};
use crate::journal::{JournalError, Record};

/// The most bytes of one value in etcd, whose requests have 1.5 MiB at most.
pub(super) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longer keys and fields are hashed in names.
const NAMED_BYTES_MAX: usize = 256;

/// A place in the log: an entry, and a record of the batch that ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) entry: u64,
    pub(super) index: u32,
}

impl Place {
    fn to_text(self) -> String {
        format!("{:016x}.{:08x}", self.entry, self.index)
    }

    /// The place with which a row begins, and what follows it.
    fn split(value: &[u8]) -> Option<(Place, &[u8])> {
        const LENGTH: usize = 16 + 1 + 8;
        let (text, rest) = value.split_at_checked(LENGTH)?;
        let (entry, index) = std::str::from_utf8(text).ok()?.split_once('.')?;
        let entry = u64::from_str_radix(entry, 16).ok()?;
        Some((Place { entry, index: u32::from_str_radix(index, 16).ok()? }, rest))
    }
}

fn token_name(token: FencingToken) -> String {
    format!("{:016x}", token.get())
}

fn bytes_name(bytes: &[u8]) -> String {
    match bytes.len() <= NAMED_BYTES_MAX {
        true => format!("x{}", hexadecimal(bytes)),
        false => format!("h{}", hexadecimal(&Sha256::digest(bytes))),
    }
}

/// The row of a lease as it was granted, or renewed before it had a row.
pub(super) fn lease(token: FencingToken) -> String {
    format!("lease/{}", token_name(token))
}

/// The row of the last renewal of a lease that has a row.
pub(super) fn renewal(token: FencingToken) -> String {
    format!("lease/{}/renewed", token_name(token))
}

/// The row of a value without its elements.
pub(super) fn value(id: FencingToken) -> String {
    format!("value/{}", token_name(id))
}

/// The row of an element.
pub(super) fn element(id: FencingToken, field: &[u8]) -> String {
    format!("value/{}/element/{}", token_name(id), bytes_name(field))
}

/// The rows of the elements of a value, as a range.
pub(super) fn elements(id: FencingToken) -> (String, String) {
    (format!("value/{}/element/", token_name(id)), format!("value/{}/element0", token_name(id)))
}

/// The row of the delay of a lock.
pub(super) fn delay(name: &LockName) -> String {
    format!("delay/{}/{}", name.database(), bytes_name(name.key()))
}

/// The row of a session.
pub(super) fn session(id: crate::domain::SessionId) -> String {
    format!("session/{}", session_name(id))
}

/// The row of a script.
pub(super) fn script(sha: &[u8]) -> String {
    format!("script/{}", hexadecimal(sha))
}

/// The keys of a row, and of all that is below it, as a range.
pub(super) fn range(key: &str) -> (String, String) {
    (key.to_owned(), format!("{key}0"))
}

/// What a key is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowName<'a> {
    Row(&'a str),
    /// A part of the row with this name, under this place.
    Part(&'a str, &'a str),
}

impl RowName<'_> {
    pub(super) fn of(name: &str) -> RowName<'_> {
        match name.split_once("/part/") {
            Some((row, part)) => RowName::Part(row, part.split_once('/').map_or(part, |(place, _)| place)),
            None => RowName::Row(name),
        }
    }
}

/// A row as it is stored under its own key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    /// The record, as text.
    Whole(Place, &'a [u8]),
    /// The name of its parts.
    InParts(Place, String),
}

impl Stored<'_> {
    pub(super) fn read(value: &[u8]) -> Result<Stored<'_>, JournalError> {
        let wrong = || JournalError::corrupt("a row without a place");
        if let Some(place) = value.strip_prefix(b"@") {
            let (place, _) = Place::split(place).ok_or_else(wrong)?;
            return Ok(Stored::InParts(place, place.to_text()));
        }
        let (place, rest) = Place::split(value).ok_or_else(wrong)?;
        Ok(Stored::Whole(place, rest.strip_prefix(b"\n").ok_or_else(wrong)?))
    }

    pub(super) fn place(&self) -> Place {
        match self {
            Stored::Whole(place, _) | Stored::InParts(place, _) => *place,
        }
    }
}

/// The writes that put a row under `key`, in their order. `may_have_parts`: an earlier row of this
/// key may have been in parts. Returns whether this one is.
pub(super) fn put(
    key: &str,
    place: Place,
    record: &Record,
    may_have_parts: bool,
    to: &mut Vec<Write>,
) -> bool {
    let text = codec::encode(std::slice::from_ref(record));
    let place = place.to_text();
    let parts = format!("{key}/part/");
    if text.len() + place.len() < VALUE_BYTES_MAX {
        if may_have_parts {
            to.push(Write::Delete(parts, format!("{key}/part0")));
        }
        let mut value = Vec::with_capacity(place.len() + 1 + text.len());
        value.extend_from_slice(place.as_bytes());
        value.push(b'\n');
        value.extend_from_slice(&text);
        to.push(Write::Put(key.to_owned(), value));
        return false;
    }
    for (number, part) in text.chunks(VALUE_BYTES_MAX).enumerate() {
        to.push(Write::Put(format!("{parts}{place}/{number:08x}"), part.to_vec()));
    }
    to.push(Write::Put(key.to_owned(), format!("@{place}").into_bytes()));
    if may_have_parts {
        to.push(Write::Delete(parts.clone(), format!("{parts}{place}")));
        to.push(Write::Delete(format!("{parts}{place}0"), format!("{key}/part0")));
    }
    true
}
