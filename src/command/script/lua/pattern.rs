//! Patterns of Lua.
//!
//! Guarantees: matches as Lua's own library does, but a search that takes long is interrupted when
//! the script has to stop, and nesting is bounded. Not here: the functions for scripts.

use super::native::Fault;

const CAPTURES_MAX: usize = 32;
/// Nested matches; each costs stack.
const DEPTH_MAX: usize = 200;
/// Steps between two checks of whether the script has to stop.
const STEPS_PER_CHECK: u32 = 100_000;
const ESCAPE: u8 = b'%';

/// What a capture has captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Captured {
    /// The bytes from here to there.
    Span(usize, usize),
    /// A position, from 0.
    Position(usize),
}

#[derive(Debug, Clone, Copy)]
struct Capture {
    start: usize,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    At(usize),
    Open,
    Position,
}

/// A pattern and the string that it is matched with.
pub(super) struct Matcher<'a> {
    string: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<Capture>,
    depth: usize,
    steps: u32,
    must_stop: &'a dyn Fn() -> bool,
}

type Match = Result<Option<usize>, Fault>;

impl<'a> Matcher<'a> {
    pub(super) fn new(string: &'a [u8], pattern: &'a [u8], must_stop: &'a dyn Fn() -> bool) -> Matcher<'a> {
        // A pattern ends at its first NUL, as in C.
        let end = pattern.iter().position(|byte| *byte == 0).unwrap_or(pattern.len());
        let pattern = &pattern[..end];
        Matcher { string, pattern, captures: Vec::new(), depth: 0, steps: 0, must_stop }
    }

    /// The first match that starts at `from` or later: its start and end.
    pub(super) fn search(&mut self, from: usize) -> Result<Option<(usize, usize)>, Fault> {
        let is_anchored = self.pattern.first() == Some(&b'^');
        let first = usize::from(is_anchored);
        for start in from..=self.string.len() {
            if let Some(end) = self.match_at(start, first)? {
                return Ok(Some((start, end)));
            }
            if is_anchored {
                break;
            }
        }
        Ok(None)
    }

    /// [`Matcher::search`], in which `^` has no meaning.
    pub(super) fn search_unanchored(&mut self, from: usize) -> Result<Option<(usize, usize)>, Fault> {
        for start in from..=self.string.len() {
            if let Some(end) = self.match_at(start, 0)? {
                return Ok(Some((start, end)));
            }
        }
        Ok(None)
    }

    fn match_at(&mut self, start: usize, first: usize) -> Match {
        self.captures.clear();
        self.matches(start, first)
    }

    /// The number of captures of the last match.
    pub(super) fn captures(&self) -> usize {
        self.captures.len()
    }

    /// A capture of the match `whole`, which stands for the first one if there are none.
    pub(super) fn capture(&self, n: usize, whole: (usize, usize)) -> Result<Captured, Fault> {
        match self.captures.get(n) {
            Some(Capture { start, end: End::At(end) }) => Ok(Captured::Span(*start, *end)),
            Some(Capture { start, end: End::Position }) => Ok(Captured::Position(*start)),
            Some(Capture { end: End::Open, .. }) => Err("unfinished capture".into()),
            None if n == 0 => Ok(Captured::Span(whole.0, whole.1)),
            None => Err("invalid capture index".into()),
        }
    }

    /// The byte of the pattern at `p`; 0 behind its end.
    fn at(&self, p: usize) -> u8 {
        self.pattern.get(p).copied().unwrap_or(0)
    }

    fn step(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_CHECK) && (self.must_stop)() {
            return Err(Fault::Lua(mlua::Error::runtime("stopped")));
        }
        Ok(())
    }

    /// Matches the pattern from `p` on with the string from `s` on. Returns the end of the match.
    fn matches(&mut self, s: usize, p: usize) -> Match {
        if self.depth >= DEPTH_MAX {
            return Err("pattern too complex".into());
        }
        self.depth += 1;
        let result = self.matches_here(s, p);
        self.depth -= 1;
        result
    }

    fn matches_here(&mut self, mut s: usize, mut p: usize) -> Match {
        loop {
            self.step()?;
            match (self.at(p), self.at(p + 1)) {
                (0, _) => return Ok(Some(s)),
                (b'(', b')') => return self.start_capture(s, p + 2, End::Position),
                (b'(', _) => return self.start_capture(s, p + 1, End::Open),
                (b')', _) => return self.end_capture(s, p + 1),
                (b'$', 0) => return Ok((s == self.string.len()).then_some(s)),
                (ESCAPE, b'b') => {
                    let Some(end) = self.balanced(s, p + 2)? else { return Ok(None) };
                    (s, p) = (end, p + 4);
                }
                (ESCAPE, b'f') => {
                    let Some(end) = self.frontier(s, p + 2)? else { return Ok(None) };
                    p = end;
                }
                (ESCAPE, digit @ b'0'..=b'9') => {
                    let Some(end) = self.again(s, digit)? else { return Ok(None) };
                    (s, p) = (end, p + 2);
                }
                _ => {
                    let end = self.class_end(p)?;
                    let is_match = self.is_match(s, p, end);
                    match self.at(end) {
                        b'?' => {
                            if is_match && let Some(found) = self.matches(s + 1, end + 1)? {
                                return Ok(Some(found));
                            }
                            p = end + 1;
                        }
                        b'*' => return self.expand_most(s, p, end),
                        b'+' if is_match => return self.expand_most(s + 1, p, end),
                        b'-' => return self.expand_least(s, p, end),
                        b'+' => return Ok(None),
                        _ if !is_match => return Ok(None),
                        _ => (s, p) = (s + 1, end),
                    }
                }
            }
        }
    }

