//! Glob patterns as KEYS, SCAN, PSUBSCRIBE and access rules know them: `*`, `?`, `[a-z]`, `[^a]` and
//! `\` before a literal.
//!
//! Guarantees: a pattern takes little more memory than its text. The work of a match is bounded for
//! every pattern (Redis' matcher is exponential in the number of stars). It is counted, and it can
//! be done in parts. Not here: character sets other than bytes.
//!
//! A text matches if it starts with the part before the first star, ends with the part after the
//! last one, and contains the segments between stars in order. For each segment, the leftmost
//! position is sufficient. Long literal segments are found in linear time. For other segments,
//! [`LANES`] positions are tried at once, with one byte operation for all of them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use memchr::memmem;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;
/// Positions that are tried at once.
const LANES: usize = 64;
/// Length from which a literal segment is searched for as a literal.
const LITERAL_BYTES_MIN: usize = 8;
/// Positions that such a search covers before it checks the work that is left.
const SEARCH_PLACES: usize = 16 << 10;

/// Units of work in a unit of a request's turn.
const WORK_PER_UNIT: usize = 12;

/// The work that is left in a turn. A unit is about one operation on [`LANES`] bytes, which takes a
/// few nanoseconds.
#[derive(Debug)]
pub(crate) struct Work(u64);

impl Work {
    /// `units` units of work.
    pub(crate) fn new(units: u64) -> Work {
        Work(units)
    }

    /// The work of `units` units of a request's turn, see `steps`.
    pub(crate) fn of_units(units: usize) -> Work {
        Work((units * WORK_PER_UNIT) as u64)
    }

    /// The units of a request's turn that are left, rounded down.
    pub(crate) fn units(&self) -> usize {
        self.0 as usize / WORK_PER_UNIT
    }

    /// Subtracts units, down to 0.
    pub(crate) fn spend(&mut self, units: usize) {
        self.0 = self.0.saturating_sub(units as u64);
    }

    /// The units spent, of `units` at the start.
    #[cfg(test)]
    pub(crate) fn spent_of(&self, units: u64) -> u64 {
        units - self.0
    }

    /// Whether the turn is over.
    pub(crate) fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PatternTooLong;

impl fmt::Display for PatternTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a pattern has at most {PATTERN_BYTES_MAX} bytes")
    }
}

/// A pattern, ready to be matched.
#[derive(Debug, Clone)]
pub(crate) struct Glob {
    pattern: Arc<[u8]>,
    /// Bytes of the shortest text that matches.
    text_bytes_min: u16,
    ending: Ending,
}

/// How a pattern ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Without a star.
    Exact,
    /// With its only star, behind a literal prefix.
    Prefix,
    /// With the part after its last star.
    Tail(Tail),
}

#[derive(Debug, Clone, Copy)]
struct Tail {
    /// Its position in the pattern.
    start: u16,
    /// The number of bytes that it matches.
    text_bytes: u16,
}

/// The state of a match that is not complete.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// The position of the current segment in the pattern; 0 before the first step.
    pattern: usize,
    /// The first possible position of that segment in the text.
    text: usize,
}

/// An element of a pattern.
#[derive(Clone, Copy)]
enum Element<'a> {
    /// Any number of any bytes.
    Star,
    /// Any byte.
    Any,
    /// This byte.
    Literal(u8),
    /// A byte in one of these ranges, or in none of them.
    Set { ranges: Ranges<'a>, is_negated: bool },
}

/// The elements of a pattern, in order.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (first, mut rest) = self.0.split_first()?;
        let element = match (first, rest) {
            (b'*', _) => Element::Star,
            (b'?', _) => Element::Any,
            (b'\\', [literal, after @ ..]) => {
                rest = after;
                Element::Literal(*literal)
            }
            (b'[', _) => {
                let is_negated = rest.first() == Some(&b'^');
                let ranges = Ranges(&rest[usize::from(is_negated)..]);
                let mut end = ranges;
                end.by_ref().for_each(drop);
                // The bracket that ends the set; there may be none.
                rest = end.0.get(1..).unwrap_or_default();
                Element::Set { ranges, is_negated }
            }
            (literal, _) => Element::Literal(*literal),
        };
        self.0 = rest;
        Some(element)
    }
}

/// The ranges of a set, both ends included, up to the bracket that ends it.
#[derive(Clone, Copy)]
struct Ranges<'a>(&'a [u8]);

impl Iterator for Ranges<'_> {
    type Item = (u8, u8);

    fn next(&mut self) -> Option<(u8, u8)> {
        let (range, rest) = match self.0 {
            [] | [b']', ..] => return None,
            [b'\\', literal, rest @ ..] => ((*literal, *literal), rest),
            [from, b'-', to, rest @ ..] => ((*from.min(to), *from.max(to)), rest),
            [literal, rest @ ..] => ((*literal, *literal), rest),
        };
        self.0 = rest;
        Some(range)
    }
}

