//! Points on the boot-time clock, and durations.

use std::num::NonZeroU32;

use super::limits::{Invalid, TTL_MS_MAX};

const NANOS_PER_MS: u64 = 1_000_000;

/// A point on the boot-time clock, in nanoseconds. Not wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than any other: stands for no deadline.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// `nanos` since the machine booted.
    pub const fn from_nanos(nanos: u64) -> Timestamp {
        Timestamp(nanos)
    }

    /// The same point in a form that fits SQL integers; `None` for [`Timestamp::NEVER`].
    pub fn to_stored(self) -> Option<i64> {
        if self == Timestamp::NEVER { None } else { Some(i64::try_from(self.0).unwrap_or(i64::MAX)) }
    }

    /// Inverse of [`Timestamp::to_stored`]; a negative number becomes the zero timestamp.
    pub fn from_stored(stored: Option<i64>) -> Timestamp {
        stored.map_or(Timestamp::NEVER, |nanos| Timestamp(u64::try_from(nanos).unwrap_or(0)))
    }

    /// Nanoseconds since the machine booted.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time `ttl` after this one; [`Timestamp::NEVER`] without a TTL.
    pub fn after(self, ttl: Option<Ttl>) -> Timestamp {
        match ttl {
            Some(ttl) => Timestamp(self.0.saturating_add(u64::from(ttl.as_millis()) * NANOS_PER_MS)),
            None => Timestamp::NEVER,
        }
    }

    /// The time `ttl` before this one; this one without a TTL.
    pub fn before(self, ttl: Option<Ttl>) -> Timestamp {
        let nanos = ttl.map_or(0, |ttl| u64::from(ttl.as_millis()) * NANOS_PER_MS);
        Timestamp(self.0.saturating_sub(nanos))
    }

    /// Milliseconds from `now` until this time, rounded up: before the deadline it is never 0.
    /// `None` for [`Timestamp::NEVER`]; 0 once the time has passed.
    pub fn millis_left(self, now: Timestamp) -> Option<u64> {
        (self != Timestamp::NEVER).then(|| self.0.saturating_sub(now.0).div_ceil(NANOS_PER_MS))
    }

    /// Nanoseconds from `earlier` to this time; 0 when `earlier` is later.
    pub fn nanos_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole milliseconds from `earlier` to this time; 0 when `earlier` is later.
    pub fn millis_since(self, earlier: Timestamp) -> u64 {
        self.nanos_since(earlier) / NANOS_PER_MS
    }
}

/// Duration of a lease, a delay or a hold: 1…[`TTL_MS_MAX`] milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(NonZeroU32);

impl Ttl {
    /// A TTL of `millis` milliseconds; fails on 0 and beyond [`TTL_MS_MAX`].
    pub fn from_millis(millis: u64) -> Result<Ttl, Invalid> {
        u32::try_from(millis)
            .ok()
            .filter(|&millis| millis <= TTL_MS_MAX)
            .and_then(NonZeroU32::new)
            .map(Ttl)
            .ok_or(Invalid::Ttl { max: TTL_MS_MAX })
    }

    /// The TTL in milliseconds.
    pub fn as_millis(self) -> u32 {
        self.0.get()
    }
}
