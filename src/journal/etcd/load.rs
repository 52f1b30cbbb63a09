//! Loading: the rows, and then the log from the marker to the head, all at one revision.
//!
//! Guarantees: deadlines that are by the clock of an earlier leader are worth their full TTL from the
//! moment at which this one began. Rows of a fold that was interrupted are not read; the log has what
//! they say. Not here: who leads.

use std::collections::VecDeque;

use super::codec;
use super::fold::{Batch, Known};
use super::layout::{Head, Layout};
use super::log;
use super::rows::{Place, RowName, Stored};
use super::transport::{KeyValue, Range, Transport, TransportError};
use crate::domain::{FencingToken, Timestamp};
use crate::journal::{JournalError, MemoryBackend, Record};

/// The most keys of a page.
const PAGE_KEYS_MAX: usize = 2048;
/// Above this the next page has half as many keys.
const PAGE_BYTES: usize = 4 << 20;

/// The state as it was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) state: MemoryBackend,
    pub(super) log: VecDeque<Batch>,
    pub(super) known: Known,
}

/// Passes all keys of a range to `each`, in pages.
pub(super) fn read_all(
    transport: &mut dyn Transport,
    (mut from, to): (String, String),
    revision: i64,
    each: &mut dyn FnMut(KeyValue) -> Result<(), JournalError>,
) -> Result<(), ReadError> {
    let mut limit = 16;
    loop {
        let page = transport
            .range(Range { from: from.clone(), to: to.clone(), revision, limit })
            .map_err(ReadError::Transport)?;
        let is_last = page.len() < limit;
        let bytes: usize = page.iter().map(|found| found.value.len()).sum();
        limit = if bytes > PAGE_BYTES { (limit / 2).max(1) } else { (limit * 2).min(PAGE_KEYS_MAX) };
        if let Some(last) = page.last() {
            // The next key after it.
            from = format!("{}\0", last.key);
        }
        for found in page {
            each(found).map_err(ReadError::Journal)?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Why reading ended.
#[derive(Debug)]
pub(super) enum ReadError {
    Transport(TransportError),
    Journal(JournalError),
}

/// What the rows say.
#[derive(Debug, Default)]
struct Rows {
    /// All but elements and scripts.
    states: Vec<(Place, Record)>,
    /// Elements and scripts.
    in_order: Vec<(Place, Record)>,
}

/// Reads the state of `head` at `revision`.
pub(super) fn load(
    transport: &mut dyn Transport,
    layout: &Layout,
    head: &Head,
    revision: i64,
    known: Known,
) -> Result<Found, ReadError> {
    let mut found = Found { known, ..Found::default() };
    let rows = read_rows(transport, layout, head, revision, &mut found.known)?;
    let began = Timestamp::from_stored(head.era.began_ns);
    let apply = |state: &mut MemoryBackend, rows: Vec<(Place, Record)>| {
        rows.into_iter().for_each(|(_, record)| state.apply(&[record]));
    };
    let is_older = |(place, _): &(Place, Record)| place.entry <= head.era.after;
    let (older, newer): (Vec<_>, Vec<_>) = rows.states.into_iter().partition(is_older);
    apply(&mut found.state, older);
    let mut is_restarted = head.folded >= head.era.after;
    if is_restarted {
        found.state.restart(began);
    }
    apply(&mut found.state, newer);
    let mut in_order = rows.in_order;
    in_order.sort_by_key(|(place, _)| *place);
    apply(&mut found.state, in_order);
    let mut batches = log::Joined::default();
    let range = (layout.log(head.folded + 1), layout.log(head.last + 1));
    let state = &mut found.state;
    let log = &mut found.log;
    let mut expected = head.folded;
    read_all(transport, range, revision, &mut |entry| {
        expected += 1;
        if entry.key != layout.log(expected) {
            return Err(JournalError::corrupt(format!("{} is missing", layout.log(expected))));
        }
        let Some(text) = batches.add(&entry.value)? else { return Ok(()) };
        if expected > head.era.after && !std::mem::replace(&mut is_restarted, true) {
            state.restart(began);
        }
        codec::decode(&text, &mut |record| {
            state.apply(&[record]);
            Ok(())
        })?;
        log.push_back(Batch { last: expected, text });
        Ok(())
    })?;
    if expected != head.last || !batches.is_empty() {
        let what = format!("the log ends at {expected}, before {}", head.last);
        return Err(ReadError::Journal(JournalError::corrupt(what)));
    }
    if !is_restarted {
        found.state.restart(began);
    }
    Ok(found)
}

fn read_rows(
    transport: &mut dyn Transport,
    layout: &Layout,
    head: &Head,
    revision: i64,
    known: &mut Known,
) -> Result<Rows, ReadError> {
    let mut rows = Rows::default();
    // A row whose parts follow: its name, place, the name of its parts, and those found so far.
    let mut open: Option<(String, Place, String, Vec<u8>)> = None;
    let finish = |open: &mut Option<(String, Place, String, Vec<u8>)>, known: &mut Known, rows: &mut Rows| {
        let Some((name, place, _, text)) = open.take() else { return Ok(()) };
        add_row(&name, place, &text, head, known, rows)
    };
    read_all(transport, layout.rows(), revision, &mut |found| {
        let name = layout.row_name(&found.key).ok_or_else(|| JournalError::corrupt(&found.key))?;
        match RowName::of(name) {
            RowName::Part(row, part) => {
                known.in_parts.insert(layout.row(row));
                match &mut open {
                    Some((name, _, parts, text)) if name == row && parts == part => {
                        text.extend_from_slice(&found.value);
                    }
                    _ => known.leftovers.push(format!("{row}/part/{part}")),
                }
            }
            RowName::Row(name) => {
                finish(&mut open, known, &mut rows)?;
                match Stored::read(&found.value)? {
                    Stored::Whole(place, text) => add_row(name, place, text, head, known, &mut rows)?,
                    Stored::InParts(place, parts) => open = Some((name.to_owned(), place, parts, Vec::new())),
                }
            }
        }
        Ok(())
    })?;
    finish(&mut open, known, &mut rows).map_err(ReadError::Journal)?;
    known.leftovers.dedup();
    Ok(rows)
}

fn add_row(
    name: &str,
    place: Place,
    text: &[u8],
    head: &Head,
    known: &mut Known,
    rows: &mut Rows,
) -> Result<(), JournalError> {
    let mut record = None;
    codec::decode(text, &mut |found| {
        record = Some(found);
        Ok(())
    })?;
    let record = record.ok_or_else(|| JournalError::corrupt(format!("{name}: an empty row")))?;
    let is_unfinished = place.entry > head.folded;
    match record {
        // Its elements may be older, so it is read even then.
        Record::ValuePut(ref stored) => {
            known.values.insert(FencingToken::get(stored.id));
            rows.states.push((place, record));
        }
        _ if is_unfinished => known.leftovers.push(name.to_owned()),
        Record::Element { .. } | Record::ScriptPut { .. } => rows.in_order.push((place, record)),
        _ => rows.states.push((place, record)),
    }
    Ok(())
}
