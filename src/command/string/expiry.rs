//! The expiry that the options `EX`, `PX`, `EXAT`, `PXAT`, `KEEPTTL` and `PERSIST` set.
//!
//! Guarantees: an amount that Redis refuses is refused with its error. A time of day becomes a
//! duration at once, so later changes of the wall clock have no effect on the key.

use super::{CommandError, Context, options};
use crate::command::options::{Given, OptionSpec, value};
use crate::domain::Ttl;

/// When a key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Expiry {
    /// Never.
    Never,
    /// As before.
    Keep,
    /// After this time.
    After(Ttl),
    /// At a time that has passed.
    Past,
}

/// The group of the options that set the expiry. They exclude each other.
pub(super) const GROUP: u8 = 1;

/// `EX`, `PX`, `EXAT` and `PXAT`.
pub(super) const OPTIONS: [OptionSpec; 4] = [
    value("EX").group(GROUP),
    value("PX").group(GROUP),
    value("EXAT").group(GROUP),
    value("PXAT").group(GROUP),
];

impl Expiry {
    /// The duration, if there is one.
    pub(in crate::command) fn ttl(self) -> Option<Ttl> {
        match self {
            Expiry::After(ttl) => Some(ttl),
            Expiry::Never | Expiry::Keep | Expiry::Past => None,
        }
    }

    /// The expiry that the [`OPTIONS`] of a request set; `None` if none is given.
    pub(super) fn of_options(
        context: &Context<'_>,
        [ex, px, exat, pxat]: [Given<'_>; 4],
        command: &str,
    ) -> Result<Option<Expiry>, CommandError> {
        Ok(Some(match [ex, px, exat, pxat].map(|option| option.value()) {
            [Some(seconds), ..] => Expiry::after(context, seconds, 1000, command)?,
            [_, Some(millis), ..] => Expiry::after(context, millis, 1, command)?,
            [_, _, Some(seconds), _] => Expiry::at(context, seconds, 1000, command)?,
            [.., Some(millis)] => Expiry::at(context, millis, 1, command)?,
            [None, None, None, None] => return Ok(None),
        }))
    }

    /// `amount` units of `unit_ms` milliseconds from now. `command` is for the error.
    pub(in crate::command) fn after(
        context: &Context<'_>,
        amount: &[u8],
        unit_ms: i64,
        command: &str,
    ) -> Result<Expiry, CommandError> {
        let millis = positive(options::integer(amount)?, unit_ms)
            // Redis adds the time of day and checks that the sum fits.
            .filter(|millis| {
                i64::try_from(context.txn.wall_millis()).is_ok_and(|now| now.checked_add(*millis).is_some())
            });
        let ttl = millis.and_then(|millis| Ttl::from_millis(millis.unsigned_abs()).ok());
        ttl.map(Expiry::After).ok_or_else(|| CommandError::expire_time(command))
    }

    /// `amount` units of `unit_ms` milliseconds after 1970 by the wall clock.
    fn at(context: &Context<'_>, amount: &[u8], unit_ms: i64, command: &str) -> Result<Expiry, CommandError> {
        let at = positive(options::integer(amount)?, unit_ms);
        let at = at.ok_or_else(|| CommandError::expire_time(command))?.unsigned_abs();
        let left = at.saturating_sub(context.txn.wall_millis_of_now());
        Ok(Ttl::from_millis(left).map_or(Expiry::Past, Expiry::After))
    }
}

fn positive(amount: i64, unit_ms: i64) -> Option<i64> {
    Some(amount).filter(|amount| *amount > 0)?.checked_mul(unit_ms)
}
