//! Sorted sets: members ordered by score, and by their bytes where scores are equal.
//!
//! Guarantees: a look-up by member takes constant time; changes and look-ups by rank, score or
//! bytes take logarithmic time. No score is NaN. A list of ranks is a range, so that counting it
//! takes no longer than finding its ends. Few short members are packed; a sorted set that has
//! outgrown that stays a table with a tree, as in Redis.

use std::cmp::Ordering;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::sync::Arc;

use either::Either;

use super::edit::Changes;
use super::elements::Elements;
use super::packed::Packed;
use super::packed_ranking::PackedRanking;
use super::ranking::{Ranked, Ranking};
use super::{ALLOCATION_BYTES, Kind, Malformed, PACKED_LEN_MAX};

// Redis' limit of the compact encoding, which those that are packed have here.
const _: () = assert!(PACKED_LEN_MAX == 128);

/// Memory of a member in a table, besides its bytes and its row: its place in a tree whose nodes
/// are about two thirds full, and one allocation with two counters.
const MEMBER_BYTES: usize = size_of::<Ranked>() * 3 / 2 + 2 * size_of::<usize>() + ALLOCATION_BYTES;

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

    pub(super) fn to_bytes(self) -> [u8; 8] {
        self.0.to_bits().to_be_bytes()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Score> {
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
#[derive(Debug, Clone)]
pub struct SortedSet {
    members: Members,
}

#[derive(Debug, Clone)]
enum Members {
    Packed(PackedRanking),
    Table(Box<Table>),
}

#[derive(Debug, Clone, Default)]
struct Table {
    elements: Elements<Arc<[u8]>, Score>,
    ranking: Ranking,
    /// Bytes of all members.
    text_bytes: usize,
}

impl Default for SortedSet {
    fn default() -> SortedSet {
        SortedSet { members: Members::Packed(PackedRanking::default()) }
    }
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
        match &self.members {
            Members::Packed(packed) => packed.len(),
            Members::Table(table) => table.elements.len(),
        }
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<Score> {
        match &self.members {
            Members::Packed(packed) => packed.score(packed.rank(member)?),
            Members::Table(table) => table.elements.get(member).copied(),
        }
    }

    /// The number of members before this one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.members {
            Members::Packed(packed) => packed.rank(member),
            Members::Table(table) => {
                let score = *table.elements.get(member)?;
                Some(table.ranking.partition_point(|other| other.key() < (score, member)))
            }
        }
    }

    /// The members of these ranks, in ascending order.
    pub fn range(&self, ranks: Range<usize>) -> impl Iterator<Item = (&[u8], Score)> {
        match &self.members {
            Members::Packed(packed) => Either::Left(packed.range(ranks)),
            Members::Table(table) => Either::Right(table.ranking.range(ranks).map(Ranked::pair)),
        }
    }

    /// The members of these ranks, in descending order.
    pub fn range_descending(&self, ranks: Range<usize>) -> impl Iterator<Item = (&[u8], Score)> {
        match &self.members {
            Members::Packed(packed) => Either::Left(packed.range(ranks).rev()),
            Members::Table(table) => Either::Right(table.ranking.range_descending(ranks).map(Ranked::pair)),
        }
    }

    /// The ranks of the members whose scores are in `scores`.
    pub fn ranks_by_score(&self, scores: impl RangeBounds<Score>) -> Range<usize> {
        let start = match scores.start_bound() {
            Bound::Unbounded => 0,
            Bound::Included(min) => self.partition_point(|score, _| score < *min),
            Bound::Excluded(min) => self.partition_point(|score, _| score <= *min),
        };
        let end = match scores.end_bound() {
            Bound::Unbounded => self.len(),
            Bound::Included(max) => self.partition_point(|score, _| score <= *max),
            Bound::Excluded(max) => self.partition_point(|score, _| score < *max),
        };
        start..end.max(start)
    }

    /// The ranks of the members from `min` to `max`. Unspecified, but in bounds, if the members have
    /// different scores.
    pub fn ranks_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let start = match min {
            LexBound::Lowest => 0,
            LexBound::Highest => self.len(),
            LexBound::Included(min) => self.partition_point(|_, member| member < min),
            LexBound::Excluded(min) => self.partition_point(|_, member| member <= min),
        };
        let end = match max {
            LexBound::Lowest => 0,
            LexBound::Highest => self.len(),
            LexBound::Included(max) => self.partition_point(|_, member| member <= max),
            LexBound::Excluded(max) => self.partition_point(|_, member| member < max),
        };
        start..end.max(start)
    }

    /// The number of members at the start for which `precedes` holds.
    fn partition_point(&self, precedes: impl Fn(Score, &[u8]) -> bool) -> usize {
        match &self.members {
            Members::Packed(packed) => packed.partition_point(precedes),
            Members::Table(table) => {
                table.ranking.partition_point(|entry| precedes(entry.score, &entry.member))
            }
        }
    }

    /// One step of an iteration that returns every member that exists from its first step to its
    /// last. The first step has cursor 0; a step that returns 0 was the last. As in Redis, a sorted
    /// set of compact encoding is returned whole and in order; of another, a step returns at most
    /// `count` members, in no order.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, impl Iterator<Item = (&[u8], Score)>) {
        match &self.members {
            Members::Packed(packed) => (0, Either::Left(packed.range(0..packed.len()))),
            Members::Table(table) => {
                let (next, members) = table.elements.scan(cursor, count);
                (next, Either::Right(members.map(|(member, score)| (&**member, *score))))
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.members {
            Members::Packed(packed) => packed.bytes(),
            Members::Table(table) => table.bytes(),
        }
    }

    /// Whether Redis would store it as a listpack.
    pub(super) fn is_compact(&self) -> bool {
        matches!(self.members, Members::Packed(_))
    }

    fn put(&mut self, member: &[u8], score: Score) -> SetScore {
        match &mut self.members {
            Members::Packed(packed) => {
                let rank = packed.rank(member);
                if rank.is_some_and(|rank| packed.score(rank) == Some(score)) {
                    return SetScore::Unchanged;
                }
                if let Some(rank) = rank {
                    packed.remove(rank);
                    packed.insert(member, score);
                    return SetScore::Updated;
                }
                if packed.len() < PACKED_LEN_MAX && Packed::fits(member) {
                    packed.insert(member, score);
                    return SetScore::Added;
                }
                let mut table = Box::<Table>::default();
                packed.range(0..packed.len()).for_each(|(member, score)| table.add(member, score));
                table.add(member, score);
                self.members = Members::Table(table);
                SetScore::Added
            }
            Members::Table(table) => table.put(member, score),
        }
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.members {
            Members::Packed(packed) => {
                let rank = packed.rank(member);
                if let Some(rank) = rank {
                    packed.remove(rank);
                }
                rank.is_some()
            }
            Members::Table(table) => table.remove(member),
        }
    }
}

impl Table {
    fn bytes(&self) -> usize {
        size_of::<Table>() + self.elements.bytes() + self.text_bytes + MEMBER_BYTES * self.elements.len()
    }

    /// Adds a member, which must not be there yet.
    fn add(&mut self, member: &[u8], score: Score) {
        let member: Arc<[u8]> = member.into();
        self.text_bytes += member.len();
        self.elements.insert(Arc::clone(&member), score);
        self.ranking.insert(Ranked { score, member });
    }

    fn put(&mut self, member: &[u8], score: Score) -> SetScore {
        let Some(old) = self.elements.get_mut(member) else {
            self.add(member, score);
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
        let Some((_, score)) = self.elements.remove(member) else { return false };
        self.ranking.remove(score, member);
        self.text_bytes -= member.len();
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
    pub fn remove_range(&mut self, ranks: Range<usize>) -> Vec<(Box<[u8]>, Score)> {
        let members = self.sorted.range(ranks);
        let removed: Vec<(Box<[u8]>, Score)> =
            members.map(|(member, score)| (member.into(), score)).collect();
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
