//! Glob patterns as KEYS, SCAN and PSUBSCRIBE know them: `*`, `?`, `[a-z]`, `[^a]` and `\` before a literal.
//!
//! Promise: linear memory, and time bounded by pattern length times text length (Redis' own matcher is
//! exponential in the number of stars). Absent: character sets other than bytes.

/// Whether `text` as a whole matches `pattern`.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not match: one byte more for the star.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        let step = if t < text.len() { one(&pattern[p..], text[t]) } else { None };
        match (step, retry) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((star, from))) if from < text.len() => {
                (p, t) = (star, from + 1);
                retry = Some((star, from + 1));
            }
            (None, _) => return false,
        }
    }
}

/// How long the pattern for one byte is, if it matches.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', set @ ..] => {
            let (length, is_in) = in_set(set, byte);
            is_in.then_some(1 + length)
        }
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// Length of a set up to and including its `]` (or the end), and whether the byte is in it.
fn in_set(set: &[u8], byte: u8) -> (usize, bool) {
    let negated = set.first() == Some(&b'^');
    let (mut i, mut found) = (usize::from(negated), false);
    while i < set.len() && set[i] != b']' {
        match set[i..] {
            [b'\\', literal, ..] => {
                found |= literal == byte;
                i += 2;
            }
            [from, b'-', to, ..] if to != b']' => {
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                i += 3;
            }
            [literal, ..] => {
                found |= literal == byte;
                i += 1;
            }
            [] => break,
        }
    }
    ((i + 1).min(set.len()), found != negated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
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
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("user:*:lock", "user:17:lock", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(1000).as_bytes()));
    }
}
