//! The table of locks.
//!
//! Promise: a lock that is free has no entry; look-up is by a keyed hash, and names whose hashes collide share an
//! entry and stay apart. Guards never leave this file, and nothing here is async. The only file that
//! names dashmap.
//! Absent: rules, records, clocks.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;

use crate::journal::Seq;
use crate::lock::{LockName, Owner, Slot, Timestamp};

/// The table is in parts so that a scan can visit one at a time; a part is found by the hash's top bits.
const PART_BITS: u32 = 8;
/// Shards of each part.
const SHARDS_PER_PART: usize = 4;
/// Stripes of the record of last changes. More only spares a reader a wait for a stranger's commit.
const STRIPES: usize = 4096;

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

/// One lock that is not free.
pub(super) struct Entry {
    pub(super) name: LockName,
    pub(super) slot: Slot,
    /// The deadline under which the expiry index knows this lock.
    pub(super) armed: Timestamp,
    /// Another lock whose name has the same hash.
    next: Option<Box<Entry>>,
}

/// All locks that are not free, as of one rebuild.
pub(super) struct Table {
    /// Which rebuild this is.
    pub(super) epoch: u64,
    parts: Box<[Part]>,
    touched: Box<[AtomicU64]>,
}

/// What an operation works on, under the guard.
pub(super) struct Guarded<'a> {
    pub(super) hash: u64,
    pub(super) slot: &'a mut Slot,
    pub(super) armed: &'a mut Timestamp,
    touched: &'a AtomicU64,
}

impl Guarded<'_> {
    /// The last change to this lock, or to one that shares its stripe.
    pub(super) fn last_change(&self) -> Seq {
        Seq::from_u64(self.touched.load(Ordering::Acquire))
    }

    /// Remembers a change.
    pub(super) fn changed_by(&self, seq: Seq) {
        self.touched.fetch_max(seq.get(), Ordering::AcqRel);
    }
}

/// Hashes names; the key is secret and stays the same for the life of the process, so that scans survive rebuilds.
#[derive(Clone, Default)]
pub(super) struct NameHash(RandomState);

impl NameHash {
    pub(super) fn of(&self, name: &LockName) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The hash of a lock, by its hash, and an owner.
    pub(super) fn with_owner(&self, hash: u64, owner: &Owner) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(hash);
        hasher.write(owner.as_bytes());
        hasher.finish()
    }
}

