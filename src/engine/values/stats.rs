//! Counts of values.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::Count;

/// A value that is being made, or a copy of one. It counts until this is dropped.
pub struct Making<'a> {
    stats: &'a ValueStats,
    bytes: u64,
}

/// The counts of values. Totals restart at 0 with the process.
#[derive(Debug, Default)]
pub struct ValueStats {
    values: Count,
    bytes: Count,
    /// Those of values that are being made.
    making: AtomicU64,
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

    /// The bytes that count toward the limit: also those of values that are being made.
    pub(super) fn limited_bytes(&self) -> u64 {
        self.bytes.read() + self.making.load(Ordering::Relaxed)
    }

    /// Counts a value of about this many bytes while it is made.
    pub(super) fn making(&self, bytes: u64) -> Making<'_> {
        self.making.fetch_add(bytes, Ordering::Relaxed);
        Making { stats: self, bytes }
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

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.stats.making.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
