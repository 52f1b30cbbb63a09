//! Changes that are in the table `changes` and not yet in the table `held`.
//!
//! Promise: of all changes to a lease only the last is ever moved into `held`, so a lease that ends soon after its
//! grant, or is renewed again and again, costs no row there, and no memory here. They move in the order of tokens, which is
//! that of `held`, so that neighbours share a page. Absent: SQL, and what is written when.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::journal::{Record, StoredLease};

/// The backlog of an open database.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Where what the changes to a lease come to is in `pending`, by token. Absent: they come to nothing.
    by_token: BTreeMap<i64, usize>,
    pending: Vec<Pending>,
    /// Unused places in `pending`.
    unused: Vec<usize>,
    rows: VecDeque<Row>,
    last_row: i64,
    /// Changes in all rows.
    changes: usize,
    /// Bytes of all rows.
    bytes: usize,
    sweep: Option<Sweep>,
    /// Nothing in this row or an earlier one is still to be moved.
    settled_row: i64,
}

#[derive(Debug)]
struct Row {
    number: i64,
    changes: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    /// The row of the last change.
    row: i64,
    /// The table `held` has the lease.
    is_held: bool,
    /// How it is now; `None`: over.
    lease: Option<StoredLease>,
}

/// A walk over all that is pending. What changes meanwhile is left to the next one.
#[derive(Debug, Clone, Copy)]
struct Sweep {
    upto_row: i64,
    next_token: i64,
    last_token: i64,
    /// How many leases were pending when it began.
    leases: usize,
}

/// What a lease has come to.
pub(super) enum Change<'a> {
    /// It is like this.
    Lease(&'a StoredLease),
    /// The lease with this token is over.
    Ended(i64),
}

impl Backlog {
    /// Adds a row with what a batch does to leases, unless that comes to nothing: `each` gets its content, and its number
    /// is answered. Should the row not become durable, the backlog is of no use any more.
    pub(super) fn add(&mut self, batch: Vec<Record>, mut each: impl FnMut(Change<'_>)) -> Option<i64> {
        let row = self.last_row + 1;
        let mut changes = 0;
        let ended: HashSet<i64> = batch
            .iter()
            .filter_map(|record| if let Record::Ended(token) = record { Some(token.get()) } else { None })
            .collect();
        let is_over = |token| !ended.is_empty() && ended.contains(&token);
        // Granted and over within this batch: nobody needs to know.
        let mut never = HashSet::new();
        for record in batch {
            match record {
                Record::Granted(stored) => {
                    let token = stored.lease.token.get();
                    if is_over(token) {
                        never.insert(token);
                        continue;
                    }
                    changes += 1;
                    each(Change::Lease(&stored));
                    let place = self.put(Pending { row, is_held: false, lease: Some(stored) });
                    self.by_token.insert(token, place);
                }
                Record::Renewed(stored) => {
                    let token = stored.lease.token.get();
                    if is_over(token) {
                        continue;
                    }
                    changes += 1;
                    each(Change::Lease(&stored));
                    self.change(token, row, Some(stored));
                }
                Record::Ended(token) => {
                    let token = token.get();
                    if never.contains(&token) {
                        continue;
                    }
                    changes += 1;
                    each(Change::Ended(token));
                    self.change(token, row, None);
                }
                _ => {}
            }
        }
        if changes == 0 {
            return None;
        }
        self.last_row = row;
        self.changes += changes;
        self.rows.push_back(Row { number: row, changes, bytes: 0 });
        Some(row)
    }

    fn change(&mut self, token: i64, row: i64, lease: Option<StoredLease>) {
        match self.by_token.get(&token) {
            // It never reached `held`, and never will.
            Some(place) if lease.is_none() && !self.pending[*place].is_held => self.remove(token),
            Some(place) => {
                let pending = &mut self.pending[*place];
                (pending.row, pending.lease) = (row, lease);
            }
            None => {
                let place = self.put(Pending { row, is_held: true, lease });
                self.by_token.insert(token, place);
            }
        }
    }

    fn put(&mut self, pending: Pending) -> usize {
        if let Some(place) = self.unused.pop() {
            self.pending[place] = pending;
            return place;
        }
        self.pending.push(pending);
        self.pending.len() - 1
    }

    fn remove(&mut self, token: i64) {
        let Some(place) = self.by_token.remove(&token) else { return };
        self.pending[place].lease = None;
        self.unused.push(place);
        if self.by_token.is_empty() {
            // After a peak: the memory goes back.
            (self.pending, self.unused) = Default::default();
        }
    }

    /// Notes how long the text of the newest row is.
    pub(super) fn weigh_newest(&mut self, bytes: usize) {
        if let Some(row) = self.rows.back_mut() {
            row.bytes = bytes;
            self.bytes += bytes;
        }
    }

    /// Changes in all rows.
    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    /// Bytes of all rows.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many leases were pending when the sweep began that is not through yet.
    pub(super) fn sweeping(&self) -> Option<usize> {
        self.sweep.map(|sweep| sweep.leases)
    }

    /// Goes on with the sweep, or begins one: looks at up to `most` leases; `each` gets what `held` has to learn.
    pub(super) fn sweep<E>(
        &mut self,
        most: usize,
        mut each: impl FnMut(Change<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let begun = || Sweep {
            upto_row: self.last_row,
            next_token: i64::MIN,
            last_token: self.by_token.last_key_value().map_or(i64::MIN, |(token, _)| *token),
            leases: self.by_token.len(),
        };
        let sweep = self.sweep.take().unwrap_or_else(begun);
        let mut settled = Vec::new();
        let mut stopped_at = None;
        let leases = self.by_token.range(sweep.next_token..=sweep.last_token);
        for (looked_at, (token, place)) in leases.enumerate() {
            if looked_at == most {
                stopped_at = Some(*token);
                break;
            }
            let pending = &self.pending[*place];
            if pending.row > sweep.upto_row {
                continue;
            }
            match &pending.lease {
                Some(lease) => each(Change::Lease(lease))?,
                None => each(Change::Ended(*token))?,
            }
            settled.push(*token);
        }
        for token in settled {
            self.remove(token);
        }
        match stopped_at {
            Some(next_token) => self.sweep = Some(Sweep { next_token, ..sweep }),
            None => self.settled_row = sweep.upto_row,
        }
        Ok(())
    }

    /// Forgets up to `most` of the oldest rows that have nothing left to say. Answers the number of the last of them.
    pub(super) fn forget_settled(&mut self, most: usize) -> Option<i64> {
        let mut last = None;
        for _ in 0..most {
            if self.rows.front().is_none_or(|row| row.number > self.settled_row) {
                break;
            }
            let row = self.rows.pop_front()?;
            self.changes -= row.changes;
            self.bytes -= row.bytes;
            last = Some(row.number);
        }
        last
    }
}
