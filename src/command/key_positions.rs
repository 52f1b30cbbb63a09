//! The positions of keys among the arguments of a command.
//!
//! Guarantees: one description per command serves `COMMAND INFO`, `COMMAND GETKEYS` and every check
//! of keys. Reading keys allocates nothing. Not here: what the keys mean.

use super::options::integer;
use super::{Args, Command, CommandError};

/// What a command does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAccess {
    /// Reads it.
    Read,
    /// May change it, and returns nothing of its value.
    Write,
    /// May change it, and returns something of its value.
    ReadWrite,
}

/// Receives a key and its access.
pub type KeyVisitor<'v, 'a> = &'v mut dyn FnMut(&'a [u8], KeyAccess);

/// The positions of the keys of a command.
#[derive(Debug, Clone, Copy)]
pub enum KeySpec {
    /// No keys.
    None,
    /// Every `step`-th argument from `first` to `last`; a negative `last` counts from the end.
    Range {
        /// The position of the first key.
        first: u8,
        /// The position of the last key.
        last: i8,
        /// The distance between two keys, at least 1.
        step: u8,
        /// The access to all of them.
        access: KeyAccess,
    },
    /// The number of keys, then the keys: `numkeys key [key ...]`.
    Counted {
        /// The position of the number.
        count: u8,
        /// The access to all of them.
        access: KeyAccess,
    },
    /// Two keys, arguments 1 and 2, with their own access: `source destination`.
    Two(KeyAccess, KeyAccess),
    /// A function that passes the keys on.
    Custom(for<'a> fn(Args<'a>, KeyVisitor<'_, 'a>) -> Result<(), CommandError>),
}

impl KeySpec {
    /// Argument 1 is the only key.
    pub const fn first(access: KeyAccess) -> KeySpec {
        KeySpec::Range { first: 1, last: 1, step: 1, access }
    }

    /// All arguments are keys.
    pub const fn all(access: KeyAccess) -> KeySpec {
        KeySpec::Range { first: 1, last: -1, step: 1, access }
    }

    /// Every `step`th argument is a key.
    pub const fn every(step: u8, access: KeyAccess) -> KeySpec {
        KeySpec::Range { first: 1, last: -1, step, access }
    }

    /// The positions of the first and the last key and the distance between two, as `COMMAND INFO`
    /// shows them. All are 0 if the positions depend on the arguments.
    pub(super) fn positions(self) -> (u8, i8, u8) {
        match self {
            KeySpec::Range { first, last, step, .. } => (first, last, step),
            KeySpec::Two(..) => (1, 2, 1),
            KeySpec::None | KeySpec::Counted { .. } | KeySpec::Custom(_) => (0, 0, 0),
        }
    }

    /// Whether the positions of the keys depend on the arguments.
    pub(super) fn is_movable(self) -> bool {
        matches!(self, KeySpec::Counted { .. } | KeySpec::Custom(_))
    }
}

impl Command {
    /// Passes the keys of a request to `visit`, in order. Fails if their number is invalid.
    pub fn visit_keys<'a>(&self, args: Args<'a>, visit: KeyVisitor<'_, 'a>) -> Result<(), CommandError> {
        match self.keys {
            KeySpec::None => {}
            // Most commands have one key.
            KeySpec::Range { first: 1, last: 1, access, .. } if args.len() > 1 => visit(args.at(1), access),
            KeySpec::Range { first, last, step, access } => {
                let end = match usize::try_from(last) {
                    Ok(last) => args.len().min(last + 1),
                    Err(_) => (args.len() + 1).saturating_sub(usize::from(last.unsigned_abs())),
                };
                (usize::from(first)..end).step_by(step.into()).for_each(|n| visit(args.at(n), access));
            }
            KeySpec::Counted { count, access } => {
                let first = usize::from(count) + 1;
                let keys = usize::try_from(integer(args.at(count.into()))?).ok();
                let end = keys.and_then(|keys| first.checked_add(keys)).filter(|end| *end <= args.len());
                let end = end.ok_or(CommandError::KEY_COUNT)?;
                (first..end).for_each(|n| visit(args.at(n), access));
            }
            KeySpec::Two(first, second) => {
                visit(args.at(1), first);
                visit(args.at(2), second);
            }
            KeySpec::Custom(find) => find(args, visit)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::OwnedArgs;
    use crate::reply::Reply;

    const READ: KeyAccess = KeyAccess::Read;
    const WRITE: KeyAccess = KeyAccess::ReadWrite;

    /// `ZUNIONSTORE destination numkeys key [key ...]`
    fn store_keys<'a>(args: Args<'a>, visit: KeyVisitor<'_, 'a>) -> Result<(), CommandError> {
        visit(args.at(1), WRITE);
        Command::new("", 0, |_, _| Ok(Reply::Null))
            .keys(KeySpec::Counted { count: 2, access: READ })
            .visit_keys(args, visit)
    }

    /// The keys of a request, each behind its access.
    fn keys(spec: KeySpec, request: &str) -> Result<String, CommandError> {
        let args = OwnedArgs::of(request.split(' '));
        let mut found = Vec::new();
        let command = Command::new("", 0, |_, _| Ok(Reply::Null)).keys(spec);
        command.visit_keys(args.as_args(), &mut |key, access| {
            found.push(format!("{access:?}:{}", String::from_utf8_lossy(key)));
        })?;
        Ok(found.join(" "))
    }

    #[test]
    fn keys_are_found_at_their_positions() {
        let every_second = KeySpec::Range { first: 1, last: -1, step: 2, access: WRITE };
        let all_but_last = KeySpec::Range { first: 1, last: -2, step: 1, access: READ };
        let counted = KeySpec::Counted { count: 2, access: WRITE };
        for (spec, request, expected) in [
            (KeySpec::None, "PING a", ""),
            (KeySpec::first(READ), "GET a", "Read:a"),
            (KeySpec::first(WRITE), "SET a b", "ReadWrite:a"),
            (KeySpec::all(WRITE), "DEL a b c", "ReadWrite:a ReadWrite:b ReadWrite:c"),
            (every_second, "MSET a 1 b 2", "ReadWrite:a ReadWrite:b"),
            (all_but_last, "BLPOP a b 0", "Read:a Read:b"),
            (all_but_last, "BLPOP", ""),
            (counted, "EVAL script 0 x", ""),
            (counted, "EVAL script 2 a b x", "ReadWrite:a ReadWrite:b"),
            (KeySpec::Two(READ, WRITE), "COPY a b", "Read:a ReadWrite:b"),
            (KeySpec::Custom(store_keys), "ZUNIONSTORE a 2 b c", "ReadWrite:a Read:b Read:c"),
        ] {
            assert_eq!(keys(spec, request).as_deref(), Ok(expected), "{request}");
        }
    }

    #[test]
    fn an_invalid_number_of_keys_is_refused() {
        let spec = KeySpec::Counted { count: 2, access: WRITE };
        for (request, expected) in [
            ("EVAL script x a", CommandError::NOT_AN_INTEGER),
            ("EVAL script -1 a", CommandError::KEY_COUNT),
            ("EVAL script 2 a", CommandError::KEY_COUNT),
            ("EVAL script 9223372036854775807 a", CommandError::KEY_COUNT),
        ] {
            assert_eq!(keys(spec, request), Err(expected), "{request}");
        }
    }
}
