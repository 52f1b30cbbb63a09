//! Members in the order of their scores: a B+ tree whose inner nodes count the entries below them.
//!
//! Guarantees: entries are in ascending order, no two are equal, and finding, inserting and
//! removing one takes logarithmic time, whether by its rank or by what precedes it. All leaves have
//! the same depth, and every node but the root has [`NODE_MIN`] to [`NODE_MAX`] entries or children.
//! Not here: look-ups by member alone.

use std::ops::Range;
use std::sync::Arc;

use super::Score;

/// Entries of a leaf, or children of an inner node.
const NODE_MAX: usize = 64;
const NODE_MIN: usize = 16;
// The halves of a node that is too full, and what a merge makes of two nodes, are within the limits.
const _: () = assert!(2 * NODE_MIN <= NODE_MAX && NODE_MIN >= 2);

/// A member with its score. Ordered by score, then by the bytes of the member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ranked {
    pub(super) score: Score,
    pub(super) member: Arc<[u8]>,
}

impl Ranked {
    /// What entries are ordered by.
    pub(super) fn key(&self) -> (Score, &[u8]) {
        (self.score, &self.member)
    }

    /// The member and its score.
    pub(super) fn pair(&self) -> (&[u8], Score) {
        (&self.member, self.score)
    }
}

/// Members in the order of their scores.
#[derive(Debug, Clone)]
pub(super) struct Ranking {
    root: Node,
}

#[derive(Debug, Clone)]
enum Node {
    /// Empty only if it is the root.
    Leaf(Vec<Ranked>),
    Inner {
        /// Never empty.
        children: Vec<Node>,
        /// Entries in all leaves below.
        count: usize,
    },
}

impl Default for Ranking {
    fn default() -> Ranking {
        Ranking { root: Node::Leaf(Vec::new()) }
    }
}

impl Ranking {
    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.root.count()
    }

    /// Adds an entry, which must not be there yet.
    pub(super) fn insert(&mut self, entry: Ranked) {
        if let Some(right) = self.root.insert(entry) {
            let left = std::mem::replace(&mut self.root, Node::Leaf(Vec::new()));
            self.root = Node::inner(vec![left, right]);
        }
    }

    /// Takes the entry of a member with this score out, if it is there.
    pub(super) fn remove(&mut self, score: Score, member: &[u8]) -> Option<Ranked> {
        let rank = self.partition_point(|other| other.key() < (score, member));
        self.get(rank).filter(|found| found.key() == (score, member))?;
        let removed = self.root.remove(rank);
        if let Node::Inner { children, .. } = &mut self.root
            && children.len() == 1
            && let Some(child) = children.pop()
        {
            self.root = child;
        }
        Some(removed)
    }

    /// The entry of this rank; the lowest has rank 0.
    pub(super) fn get(&self, rank: usize) -> Option<&Ranked> {
        let (leaf, offset) = self.leaf(rank);
        leaf.get(offset)
    }

    /// The number of entries at the start for which `precedes` holds. It must hold for no entry
    /// after one for which it does not.
    pub(super) fn partition_point(&self, precedes: impl Fn(&Ranked) -> bool) -> usize {
        let (mut node, mut before) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(entries) => return before + entries.partition_point(precedes),
                Node::Inner { children, .. } => {
                    let starts_before = |child: &Node| child.first().is_some_and(&precedes);
                    let at = children.partition_point(starts_before).saturating_sub(1);
                    before += children[..at].iter().map(Node::count).sum::<usize>();
                    node = &children[at];
                }
            }
        }
    }

    /// The entries of these ranks, in ascending order.
    pub(super) fn range(&self, ranks: Range<usize>) -> impl Iterator<Item = &Ranked> {
        let Range { start: mut next, end } = self.clamp(ranks);
        let leaves = std::iter::from_fn(move || {
            (next < end).then(|| {
                let (leaf, offset) = self.leaf(next);
                let part = &leaf[offset..leaf.len().min(offset + end - next)];
                next += part.len();
                part
            })
        });
        leaves.flatten()
    }

    /// The entries of these ranks, in descending order.
    pub(super) fn range_descending(&self, ranks: Range<usize>) -> impl Iterator<Item = &Ranked> {
        let Range { start, mut end } = self.clamp(ranks);
        let leaves = std::iter::from_fn(move || {
            (start < end).then(|| {
                let (leaf, offset) = self.leaf(end - 1);
                let part = &leaf[(offset + 1).saturating_sub(end - start)..=offset];
                end -= part.len();
                part.iter().rev()
            })
        });
        leaves.flatten()
    }

    fn clamp(&self, ranks: Range<usize>) -> Range<usize> {
        ranks.start..ranks.end.min(self.len())
    }

    /// The leaf that has the entry of this rank, and the index of the entry in it. For a rank that
    /// is too high, an index behind the end of a leaf.
    fn leaf(&self, rank: usize) -> (&[Ranked], usize) {
        let (mut node, mut rank) = (&self.root, rank);
        loop {
            match node {
                Node::Leaf(entries) => return (entries, rank),
                Node::Inner { children, .. } => node = &children[child_of(children, &mut rank)],
            }
        }
    }
}

