//! Folding: the oldest part of the log becomes rows, in transactions of a bounded size.
//!
//! Guarantees: what is granted and over within the folded part is never written; a row is written
//! once for each fold. The marker moves with the last transaction: a fold that is interrupted begins
//! again, and what it has written is not read. Not here: transactions.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::codec;
use super::layout::Layout;
use super::rows::{self, Place};
use super::transport::Write;
use crate::journal::{JournalError, Record};

/// Writes of folding in one transaction; etcd allows 128 operations.
pub(super) const WRITES_MAX: usize = 100;

/// A batch of the log that is not folded.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its last entry.
    pub(super) last: u64,
    pub(super) text: Vec<u8>,
}

/// What is known of the rows.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The values that have rows.
    pub(super) values: HashSet<i64>,
    /// The keys of the rows that are in parts.
    pub(super) in_parts: HashSet<String>,
    /// Names of what an interrupted fold has left; none of it is read.
    pub(super) leftovers: Vec<String>,
    pub(super) tokens: i64,
}

#[derive(Debug)]
enum Change {
    Put(Place, Record),
    /// The element keeps the place of its row; it gets this one if it has none.
    PutInPlace(Place, Record),
    Gone,
}

/// What a part of the log leaves of each row.
struct Window<'a> {
    known: &'a Known,
    rows: BTreeMap<String, Change>,
    tokens: i64,
}

impl Window<'_> {
    fn apply(&mut self, at: Place, record: Record) {
        match record {
            Record::Granted(_) | Record::Renewed(_) | Record::Ended(_) => self.lease(at, record),
            Record::ValuePut(ref stored) => {
                self.rows.insert(rows::value(stored.id), Change::Put(at, record));
            }
            Record::ValueGone(id) => {
                let (from, to) = rows::elements(id);
                let elements: Vec<String> = self.rows.range(from..to).map(|(name, _)| name.clone()).collect();
                elements.iter().for_each(|name| drop(self.rows.remove(name)));
                self.gone(rows::value(id), self.known.values.contains(&id.get()));
            }
            Record::Element { id, ref field, ref value } => {
                let name = rows::element(id, field);
                let has_row = self.known.values.contains(&id.get());
                if value.is_none() {
                    self.gone(name, has_row);
                } else if has_row || self.rows.contains_key(&rows::value(id)) {
                    self.element(at, name, record, has_row);
                }
            }
            Record::DelayStarted(ref name, _) => {
                drop(self.rows.insert(rows::delay(name), Change::Put(at, record)))
            }
            Record::DelayEnded(name) => self.gone(rows::delay(&name), true),
            Record::Session(ref session) => {
                self.rows.insert(rows::session(session.id), Change::Put(at, record));
            }
            Record::SessionEnded(id) => self.gone(rows::session(id), true),
            Record::ScriptPut { ref sha, .. } => {
                drop(self.rows.insert(rows::script(sha), Change::Put(at, record)))
            }
            Record::ScriptGone { sha } => self.gone(rows::script(&sha), true),
            Record::TokensReserved(upto) => self.tokens = self.tokens.max(upto),
        }
    }

    fn lease(&mut self, at: Place, record: Record) {
        match record {
            Record::Granted(ref stored) => {
                self.rows.insert(rows::lease(stored.lease.token), Change::Put(at, record));
            }
            Record::Renewed(renewal) => match self.rows.get_mut(&rows::lease(renewal.token)) {
                Some(Change::Put(place, Record::Granted(stored))) => {
                    renewal.apply_to(&mut stored.lease);
                    *place = at;
                }
                Some(_) => {}
                None => drop(self.rows.insert(rows::renewal(renewal.token), Change::Put(at, record))),
            },
            Record::Ended(token) => {
                self.rows.remove(&rows::renewal(token));
                // A lease is granted once, so one that was granted here has no row.
                let has_row = !matches!(self.rows.get(&rows::lease(token)), Some(Change::Put(..)));
                self.gone(rows::lease(token), has_row);
            }
            _ => {}
        }
    }

    fn element(&mut self, at: Place, name: String, new: Record, has_row: bool) {
        match self.rows.get_mut(&name) {
            Some(Change::Put(_, record) | Change::PutInPlace(_, record)) => *record = new,
            Some(gone) => *gone = Change::Put(at, new),
            None if has_row => drop(self.rows.insert(name, Change::PutInPlace(at, new))),
            None => drop(self.rows.insert(name, Change::Put(at, new))),
        }
    }

    fn gone(&mut self, name: String, has_row: bool) {
        if has_row {
            self.rows.insert(name, Change::Gone);
        } else {
            self.rows.remove(&name);
        }
    }
}

