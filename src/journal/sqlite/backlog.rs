//! Changes that are in the table `changes` and not yet in the table `held`.
//!
//! Promise: of all changes to a lease only the last is ever moved into `held`, so a lease that ends soon after its
//! grant, or is renewed again and again, costs no row there, and no memory here. They move in the order of tokens, which is
//! that of `held`, so that neighbours share a page. Rows of `changes` go in their order, as soon as nothing in them is the
//! only word of anything: where leases are short that table stays small, and its pages are written over again and again.
//! Absent: SQL, and what is written when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::changes::ChangesText;
use super::rows::damaged;
use crate::journal::{JournalError, Record, Renewal, StoredLease};

/// Rows have smaller numbers; a commit takes one, and they start again whenever all rows are gone.
const ROW_MAX: i64 = 1 << 38;

/// The backlog of an open database.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Where what the changes to a lease come to is in `pending`, by token. Absent: they come to nothing.
    by_token: BTreeMap<i64, usize>,
    pending: Vec<Pending>,
    /// Unused places in `pending`.
    unused: Vec<usize>,
    /// Their numbers have no gaps.
    rows: VecDeque<Row>,
    last_row: i64,
    /// Changes in all rows.
    changes: usize,
    /// Bytes of all rows.
    bytes: usize,
    sweep: Option<Sweep>,
}

#[derive(Debug)]
struct Row {
    number: i64,
    changes: usize,
    bytes: usize,
    /// Leases for which this is the first row that is needed.
    needed: usize,
}

#[derive(Debug)]
struct Pending {
    /// The first row without which the change cannot be told: of a grant, or else of the last change.
    first: i64,
    /// The row of the last change.
    last: i64,
    change: Change,
}

/// What a lease has come to.
#[derive(Debug)]
pub(super) enum Change {
    /// The table `held` does not have it.
    Granted(Box<StoredLease>),
    /// The table `held` has it with an earlier deadline.
    Renewed(Renewal),
    /// The table `held` has it, and it is over.
    Ended,
}

impl Change {
    /// What a lease comes to by one record more. `None`: nothing, it never reached `held`.
    pub(super) fn followed_by(self, next: Change) -> Option<Change> {
        match (self, next) {
            (Change::Granted(mut stored), Change::Renewed(renewal)) => {
                renewal.apply_to(&mut stored.lease);
                Some(Change::Granted(stored))
            }
            (Change::Granted(_), Change::Ended) => None,
            (_, next) => Some(next),
        }
    }
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

/// A step of moving, see [`Backlog::plan`].
pub(super) struct Move {
    settled: Vec<i64>,
    sweep: Option<Sweep>,
    rows: usize,
    last_row: Option<i64>,
}

impl Move {
    /// All rows up to this one are to be removed.
    pub(super) fn last_row(&self) -> Option<i64> {
        self.last_row
    }
}

impl Backlog {
    /// Adds a row with what a batch does to leases, unless that comes to nothing: `text` gets its content, and its number
    /// is answered. Should the row not become durable, the backlog is of no use any more, and the state is to be loaded again.
    pub(super) fn add(&mut self, batch: Vec<Record>, text: &mut ChangesText) -> Option<i64> {
        let row = self.last_row + 1;
        self.rows.push_back(Row { number: row, changes: 0, bytes: 0, needed: 0 });
        let mut changes = 0;
        let mut ended: Vec<i64> = batch
            .iter()
            .filter_map(|record| if let Record::Ended(token) = record { Some(token.get()) } else { None })
            .collect();
        ended.sort_unstable();
        let is_over = |token| ended.binary_search(&token).is_ok();
        // Granted and over within this batch: nobody needs to know.
        let mut never = BTreeSet::new();
        for record in batch {
            let (token, change) = match record {
                Record::Granted(stored) => (stored.lease.token.get(), Change::Granted(stored)),
                Record::Renewed(renewal) => (renewal.token.get(), Change::Renewed(renewal)),
                Record::Ended(token) => (token.get(), Change::Ended),
                _ => continue,
            };
            match &change {
                Change::Granted(_) if is_over(token) => {
                    never.insert(token);
                    continue;
                }
                Change::Renewed(_) if is_over(token) => continue,
                Change::Ended if never.contains(&token) => continue,
                Change::Granted(stored) => text.granted(stored),
                Change::Renewed(renewal) => text.renewed(renewal),
                Change::Ended => text.ended(token),
            }
            changes += 1;
            self.change(token, row, change);
        }
        if changes == 0 {
            self.rows.pop_back();
            return None;
        }
        self.last_row = row;
        self.changes += changes;
        self.row(row).changes = changes;
        Some(row)
    }

    fn row(&mut self, number: i64) -> &mut Row {
        let first = self.rows.front().map_or(0, |row| row.number);
        &mut self.rows[(number - first) as usize]
    }

    fn change(&mut self, token: i64, row: i64, next: Change) {
        let Some(place) = self.by_token.get(&token) else {
            let place = self.put(Pending { first: row, last: row, change: next });
            self.by_token.insert(token, place);
            self.row(row).needed += 1;
            return;
        };
        let pending = &mut self.pending[*place];
        match std::mem::replace(&mut pending.change, Change::Ended).followed_by(next) {
            Some(change @ Change::Granted(_)) => (pending.last, pending.change) = (row, change),
            Some(change) => {
                let first = pending.first;
                *pending = Pending { first: row, last: row, change };
                self.row(first).needed -= 1;
                self.row(row).needed += 1;
            }
            None => self.remove(token),
        }
    }

