//! Changes that are in the table `changes` and not yet in the table `held`.
//!
//! Promise: of all changes to a lease only the last is ever moved into `held`, so a lease that ends soon after its
//! grant, or is renewed again and again, costs no row there, and no memory here. They move in the order of tokens, which is
//! that of `held`, so that neighbours share a page. Absent: SQL, and what is written when.

use std::collections::{BTreeMap, VecDeque};

use crate::journal::{Record, StoredLease};

/// The backlog of an open database.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// What the changes to a lease come to, by token. Absent: nothing.
    pending: BTreeMap<i64, Pending>,
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
    /// The row of the first one.
    first_row: i64,
    /// The table `held` has the lease.
    is_held: bool,
    /// The row of the last change names it already.
    is_told: bool,
    /// How it is now; `None`: over.
    lease: Option<StoredLease>,
}

/// A walk over all that is pending. What changes meanwhile is left to the next one.
#[derive(Debug)]
struct Sweep {
    upto_row: i64,
    next_token: i64,
    last_token: i64,
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
        let mut tokens = Vec::with_capacity(batch.len());
        for record in batch {
            match record {
                Record::Granted(stored) => {
                    let token = stored.lease.token.get();
                    let lease = Some(stored);
                    let granted = Pending { row, first_row: row, is_held: false, is_told: false, lease };
                    self.pending.insert(token, granted);
                    tokens.push(token);
                }
                Record::Renewed(stored) => {
                    let token = stored.lease.token.get();
                    self.change(token, row).lease = Some(stored);
                    tokens.push(token);
                }
                Record::Ended(token) => {
                    let token = token.get();
                    let pending = self.change(token, row);
                    pending.lease = None;
                    let (is_held, is_new) = (pending.is_held, pending.first_row == row);
                    if !is_held {
                        self.pending.remove(&token);
                    }
                    // Granted and over within this batch: nobody needs to know.
                    if is_held || !is_new {
                        changes += 1;
                        each(Change::Ended(token));
                    }
                }
                _ => {}
            }
        }
        for token in tokens {
            if let Some(Pending { row: changed, is_told, lease: Some(lease), .. }) =
                self.pending.get_mut(&token)
                && *changed == row
                && !*is_told
            {
                *is_told = true;
                changes += 1;
                each(Change::Lease(lease));
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

    fn change(&mut self, token: i64, row: i64) -> &mut Pending {
        let unknown = Pending { row, first_row: row, is_held: true, is_told: false, lease: None };
        let pending = self.pending.entry(token).or_insert(unknown);
        if pending.row != row {
            (pending.row, pending.is_told) = (row, false);
        }
        pending
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

    /// Whether a sweep has begun that is not through yet.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Goes on with the sweep, or begins one: looks at up to `most` leases; `each` gets what `held` has to learn.
    pub(super) fn sweep<E>(
        &mut self,
        most: usize,
        mut each: impl FnMut(Change<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let last_token = self.pending.last_key_value().map_or(i64::MIN, |(token, _)| *token);
        let begun = Sweep { upto_row: self.last_row, next_token: i64::MIN, last_token };
        let Sweep { upto_row, next_token, last_token } = self.sweep.take().unwrap_or(begun);
        let mut settled = Vec::new();
        let mut stopped_at = None;
        for (looked_at, (token, pending)) in self.pending.range(next_token..=last_token).enumerate() {
            if looked_at == most {
                stopped_at = Some(*token);
                break;
            }
            if pending.row > upto_row {
                continue;
            }
            match &pending.lease {
                Some(lease) => each(Change::Lease(lease))?,
                None => each(Change::Ended(*token))?,
            }
            settled.push(*token);
        }
        for token in settled {
            self.pending.remove(&token);
        }
        match stopped_at {
            Some(next_token) => self.sweep = Some(Sweep { upto_row, next_token, last_token }),
            None => self.settled_row = upto_row,
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