impl Table {
    pub(super) fn new(epoch: u64) -> Table {
        let part = || Part::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS_PER_PART);
        Table {
            epoch,
            parts: (0..1 << PART_BITS).map(|_| part()).collect(),
            touched: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// How many parts there are.
    pub(super) const PARTS: u64 = 1 << PART_BITS;

    /// Entries of one part, in the order of their hashes. Locks one shard at a time.
    pub(super) fn scan_part(&self, part: u64, mut each: impl FnMut(&LockName, &Slot) -> bool) {
        let shift = 64 - PART_BITS;
        self.scan(part << shift, |hash, name, slot| hash >> shift == part && each(name, slot));
    }

    fn part(&self, hash: u64) -> &Part {
        // The shard inside the part is found by the hash's lower bits: rotate what chose the part away.
        &self.parts[(hash >> (64 - PART_BITS)) as usize]
    }

    fn key(hash: u64) -> u64 {
        hash.rotate_left(PART_BITS)
    }

    fn stripe(&self, hash: u64) -> &AtomicU64 {
        &self.touched[hash as usize % STRIPES]
    }

    /// Runs `work` on a lock, free or not. Locks one shard meanwhile; `work` must not come back to the table.
    pub(super) fn with_slot<R>(&self, hash: u64, name: &LockName, work: impl FnOnce(Guarded<'_>) -> R) -> R {
        let touched = self.stripe(hash);
        match self.part(hash).entry(Table::key(hash)) {
            MapEntry::Vacant(place) => {
                let (mut slot, mut armed) = (Slot::default(), Timestamp::NEVER);
                let result = work(Guarded { hash, slot: &mut slot, armed: &mut armed, touched });
                if !slot.is_vacant() {
                    place.insert(Box::new(Entry { name: name.clone(), slot, armed, next: None }));
                }
                result
            }
            MapEntry::Occupied(mut place) => {
                let mut entry = place.get_mut();
                while entry.name != *name {
                    // Allocates for a name that may stay free; two names of one 64-bit hash are that rare.
                    entry = entry.next.get_or_insert_with(|| {
                        let (slot, armed) = (Slot::default(), Timestamp::NEVER);
                        Box::new(Entry { name: name.clone(), slot, armed, next: None })
                    });
                }
                let result = work(Guarded { hash, slot: &mut entry.slot, armed: &mut entry.armed, touched });
                if entry.slot.is_vacant() {
                    match unlink(place.get_mut(), name) {
                        Unlinked::Inside => {}
                        Unlinked::Head(Some(next)) => drop(place.insert(next)),
                        Unlinked::Head(None) => drop(place.remove()),
                    }
                }
                result
            }
        }
    }

    /// The names that are not free under a hash. Locks one shard.
    pub(super) fn names(&self, hash: u64) -> Vec<LockName> {
        let head = self.part(hash).get(&Table::key(hash));
        std::iter::successors(head.as_ref().map(|head| &***head), |entry| entry.next.as_deref())
            .map(|entry| entry.name.clone())
            .collect()
    }

    /// Entries of the parts from that of `from` on, each with its hash, part by part in the order of their
    /// hashes, until `each` answers `false` between two different hashes. Locks one shard at a time.
    pub(super) fn scan(&self, from: u64, mut each: impl FnMut(u64, &LockName, &Slot) -> bool) {
        for part in &self.parts[(from >> (64 - PART_BITS)) as usize..] {
            let mut hashes: Vec<u64> = part
                .iter()
                .map(|entry| entry.key().rotate_right(PART_BITS))
                .filter(|hash| *hash >= from)
                .collect();
            hashes.sort_unstable();
            for hash in hashes {
                let Some(head) = part.get(&Table::key(hash)) else { continue };
                let mut wants_more = true;
                let mut entry = Some(&**head);
                while let Some(found) = entry {
                    wants_more = each(hash, &found.name, &found.slot);
                    entry = found.next.as_deref();
                }
                if !wants_more {
                    return;
                }
            }
        }
    }
}

enum Unlinked {
    Inside,
    Head(Option<Box<Entry>>),
}

fn unlink(head: &mut Entry, name: &LockName) -> Unlinked {
    if head.name == *name {
        return Unlinked::Head(head.next.take());
    }
    let mut entry = head;
    while let Some(next) = entry.next.take() {
        if next.name == *name {
            entry.next = next.next;
            break;
        }
        entry = entry.next.insert(next);
    }
    Unlinked::Inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Delay, Ttl};

    fn name(key: &str) -> LockName {
        LockName::new(0, key.as_bytes()).unwrap()
    }

    fn occupy(table: &Table, hash: u64, key: &str) {
        let delay = Delay { until: Timestamp::NEVER, length: Ttl::from_millis(1).unwrap() };
        table.with_slot(hash, &name(key), |guarded| guarded.slot.restore_delay(delay));
    }

    fn free(table: &Table, hash: u64, key: &str) {
        table.with_slot(hash, &name(key), |guarded| *guarded.slot = Slot::default());
    }

    #[test]
    fn names_with_one_hash_stay_apart_and_leave_nothing_behind() {
        for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"], ["b", "c", "a"]] {
            let table = Table::new(0);
            ["a", "b", "c"].iter().for_each(|key| occupy(&table, 7, key));
            assert_eq!(table.names(7), ["a", "b", "c"].map(name));
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
    fn a_scan_visits_every_entry_once_in_the_order_of_hashes() {
        let table = Table::new(0);
        let hashes: Vec<u64> = (0..1000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        hashes.iter().for_each(|hash| occupy(&table, *hash, &hash.to_string()));
        let mut seen = Vec::new();
        table.scan(0, |hash, name, _| {
            assert_eq!(name.key(), hash.to_string().as_bytes());
            seen.push(hash);
            true
        });
        assert!(seen.is_sorted());
        assert_eq!(seen.len(), hashes.len());
        let mut rest = Vec::new();
        table.scan(seen[500], |hash, _, _| {
            rest.push(hash);
            rest.len() < 10
        });
        assert_eq!(rest, seen[500..510]);
    }
}
