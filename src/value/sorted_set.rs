//! Sorted sets: members ordered by score, and by their bytes where scores are equal.
//!
//! Guarantees: a look-up by member takes constant time; changes and look-ups by rank, score or
//! bytes take logarithmic time. No score is NaN. A list of ranks is a range, so that counting it
//! takes no longer than finding its ends.

use std::cmp::Ordering;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::sync::Arc;

use super::edit::Changes;
use super::elements::Elements;
use super::ranking::{Ranked, Ranking};
use super::{COMPACT_ELEMENT_BYTES_MAX, Kind, Malformed};

/// Members of the largest sorted set of compact encoding.
const COMPACT_MEMBERS_MAX: usize = 128;

/// Memory per member besides its bytes: its rows in the table and in the ranking, its share of the
/// index, and one allocation with its counters.
const MEMBER_BYTES: usize = 112;

/// A score: any double but NaN and -0, which becomes 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score(f64);

impl Score {
    /// A score of this number; `None` for NaN.
    pub fn new(number: f64) -> Option<Score> {
        // The sum of -0 and 0 is 0.
        (!number.is_nan()).then_some(Score(number + 0.0))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The sum; `None` if it is not a number, as that of infinities of different signs.
    pub fn checked_add(self, other: Score) -> Option<Score> {
        Score::new(self.0 + other.0)
    }

    fn to_bytes(self) -> [u8; 8] {
        self.0.to_bits().to_be_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Score> {
        let bits = u64::from_be_bytes(bytes.try_into().ok()?);
        Score::new(f64::from_bits(bits))
    }
}

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Score) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Score) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap_or_else(|| unreachable!("no score is NaN"))
    }
}

/// An end of a range of members, which must all have the same score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Below every member.
    Lowest,
    /// Above every member.
    Highest,
    /// This member and what is inside.
    Included(&'a [u8]),
    /// Not this member.
    Excluded(&'a [u8]),
}

/// What setting a score did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetScore {
    /// The member is new.
    Added,
    /// The member had another score.
    Updated,
    /// The member had an equal score.
    Unchanged,
}

/// Members ordered by score.
#[derive(Debug, Clone, Default)]
pub struct SortedSet {
    members: Elements<Arc<[u8]>, Score>,
    ranking: Ranking,
    /// Bytes of all members.
    text_bytes: usize,
    /// Members that are too long for the compact encoding.
    long: usize,
}

impl SortedSet {
    pub(super) fn restore(
        elements: impl Iterator<Item = (Box<[u8]>, Box<[u8]>)>,
    ) -> Result<SortedSet, Malformed> {
        let mut sorted = SortedSet::default();
        for (member, score) in elements {
            let score = Score::from_bytes(&score);
            let score = score.ok_or(Malformed::new(Kind::SortedSet, "a score is not a number"))?;
            if sorted.put(&member, score) != SetScore::Added {
                return Err(Malformed::new(Kind::SortedSet, "a member occurs twice"));
            }
        }
        Ok(sorted)
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<Score> {
        self.members.get(member).copied()
    }

    /// The number of members before this one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        Some(self.ranking.partition_point(|other| other.key() < (score, member)))
    }

    /// The members of these ranks, in ascending order.
    pub fn range(&self, ranks: Range<usize>) -> impl Iterator<Item = (&[u8], Score)> {
        self.ranking.range(ranks).map(|entry| (&*entry.member, entry.score))
    }

    /// The members of these ranks, in descending order.
    pub fn range_descending(&self, ranks: Range<usize>) -> impl Iterator<Item = (&[u8], Score)> {
        self.ranking.range_descending(ranks).map(|entry| (&*entry.member, entry.score))
    }

    /// The ranks of the members whose scores are in `scores`.
    pub fn ranks_by_score(&self, scores: impl RangeBounds<Score>) -> Range<usize> {
        let start = match scores.start_bound() {
            Bound::Unbounded => 0,
            Bound::Included(min) => self.ranking.partition_point(|entry| entry.score < *min),
            Bound::Excluded(min) => self.ranking.partition_point(|entry| entry.score <= *min),
        };
        let end = match scores.end_bound() {
            Bound::Unbounded => self.len(),
            Bound::Included(max) => self.ranking.partition_point(|entry| entry.score <= *max),
            Bound::Excluded(max) => self.ranking.partition_point(|entry| entry.score < *max),
        };
        start..end.max(start)
    }

