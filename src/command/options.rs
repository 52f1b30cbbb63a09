//! Reads options, numbers and ids from the arguments of a request.
//!
//! Guarantees: numbers are read as Redis reads them. Not here: what the options mean.

use super::{Args, CommandError};
use crate::domain::{FencingToken, SessionId};

/// Reads optional arguments in order.
pub struct Options<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Args<'a> {
    /// An option reader that starts at argument `n`.
    pub fn options(&self, n: usize) -> Options<'a> {
        Options { args: *self, next: n }
    }
}

impl<'a> Options<'a> {
    /// The next argument, if there is one.
    pub fn next_arg(&mut self) -> Option<&'a [u8]> {
        (self.next < self.args.len()).then(|| {
            self.next += 1;
            self.args.at(self.next - 1)
        })
    }

    /// The next argument; a syntax error if there is none.
    pub fn value(&mut self) -> Result<&'a [u8], CommandError> {
        self.next_arg().ok_or(CommandError::SYNTAX)
    }

    /// The next argument as an integer.
    pub fn integer(&mut self) -> Result<i64, CommandError> {
        integer(self.value()?)
    }
}

/// Compares ASCII case-insensitively.
pub(super) fn is(arg: &[u8], name: &str) -> bool {
    arg.eq_ignore_ascii_case(name.as_bytes())
}

/// Numbers of this many digits always fit into an i64.
const SHORT_DIGITS: usize = 18;

/// Parses a signed integer as Redis does: no `+`, no leading zeros, no spaces.
pub(super) fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    if let [b'1'..=b'9', ..] = arg
        && arg.len() <= SHORT_DIGITS
        && arg.iter().all(u8::is_ascii_digit)
    {
        return Ok(arg.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')));
    }
    let digits = arg.strip_prefix(b"-").unwrap_or(arg);
    let is_plain = match digits {
        [b'0'] => digits.len() == arg.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(arg).ok().filter(|_| is_plain);
    text.and_then(|text| text.parse().ok()).ok_or(CommandError::NOT_AN_INTEGER)
}

/// Parses a fencing token; `None` for an integer that cannot be a token.
pub(super) fn token(arg: &[u8]) -> Result<Option<FencingToken>, CommandError> {
    Ok(FencingToken::new(integer(arg)?).ok())
}

/// Parses a session id; `None` if it is malformed.
pub(super) fn session_id(arg: &[u8]) -> Option<SessionId> {
    // With hyphens, as in HTTP, or without.
    let text = match arg.len() {
        36 => arg.iter().copied().filter(|byte| *byte != b'-').collect(),
        _ => arg.to_vec(),
    };
    let is_hexadecimal = text.len() == 32 && text.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(&text).ok().filter(|_| is_hexadecimal)?;
    u128::from_str_radix(text, 16).ok().map(SessionId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_redis_reads_them() {
        for (arg, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("42", Some(42)),
            ("999999999999999999", Some(999_999_999_999_999_999)),
            ("1000000000000000000", Some(1_000_000_000_000_000_000)),
            ("99999999999999999x", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("+1", None),
            ("01", None),
            ("-0", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("\u{663}", None),
        ] {
            assert_eq!(integer(arg.as_bytes()).ok(), expected, "{arg:?}");
        }
    }
}
