//! Few members in the order of their scores, in three allocations.
//!
//! Guarantees: entries are in ascending order of score, then of the bytes of the member, and no two
//! have the same member. Operations take time linear in the number of entries.
//! Not here: how many there are at most.

use std::ops::Range;

use super::Score;
use super::packed::{Packed, reserve, shrink};

/// Members in the order of their scores.
#[derive(Debug, Clone, Default)]
pub(super) struct PackedRanking {
    members: Packed,
    scores: Vec<Score>,
}

impl PackedRanking {
    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    /// Memory that was allocated.
    pub(super) fn bytes(&self) -> usize {
        self.members.bytes() + self.scores.capacity() * size_of::<Score>()
    }

    /// The rank of a member; the lowest has rank 0.
    pub(super) fn rank(&self, member: &[u8]) -> Option<usize> {
        self.members.find::<1>(member)
    }

    /// The score of the entry at a rank below [`PackedRanking::len`].
    pub(super) fn score(&self, rank: usize) -> Score {
        self.scores[rank]
    }

    /// Adds an entry, whose member must not be there yet.
    pub(super) fn insert(&mut self, member: &[u8], score: Score) {
        let lower = self.scores.partition_point(|other| *other < score);
        let equal = self.scores[lower..].partition_point(|other| *other == score);
        let before = self.members.range(lower..lower + equal).take_while(|other| *other < member);
        let rank = lower + before.count();
        self.members.insert(rank, member);
        reserve(&mut self.scores, 1);
        self.scores.insert(rank, score);
    }

    /// Removes the entry at a rank below [`PackedRanking::len`].
    pub(super) fn remove(&mut self, rank: usize) {
        self.members.remove(rank..rank + 1);
        self.scores.remove(rank);
        shrink(&mut self.scores);
    }

    /// The number of entries at the start for which `precedes` holds.
    pub(super) fn partition_point(&self, precedes: impl Fn(Score, &[u8]) -> bool) -> usize {
        self.range(0..self.len()).take_while(|(member, score)| precedes(*score, member)).count()
    }

    /// The entries of these ranks, in ascending order. The ranks are cut at the end.
    pub(super) fn range(
        &self,
        ranks: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], Score)> + ExactSizeIterator {
        let end = ranks.end.min(self.len());
        let ranks = ranks.start.min(end)..end;
        self.members.range(ranks.clone()).zip(self.scores[ranks].iter().copied())
    }
}
