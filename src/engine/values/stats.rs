//! Counts of values.

use crate::metrics::Count;

/// The counts of values. Totals restart at 0 with the process.
#[derive(Debug, Default)]
pub struct ValueStats {
    values: Count,
    bytes: Count,
    /// Values that reached their deadline.
    pub expiries: Count,
}

impl ValueStats {
    /// The number of values; those that have ended and are not freed yet count.
    pub fn values(&self) -> u64 {
        self.values.read()
    }

    /// About how many bytes of memory they take.
    pub fn bytes(&self) -> u64 {
        self.bytes.read()
    }

    pub(in crate::engine) fn added(&self, bytes: u64) {
        self.values.add(1);
        self.bytes.add(bytes);
    }

    pub(super) fn removed(&self, bytes: u64) {
        self.values.subtract(1);
        self.bytes.subtract(bytes);
    }

    pub(super) fn resized(&self, before: u64, after: u64) {
        self.bytes.add(after.wrapping_sub(before));
    }

    /// There are no values; totals stay.
    pub(in crate::engine) fn clear(&self) {
        self.values.clear();
        self.bytes.clear();
    }
}