impl Element<'_> {
    fn matches(self, byte: u8) -> bool {
        match self {
            Element::Star => false,
            Element::Any => true,
            Element::Literal(literal) => literal == byte,
            Element::Set { mut ranges, is_negated } => {
                ranges.any(|(from, to)| (from..=to).contains(&byte)) != is_negated
            }
        }
    }

    /// Clears the lanes whose byte does not match. Returns the number of operations.
    fn narrow(self, lanes: &mut [u8], bytes: &[u8]) -> usize {
        match self {
            Element::Star | Element::Any => 1,
            Element::Literal(literal) => {
                lanes.iter_mut().zip(bytes).for_each(|(lane, byte)| *lane &= u8::from(*byte == literal));
                1
            }
            Element::Set { ranges, is_negated } => {
                let (mut hits, mut operations) = ([0; LANES], 1);
                for (from, to) in ranges {
                    let is_in = |byte: u8| u8::from(byte.wrapping_sub(from) <= to - from);
                    hits.iter_mut().zip(bytes).for_each(|(hit, byte)| *hit |= is_in(*byte));
                    operations += 1;
                }
                let negation = u8::from(is_negated);
                lanes.iter_mut().zip(&hits).for_each(|(lane, hit)| *lane &= hit ^ negation);
                operations
            }
        }
    }
}

/// The part of a pattern between two stars, before the first, or after the last.
struct Segment<'a> {
    pattern: &'a [u8],
    /// The number of bytes that it matches.
    text_bytes: usize,
}

enum Search {
    /// At this position.
    Found(usize),
    Nowhere,
    /// The work is spent. Positions before this one do not match.
    Unfinished(usize),
}

impl<'a> Segment<'a> {
    /// The part of `pattern` before its first star.
    fn first_of(pattern: &'a [u8]) -> Segment<'a> {
        let mut elements = Elements(pattern);
        let mut text_bytes = 0;
        loop {
            let length = pattern.len() - elements.0.len();
            match elements.next() {
                None | Some(Element::Star) => return Segment { pattern: &pattern[..length], text_bytes },
                Some(_) => text_bytes += 1,
            }
        }
    }

    /// Whether `text` starts with the segment.
    fn starts(&self, text: &[u8], work: &mut Work) -> bool {
        work.spend(1 + self.pattern.len() / 8);
        text.len() >= self.text_bytes
            && Elements(self.pattern).zip(text).all(|(element, byte)| element.matches(*byte))
    }

    /// Finds the leftmost position in `text`, from `start` on.
    fn find(&self, text: &[u8], mut start: usize, work: &mut Work) -> Search {
        work.spend(1 + self.pattern.len() / 16);
        let is_literal = !self.pattern.iter().any(|byte| matches!(byte, b'?' | b'[' | b'\\'));
        let literal =
            (is_literal && self.text_bytes >= LITERAL_BYTES_MIN).then(|| memmem::Finder::new(self.pattern));
        // All positions are below this.
        let Some(end) = (text.len() + 1).checked_sub(self.text_bytes) else { return Search::Nowhere };
        while start < end {
            let places = if literal.is_some() { SEARCH_PLACES } else { LANES }.min(end - start);
            let found = match &literal {
                Some(literal) => {
                    work.spend(1 + places / 16);
                    literal.find(&text[start..start + places - 1 + self.text_bytes])
                }
                None => self.find_among(&text[start..], places, work),
            };
            if let Some(offset) = found {
                return Search::Found(start + offset);
            }
            start += places;
            if work.is_spent() && start < end {
                return Search::Unfinished(start);
            }
        }
        Search::Nowhere
    }

    /// Finds the leftmost of the first `places` positions of `text`, at most [`LANES`].
    fn find_among(&self, text: &[u8], places: usize, work: &mut Work) -> Option<usize> {
        let mut lanes = [1; LANES];
        let lanes = &mut lanes[..places];
        for (offset, element) in Elements(self.pattern).enumerate() {
            work.spend(element.narrow(lanes, &text[offset..offset + places]));
            if lanes.iter().fold(0, |any, lane| any | lane) == 0 {
                return None;
            }
        }
        lanes.iter().position(|lane| *lane == 1)
    }
}

/// Patterns are compared as texts.
impl Ord for Glob {
    fn cmp(&self, other: &Glob) -> Ordering {
        self.pattern.cmp(&other.pattern)
    }
}

impl PartialOrd for Glob {
    fn partial_cmp(&self, other: &Glob) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Glob) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Glob {}

impl Borrow<[u8]> for Glob {
    fn borrow(&self) -> &[u8] {
        &self.pattern
    }
}

impl Glob {
    /// Copies a pattern. Every text is a pattern, unless it is too long.
    pub(crate) fn new(pattern: &[u8]) -> Result<Glob, PatternTooLong> {
        Glob::check(pattern)?;
        Ok(Glob::of(pattern.into()))
    }