    /// The ranks of the members from `min` to `max`. Unspecified, but in bounds, if the members have
    /// different scores.
    pub fn ranks_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let start = match min {
            LexBound::Lowest => 0,
            LexBound::Highest => self.len(),
            LexBound::Included(min) => self.ranking.partition_point(|entry| *entry.member < *min),
            LexBound::Excluded(min) => self.ranking.partition_point(|entry| *entry.member <= *min),
        };
        let end = match max {
            LexBound::Lowest => 0,
            LexBound::Highest => self.len(),
            LexBound::Included(max) => self.ranking.partition_point(|entry| *entry.member <= *max),
            LexBound::Excluded(max) => self.ranking.partition_point(|entry| *entry.member < *max),
        };
        start..end.max(start)
    }

    /// One step of an iteration that returns every member that exists from its first step to its
    /// last. The first step has cursor 0; a step that returns 0 was the last. As in Redis, a sorted
    /// set of compact encoding is returned whole and in order; of another, a step returns at most
    /// `count` members, in no order.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, impl Iterator<Item = (&[u8], Score)>) {
        let (next, compact, members) = if self.is_compact() {
            (0, Some(self.range(0..self.len())), None)
        } else {
            let (next, members) = self.members.scan(cursor, count);
            (next, None, Some(members.map(|(member, score)| (&**member, *score))))
        };
        (next, compact.into_iter().flatten().chain(members.into_iter().flatten()))
    }

    pub(super) fn bytes(&self) -> usize {
        self.text_bytes + self.len() * MEMBER_BYTES
    }

    /// Whether Redis would store it as a listpack.
    pub(super) fn is_compact(&self) -> bool {
        self.len() <= COMPACT_MEMBERS_MAX && self.long == 0
    }

    fn put(&mut self, member: &[u8], score: Score) -> SetScore {
        let Some(old) = self.members.get_mut(member) else {
            let member: Arc<[u8]> = member.into();
            self.text_bytes += member.len();
            self.long += usize::from(member.len() > COMPACT_ELEMENT_BYTES_MAX);
            self.members.insert(Arc::clone(&member), score);
            self.ranking.insert(Ranked { score, member });
            return SetScore::Added;
        };
        if *old == score {
            return SetScore::Unchanged;
        }
        let old = std::mem::replace(old, score);
        if let Some(mut entry) = self.ranking.remove(old, member) {
            entry.score = score;
            self.ranking.insert(entry);
        }
        SetScore::Updated
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        let Some((_, score)) = self.members.remove(member) else { return false };
        self.ranking.remove(score, member);
        self.text_bytes -= member.len();
        self.long -= usize::from(member.len() > COMPACT_ELEMENT_BYTES_MAX);
        true
    }
}

/// Changes to a [`SortedSet`].
#[derive(Debug)]
pub struct SortedSetEdit<'a> {
    sorted: &'a mut SortedSet,
    changes: &'a mut Changes,
}

impl<'a> SortedSetEdit<'a> {
    pub(super) fn new(sorted: &'a mut SortedSet, changes: &'a mut Changes) -> SortedSetEdit<'a> {
        SortedSetEdit { sorted, changes }
    }

    /// Sets the score of a member, which is added if it does not exist.
    pub fn insert(&mut self, member: &[u8], score: Score) -> SetScore {
        let done = self.sorted.put(member, score);
        if done != SetScore::Unchanged {
            self.changes.put(member, score.to_bytes());
        }
        done
    }

    /// Removes a member. Returns whether it existed.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let removed = self.sorted.remove(member);
        if removed {
            self.changes.gone(member);
        }
        removed
    }

    /// Removes the members of these ranks. Returns them in ascending order.
    pub fn remove_range(&mut self, ranks: Range<usize>) -> Vec<(Arc<[u8]>, Score)> {
        let removed: Vec<_> =
            self.sorted.ranking.range(ranks).map(|entry| (Arc::clone(&entry.member), entry.score)).collect();
        for (member, _) in &removed {
            self.remove(member);
        }
        removed
    }
}

impl Deref for SortedSetEdit<'_> {
    type Target = SortedSet;
    fn deref(&self) -> &SortedSet {
        self.sorted
    }
}
