//! The table of locks.
//!
//! Promise: a lock that is free has no entry; look-up is by a keyed hash of 32 bits, and names whose hashes collide share an
//! entry and stay apart. Guards never leave this file, and nothing here is async. The only file that
//! names dashmap.
//! Absent: rules, records, clocks.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;

use super::entry::Entry;
use super::hash::NameHash;
use crate::domain::{LockName, Timestamp};
use crate::engine::expiry::Tick;
use crate::journal::Seq;
use crate::lock::Slot;

/// Shards of each part.
const SHARDS_PER_PART: usize = 4;
/// Where in the lower part of the hash each shard ends. One is 2^(1/4) times the size of the one before: a shard doubles
/// when it is full, and of equal ones all would do so at once, a pause for everyone, and half empty afterwards.
const SHARD_ENDS: [u64; SHARDS_PER_PART - 1] =
    [permille_of_hashes(189), permille_of_hashes(414), permille_of_hashes(682)];
/// Bits that the map compares before it compares keys.
const TAG_BITS: u32 = 7;
/// Stripes of the record of last changes. More only spares a reader a wait for a stranger's commit.
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

/// All locks that are not free, as of one rebuild.
pub(in crate::engine) struct Table {
    /// Which rebuild this is.
    pub(in crate::engine) epoch: u64,
    /// By the upper part of the hash, so that a scan can visit one at a time.
    parts: Box<[Part]>,
    touched: Box<[AtomicU64]>,
}

/// What an operation works on, under the guard.
pub(in crate::engine) struct Guarded<'a> {
    pub(in crate::engine) hash: u64,
    pub(in crate::engine) slot: &'a mut Slot,
    pub(in crate::engine) armed: &'a mut Option<Tick>,
    /// Another lock that is not free has the same hash.
    pub(in crate::engine) is_hash_shared: bool,
    touched: &'a AtomicU64,
}

impl Guarded<'_> {
    /// The last change to this lock, or to one that shares its stripe.
    pub(in crate::engine) fn last_change(&self) -> Seq {
        Seq::from_u64(self.touched.load(Ordering::Acquire))
    }

    /// Remembers a change.
    pub(in crate::engine) fn changed_by(&self, seq: Seq) {
        if seq > self.last_change() {
            self.touched.fetch_max(seq.get(), Ordering::AcqRel);
        }
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

    /// How many parts there are.
    pub(in crate::engine) const PARTS: usize = NameHash::UPPER_PARTS;

    fn part(&self, hash: u64) -> &Part {
        &self.parts[NameHash::upper(hash)]
    }

    /// The map takes the bucket from the lower end of a key, a tag from the upper 7 bits, and the shard from the bits below them.
    fn key(hash: u64) -> u64 {
        let lower = NameHash::lower(hash);
        let tag = lower >> (NameHash::LOWER_BITS - TAG_BITS);
        let shard = SHARD_ENDS.iter().filter(|end| lower >= **end).count() as u64;
        tag << (u64::BITS - TAG_BITS) | shard << (u64::BITS - TAG_BITS - SHARDS_PER_PART.ilog2()) | lower
    }

    fn stripe(&self, hash: u64) -> &AtomicU64 {
        &self.touched[hash as usize % STRIPES]
    }

    /// Runs `work` on a lock, free or not. Locks one shard meanwhile; `work` must not come back to the table.
    pub(in crate::engine) fn with_slot<R>(
        &self,
        hash: u64,
        name: &LockName,
        work: impl FnOnce(Guarded<'_>) -> R,
    ) -> R {
        let touched = self.stripe(hash);
        match self.part(hash).entry(Table::key(hash)) {
            MapEntry::Vacant(place) => {
                let (result, entry) = work_on_free(name, |slot, armed| {
                    work(Guarded { hash, slot, armed, is_hash_shared: false, touched })
                });
                if let Some(entry) = entry {
                    place.insert(Box::new(entry));
                }
                result
            }
            MapEntry::Occupied(mut place) => {
                let head = place.get_mut();
                let is_hash_shared = head.next().is_some() || !head.is_of(name);
                let (result, is_kept) = work_in_chain(head, name, |slot, armed| {
                    work(Guarded { hash, slot, armed, is_hash_shared, touched })
                });
                if !is_kept {
                    match unlink(head, name) {
                        Unlinked::Inside => {}
                        Unlinked::Head(Some(next)) => drop(place.insert(next)),
                        Unlinked::Head(None) => drop(place.remove()),
                    }
                }
                result
            }
        }
    }

    /// When the first thing ends by itself of the locks under a hash. Locks one shard.
    pub(in crate::engine) fn next_deadline(&self, hash: u64) -> Timestamp {
        let head = self.part(hash).get(&Table::key(hash));
        let chain = std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next());
        chain.map(Entry::next_deadline).min().unwrap_or(Timestamp::NEVER)
    }

    /// The names that are not free under a hash. Locks one shard.
    pub(in crate::engine) fn names(&self, hash: u64) -> Vec<LockName> {
        let head = self.part(hash).get(&Table::key(hash));
        std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next())
            .map(Entry::name)
            .collect()
    }

    /// Looks at the entry of a lock, and passes it on with the time at which the first thing ends by itself of the
    /// locks under its hash. With the Seq of the last change to any of them. Locks one shard.
    pub(in crate::engine) fn peek<R>(
        &self,
        hash: u64,
        name: &LockName,
        look: impl FnOnce(Option<&Entry>, Timestamp) -> Option<R>,
    ) -> Option<(R, Seq)> {
        let head = self.part(hash).get(&Table::key(hash));
        let chain = || std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next());
        let next_deadline = chain().map(Entry::next_deadline).min().unwrap_or(Timestamp::NEVER);
        let found = look(chain().find(|entry| entry.is_of(name)), next_deadline)?;
        Some((found, Seq::from_u64(self.stripe(hash).load(Ordering::Acquire))))
    }

    /// Looks at all locks under a hash that are not free. Locks one shard.
    pub(in crate::engine) fn look(&self, hash: u64, each: impl FnMut(&Entry)) {
        let head = self.part(hash).get(&Table::key(hash));
        std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next()).for_each(each);
    }

    /// How many entries a part has, and the lower parts of the `max` smallest of their hashes from `from` on,
    /// the largest first. Locks one shard at a time.
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