    /// Fails if a text is too long to be a pattern.
    pub(crate) fn check(pattern: &[u8]) -> Result<(), PatternTooLong> {
        if pattern.len() > PATTERN_BYTES_MAX { Err(PatternTooLong) } else { Ok(()) }
    }

    /// Shares the text of a pattern that has passed [`Glob::check`].
    pub(crate) fn of(pattern: Arc<[u8]>) -> Glob {
        const { assert!(PATTERN_BYTES_MAX <= u16::MAX as usize) };
        let (mut text_bytes_min, mut tail) = (0, None);
        let mut elements = Elements(&pattern);
        while let Some(element) = elements.next() {
            if let Element::Star = element {
                tail = Some(Tail { start: (pattern.len() - elements.0.len()) as u16, text_bytes: 0 });
            } else {
                text_bytes_min += 1;
                tail.iter_mut().for_each(|tail| tail.text_bytes += 1);
            }
        }
        let mut glob = Glob { pattern, text_bytes_min, ending: tail.map_or(Ending::Exact, Ending::Tail) };
        if glob.pattern.strip_prefix(glob.prefix()) == Some(b"*") {
            glob.ending = Ending::Prefix;
        }
        glob
    }

    /// The pattern.
    pub(crate) fn text(&self) -> &Arc<[u8]> {
        &self.pattern
    }

    /// A prefix of every text that matches.
    pub(crate) fn prefix(&self) -> &[u8] {
        let is_special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
        let end = self.pattern.iter().position(is_special).unwrap_or(self.pattern.len());
        &self.pattern[..end]
    }

    /// Whether the pattern is a prefix with a star behind it, and matches every text that begins so.
    pub(crate) fn is_prefix(&self) -> bool {
        matches!(self.ending, Ending::Prefix)
    }

    /// Maximum units of work to match a text of `bytes` bytes, see `command::steps`.
    pub(crate) fn work(&self, bytes: usize) -> usize {
        (2 + self.pattern.len() * (bytes / LANES + 2)).div_ceil(WORK_PER_UNIT)
    }

    /// Whether `text` as a whole matches.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        if self.is_prefix() {
            return text.starts_with(&self.pattern[..usize::from(self.text_bytes_min)]);
        }
        let mut work = Work::new(u64::MAX);
        self.advance(text, &mut Progress::default(), &mut work).unwrap_or(false)
    }

    /// Continues to match `text`. Returns `None` if the work is spent; call it again with more.
    pub(crate) fn advance(&self, text: &[u8], progress: &mut Progress, work: &mut Work) -> Option<bool> {
        if work.is_spent() {
            return None;
        }
        work.spend(1);
        let text_bytes_min = usize::from(self.text_bytes_min);
        if text.len() < text_bytes_min {
            return Some(false);
        }
        let tail = match self.ending {
            Ending::Exact => {
                let all = Segment { pattern: &self.pattern, text_bytes: text_bytes_min };
                return Some(text.len() == text_bytes_min && all.starts(text, work));
            }
            Ending::Prefix => return Some(text.starts_with(&self.pattern[..text_bytes_min])),
            Ending::Tail(tail) => tail,
        };
        let (tail_start, text_end) = (usize::from(tail.start), text.len() - usize::from(tail.text_bytes));
        if progress.pattern == 0 {
            let head = Segment::first_of(&self.pattern);
            let tail = Segment { pattern: &self.pattern[tail_start..], text_bytes: text.len() - text_end };
            if !head.starts(text, work) || !tail.starts(&text[text_end..], work) {
                return Some(false);
            }
            *progress = Progress { pattern: head.pattern.len() + 1, text: head.text_bytes };
        }
        while progress.pattern < tail_start {
            let segment = Segment::first_of(&self.pattern[progress.pattern..]);
            // The segment between two stars in a row is empty.
            if segment.text_bytes > 0 {
                match segment.find(&text[..text_end], progress.text, work) {
                    Search::Found(place) => progress.text = place + segment.text_bytes,
                    Search::Nowhere => return Some(false),
                    Search::Unfinished(place) => {
                        progress.text = place;
                        return None;
                    }
                }
            }
            progress.pattern += segment.pattern.len() + 1;
        }
        Some(true)
    }
}

#[cfg(test)]
mod tests;
