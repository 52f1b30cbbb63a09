//! Where the tokens of a restored database start.
//!
//! Guarantees: above every token that was issued before, whichever copy it is and on whichever
//! machine, if the clocks of the machines are right. Otherwise, an operator has vouched for the
//! number. Not here: reading and writing it.

use crate::domain::TOKEN_MAX;

/// The tokens of a restored database start above this many for each second since [`COUNTED_FROM`].
/// No server issues as many, so a later restore leads to higher tokens than an earlier one has led
/// to, without knowing of it. They last for 272 years.
const TOKENS_PER_SECOND: u64 = 1 << 20;
/// The beginning of 2025, in milliseconds of Unix time. There were no databases before.
const COUNTED_FROM: u64 = 1_735_689_600_000;
/// A database with fewer tokens left is of no use.
const TOKENS_LEFT_MIN: i64 = 1 << 36;

/// What the first token of a restored database is derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloorOrigin {
    /// The clock of this machine.
    Clock,
    /// The operator, who knows of tokens as high as the clock leads to, or higher.
    Operator,
}

/// The token above which a restored database goes on. `given` by the operator is above all tokens
/// that were issued; those up to `known` may have been, as the copy or the lock file shows.
pub(super) fn choose(given: Option<i64>, known: i64, wall_millis: u64) -> Result<(i64, FloorOrigin), String> {
    let by_clock = tokens_until(wall_millis);
    let (floor, origin) = match given {
        Some(given) if given < known => {
            return Err(format!(
                "--token-floor {given} is too low: the copy or the lock file shows that tokens up to {known} \
                 may have been issued"
            ));
        }
        Some(given) if given >= by_clock => (given, FloorOrigin::Operator),
        _ if by_clock > known => (by_clock, FloorOrigin::Clock),
        _ => {
            // What was issued since the copy was made is unknown, and any guess may repeat tokens.
            return Err(format!(
                "tokens up to {known} may have been issued, but the clock of this machine leads only to \
                 {by_clock}, so it may be behind; correct it, or give --token-floor with a token above all \
                 that were issued"
            ));
        }
    };
    match floor {
        floor if floor > TOKEN_MAX - TOKENS_LEFT_MIN => Err(format!("no tokens are left above {floor}")),
        floor => Ok((floor, origin)),
    }
}

/// More tokens than all servers together have issued by this Unix time; 0 if a clock that shows it
/// is not set.
fn tokens_until(wall_millis: u64) -> i64 {
    let millis = u128::from(wall_millis.saturating_sub(COUNTED_FROM));
    i64::try_from(millis * u128::from(TOKENS_PER_SECOND) / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_above_all_that_is_known_or_refused() {
        let now = COUNTED_FROM + 1000;
        let by_clock = 1 << 20;
        assert_eq!(choose(None, 0, now), Ok((by_clock, FloorOrigin::Clock)));
        assert_eq!(choose(None, by_clock - 1, now), Ok((by_clock, FloorOrigin::Clock)));
        assert_eq!(choose(Some(100), 100, now), Ok((by_clock, FloorOrigin::Clock)), "never below the clock");
        assert_eq!(choose(Some(by_clock + 1), 100, now), Ok((by_clock + 1, FloorOrigin::Operator)));
        for (given, known, millis) in [
            (None, by_clock, now),
            (None, 0, COUNTED_FROM),
            (None, 0, 0),
            (None, 0, u64::MAX),
            (Some(99), 100, now),
            (Some(by_clock), by_clock + 1, now),
        ] {
            assert!(choose(given, known, millis).is_err(), "{given:?} {known} {millis}");
        }
        // A clock that is not set does not matter to an operator who knows.
        assert_eq!(choose(Some(100), 100, 0), Ok((100, FloorOrigin::Operator)));
        assert_eq!(choose(Some(by_clock), by_clock, now), Ok((by_clock, FloorOrigin::Operator)));
    }

    #[test]
    fn every_millisecond_leads_to_a_thousand_tokens_more() {
        // From the first to the last minute of the 200 years after 2025.
        for start in [COUNTED_FROM, COUNTED_FROM + 200 * 365 * 86_400_000] {
            for millis in start + 1..start + 60_000 {
                let (before, after) = (choose(None, 0, millis), choose(None, 0, millis + 1));
                let (Ok((before, _)), Ok((after, _))) = (before, after) else { panic!("{millis}") };
                assert!(after - before > 1000 && after < TOKEN_MAX, "{millis}: {before} {after}");
            }
        }
    }
}