    /// Takes a row that was there before. In the order of rows, and before anything else.
    pub(super) fn recover_row(
        &mut self,
        number: i64,
        bytes: usize,
        changed: Vec<(i64, Change)>,
    ) -> Result<(), JournalError> {
        if !(1..ROW_MAX).contains(&number) || (!self.rows.is_empty() && number != self.last_row + 1) {
            return Err(damaged(format!("row {number} of changes after row {}", self.last_row)));
        }
        self.rows.push_back(Row { number, changes: changed.len(), bytes, needed: 0 });
        (self.last_row, self.changes, self.bytes) =
            (number, self.changes + changed.len(), self.bytes + bytes);
        for (token, next) in changed {
            match (self.by_token.get(&token).map(|place| &self.pending[*place].change), &next) {
                (Some(Change::Ended), _) | (Some(_), Change::Granted(_)) => {
                    return Err(damaged(format!(
                        "row {number} of changes goes on with token {token}, which is over or twice"
                    )));
                }
                // Its grant may be in `held` as well as in a row: only who reads that knows what the end comes to.
                (_, Change::Ended) => self.remove(token),
                _ => {}
            }
            self.change(token, number, next);
        }
        Ok(())
    }

    /// Learns, after all rows, that `held` has this lease. What the rows made of it; `None`: it is over.
    pub(super) fn in_held(
        &mut self,
        mut stored: Box<StoredLease>,
    ) -> Result<Option<Box<StoredLease>>, JournalError> {
        let token = stored.lease.token.get();
        let Some(place) = self.by_token.get(&token) else { return Ok(Some(stored)) };
        let last = self.pending[*place].last;
        let renewal = match &self.pending[*place].change {
            Change::Ended => return Ok(None),
            Change::Renewed(renewal) => *renewal,
            Change::Granted(granted)
                if (&granted.name, &granted.lease.owner) == (&stored.name, &stored.lease.owner) =>
            {
                Renewal::of(&granted.lease)
            }
            Change::Granted(_) => return Err(damaged(format!("two leases with token {token}"))),
        };
        self.remove(token);
        if Renewal::of(&stored.lease) != renewal {
            renewal.apply_to(&mut stored.lease);
            self.change(token, last, Change::Renewed(renewal));
        }
        Ok(Some(stored))
    }

    /// Learns, after all rows, that `held` has none of these leases. Those that there are go to `each`.
    pub(super) fn not_in_held(
        &mut self,
        tokens: std::ops::Range<i64>,
        mut each: impl FnMut(Box<StoredLease>),
    ) -> Result<(), JournalError> {
        let mut over = Vec::new();
        for (token, place) in self.by_token.range(tokens) {
            match &self.pending[*place].change {
                Change::Granted(stored) => each(stored.clone()),
                Change::Ended => over.push(*token),
                Change::Renewed(_) => {
                    return Err(damaged("a renewal of a lease that was never granted"));
                }
            }
        }
        over.into_iter().for_each(|token| self.remove(token));
        Ok(())
    }

    /// What all leases have come to that `held` does not know or may not know, in the order of tokens.
    pub(super) fn unmoved(&self) -> impl Iterator<Item = (i64, &Change)> {
        self.by_token.iter().map(|(token, place)| (*token, &self.pending[*place].change))
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
        self.pending[place].change = Change::Ended;
        self.unused.push(place);
        let first = self.pending[place].first;
        self.row(first).needed -= 1;
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

    /// Goes on with the sweep, or begins one: looks at up to `leases` of them, none if that is `None`, and `each` gets what
    /// `held` has to learn. Then up to `rows` of the oldest that have nothing left to say can be removed. Nothing changes
    /// here before [`Backlog::moved`]: only then is it durable.
    pub(super) fn plan<E>(
        &self,
        leases: Option<usize>,
        rows: usize,
        mut each: impl FnMut(i64, &Change) -> Result<(), E>,
    ) -> Result<Move, E> {
        let mut plan = Move { settled: Vec::new(), sweep: self.sweep, rows: 0, last_row: None };
        let mut firsts = Vec::new();
        if let Some(most) = leases {
            let begun = || Sweep {
                upto_row: self.last_row,
                next_token: i64::MIN,
                last_token: self.by_token.last_key_value().map_or(i64::MIN, |(token, _)| *token),
                leases: self.by_token.len(),
            };
            let sweep = self.sweep.unwrap_or_else(begun);
            plan.sweep = None;
            let pending = self.by_token.range(sweep.next_token..=sweep.last_token);
            for (looked_at, (token, place)) in pending.enumerate() {
                if looked_at == most {
                    plan.sweep = Some(Sweep { next_token: *token, ..sweep });
                    break;
                }
                let pending = &self.pending[*place];
                // What is first told after this sweep began is for the next one.
                if pending.first > sweep.upto_row {
                    continue;
                }
                each(*token, &pending.change)?;
                plan.settled.push(*token);
                firsts.push(pending.first);
            }
        }
        firsts.sort_unstable();
        for row in self.rows.iter().take(rows) {
            let begin = firsts.partition_point(|first| *first < row.number);
            let settled = firsts[begin..].iter().take_while(|first| **first == row.number).count();
            if row.needed > settled {
                break;
            }
            (plan.rows, plan.last_row) = (plan.rows + 1, Some(row.number));
        }
        Ok(plan)
    }

    /// Notes that what was planned is durable. Between the two nothing else may change.
    pub(super) fn moved(&mut self, plan: Move) {
        plan.settled.into_iter().for_each(|token| self.remove(token));
        self.sweep = plan.sweep;
        for row in self.rows.drain(..plan.rows) {
            self.changes -= row.changes;
            self.bytes -= row.bytes;
        }
        if self.rows.is_empty() {
            // Nothing is pending either: a number is worth nothing any more.
            (self.last_row, self.sweep) = (0, None);
        }
    }
}
