//! What a batch need not store, because a later record of the same batch makes it meaningless.
//!
//! Guarantees: a restart finds the same state, and elements in the same order, as if all records
//! had been stored. Not here: what earlier rows have.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::journal::Record;

/// A look ahead at the records of a batch.
#[derive(Default)]
pub(super) struct Lookahead {
    ended_leases: Vec<i64>,
    gone_values: Vec<i64>,
    /// Leases that were granted within the batch and end in it as well.
    never_held: BTreeSet<i64>,
    /// `None`: there are none.
    overwrites: Option<Overwrites>,
}

impl Lookahead {
    pub(super) fn of(batch: &[Record]) -> Lookahead {
        if batch.len() < 2 {
            return Lookahead::default();
        }
        let (mut ended_leases, mut gone_values, mut elements) = (Vec::new(), Vec::new(), 0);
        for record in batch {
            match record {
                Record::Ended(token) => ended_leases.push(token.get()),
                Record::ValueGone(id) => gone_values.push(id.get()),
                Record::Element { .. } => elements += 1,
                _ => {}
            }
        }
        ended_leases.sort_unstable();
        gone_values.sort_unstable();
        let overwrites = (elements > 1).then(|| Overwrites::of(batch));
        Lookahead { ended_leases, gone_values, never_held: BTreeSet::new(), overwrites }
    }

    /// Whether a lease ends in the batch.
    pub(super) fn has_ended(&self, token: i64) -> bool {
        self.ended_leases.binary_search(&token).is_ok()
    }

    /// Whether a value is gone at the end of the batch.
    pub(super) fn is_gone(&self, id: i64) -> bool {
        self.gone_values.binary_search(&id).is_ok()
    }

    /// The grant of this lease is left out, since it has ended.
    pub(super) fn leave_out(&mut self, token: i64) {
        self.never_held.insert(token);
    }

    /// Whether the grant of this lease was left out.
    pub(super) fn is_left_out(&self, token: i64) -> bool {
        self.never_held.contains(&token)
    }

    /// The record to be stored at this place of the batch; `None`: none.
    pub(super) fn record_at<'a>(&self, batch: &'a [Record], index: usize) -> Option<&'a Record> {
        let last = self.overwrites.as_ref().map_or(Some(index), |overwrites| overwrites.last_of(index));
        last.map(|last| &batch[last])
    }
}

/// Elements that are put several times within a batch. The first time decides their order, and the
/// last one what they are, so the last state is stored at the first place. The removal of an
/// element in between begins anew, since the element then becomes the last one of its value.
#[derive(Default)]
struct Overwrites {
    /// The indexes of first puts, with those of the last ones.
    last: HashMap<usize, usize>,
    /// The indexes of all puts but the first.
    later: HashSet<usize>,
}

impl Overwrites {
    fn of(batch: &[Record]) -> Overwrites {
        let mut overwrites = Overwrites::default();
        // Clients choose the fields, so the hash is not one that they could know.
        let mut first: HashMap<(i64, &[u8]), usize> = HashMap::new();
        for (index, record) in batch.iter().enumerate() {
            match record {
                Record::Element { id, field, value: Some(_) } => {
                    let known = *first.entry((id.get(), field)).or_insert(index);
                    if known != index {
                        overwrites.last.insert(known, index);
                        overwrites.later.insert(index);
                    }
                }
                Record::Element { id, field, value: None } => drop(first.remove(&(id.get(), &**field))),
                _ => {}
            }
        }
        overwrites
    }

    fn last_of(&self, index: usize) -> Option<usize> {
        if self.later.is_empty() {
            return Some(index);
        }
        (!self.later.contains(&index)).then(|| self.last.get(&index).copied().unwrap_or(index))
    }
}
