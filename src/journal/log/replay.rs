//! Replay: the tables with the change log applied.
//!
//! Guarantees: a state that no server could have written is refused. Not here: SQL.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::compaction::{ChangeLog, Position, ROW_MAX};
use super::entry::{Change, RowContent};
use crate::domain::FencingToken;
use crate::journal::{JournalError, Record, Renewal, StoredLease};

/// A replay in progress. It takes all rows first, in their order, and then each table in the order
/// of tokens or ids.
#[derive(Debug, Default)]
pub(in crate::journal) struct Replay {
    by_token: BTreeMap<i64, Pending>,
    /// The changes of values that have not moved, in their order; of a value that is gone, only
    /// that.
    by_id: BTreeMap<i64, Vec<Record>>,
    /// Up to where changes of values have moved.
    position: Position,
    log: ChangeLog,
    last_row: Option<i64>,
}

#[derive(Debug)]
struct Pending {
    /// The row of the grant, or of the last change to a lease of the table.
    first: i64,
    /// The row of the last change.
    last: i64,
    change: Change,
}

impl Replay {
    /// A replay on top of tables that have values with these ids, and the changes of values up to
    /// `position`.
    pub(in crate::journal) fn beside(values: FxHashSet<i64>, position: Position) -> Replay {
        Replay { position, log: ChangeLog::beside(values, position), ..Replay::default() }
    }

    /// Takes a row of the log.
    pub(in crate::journal) fn row(
        &mut self,
        number: i64,
        bytes: usize,
        content: RowContent,
    ) -> Result<(), JournalError> {
        let follows = self.last_row.is_none_or(|last| number == last + 1);
        if !(1..ROW_MAX).contains(&number) || !follows {
            return Err(JournalError::corrupt(format!(
                "row {number} of changes after row {:?}",
                self.last_row
            )));
        }
        self.last_row = Some(number);
        self.log.recover_row(number, content.leases.len() + content.values.len(), bytes);
        self.take_leases(number, content.leases)?;
        let Some(moved) = self.position.moved_of(number) else { return Ok(()) };
        content.values.into_iter().skip(moved).try_for_each(|change| self.take_value_change(number, change))
    }

    fn take_leases(
        &mut self,
        number: i64,
        changed: impl IntoIterator<Item = (i64, Change)>,
    ) -> Result<(), JournalError> {
        for (token, next) in changed {
            let before = self.by_token.remove(&token);
            if let (Some(Pending { change: Change::Ended, .. }), _) | (Some(_), Change::Granted(_)) =
                (&before, &next)
            {
                return Err(JournalError::corrupt(format!(
                    "row {number} of changes goes on with token {token}, which is over or twice"
                )));
            }
            let pending = match (before, next) {
                (
                    Some(Pending { first, change: Change::Granted(mut stored), .. }),
                    Change::Renewed(renewal),
                ) => {
                    renewal.apply_to(&mut stored.lease);
                    Pending { first, last: number, change: Change::Granted(stored) }
                }
                // Its grant may be in the table as well as in a row; the table decides what the end
                // means.
                (_, next) => Pending { first: number, last: number, change: next },
            };
            self.by_token.insert(token, pending);
        }
        Ok(())
    }

    fn take_value_change(&mut self, row: i64, change: Record) -> Result<(), JournalError> {
        let Some(id) = change.value_id().map(FencingToken::get) else { return Ok(()) };
        let is_gone = matches!(change, Record::ValueGone(_));
        let changes = self.by_id.entry(id).or_default();
        if matches!(changes.last(), Some(Record::ValueGone(_))) {
            let what = format!("row {row} of changes goes on with value {id}, which is gone");
            return Err(JournalError::corrupt(what));
        }
        if is_gone {
            changes.clear();
        }
        changes.push(change);
        self.log.value_changed(id, is_gone, row);
        Ok(())
    }

    /// Returns the first value below `before` that the log has changes of, and these changes, in
    /// their order. Each value is returned once.
    pub(in crate::journal) fn next_value(&mut self, before: i64) -> Option<(i64, Vec<Record>)> {
        let first = self.by_id.first_entry().filter(|first| *first.key() < before)?;
        Some(first.remove_entry())
    }

    /// Takes a lease of the table, after all rows. Returns its state after the rows; `None`: it is
    /// over.
    pub(in crate::journal) fn in_held(
        &mut self,
        mut stored: Box<StoredLease>,
    ) -> Result<Option<Box<StoredLease>>, JournalError> {
        let token = stored.lease.token.get();
        let Some(Pending { last, change, .. }) = self.by_token.remove(&token) else {
            return Ok(Some(stored));
        };
        let renewal = match change {
            Change::Ended => {
                self.log.ended(token, last);
                return Ok(None);
            }
            Change::Renewed(renewal) => renewal,
            Change::Granted(granted)
                if (&granted.name, &granted.lease.owner) == (&stored.name, &stored.lease.owner) =>
            {
                Renewal::of(&granted.lease)
            }
            Change::Granted(_) => {
                return Err(JournalError::corrupt(format!("two leases with token {token}")));
            }
        };
        if Renewal::of(&stored.lease) != renewal {
            renewal.apply_to(&mut stored.lease);
            self.log.renewed(renewal, last);
        }
        Ok(Some(stored))
    }

    /// Takes note, after all rows, that the table has no leases with these tokens. Those of the log
    /// go to `each`.
    pub(in crate::journal) fn not_in_held(
        &mut self,
        tokens: std::ops::Range<i64>,
        mut each: impl FnMut(Box<StoredLease>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        while let Some((token, _)) = self.by_token.range(tokens.clone()).next() {
            let token = *token;
            let Some(Pending { first, last, change }) = self.by_token.remove(&token) else { break };
            match change {
                Change::Granted(stored) => {
                    self.log.granted(token, first);
                    if last != first {
                        self.log.renewed(Renewal::of(&stored.lease), last);
                    }
                    each(stored)?;
                }
                Change::Ended => {}
                Change::Renewed(_) => {
                    return Err(JournalError::corrupt("a renewal of a lease that was never granted"));
                }
            }
        }
        Ok(())
    }

    /// The index of the rows that are still needed, after all tables.
    pub(in crate::journal) fn into_log(self) -> Result<ChangeLog, JournalError> {
        let last_row = self.last_row.unwrap_or(0);
        if self.position.row > last_row {
            let what =
                format!("changes moved up to row {}, and the last row is {last_row}", self.position.row);
            return Err(JournalError::corrupt(what));
        }
        Ok(self.log)
    }
}
