//! Where the queue may be cut when the backend bounds its batches.
//!
//! Guarantees: a cut never splits an append or a commit group; a batch exceeds the limit only if it
//! is a single append or group that does. Not here: the records themselves.

use std::collections::VecDeque;

use crate::journal::Record;

/// The sizes of the appends and groups in the queue.
#[derive(Debug)]
pub(super) struct BatchLimit {
    bytes_max: usize,
    /// In the order of the queue.
    units: VecDeque<Unit>,
    /// The last unit is a group that is still open.
    is_group_open: bool,
}

/// Records that only one commit may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unit {
    records: usize,
    bytes: usize,
}

impl BatchLimit {
    pub(super) fn new(bytes_max: usize) -> BatchLimit {
        BatchLimit { bytes_max, units: VecDeque::new(), is_group_open: false }
    }

    /// Notes an append. `in_group`: a commit group is open.
    pub(super) fn note(&mut self, appended: &[Record], in_group: bool) {
        let unit =
            Unit { records: appended.len(), bytes: appended.iter().map(Record::size_bytes).sum::<usize>() };
        match self.units.back_mut().filter(|_| self.is_group_open) {
            Some(group) => {
                group.records += unit.records;
                group.bytes += unit.bytes;
            }
            None => self.units.push_back(unit),
        }
        self.is_group_open = in_group;
    }

    /// Notes that no group is open any more.
    pub(super) fn end_group(&mut self) {
        self.is_group_open = false;
    }

    /// Returns the number of records that the next batch takes. Call it while no group is open.
    pub(super) fn take(&mut self) -> usize {
        let (mut records, mut bytes) = (0, 0);
        while let Some(unit) = self.units.front().copied() {
            if records > 0 && bytes + unit.bytes > self.bytes_max {
                break;
            }
            self.units.pop_front();
            records += unit.records;
            bytes += unit.bytes;
        }
        records
    }

    /// Forgets everything: the queue was emptied.
    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.is_group_open = false;
    }
}
