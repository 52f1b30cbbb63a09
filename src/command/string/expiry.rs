//! When a key is to end, as the options `EX`, `PX`, `EXAT`, `PXAT`, `KEEPTTL` and `PERSIST` say it.
//!
//! Guarantees: an amount that Redis refuses is refused with its error. A time of day becomes a duration at once,
//! so the key does not care what the wall clock does afterwards.

use super::{CommandError, Context, options};
use crate::domain::Ttl;

/// When a key is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Expiry {
    /// Never.
    Never,
    /// When it would have ended.
    Keep,
    /// After this time.
    After(Ttl),
    /// It has ended already.
    Past,
}

/// The options that give an amount of time, with their unit in milliseconds.
const AMOUNTS: [(&str, i64, bool); 4] =
    [("ex", 1000, false), ("px", 1, false), ("exat", 1000, true), ("pxat", 1, true)];

impl Expiry {
    /// The duration, if there is one.
    pub(in crate::command) fn ttl(self) -> Option<Ttl> {
        match self {
            Expiry::After(ttl) => Some(ttl),
            Expiry::Never | Expiry::Keep | Expiry::Past => None,
        }
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
    pub(in crate::command) fn at(
        context: &Context<'_>,
        amount: &[u8],
        unit_ms: i64,
        command: &str,
    ) -> Result<Expiry, CommandError> {
        let at = positive(options::integer(amount)?, unit_ms);
        let at = at.ok_or_else(|| CommandError::expire_time(command))?.unsigned_abs();
        let left = at.saturating_sub(context.txn.wall_millis());
        Ok(Ttl::from_millis(left).map_or(Expiry::Past, Expiry::After))
    }
}

fn positive(amount: i64, unit_ms: i64) -> Option<i64> {
    Some(amount).filter(|amount| *amount > 0)?.checked_mul(unit_ms)
}

/// Collects the options of one command that say when a key is to end. At most one of them may be given.
#[derive(Default)]
pub(super) struct ExpiryOptions<'a> {
    given: Option<(&'static str, &'a [u8])>,
}

impl<'a> ExpiryOptions<'a> {
    /// Takes `arg` if it is an option of this kind. `Ok(false)`: it is not, or one of another name was given before.
    /// The same option may come again, as in Redis.
    pub(super) fn take(
        &mut self,
        arg: &[u8],
        without_amount: &'static str,
        options: &mut options::Options<'a>,
    ) -> Result<bool, CommandError> {
        let amount = AMOUNTS.iter().map(|(name, ..)| *name).find(|name| options::is(arg, name));
        let Some(name) = amount.or_else(|| options::is(arg, without_amount).then_some(without_amount)) else {
            return Ok(false);
        };
        if self.given.is_some_and(|(given, _)| given != name) {
            return Ok(false);
        }
        self.given = Some((name, if amount.is_some() { options.value()? } else { b"" }));
        Ok(true)
    }

    /// What the options say; `without_amount` and no option at all mean what the caller says. Amounts are read
    /// once all options are known, as in Redis.
    pub(super) fn finish(
        self,
        context: &Context<'_>,
        command: &str,
        without_amount: Expiry,
        none: Expiry,
    ) -> Result<Expiry, CommandError> {
        let Some((given, amount)) = self.given else { return Ok(none) };
        match AMOUNTS.iter().find(|(name, ..)| *name == given) {
            None => Ok(without_amount),
            Some((_, unit_ms, true)) => Expiry::at(context, amount, *unit_ms, command),
            Some((_, unit_ms, false)) => Expiry::after(context, amount, *unit_ms, command),
        }
    }
}
