//! The table of keys.
//!
//! Guarantees: a key that is vacant has no entry. Look-up is by a keyed hash of 32 bits; names
//! whose hashes collide share a chain of entries and stay apart. Guards of keys never leave this file, and
//! nothing here is async. The only file that names dashmap.
//! Not here: rules, records, clocks.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;

use super::content::Content;
use super::entry::Entry;
use super::hash::NameHash;
use crate::domain::{LockName, Timestamp};
use crate::engine::expiry::Tick;
use crate::journal::Seq;
use crate::lock::Slot;

/// Shards of each part.
const SHARDS_PER_PART: usize = 4;
/// Where in the lower part of the hash each shard ends. One is 2^(1/4) times the size of the one
/// before: a shard doubles when it is full, and equal ones would all do so at once, with a long
/// pause, and be half empty afterwards.
const SHARD_ENDS: [u64; SHARDS_PER_PART - 1] =
    [permille_of_hashes(189), permille_of_hashes(414), permille_of_hashes(682)];
/// Bits that the map compares before it compares keys.
const TAG_BITS: u32 = 7;
/// Stripes of the record of last changes. With fewer, a reader waits more often for the commit of
/// another key.
const STRIPES: usize = 4096;

const fn permille_of_hashes(permille: u64) -> u64 {
    (permille << NameHash::LOWER_BITS) / 1000
}

/// Passes through keys that are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 << 8) | u64::from(*byte));
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Part = DashMap<u64, Box<Entry>, BuildHasherDefault<Identity>>;

/// All keys that are not vacant, as of one rebuild.
pub(in crate::engine) struct Table {
    /// Which rebuild this is.
    pub(in crate::engine) epoch: u64,
    /// By the upper part of the hash, so that a scan can visit one at a time.
    parts: Box<[Part]>,
    touched: Box<[AtomicU64]>,
}

/// A key under its guard.
pub(in crate::engine) struct GuardedKey<'a> {
    pub(in crate::engine) hash: u64,
    pub(in crate::engine) content: &'a mut Content,
    pub(in crate::engine) armed: &'a mut Option<Tick>,
    /// Another key that is not vacant has the same hash.
    pub(in crate::engine) is_hash_shared: bool,
    last_change: LastChange<'a>,
}

/// A lock under its guard.
pub(in crate::engine) struct Guarded<'a> {
    pub(in crate::engine) hash: u64,
    pub(in crate::engine) slot: &'a mut Slot,
    last_change: LastChange<'a>,
}

/// The Seq of the last change to a key, or to one that shares its stripe.
#[derive(Clone, Copy)]
struct LastChange<'a>(&'a AtomicU64);

impl LastChange<'_> {
    fn get(self) -> Seq {
        Seq::from_u64(self.0.load(Ordering::Acquire))
    }

    fn advance(self, seq: Seq) {
        // Without durability there are no numbers, and the stripe need not be fetched.
        if seq > Seq::default() && seq > self.get() {
            self.0.fetch_max(seq.get(), Ordering::AcqRel);
        }
    }
}

impl GuardedKey<'_> {
    /// The key as a lock; `None` if it is a value.
    pub(in crate::engine) fn lock(&mut self) -> Option<Guarded<'_>> {
        match &mut *self.content {
            Content::Lock(slot) => Some(Guarded { hash: self.hash, slot, last_change: self.last_change }),
            Content::Value(_) => None,
        }
    }

    /// The last change to this key, or to one that shares its stripe.
    pub(in crate::engine) fn last_change(&self) -> Seq {
        self.last_change.get()
    }

    /// Remembers a change.
    pub(in crate::engine) fn changed_by(&self, seq: Seq) {
        self.last_change.advance(seq);
    }
}

impl Guarded<'_> {
    /// The last change to this key, or to one that shares its stripe.
    pub(in crate::engine) fn last_change(&self) -> Seq {
        self.last_change.get()
    }

    /// Remembers a change.
    pub(in crate::engine) fn changed_by(&self, seq: Seq) {
        self.last_change.advance(seq);
    }
}