/// A fold in progress.
#[derive(Debug)]
pub(super) struct Fold {
    /// The last entry that becomes rows.
    pub(super) to: u64,
    tokens: i64,
    changes: VecDeque<(String, Change)>,
    /// What is to be written before the rest of the changes.
    writes: VecDeque<Write>,
}

impl Fold {
    /// Begins a fold of all of `log`.
    pub(super) fn begin(log: &VecDeque<Batch>, known: &Known) -> Result<Fold, JournalError> {
        let mut window = Window { known, rows: BTreeMap::new(), tokens: known.tokens };
        let mut to = 0;
        for batch in log {
            let mut index = 0;
            codec::decode(&batch.text, &mut |record| {
                window.apply(Place { entry: batch.last, index }, record);
                index += 1;
                Ok(())
            })?;
            to = batch.last;
        }
        let Window { mut rows, tokens, .. } = window;
        for name in &known.leftovers {
            rows.entry(name.clone()).or_insert(Change::Gone);
        }
        Ok(Fold { to, tokens, changes: rows.into_iter().collect(), writes: VecDeque::new() })
    }

    /// The names of the rows whose places must be known for the next step.
    pub(super) fn needs_places_of(&self) -> Vec<String> {
        let next = self.changes.iter().take(WRITES_MAX);
        next.filter(|(_, change)| matches!(change, Change::PutInPlace(..)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Gives rows their places; `None`: there is no such row.
    pub(super) fn set_places(&mut self, place_of: impl Fn(&str) -> Option<Place>) {
        for (name, change) in self.changes.iter_mut().take(WRITES_MAX) {
            if let Change::PutInPlace(new, _) = *change {
                let Change::PutInPlace(_, record) = std::mem::replace(change, Change::Gone) else { continue };
                *change = Change::Put(place_of(name).unwrap_or(new), record);
            }
        }
    }

    /// Takes writes of at most `bytes_max`, so that the places of all of them are known.
    pub(super) fn take(&mut self, layout: &Layout, known: &mut Known, bytes_max: usize) -> Vec<Write> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < WRITES_MAX {
            while self.writes.is_empty()
                && !matches!(self.changes.front(), None | Some((_, Change::PutInPlace(..))))
            {
                let Some((name, change)) = self.changes.pop_front() else { break };
                self.writes.extend(writes_of(layout, &name, change, known));
            }
            let Some(write) = self.writes.front() else { break };
            bytes += write.size_bytes();
            if bytes > bytes_max {
                break;
            }
            taken.extend(self.writes.pop_front());
        }
        taken
    }

    /// Whether all has been taken.
    pub(super) fn is_done(&self) -> bool {
        self.writes.is_empty() && self.changes.is_empty()
    }

    /// What the last transaction writes besides: it forgets the entries after `from`.
    pub(super) fn last_writes(&self, layout: &Layout, from: u64, known: &mut Known) -> [Write; 2] {
        known.tokens = self.tokens;
        known.leftovers.clear();
        [
            Write::Put(layout.tokens.clone(), self.tokens.to_string().into_bytes()),
            Write::Delete(layout.log(from + 1), layout.log(self.to + 1)),
        ]
    }
}

fn writes_of(layout: &Layout, name: &str, change: Change, known: &mut Known) -> Vec<Write> {
    let key = layout.row(name);
    let mut writes = Vec::new();
    match change {
        Change::Put(place, record) | Change::PutInPlace(place, record) => {
            if let Record::ValuePut(stored) = &record {
                known.values.insert(stored.id.get());
            }
            let had_parts = known.in_parts.remove(&key);
            if rows::put(&key, place, &record, had_parts, &mut writes) {
                known.in_parts.insert(key);
            }
        }
        Change::Gone => {
            let id = name.strip_prefix("value/").and_then(|id| i64::from_str_radix(id, 16).ok());
            if let Some(id) = id {
                known.values.remove(&id);
            }
            known.in_parts.remove(&key);
            let (from, to) = rows::range(&key);
            writes.push(Write::Delete(from, to));
        }
    }
    writes
}