    /// As many repetitions as possible of the item from `p` to `end`.
    fn expand_most(&mut self, s: usize, p: usize, end: usize) -> Match {
        let mut count = 0;
        while self.is_match(s + count, p, end) {
            self.step()?;
            count += 1;
        }
        loop {
            if let Some(found) = self.matches(s + count, end + 1)? {
                return Ok(Some(found));
            }
            let Some(fewer) = count.checked_sub(1) else { return Ok(None) };
            count = fewer;
        }
    }

    /// As few repetitions as possible of the item from `p` to `end`.
    fn expand_least(&mut self, mut s: usize, p: usize, end: usize) -> Match {
        loop {
            if let Some(found) = self.matches(s, end + 1)? {
                return Ok(Some(found));
            }
            if !self.is_match(s, p, end) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn start_capture(&mut self, s: usize, p: usize, end: End) -> Match {
        if self.captures.len() >= CAPTURES_MAX {
            return Err("too many captures".into());
        }
        self.captures.push(Capture { start: s, end });
        let count = self.captures.len();
        let result = self.matches(s, p)?;
        if result.is_none() {
            self.captures.truncate(count - 1);
        }
        Ok(result)
    }

    fn end_capture(&mut self, s: usize, p: usize) -> Match {
        let open = self.captures.iter().rposition(|capture| capture.end == End::Open);
        let open = open.ok_or("invalid pattern capture")?;
        self.captures[open].end = End::At(s);
        let result = self.matches(s, p)?;
        if result.is_none() {
            self.captures[open].end = End::Open;
        }
        Ok(result)
    }

    /// `%1`: what was captured, once more.
    fn again(&self, s: usize, digit: u8) -> Match {
        let capture = digit.checked_sub(b'1').and_then(|n| self.captures.get(usize::from(n)));
        let (start, end) = match capture {
            Some(Capture { start, end: End::At(end) }) => (*start, *end),
            // A position has no bytes.
            Some(Capture { end: End::Position, .. }) => return Ok(None),
            _ => return Err("invalid capture index".into()),
        };
        let (captured, rest) = (&self.string[start..end], &self.string[s.min(self.string.len())..]);
        Ok(rest.starts_with(captured).then_some(s + captured.len()))
    }

    /// `%bxy`: from an x to its y.
    fn balanced(&mut self, s: usize, p: usize) -> Match {
        let (open, close) = (self.at(p), self.at(p + 1));
        if open == 0 || close == 0 {
            return Err("unbalanced pattern".into());
        }
        if self.string.get(s) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1;
        for at in s + 1..self.string.len() {
            self.step()?;
            let byte = self.string[at];
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at + 1));
                }
            } else if byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: a place where a set begins. Returns where the pattern continues.
    fn frontier(&self, s: usize, p: usize) -> Match {
        if self.at(p) != b'[' {
            return Err("missing '[' after '%f' in pattern".into());
        }
        let end = self.class_end(p)?;
        let before = s.checked_sub(1).map_or(0, |before| self.string[before]);
        let here = self.string.get(s).copied().unwrap_or(0);
        let is_frontier = !self.is_in_set(before, p, end - 1) && self.is_in_set(here, p, end - 1);
        Ok(is_frontier.then_some(end))
    }

    /// The end of the item at `p`.
    fn class_end(&self, mut p: usize) -> Result<usize, Fault> {
        match self.at(p) {
            ESCAPE if self.at(p + 1) == 0 => Err("malformed pattern (ends with '%')".into()),
            ESCAPE => Ok(p + 2),
            b'[' => {
                p += 1;
                if self.at(p) == b'^' {
                    p += 1;
                }
                loop {
                    match self.at(p) {
                        0 => return Err("malformed pattern (missing ']')".into()),
                        ESCAPE if self.at(p + 1) != 0 => p += 2,
                        _ => p += 1,
                    }
                    if self.at(p) == b']' {
                        return Ok(p + 1);
                    }
                }
            }
            _ => Ok(p + 1),
        }
    }

    /// Whether the byte at `s` matches the item from `p` to `end`.
    fn is_match(&self, s: usize, p: usize, end: usize) -> bool {
        let Some(&byte) = self.string.get(s) else { return false };
        match self.at(p) {
            b'.' => true,
            ESCAPE => is_in_class(byte, self.at(p + 1)),
            b'[' => self.is_in_set(byte, p, end - 1),
            literal => literal == byte,
        }
    }

    /// Whether a byte is in the set from the bracket at `p` to the one at `end`.
    fn is_in_set(&self, byte: u8, mut p: usize, end: usize) -> bool {
        let mut is_positive = true;
        if self.at(p + 1) == b'^' {
            is_positive = false;
            p += 1;
        }
        p += 1;
        while p < end {
            if self.at(p) == ESCAPE {
                if is_in_class(byte, self.at(p + 1)) {
                    return is_positive;
                }
                p += 2;
            } else if self.at(p + 1) == b'-' && p + 2 < end {
                if (self.at(p)..=self.at(p + 2)).contains(&byte) {
                    return is_positive;
                }
                p += 3;
            } else {
                if self.at(p) == byte {
                    return is_positive;
                }
                p += 1;
            }
        }
        !is_positive
    }
}

/// Whether a byte is in the class of `%letter`.
fn is_in_class(byte: u8, letter: u8) -> bool {
    let is_in = match letter.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | b'\t'..=b'\r'),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return letter == byte,
    };
    is_in != letter.is_ascii_uppercase()
}