impl Table {
    pub(in crate::engine) fn new(epoch: u64) -> Table {
        let part = || Part::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS_PER_PART);
        Table {
            epoch,
            parts: (0..Table::PARTS).map(|_| part()).collect(),
            touched: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The number of parts.
    pub(in crate::engine) const PARTS: usize = NameHash::UPPER_PARTS;

    fn part(&self, hash: u64) -> &Part {
        &self.parts[NameHash::upper(hash)]
    }

    /// The map takes the bucket from the lower end of a key, a tag from the upper 7 bits, and the
    /// shard from the bits below them.
    fn key(hash: u64) -> u64 {
        let lower = NameHash::lower(hash);
        let tag = lower >> (NameHash::LOWER_BITS - TAG_BITS);
        let shard = SHARD_ENDS.iter().filter(|end| lower >= **end).count() as u64;
        tag << (u64::BITS - TAG_BITS) | shard << (u64::BITS - TAG_BITS - SHARDS_PER_PART.ilog2()) | lower
    }

    fn last_change(&self, hash: u64) -> LastChange<'_> {
        LastChange(&self.touched[hash as usize % STRIPES])
    }

    /// Runs `work` on a key, vacant or not. Locks one shard meanwhile; `work` must not come back to
    /// the table.
    pub(in crate::engine) fn with_key<R>(
        &self,
        hash: u64,
        name: &LockName,
        work: impl FnOnce(GuardedKey<'_>) -> R,
    ) -> R {
        let last_change = self.last_change(hash);
        match self.part(hash).entry(Table::key(hash)) {
            MapEntry::Vacant(place) => {
                let (result, entry) = work_on_vacant(name, |content, armed| {
                    work(GuardedKey { hash, content, armed, is_hash_shared: false, last_change })
                });
                if let Some(entry) = entry {
                    place.insert(Box::new(entry));
                }
                result
            }
            MapEntry::Occupied(mut place) => {
                let head = place.get_mut();
                let is_hash_shared = head.next().is_some() || !head.is_of(name);
                let (result, fate) = work_in_chain(head, name, |content, armed| {
                    work(GuardedKey { hash, content, armed, is_hash_shared, last_change })
                });
                match fate {
                    Fate::Stays => {}
                    Fate::Goes(Some(next)) => drop(place.insert(next)),
                    Fate::Goes(None) => drop(place.remove()),
                }
                result
            }
        }
    }

    /// When the first thing ends by itself of the keys under a hash. Locks one shard.
    pub(in crate::engine) fn next_deadline(&self, hash: u64) -> Timestamp {
        let head = self.part(hash).get(&Table::key(hash));
        let chain = std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next());
        chain.map(Entry::next_deadline).min().unwrap_or(Timestamp::NEVER)
    }

    /// The names of the keys under a hash. Locks one shard.
    pub(in crate::engine) fn names(&self, hash: u64) -> Vec<LockName> {
        let head = self.part(hash).get(&Table::key(hash));
        std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next())
            .map(Entry::name)
            .collect()
    }

    /// Passes on the entry of a key, and the time at which the first thing ends by itself of the
    /// keys under its hash. Returns the Seq of the last change to any of them, too. Locks one
    /// shard.
    pub(in crate::engine) fn peek<R>(
        &self,
        hash: u64,
        name: &LockName,
        read: impl FnOnce(Option<&Entry>, Timestamp) -> Option<R>,
    ) -> Option<(R, Seq)> {
        let head = self.part(hash).get(&Table::key(hash));
        let chain = || std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next());
        let next_deadline = chain().map(Entry::next_deadline).min().unwrap_or(Timestamp::NEVER);
        let found = read(chain().find(|entry| entry.is_of(name)), next_deadline)?;
        Some((found, self.last_change(hash).get()))
    }

    /// Visits all keys under a hash. Locks one shard.
    pub(in crate::engine) fn visit(&self, hash: u64, each: impl FnMut(&Entry)) {
        let head = self.part(hash).get(&Table::key(hash));
        std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next()).for_each(each);
    }

    /// Returns the number of entries of a part, and the lower parts of the `max` smallest of their
    /// hashes from `from` on, the largest first. Locks one shard at a time.
    pub(in crate::engine) fn hashes(&self, part: usize, from: u64, max: usize) -> (usize, Vec<u32>) {
        let (mut entries, mut lowers) = (0, Vec::new());
        for entry in self.parts[part].iter() {
            let lower = NameHash::lower(*entry.key());
            entries += 1;
            lowers.extend(u32::try_from(lower).ok().filter(|_| lower >= from));
        }
        if lowers.len() > max {
            lowers.select_nth_unstable(max);
            lowers.truncate(max);
        }
        lowers.sort_unstable_by(|a, b| b.cmp(a));
        (entries, lowers)
    }
}

/// What becomes of an entry that was worked on.
enum Fate {
    Stays,
    /// The rest of its chain takes its place.
    Goes(Option<Box<Entry>>),
}