/// The index of the child below which the entry of this rank is. `rank` becomes the rank in there.
/// For a rank that is too high, the last child.
fn child_of(children: &[Node], rank: &mut usize) -> usize {
    let last = children.len() - 1;
    for (at, child) in children[..last].iter().enumerate() {
        match rank.checked_sub(child.count()) {
            Some(left) => *rank = left,
            None => return at,
        }
    }
    last
}

impl Node {
    fn inner(children: Vec<Node>) -> Node {
        let count = children.iter().map(Node::count).sum();
        Node::Inner { children, count }
    }

    fn count(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Inner { count, .. } => *count,
        }
    }

    /// The number of entries of a leaf, or of children.
    fn width(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.len(),
            Node::Inner { children, .. } => children.len(),
        }
    }

    fn first(&self) -> Option<&Ranked> {
        let mut node = self;
        while let Node::Inner { children, .. } = node {
            node = children.first()?;
        }
        let Node::Leaf(entries) = node else { return None };
        entries.first()
    }

    /// Adds an entry below. Returns a new right neighbour if the node was full.
    fn insert(&mut self, entry: Ranked) -> Option<Node> {
        match self {
            Node::Leaf(entries) => {
                let at = entries.partition_point(|other| *other < entry);
                entries.insert(at, entry);
            }
            Node::Inner { children, count } => {
                *count += 1;
                let starts_before = |child: &Node| child.first().is_some_and(|first| *first < entry);
                let at = children.partition_point(starts_before).saturating_sub(1);
                if let Some(right) = children[at].insert(entry) {
                    children.insert(at + 1, right);
                }
            }
        }
        self.split()
    }

    /// Moves the upper half to a new node if the node is too full.
    fn split(&mut self) -> Option<Node> {
        if self.width() <= NODE_MAX {
            return None;
        }
        let middle = self.width() / 2;
        match self {
            Node::Leaf(entries) => Some(Node::Leaf(entries.split_off(middle))),
            Node::Inner { children, count } => {
                let right = Node::inner(children.split_off(middle));
                *count -= right.count();
                Some(right)
            }
        }
    }

    /// Removes the entry of this rank, which must exist.
    fn remove(&mut self, mut rank: usize) -> Ranked {
        match self {
            Node::Leaf(entries) => entries.remove(rank),
            Node::Inner { children, count } => {
                *count -= 1;
                let at = child_of(children, &mut rank);
                let removed = children[at].remove(rank);
                if children[at].width() < NODE_MIN && children.len() > 1 {
                    merge(children, at.min(children.len() - 2));
                }
                removed
            }
        }
    }

    /// Appends the entries or children of the right neighbour, a node of the same depth.
    fn append(&mut self, right: Node) {
        match (self, right) {
            (Node::Leaf(entries), Node::Leaf(mut more)) => entries.append(&mut more),
            (Node::Inner { children, count }, Node::Inner { children: mut more, count: added }) => {
                children.append(&mut more);
                *count += added;
            }
            _ => unreachable!("all leaves have the same depth"),
        }
    }
}

