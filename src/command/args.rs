//! The words of a request, and how they become values.
//!
//! Promise: reading words allocates nothing; numbers are read as Redis reads them. Absent: what the words mean.

use super::CommandError;
use crate::domain::{FencingToken, SessionId};

/// Where a word lies in a buffer: start and end.
pub type Span = (u32, u32);

/// The words of one request, the command's name first.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

/// [`Args`] that outlive the buffer they came in.
#[derive(Debug, Clone, Default)]
pub struct OwnedArgs {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedArgs {
    /// Adds a word.
    pub fn push(&mut self, word: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(word);
        self.spans.push((start, self.bytes.len() as u32));
    }

    /// The words.
    pub fn as_args(&self) -> Args<'_> {
        Args { bytes: &self.bytes, spans: &self.spans }
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes kept.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>()
    }
}

impl<'a> Args<'a> {
    /// Words at `spans` of `bytes`. Spans beyond the bytes read as empty words.
    pub fn new(bytes: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        Args { bytes, spans }
    }

    /// How many words.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The word number `n`, from 0; an empty one beyond the end.
    pub fn word(&self, n: usize) -> &'a [u8] {
        self.spans
            .get(n)
            .and_then(|&(start, end)| self.bytes.get(start as usize..end as usize))
            .unwrap_or(b"")
    }

    /// The words from number `n` on.
    pub fn from(&self, n: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let args = *self;
        (n.min(self.len())..self.len()).map(move |n| args.word(n))
    }

    /// A reader of options that starts at word `n`.
    pub fn options(&self, n: usize) -> Options<'a> {
        Options { args: *self, next: n }
    }

    /// A copy that stays.
    pub fn to_owned(&self) -> OwnedArgs {
        let mut owned = OwnedArgs::default();
        self.from(0).for_each(|word| owned.push(word));
        owned
    }
}

/// Reads optional words one after the other.
pub struct Options<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Options<'a> {
    /// The next word, if there is one.
    pub fn next_word(&mut self) -> Option<&'a [u8]> {
        (self.next < self.args.len()).then(|| {
            self.next += 1;
            self.args.word(self.next - 1)
        })
    }

    /// The value that an option needs.
    pub fn value(&mut self) -> Result<&'a [u8], CommandError> {
        self.next_word().ok_or(CommandError::SYNTAX)
    }

    /// The number that an option needs.
    pub fn integer(&mut self) -> Result<i64, CommandError> {
        integer(self.value()?)
    }
}

/// Compares without regard to case.
pub(super) fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// So many digits always fit.
const SHORT_DIGITS: usize = 18;

/// A signed number, written as Redis wants it: no sign but `-`, no leading zeros, no spaces.
pub(super) fn integer(word: &[u8]) -> Result<i64, CommandError> {
    if let [b'1'..=b'9', ..] = word
        && word.len() <= SHORT_DIGITS
        && word.iter().all(u8::is_ascii_digit)
    {
        return Ok(word.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')));
    }
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let is_plain = match digits {
        [b'0'] => digits.len() == word.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(word).ok().filter(|_| is_plain);
    text.and_then(|text| text.parse().ok()).ok_or(CommandError::NOT_AN_INTEGER)
}

/// A fencing token; `None` for a number that no token can be, which therefore is nobody's.
pub(super) fn token(word: &[u8]) -> Result<Option<FencingToken>, CommandError> {
    Ok(FencingToken::new(integer(word)?).ok())
}

/// A session id as SESSION OPEN answered it; `None` for what cannot be one.
pub(super) fn session_id(word: &[u8]) -> Option<SessionId> {
    // With hyphens, as HTTP shows it, or without.
    let text = match word.len() {
        36 => word.iter().copied().filter(|byte| *byte != b'-').collect(),
        _ => word.to_vec(),
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
        for (word, expected) in [
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
            assert_eq!(integer(word.as_bytes()).ok(), expected, "{word:?}");
        }
    }
}
