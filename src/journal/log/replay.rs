//! Replay: the table of leases with the change log applied.
//!
//! Guarantees: a state that no server could have written is refused. Not here: SQL.

use std::collections::BTreeMap;

use super::compaction::{ChangeLog, ROW_MAX};
use super::entry::Change;
use crate::journal::{JournalError, Renewal, StoredLease};

/// A replay in progress. It takes all rows first, in their order, and then the table in the order
/// of tokens.
#[derive(Debug, Default)]
pub(in crate::journal) struct Replay {
    by_token: BTreeMap<i64, Pending>,
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
    /// Takes a row of the log.
    pub(in crate::journal) fn row(
        &mut self,
        number: i64,
        bytes: usize,
        changed: impl IntoIterator<Item = (i64, Change)>,
    ) -> Result<(), JournalError> {
        let follows = self.last_row.is_none_or(|last| number == last + 1);
        if !(1..ROW_MAX).contains(&number) || !follows {
            return Err(JournalError::corrupt(format!(
                "row {number} of changes after row {:?}",
                self.last_row
            )));
        }
        self.last_row = Some(number);
        let mut changes = 0;
        for (token, next) in changed {
            changes += 1;
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
        self.log.recover_row(number, changes, bytes);
        Ok(())
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

    /// The index of the rows that are still needed, after the whole table.
    pub(in crate::journal) fn into_log(self) -> ChangeLog {
        self.log
    }
}
