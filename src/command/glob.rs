//! Glob patterns as KEYS, SCAN and PSUBSCRIBE know them: `*`, `?`, `[a-z]`, `[^a]` and `\` before a literal.
//!
//! Promise: time is bounded by pattern length times text length, whatever the pattern (Redis' own matcher is
//! exponential in the number of stars), and patterns have a limit. Absent: character sets other than bytes.

use super::CommandError;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;

/// A pattern, ready to be matched.
#[derive(Debug)]
pub(super) struct Glob(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Any number of any bytes.
    Star,
    /// Any byte.
    Any,
    /// This byte.
    Literal(u8),
    /// One of these bytes: a bit for each.
    Set([u64; 4]),
}

impl Part {
    fn matches(&self, byte: u8) -> bool {
        match self {
            Part::Star => false,
            Part::Any => true,
            Part::Literal(literal) => *literal == byte,
            Part::Set(bits) => bits[usize::from(byte) / 64] & (1 << (byte % 64)) != 0,
        }
    }
}

impl Glob {
    /// Reads a pattern. Every pattern is one, unless it is too long.
    pub(super) fn new(pattern: &[u8]) -> Result<Glob, CommandError> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(CommandError::new(format!("ERR a pattern has at most {PATTERN_BYTES_MAX} bytes")));
        }
        let mut parts = Vec::with_capacity(pattern.len());
        let mut rest = pattern;
        while let [first, after @ ..] = rest {
            rest = after;
            let part = match (first, after) {
                (b'*', _) if parts.last() == Some(&Part::Star) => continue,
                (b'*', _) => Part::Star,
                (b'?', _) => Part::Any,
                (b'\\', [literal, after @ ..]) => {
                    rest = after;
                    Part::Literal(*literal)
                }
                (b'[', set) => {
                    let (bits, length) = set_of(set);
                    rest = &set[length..];
                    Part::Set(bits)
                }
                (literal, _) => Part::Literal(*literal),
            };
            parts.push(part);
        }
        Ok(Glob(parts))
    }

    /// Units of work that matching a text of so many bytes takes at most, see [`super::steps`].
    pub(super) fn work(&self, bytes: usize) -> usize {
        super::steps::work_of_bytes(self.0.len() * bytes)
    }

    /// Whether `text` as a whole matches.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let (mut p, mut t) = (0, 0);
        // Where to go on if what follows the last star does not match: one byte more for the star.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (self.0.get(p), text.get(t)) {
                (Some(Part::Star), _) => {
                    p += 1;
                    retry = Some((p, t));
                }
                (None, None) => return true,
                (Some(part), Some(byte)) if part.matches(*byte) => (p, t) = (p + 1, t + 1),
                _ => match retry {
                    Some((star, from)) if from < text.len() => {
                        (p, t) = (star, from + 1);
                        retry = Some((star, from + 1));
                    }
                    _ => return false,
                },
            }
        }
    }
}

/// The bytes of a set, and its length up to and including its `]` (or the end).
fn set_of(set: &[u8]) -> ([u64; 4], usize) {
    let is_negated = set.first() == Some(&b'^');
    let (mut i, mut bits) = (usize::from(is_negated), [0u64; 4]);
    let mut add = |byte: u8| bits[usize::from(byte) / 64] |= 1 << (byte % 64);
    while i < set.len() && set[i] != b']' {
        match set[i..] {
            [b'\\', literal, ..] => {
                add(literal);
                i += 2;
            }
            [from, b'-', to, ..] => {
                (from.min(to)..=from.max(to)).for_each(&mut add);
                i += 3;
            }
            [literal, ..] => {
                add(literal);
                i += 1;
            }
            [] => break,
        }
    }
    if is_negated {
        bits.iter_mut().for_each(|word| *word = !*word);
    }
    (bits, (i + 1).min(set.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).unwrap().matches(text.as_bytes())
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("a**c", "abbc", true),
            ("*a*b*", "xxaybz", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("h[a-b]llo", "hcllo", false),
            ("[a", "a", true),
            ("[a-]", "a", true),
            ("[a-]", "b", false),
            ("[a-]x]", "bx", false),
            ("[a-]x]", "^", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("user:*:lock", "user:17:lock", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time_and_long_patterns_are_refused() {
        let pattern = "a*".repeat(500) + "b";
        assert!(!matches(&pattern, &"a".repeat(1000)));
        assert!(Glob::new(&[b'a'; PATTERN_BYTES_MAX]).is_ok());
        assert!(Glob::new(&[b'a'; PATTERN_BYTES_MAX + 1]).is_err());
    }
}
