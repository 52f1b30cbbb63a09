//! Entries of the log: a batch is one, or several if it is large.
//!
//! An entry is a byte, `+` if the batch goes on in the next entry and `.` if it ends, and a part of
//! the batch's text. Only the transaction of the last one moves the head, so a batch is in the log as
//! a whole or not at all.
//!
//! Guarantees: what is split is joined again. Not here: keys, transactions.

use super::rows::VALUE_BYTES_MAX;
use crate::journal::JournalError;

const GOES_ON: u8 = b'+';
const ENDS: u8 = b'.';

/// The entries of a batch.
pub(super) fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let parts = text.len().div_ceil(VALUE_BYTES_MAX - 1).max(1);
    let part = |number: usize| {
        let from = number * (VALUE_BYTES_MAX - 1);
        let to = text.len().min(from + VALUE_BYTES_MAX - 1);
        let mut entry = Vec::with_capacity(1 + to - from);
        entry.push(if number + 1 == parts { ENDS } else { GOES_ON });
        entry.extend_from_slice(&text[from..to]);
        entry
    };
    (0..parts).map(part).collect()
}

/// Entries on their way to batches.
#[derive(Debug, Default)]
pub(super) struct Joined(Vec<u8>);

impl Joined {
    /// Adds an entry. Returns the text of the batch that it completes.
    pub(super) fn add(&mut self, entry: &[u8]) -> Result<Option<Vec<u8>>, JournalError> {
        let (first, part) = entry.split_first().ok_or_else(|| JournalError::corrupt("an empty entry"))?;
        self.0.extend_from_slice(part);
        match *first {
            ENDS => Ok(Some(std::mem::take(&mut self.0))),
            GOES_ON => Ok(None),
            _ => Err(JournalError::corrupt("an entry that neither ends a batch nor goes on")),
        }
    }

    /// Whether no batch is incomplete.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
