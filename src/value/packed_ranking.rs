//! Few members in the order of their scores, in one allocation.
//!
//! Guarantees: entries are in ascending order of score, then of the bytes of the member, and no two
//! have the same member. Operations take time linear in the number of entries.
//! Not here: how many there are at most.

use std::ops::Range;

use super::Score;
use super::packed::{PACKED_BYTES_MAX, Packed, are_equal};

const SCORE_BYTES: usize = size_of::<Score>();
const _: () = assert!(SCORE_BYTES + PACKED_BYTES_MAX <= u8::MAX as usize);

/// Members in the order of their scores.
#[derive(Debug, Clone, Default)]
pub(super) struct PackedRanking {
    /// The bytes of each score and those of its member behind them are one string.
    entries: Packed,
}

impl PackedRanking {
    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// About how many bytes of memory the entries take.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// The rank of a member; the lowest has rank 0.
    pub(super) fn rank(&self, member: &[u8]) -> Option<usize> {
        self.entries.find::<1>(|entry| are_equal(&entry[SCORE_BYTES..], member))
    }

    /// The score of the entry at a rank.
    pub(super) fn score(&self, rank: usize) -> Option<Score> {
        self.entries.get(rank).map(|entry| pair(entry).1)
    }

    /// Adds an entry, whose member must not be there yet.
    pub(super) fn insert(&mut self, member: &[u8], score: Score) {
        let rank = self.partition_point(|other, before| (other, before) < (score, member));
        let mut entry = [0; SCORE_BYTES + PACKED_BYTES_MAX];
        let entry = &mut entry[..SCORE_BYTES + member.len()];
        entry[..SCORE_BYTES].copy_from_slice(&score.to_bytes());
        entry[SCORE_BYTES..].copy_from_slice(member);
        self.entries.insert(rank, entry);
    }

    /// Removes the entry at a rank below [`PackedRanking::len`].
    pub(super) fn remove(&mut self, rank: usize) {
        self.entries.remove(rank..rank + 1);
    }

    /// The number of entries at the start for which `precedes` holds.
    pub(super) fn partition_point(&self, precedes: impl Fn(Score, &[u8]) -> bool) -> usize {
        self.entries.iter().map(pair).take_while(|(member, score)| precedes(*score, member)).count()
    }

    /// The entries of these ranks, in ascending order. The ranks are cut at the end.
    pub(super) fn range(
        &self,
        ranks: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], Score)> + ExactSizeIterator {
        self.entries.range(ranks).map(pair)
    }
}

/// The member and the score of an entry.
fn pair(entry: &[u8]) -> (&[u8], Score) {
    let (score, member) = entry.split_at(SCORE_BYTES);
    (member, Score::from_bytes(score).unwrap_or_else(|| unreachable!("these are the bytes of a score")))
}
