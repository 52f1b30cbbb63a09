//! The mode in which a lock is held.

use std::num::NonZeroU32;

use crate::domain::Invalid;

/// How many may hold a lock together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One holder.
    Exclusive,
    /// Any number of shared holders.
    Shared,
    /// Fewer than this many others; never 1, which is [`Mode::Exclusive`].
    Limit(NonZeroU32),
}

impl Mode {
    /// The mode of `LIMIT n`; `LIMIT 1` is exclusive.
    pub fn limit(n: u32) -> Result<Mode, Invalid> {
        match NonZeroU32::new(n) {
            None => Err(Invalid::Limit),
            Some(n) if n.get() == 1 => Ok(Mode::Exclusive),
            Some(n) => Ok(Mode::Limit(n)),
        }
    }

    /// How many holders of this mode there may be; `None` without a bound.
    pub fn capacity(self) -> Option<u32> {
        match self {
            Mode::Exclusive => Some(1),
            Mode::Shared => None,
            Mode::Limit(n) => Some(n.get()),
        }
    }

    /// Whether both may be held at once, numbers aside.
    pub fn mixes_with(self, other: Mode) -> bool {
        matches!((self, other), (Mode::Shared, Mode::Shared) | (Mode::Limit(_), Mode::Limit(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_one_is_exclusive_and_of_zero_invalid() {
        assert_eq!(Mode::limit(0), Err(Invalid::Limit));
        assert_eq!(Mode::limit(1), Ok(Mode::Exclusive));
    }
}