/// Makes one node of the children at `at` and `at + 1`, or two of equal width if it were too full.
fn merge(children: &mut Vec<Node>, at: usize) {
    let right = children.remove(at + 1);
    children[at].append(right);
    if let Some(right) = children[at].split() {
        children.insert(at + 1, right);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn entry(n: u16) -> Ranked {
        let score = Score::new(f64::from(n / 8)).expect("a number");
        Ranked { score, member: n.to_be_bytes().as_slice().into() }
    }

    /// Checks the structure below a node. Returns its depth.
    fn check(node: &Node, is_root: bool) -> usize {
        assert!(node.width() <= NODE_MAX && (is_root || node.width() >= NODE_MIN), "{}", node.width());
        let Node::Inner { children, count } = node else { return 0 };
        assert!(children.len() > 1);
        assert_eq!(*count, children.iter().map(Node::count).sum::<usize>());
        let depths: BTreeSet<usize> = children.iter().map(|child| check(child, false)).collect();
        assert_eq!(depths.len(), 1, "all leaves have the same depth");
        1 + depths.first().expect("one depth")
    }

    fn check_equal(ranking: &Ranking, model: &BTreeSet<Ranked>, ranks: Range<usize>) {
        check(&ranking.root, true);
        assert_eq!(ranking.len(), model.len());
        assert!(ranking.range(0..usize::MAX).eq(model));
        let (start, end) = (ranks.start, ranks.end.min(model.len()));
        let expected: Vec<&Ranked> = model.iter().skip(start).take(end.saturating_sub(start)).collect();
        assert!(ranking.range(ranks.clone()).eq(expected.iter().copied()));
        assert!(ranking.range_descending(ranks.clone()).eq(expected.iter().rev().copied()));
        assert_eq!(ranking.get(start), model.iter().nth(start));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn random_changes_give_what_an_ordered_set_gives(
            // Phases that mostly insert and phases that mostly remove, so that nodes split and merge.
            phases in proptest::collection::vec((0u32..10, proptest::collection::vec((0u32..10, any::<u16>()), 0..3000)), 1..5),
            ranks in (0usize..6000, 0usize..6000),
        ) {
            let (mut ranking, mut model) = (Ranking::default(), BTreeSet::new());
            for (removals, changes) in phases {
                for (choice, n) in changes {
                    let n = n % 8192;
                    if choice >= removals {
                        if model.insert(entry(n)) {
                            ranking.insert(entry(n));
                        }
                    } else {
                        // An entry that exists, if there is any above n.
                        let found = model.range(entry(n)..).next().cloned().unwrap_or_else(|| entry(n));
                        prop_assert_eq!(ranking.remove(found.score, &found.member), model.take(&found));
                    }
                }
                check_equal(&ranking, &model, ranks.0..ranks.1);
                let limit = entry(ranks.0 as u16);
                prop_assert_eq!(ranking.partition_point(|other| *other < limit), model.range(..limit.clone()).count());
            }
            while let Some(first) = model.pop_first() {
                prop_assert_eq!(ranking.remove(first.score, &first.member), Some(first));
            }
            check_equal(&ranking, &model, 0..1);
        }
    }

    #[test]
    fn ascending_and_descending_insertions_and_removals_keep_the_structure() {
        for descending in [false, true] {
            let at = |n: u16| entry(if descending { 9999 - n } else { n });
            let mut ranking = Ranking::default();
            (0..10_000).for_each(|n| ranking.insert(at(n)));
            assert_eq!(check(&ranking.root, true), 2);
            assert!((0..10_000).all(|n| ranking.get(usize::from(n)) == Some(&entry(n))));
            for found in (0..9_999).map(at) {
                assert_eq!(ranking.remove(found.score, &found.member), Some(found.clone()));
                assert_eq!(ranking.remove(found.score, &found.member), None);
            }
            assert_eq!((check(&ranking.root, true), ranking.len()), (0, 1));
        }
    }
}