/// Works on a key that has no entry. If it is vacant no more, returns the entry it needs.
fn work_on_vacant<R>(
    name: &LockName,
    work: impl FnOnce(&mut Content, &mut Option<Tick>) -> R,
) -> (R, Option<Entry>) {
    let (mut content, mut armed) = (Content::default(), None);
    let result = work(&mut content, &mut armed);
    let is_vacant = content.is_vacant();
    (result, (!is_vacant).then(|| Entry::new(name, content, armed, None)))
}

/// Works on a key in a chain of entries. One that has no entry gets it at the end.
fn work_in_chain<R>(
    head: &mut Entry,
    name: &LockName,
    work: impl FnOnce(&mut Content, &mut Option<Tick>) -> R,
) -> (R, Fate) {
    if head.is_of(name) {
        let (result, stays) = head.work(name, work);
        let fate = if stays { Fate::Stays } else { Fate::Goes(head.take_next()) };
        return (result, fate);
    }
    // Two names of one hash are rare.
    let next = head.next_mut();
    let result = match next {
        Some(entry) => {
            let (result, fate) = work_in_chain(entry, name, work);
            if let Fate::Goes(rest) = fate {
                *next = rest;
            }
            result
        }
        None => {
            let (result, entry) = work_on_vacant(name, work);
            *next = entry.map(Box::new);
            result
        }
    };
    (result, Fate::Stays)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Ttl;
    use crate::lock::Delay;

    fn name(key: &str) -> LockName {
        LockName::new(0, key.as_bytes()).unwrap()
    }

    fn occupy(table: &Table, hash: u64, key: &str) {
        let delay = Delay { until: Timestamp::NEVER, length: Ttl::from_millis(1).unwrap() };
        table.with_key(hash, &name(key), |mut key| key.lock().unwrap().slot.restore_delay(delay));
    }

    fn is_hash_shared(table: &Table, hash: u64, key: &str) -> bool {
        table.with_key(hash, &name(key), |key| key.is_hash_shared)
    }

    fn free(table: &Table, hash: u64, key: &str) {
        table.with_key(hash, &name(key), |key| *key.content = Content::default());
    }

    #[test]
    fn shards_differ_in_size_so_that_they_grow_one_after_the_other() {
        let mut sizes = [0_u64; SHARDS_PER_PART];
        let all = 1_u64 << NameHash::LOWER_BITS;
        for lower in (0..all).step_by(16) {
            let key = Table::key(lower);
            assert_eq!(NameHash::lower(key), lower);
            sizes[(key << TAG_BITS >> (u64::BITS - SHARDS_PER_PART.ilog2())) as usize] += 16;
        }
        assert!(sizes.windows(2).all(|pair| pair[1] * 100 > pair[0] * 116), "{sizes:?}");
        assert!(sizes[SHARDS_PER_PART - 1] < sizes[0] * 2, "{sizes:?}");
    }

    #[test]
    fn names_with_one_hash_stay_apart_and_leave_nothing_behind() {
        for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"], ["b", "c", "a"]] {
            let table = Table::new(0);
            ["a", "b", "c"].iter().for_each(|key| occupy(&table, 7, key));
            assert_eq!(table.names(7), ["a", "b", "c"].map(name));
            assert!(["a", "b", "c", "d"].iter().all(|key| is_hash_shared(&table, 7, key)));
            free(&table, 7, "never used");
            for (gone, key) in order.iter().enumerate() {
                free(&table, 7, key);
                assert_eq!(table.names(7).len(), 2 - gone);
                assert!(!table.names(7).contains(&name(key)));
            }
            assert!(table.parts.iter().all(|part| part.is_empty()));
        }
    }

    #[test]
    fn hashes_of_a_part_come_in_order_and_in_pieces() {
        let table = Table::new(0);
        let hashes: Vec<u64> = (0..1000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).collect();
        hashes.iter().for_each(|lower| occupy(&table, NameHash::joined(3, *lower), &lower.to_string()));
        let mut expected: Vec<u32> = hashes.iter().map(|lower| *lower as u32).collect();
        expected.sort_unstable();
        expected.dedup();
        let (mut seen, mut from) = (Vec::new(), 0);
        loop {
            let (entries, mut lowers) = table.hashes(3, from, 7);
            assert_eq!(entries, expected.len());
            assert!(lowers.len() <= 7 && lowers.is_sorted_by(|a, b| a > b));
            let Some(last) = lowers.first().copied() else { break };
            lowers.reverse();
            seen.extend(lowers);
            from = u64::from(last) + 1;
        }
        assert_eq!(seen, expected);
        assert_eq!(table.hashes(4, 0, 7), (0, vec![]));
        let mut names = 0;
        table.visit(NameHash::joined(3, hashes[0]), |_| names += 1);
        assert_eq!(names, 1);
    }
}