/// Works on a lock that has no entry. If it is free no more, with the entry it needs.
fn work_on_free<R>(
    name: &LockName,
    work: impl FnOnce(&mut Slot, &mut Option<Tick>) -> R,
) -> (R, Option<Entry>) {
    let (mut slot, mut armed) = (Slot::default(), None);
    let result = work(&mut slot, &mut armed);
    let is_free = slot.is_vacant();
    (result, (!is_free).then(|| Entry::new(name, slot, armed)))
}

/// Works on a lock in a chain of entries; `false`: its entry is to go. One that has none gets one at the end.
fn work_in_chain<R>(
    head: &mut Entry,
    name: &LockName,
    work: impl FnOnce(&mut Slot, &mut Option<Tick>) -> R,
) -> (R, bool) {
    if head.is_of(name) {
        return head.work(work);
    }
    // Two names of one hash are rare.
    let next = head.next_mut();
    if let Some(next) = next {
        return work_in_chain(next, name, work);
    }
    let (result, entry) = work_on_free(name, work);
    *next = entry.map(Box::new);
    (result, true)
}

enum Unlinked {
    Inside,
    Head(Option<Box<Entry>>),
}

/// Takes the entry of a lock out of a chain.
fn unlink(head: &mut Entry, name: &LockName) -> Unlinked {
    if head.is_of(name) {
        return Unlinked::Head(head.take_next());
    }
    if let Some(mut next) = head.take_next() {
        let rest = match unlink(&mut next, name) {
            Unlinked::Inside => Some(next),
            Unlinked::Head(after) => after,
        };
        *head.next_mut() = rest;
    }
    Unlinked::Inside
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
        table.with_slot(hash, &name(key), |guarded| guarded.slot.restore_delay(delay));
    }

    fn is_hash_shared(table: &Table, hash: u64, key: &str) -> bool {
        table.with_slot(hash, &name(key), |guarded| guarded.is_hash_shared)
    }

    fn free(table: &Table, hash: u64, key: &str) {
        table.with_slot(hash, &name(key), |guarded| *guarded.slot = Slot::default());
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
        table.look(NameHash::joined(3, hashes[0]), |_| names += 1);
        assert_eq!(names, 1);
    }
}
