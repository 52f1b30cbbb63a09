//! Points on the boot-time clock, and durations.

use std::num::NonZeroU64;

use super::limits::{Invalid, TTL_MS_MAX};

const NANOS_PER_MS: u64 = 1_000_000;

/// A point on the boot-time clock, in nanoseconds. Not wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than any other: stands for no deadline.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// The latest deadline: 292 years after the machine booted. A longer TTL ends here.
    pub const LAST: Timestamp = Timestamp(i64::MAX as u64);

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

    /// The time `ttl` after this one, at most [`Timestamp::LAST`]; [`Timestamp::NEVER`] without a TTL.
    pub fn after(self, ttl: Option<Ttl>) -> Timestamp {
        match ttl {
            Some(ttl) => Timestamp(self.0.saturating_add(ttl.as_nanos())).min(Timestamp::LAST),
            None => Timestamp::NEVER,
        }
    }

    /// The time `ttl` before this one; this one without a TTL.
    pub fn before(self, ttl: Option<Ttl>) -> Timestamp {
        Timestamp(self.0.saturating_sub(ttl.map_or(0, Ttl::as_nanos)))
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
pub struct Ttl(NonZeroU64);

impl Ttl {
    /// A TTL of `millis` milliseconds; fails on 0 and beyond [`TTL_MS_MAX`].
    pub fn from_millis(millis: u64) -> Result<Ttl, Invalid> {
        NonZeroU64::new(millis)
            .filter(|millis| millis.get() <= TTL_MS_MAX)
            .map(Ttl)
            .ok_or(Invalid::Ttl { max: TTL_MS_MAX })
    }

    /// The TTL in milliseconds.
    pub fn as_millis(self) -> u64 {
        self.0.get()
    }

    /// The TTL in milliseconds, in a form that fits SQL integers.
    pub fn to_stored(self) -> i64 {
        i64::try_from(self.0.get()).unwrap_or(i64::MAX)
    }

    /// The TTL in nanoseconds; what does not fit is the largest number that does.
    fn as_nanos(self) -> u64 {
        self.0.get().saturating_mul(NANOS_PER_MS)
    }
}
