//! Looks at all keys, a few at a time.
//!
//! Guarantees: a key that exists during the whole scan is seen, and what is seen belongs to one
//! state of the table: if a failed commit is rolled back in between, the scan starts over. Work per
//! call is bounded, whatever the size of the table. Not here: patterns, replies.

use std::cell::Cell;
use std::iter::successors;

use super::content::KeyKind;
use super::entry::Entry;
use super::hash::NameHash;
use super::table::Table;
use crate::domain::{FencingToken, LockName, Timestamp};
use crate::engine::{Txn, Unavailable};
use crate::lock::{ENDS_PER_STEP, Lease, Slot};

/// Where a scan over the keys of one database is.
pub struct Scan {
    database: u8,
    /// The hash it started at.
    from: u64,
    /// The hash it goes on at.
    next: u64,
    /// Lower parts of the hashes ahead in the part of `next`, the nearest last.
    ahead: Vec<u32>,
    /// The hash it goes on at when `ahead` is empty.
    resume: u64,
    /// Hashes to put into `ahead` at once.
    ahead_max: usize,
    /// The table that was looked at.
    epoch: Option<u64>,
    /// The lock at `next`, if more of its holders have ended than are skipped: it must be freed of
    /// them first.
    unsettled: Option<LockName>,
}

/// What one call of [`Txn::scan`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Entries of the table that were looked at.
    pub looked: usize,
    /// Entries that were passed over to find those.
    pub passed: usize,
    /// Leases that had ended and were passed over, or freed.
    pub ended: usize,
    /// There is nothing ahead.
    pub is_done: bool,
    /// The table was rebuilt: the scan starts over, and everything that the transaction has seen
    /// before this call must be thrown away.
    pub is_restarted: bool,
}

impl Scan {
    /// A scan of a database that starts at `cursor` (0: the start) and looks at about `entries`
    /// entries in all.
    pub fn new(database: u8, cursor: u64, entries: usize) -> Scan {
        let ahead_max = entries.clamp(AHEAD_MIN, AHEAD_MAX);
        let (ahead, epoch, unsettled) = (Vec::new(), None, None);
        Scan { database, from: cursor, next: cursor, ahead, resume: cursor, ahead_max, epoch, unsettled }
    }

    /// Where another scan may go on; 0: nowhere, everything was seen. Cursors are hashes: their 32
    /// bits survive every client's number type.
    pub fn cursor(&self) -> u64 {
        if NameHash::upper(self.next) < Table::PARTS { self.next } else { 0 }
    }

    fn restart(&mut self) {
        (self.next, self.epoch, self.unsettled) = (self.from, None, None);
        self.ahead.clear();
    }
}

/// Bounds of the hashes that a scan collects at once: few, as a call that needs few is to be cheap,
/// and not too few, as collecting them passes over all entries of a part.
const AHEAD_MIN: usize = 16;
const AHEAD_MAX: usize = 4096;

/// A key that exists.
pub struct FoundKey<'a> {
    entry: &'a Entry,
    is_live: &'a dyn Fn(&Lease) -> bool,
    kind: KeyKind,
}

/// What a list of keys is sorted by, besides names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyOrder {
    /// The fencing token of the newest holder, or of the value.
    pub token: Option<FencingToken>,
    /// When the newest lease or the value ends.
    pub deadline: Timestamp,
    /// Requests in the queue.
    pub waiters: usize,
}

impl FoundKey<'_> {
    /// Its bytes.
    pub fn key(&self) -> &[u8] {
        &self.entry.name_bytes()[1..]
    }

    /// Its type.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// What a list of keys is sorted by.
    pub fn order(&self) -> KeyOrder {
        if let Some(keyed) = self.entry.value() {
            return KeyOrder { token: Some(keyed.token), deadline: keyed.deadline, waiters: 0 };
        }
        let of_lock = |_: &LockName, slot: &Slot| {
            let newest = slot.newest_live(self.is_live, ENDS_PER_STEP).ok().flatten();
            KeyOrder {
                token: newest.map(|lease| lease.token),
                deadline: newest.map_or(Timestamp::NEVER, |lease| lease.deadline),
                waiters: slot.waiter_count(),
            }
        };
        self.entry.read_lock(of_lock).unwrap_or_default()
    }

    /// Reads the newest lease of a lock; `None` for a value.
    pub fn with_lease<R>(&self, read: impl FnOnce(&LockName, &Lease) -> R) -> Option<R> {
        let newest = |name: &LockName, slot: &Slot| {
            let newest = slot.newest_live(self.is_live, ENDS_PER_STEP).ok().flatten();
            newest.map(|lease| read(name, lease))
        };
        self.entry.read_lock(newest).flatten()
    }
}

