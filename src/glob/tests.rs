//! Patterns agree with a naive matcher, and their work is bounded.

use proptest::prelude::*;

use super::*;

/// The obvious matcher, which takes time in proportion to the product of both lengths.
mod oracle {
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

    pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
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
        let (mut p, mut t) = (0, 0);
        // Where to go on if what follows the last star does not match: one byte more for the star.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (parts.get(p), text.get(t)) {
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
}

fn matches(pattern: &str, text: &str) -> bool {
    Glob::new(pattern.as_bytes()).unwrap().matches(text.as_bytes())
}

/// Whether it matches, and the units of work that took.
fn measured(pattern: &[u8], text: &[u8]) -> (bool, u64) {
    let mut work = Work::new(u64::MAX);
    let glob = Glob::new(pattern).unwrap();
    let found = glob.advance(text, &mut Progress::default(), &mut work).unwrap();
    (found, work.spent_of(u64::MAX))
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
fn long_patterns_are_refused() {
    assert!(Glob::new(&[b'a'; PATTERN_BYTES_MAX]).is_ok());
    assert!(Glob::new(&[b'a'; PATTERN_BYTES_MAX + 1]).is_err());
}

/// Counts, so that the result does not depend on the machine. The obvious matcher takes up to
/// 250 000 steps for the same texts.
#[test]
fn no_pattern_takes_much_work() {
    let text = [b'a'; 1020];
    let patterns = [
        "*".to_owned() + &"a".repeat(500) + "b",
        "*".to_owned() + &"a".repeat(500) + "b*",
        "*".to_owned() + &"a?".repeat(250) + "b*",
        "a*".repeat(500) + "b",
        "a*".repeat(500) + "b*",
        "*a?".repeat(300) + "b*",
        "*aaaaaaab".repeat(100) + "*",
        "*".to_owned() + &"[^b]".repeat(250) + "b*",
        "*".to_owned() + &"[b-zaA-Z]".repeat(100) + "b*",
        "*[".to_owned() + &"bc".repeat(500) + "]*",
        "*".repeat(1000) + "b*",
        "?".repeat(1000) + "*b*",
    ];
    for pattern in patterns {
        let (found, work) = measured(pattern.as_bytes(), &text);
        assert!(!found, "{pattern}");
        assert!(work < 20_000, "{pattern}: {work}");
        let at_most = Glob::new(pattern.as_bytes()).unwrap().work(text.len()) * WORK_PER_UNIT;
        assert!(work <= at_most as u64, "{pattern}: {work} of {at_most}");
    }
    let (found, work) = measured(("*".to_owned() + &"a".repeat(500) + "b*").as_bytes(), &[b'a'; 1 << 20]);
    assert!(!found && work < 100_000, "{work}: linear in the text");
}

#[test]
fn a_pattern_takes_little_more_memory_than_its_text() {
    assert!(size_of::<Glob>() <= 24);
}

#[test]
fn a_turn_ends_in_the_middle_of_a_text() {
    let glob = Glob::new(b"*a?b*c[de]*zzzzzzzz*").unwrap();
    let mut text = vec![b'a'; 100_000];
    text[60_000..60_003].copy_from_slice(b"axb");
    text[70_000..70_002].copy_from_slice(b"ce");
    text[90_000..90_008].fill(b'z');
    let (mut progress, mut turns) = (Progress::default(), 0);
    loop {
        turns += 1;
        let mut work = Work::new(100);
        if let Some(found) = glob.advance(&text, &mut progress, &mut work) {
            assert!(found);
            break;
        }
        assert!(work.is_spent());
    }
    assert!(turns > 10, "{turns}");
}

#[test]
fn a_prefix_is_what_every_match_starts_with() {
    for (pattern, prefix) in
        [("__lock__:*", "__lock__:"), ("a?", "a"), ("[a]", ""), ("a\\b", "a"), ("ab", "ab")]
    {
        assert_eq!(Glob::new(pattern.as_bytes()).unwrap().prefix(), prefix.as_bytes());
    }
}

fn texts(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::sample::select(&b"abc"[..]), 0..bytes_max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn it_matches_as_the_obvious_matcher_does(
        pattern in proptest::collection::vec(proptest::sample::select(&b"aaabbc**?[]^-\\"[..]), 0..24),
        text in texts(100),
        units in 1..50u64,
    ) {
        let glob = Glob::new(&pattern).unwrap();
        let expected = oracle::matches(&pattern, &text);
        prop_assert_eq!(glob.matches(&text), expected);
        let mut progress = Progress::default();
        let found = loop {
            if let Some(found) = glob.advance(&text, &mut progress, &mut Work::new(units)) {
                break found;
            }
        };
        prop_assert_eq!(found, expected, "in turns of {} units", units);
    }

    #[test]
    fn it_finds_what_was_hidden_in_a_long_text(before in texts(300), hidden in texts(40), after in texts(300)) {
        let pattern = [b"*", &hidden[..], b"*"].concat();
        let text = [before, hidden, after].concat();
        prop_assert!(Glob::new(&pattern).unwrap().matches(&text));
    }
}