impl Txn<'_> {
    /// Goes on with a scan: looks at about `entries` entries, and calls `each` for the keys that
    /// exist.
    pub fn scan(
        &self,
        scan: &mut Scan,
        entries: usize,
        mut each: impl FnMut(&FoundKey<'_>),
    ) -> Result<Scanned, Unavailable> {
        if let Some(name) = scan.unsettled.take() {
            let freed = self.free_in_steps(&name, 1);
            if freed == Err(Unavailable::Unsettled) {
                scan.unsettled = Some(name);
            }
            // After a failure, the next call finds out what has become of the table.
            return Ok(Scanned { ended: ENDS_PER_STEP, ..Scanned::default() });
        }
        self.with_table(|table| {
            // Under the guard: the table cannot be replaced now, and what it shows either is
            // durable up to the Seq below, or the barrier of that Seq fails.
            self.engine().check_up()?;
            let now = self.now();
            let is_restarted = scan.epoch.is_some_and(|epoch| epoch != table.epoch);
            if is_restarted {
                scan.restart();
                self.restart(table.epoch);
            }
            self.enter(table.epoch)?;
            scan.epoch = Some(table.epoch);
            let sessions = &self.engine().core.sessions;
            let may_be_over = sessions.may_be_over(now);
            let ended = Cell::new(0);
            let is_live = |lease: &Lease| {
                let session = lease.session().filter(|_| may_be_over);
                let is_live =
                    !lease.is_over(now) && !session.is_some_and(|session| sessions.is_over(session, now));
                ended.set(ended.get() + usize::from(!is_live));
                is_live
            };
            // Leases that have ended count as entries: a lock may have very many of them.
            let has_room = |looked: usize| looked + ended.get() < entries;
            let scanned = scan.advance(table, now, has_room, &is_live, &mut each);
            self.observe(self.engine().last());
            Ok(Scanned { is_restarted, ended: ended.get(), ..scanned })
        })?
    }

    /// A scan of a database that starts at a random place.
    pub fn random_scan(&self, database: u8) -> Scan {
        let mut place = [0; 4];
        // Without random numbers, the scan starts at the first key.
        let _ = self.engine().core.config.entropy.fill(&mut place);
        Scan::new(database, u64::from(u32::from_le_bytes(place)), AHEAD_MIN)
    }

    /// Whether a key exists. Only reads, unless something of the key has ended and must be freed
    /// first.
    pub fn exists(&self, name: &LockName) -> Result<bool, Unavailable> {
        match self.peek(name, |entry| entry.is_some_and(Entry::exists))? {
            Some(false) => {
                self.announce_miss(name);
                Ok(false)
            }
            Some(true) => Ok(true),
            None => self.read_key(name, |content, _| content.exists()),
        }
    }

    /// Frees what has ended of a key. Cheap if nothing has.
    pub fn free_ended(&self, name: &LockName) -> Result<(), Unavailable> {
        match self.peek(name, |_| ())? {
            Some(()) => Ok(()),
            None => self.read_key(name, |_, _| ()),
        }
    }

    /// Reads the entry of a key. `None`: something under its hash may have ended.
    pub(in crate::engine) fn peek<R>(
        &self,
        name: &LockName,
        read: impl FnOnce(Option<&Entry>) -> R,
    ) -> Result<Option<R>, Unavailable> {
        let core = &self.engine().core;
        self.in_epoch(|table| {
            // Under the guard of the table, as a scan does.
            self.engine().check_up()?;
            let now = self.now();
            if core.sessions.may_be_over(now) {
                return Ok(None);
            }
            let peeked = table.peek(core.hash.of(name), name, |entry, next_deadline| {
                (next_deadline > now).then(|| read(entry))
            });
            Ok(peeked.map(|(peeked, seq)| {
                self.observe(seq);
                peeked
            }))
        })
    }

    /// The number of keys of a database; those that have ended and are not freed yet count.
    pub fn key_count(&self, database: u8) -> Result<u64, Unavailable> {
        self.sweep_sessions(ENDS_PER_STEP)?;
        self.in_epoch(|_| {
            self.engine().check_up()?;
            let keys = self.engine().core.lock_stats.keys(database);
            self.observe(self.engine().last());
            Ok(keys)
        })
    }
}

impl Scan {
    fn advance(
        &mut self,
        table: &Table,
        now: Timestamp,
        has_room: impl Fn(usize) -> bool,
        is_live: &dyn Fn(&Lease) -> bool,
        each: &mut impl FnMut(&FoundKey<'_>),
    ) -> Scanned {
        let (mut looked, mut passed) = (0, 0);
        loop {
            let part = NameHash::upper(self.next);
            if part >= Table::PARTS {
                return Scanned { looked, passed, is_done: true, ..Scanned::default() };
            }
            if let Some(lower) = self.ahead.last().copied() {
                let hash = NameHash::joined(part, u64::from(lower));
                table.visit(hash, |entry| {
                    looked += 1;
                    let kind_of = |entry: &Entry| entry.kind(self.database, now, is_live, ENDS_PER_STEP);
                    // The keys of one hash are passed on all or none.
                    let mut rest = successors(entry.next(), |entry| entry.next());
                    match (&self.unsettled, kind_of(entry), rest.find(|entry| kind_of(entry).is_err())) {
                        (None, Ok(kind), None) => {
                            kind.into_iter().for_each(|kind| each(&FoundKey { entry, is_live, kind }));
                        }
                        (None, kind, rest) => {
                            self.unsettled = rest.or(kind.is_err().then_some(entry)).map(Entry::name);
                        }
                        (Some(_), ..) => {}
                    }
                });
                if self.unsettled.is_some() {
                    break;
                }
                self.ahead.pop();
                self.next =
                    self.ahead.last().map_or(self.resume, |lower| NameHash::joined(part, u64::from(*lower)));
                if !has_room(looked) {
                    break;
                }
                continue;
            }
            let (all, ahead) = table.hashes(part, NameHash::lower(self.next), self.ahead_max);
            self.resume = match ahead.first() {
                Some(last) if ahead.len() == self.ahead_max => NameHash::joined(part, u64::from(*last)) + 1,
                _ => NameHash::joined(part + 1, 0),
            };
            let next = ahead.last().map(|lower| NameHash::joined(part, u64::from(*lower)));
            self.next = next.unwrap_or(self.resume);
            self.ahead = ahead;
            // Who needs more than asked for is not to pass over a large part again and again.
            self.ahead_max = (self.ahead_max * 2).min(AHEAD_MAX);
            passed += all;
            if passed >= PASSED_MAX {
                break;
            }
        }
        Scanned { looked, passed, ..Scanned::default() }
    }
}

/// Entries that one call passes over before it stops.
const PASSED_MAX: usize = 16 * 1024;
