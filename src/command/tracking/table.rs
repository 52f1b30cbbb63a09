//! Which clients cache which keys.
//!
//! Guarantees: every change to a key reaches the clients that cache it, except one made before they
//! read it. The table is bounded in bytes, for a client and in all: beyond, a client learns that a
//! key is out of date although it is not. No call does more than about half a millisecond of work.
//! Not here: commands, changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::command::ClientInfo;
use crate::command::pubsub::{Entry, INVALIDATIONS, Notice, Via, next_prefix};
use crate::command::steps::TURN_WORK;
use crate::glob::Work;

/// Bytes of the keys and prefixes that one client tracks.
const CLIENT_BYTES_MAX: usize = 1 << 20;
/// Bytes of those that all clients track.
const TOTAL_BYTES_MAX: usize = 256 << 20;
/// Bytes of an entry without its text: its places in both tables.
const ENTRY_BYTES: usize = 128;
/// Clients that are served, or keys that are removed, under one lock.
const PER_STEP: usize = 128;

/// The clients that cache keys.
#[derive(Default)]
pub struct Tracking {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    clients: BTreeMap<u64, Tracked>,
    keys: HashMap<Arc<[u8]>, Vec<u64>>,
    /// Clients that hear of all keys with a prefix.
    prefixes: BTreeMap<Arc<[u8]>, Vec<u64>>,
    bytes: usize,
}

/// A client that caches keys.
struct Tracked {
    own: Arc<ClientInfo>,
    target: Option<Arc<ClientInfo>>,
    /// Its own changes are not sent to it.
    is_noloop: bool,
    /// The keys that it has read.
    keys: BTreeMap<Arc<[u8]>, Reads>,
    prefixes: BTreeSet<Arc<[u8]>>,
    bytes: usize,
}

/// When a client has read a key: the number of the last invalidation before its first read and
/// before its latest one. The first read is the first after the last invalidation that it was sent.
#[derive(Debug, Clone, Copy)]
struct Reads {
    first: u64,
    latest: u64,
}

/// How much is tracked.
pub(in crate::command) struct Counts {
    pub(in crate::command) clients: usize,
    pub(in crate::command) keys: usize,
    pub(in crate::command) prefixes: usize,
}

/// What a client asks for.
pub(super) struct Wish {
    pub(super) target: Option<Arc<ClientInfo>>,
    pub(super) is_noloop: bool,
    /// Prefixes to add; empty unless the client broadcasts.
    pub(super) prefixes: Vec<Arc<[u8]>>,
}

fn cost(text: &[u8]) -> usize {
    text.len() + ENTRY_BYTES
}

fn entry(key: Option<&[u8]>) -> Entry {
    let channel = if key.is_some() { INVALIDATIONS.as_bytes() } else { &[] };
    let notice = Notice { channel: channel.into(), payload: key.unwrap_or_default().into() };
    Entry { via: Via::Tracking, notice: Arc::new(notice) }
}

impl Tracked {
    fn send(&self, entry: &Entry) {
        match &self.target {
            None => self.own.send_message(entry.clone()),
            Some(target) if !target.is_gone() => target.send_message(entry.clone()),
            Some(target) => {
                let payload = target.id.to_string().into_bytes().into();
                let notice = Arc::new(Notice { channel: Arc::default(), payload });
                self.own.send_message(Entry { via: Via::BrokenRedirection, notice });
            }
        }
    }
}

impl Table {
    fn forget_key(&mut self, client: u64, key: &[u8]) {
        let Some(tracked) = self.clients.get_mut(&client) else { return };
        if tracked.keys.remove(key).is_some() {
            tracked.bytes -= cost(key);
            self.bytes -= cost(key);
        }
    }

    /// Removes a client from the readers of a key.
    fn remove_reader(&mut self, client: u64, key: &[u8]) {
        self.forget_key(client, key);
        remove_from(&mut self.keys, key, client);
    }
}

/// A map of clients by key or prefix.
trait ClientsByText {
    fn clients_mut(&mut self, text: &[u8]) -> Option<&mut Vec<u64>>;
    fn remove_text(&mut self, text: &[u8]);
}

impl ClientsByText for HashMap<Arc<[u8]>, Vec<u64>> {
    fn clients_mut(&mut self, text: &[u8]) -> Option<&mut Vec<u64>> {
        self.get_mut(text)
    }
    fn remove_text(&mut self, text: &[u8]) {
        self.remove(text);
    }
}

impl ClientsByText for BTreeMap<Arc<[u8]>, Vec<u64>> {
    fn clients_mut(&mut self, text: &[u8]) -> Option<&mut Vec<u64>> {
        self.get_mut(text)
    }
    fn remove_text(&mut self, text: &[u8]) {
        self.remove(text);
    }
}

fn add_to(clients: &mut Vec<u64>, client: u64) {
    if let Err(place) = clients.binary_search(&client) {
        clients.insert(place, client);
    }
}

fn remove_from(map: &mut impl ClientsByText, text: &[u8], client: u64) {
    let Some(clients) = map.clients_mut(text) else { return };
    if let Ok(place) = clients.binary_search(&client) {
        clients.remove(place);
    }
    if clients.is_empty() {
        map.remove_text(text);
    }
}

impl Tracking {
    /// Starts to track, or changes how. Returns `None` if the prefixes take too many bytes, else
    /// whether the client is new.
    pub(super) fn enable(&self, own: &Arc<ClientInfo>, wish: Wish) -> Option<bool> {
        let mut table = self.table.lock();
        let added: usize = wish.prefixes.iter().map(|prefix| cost(prefix)).sum();
        let bytes = table.clients.get(&own.id).map_or(0, |tracked| tracked.bytes);
        if bytes + added > CLIENT_BYTES_MAX || table.bytes + added > TOTAL_BYTES_MAX {
            return None;
        }
        let is_new = !table.clients.contains_key(&own.id);
        let Table { clients, prefixes, bytes, .. } = &mut *table;
        let tracked = clients.entry(own.id).or_insert_with(|| Tracked {
            own: Arc::clone(own),
            target: None,
            is_noloop: false,
            keys: BTreeMap::new(),
            prefixes: BTreeSet::new(),
            bytes: 0,
        });
        (tracked.target, tracked.is_noloop) = (wish.target, wish.is_noloop);
        for prefix in wish.prefixes {
            add_to(prefixes.entry(Arc::clone(&prefix)).or_default(), own.id);
            if tracked.prefixes.insert(Arc::clone(&prefix)) {
                tracked.bytes += cost(&prefix);
                *bytes += cost(&prefix);
            }
        }
        Some(is_new)
    }

    /// How many clients, keys and prefixes are tracked.
    pub(in crate::command) fn counts(&self) -> Counts {
        let table = self.table.lock();
        Counts { clients: table.clients.len(), keys: table.keys.len(), prefixes: table.prefixes.len() }
    }

    /// The prefixes of a client.
    pub(super) fn prefixes(&self, client: u64) -> Vec<Arc<[u8]>> {
        let table = self.table.lock();
        table.clients.get(&client).map_or_else(Vec::new, |tracked| tracked.prefixes.iter().cloned().collect())
    }

    /// Whether the target of a client's invalidations is gone.
    pub(super) fn is_broken(&self, client: u64) -> bool {
        let table = self.table.lock();
        let target = table.clients.get(&client).and_then(|tracked| tracked.target.as_ref());
        target.is_some_and(|target| target.is_gone())
    }

    /// Forgets a part of what a client tracks, then the client. Returns whether more is left.
    pub(super) fn disable_some(&self, client: u64) -> bool {
        let mut table = self.table.lock();
        for _ in 0..PER_STEP {
            let Some(tracked) = table.clients.get_mut(&client) else { return false };
            if let Some(key) = tracked.keys.keys().next().cloned() {
                table.remove_reader(client, &key);
            } else if let Some(prefix) = tracked.prefixes.pop_first() {
                tracked.bytes -= cost(&prefix);
                table.bytes -= cost(&prefix);
                remove_from(&mut table.prefixes, &prefix, client);
            } else {
                table.clients.remove(&client);
                return false;
            }
        }
        true
    }

    /// Remembers that a client is about to read a key, after invalidation number `last`.
    pub(super) fn remember(&self, client: u64, key: &[u8], last: u64) {
        let mut table = self.table.lock();
        let Some(tracked) = table.clients.get_mut(&client) else { return };
        if let Some(reads) = tracked.keys.get_mut(key) {
            reads.latest = last;
            return;
        }
        let added = cost(key);
        while let Some(tracked) = table.clients.get(&client)
            && (tracked.bytes + added > CLIENT_BYTES_MAX || table.bytes + added > TOTAL_BYTES_MAX)
        {
            let Some(evicted) = tracked.keys.keys().next().cloned() else {
                // No room at all: this key is out of date as soon as it is read.
                tracked.send(&entry(Some(key)));
                return;
            };
            tracked.send(&entry(Some(&evicted)));
            table.remove_reader(client, &evicted);
        }
        let key: Arc<[u8]> = key.into();
        let Table { clients, keys, bytes, .. } = &mut *table;
        add_to(keys.entry(Arc::clone(&key)).or_default(), client);
        if let Some(tracked) = clients.get_mut(&client) {
            tracked.keys.insert(key, Reads { first: last, latest: last });
            tracked.bytes += added;
            *bytes += added;
        }
    }

    /// Tells a client that all it caches is out of date.
    pub(super) fn invalidate_all_of(&self, client: u64) {
        if let Some(tracked) = self.table.lock().clients.get(&client) {
            tracked.send(&entry(None));
        }
    }
}

/// The delivery of a change to the clients that cache the key, in steps.
pub struct Invalidation {
    entry: Entry,
    /// The client that changed the key.
    client: u64,
    number: u64,
    stage: Stage,
}

enum Stage {
    /// To those that have read the key, after a client.
    Readers(u64),
    /// To those with a prefix after this one.
    Prefixes(Option<Arc<[u8]>>),
    /// To those with this prefix, after a client.
    Prefix(Arc<[u8]>, u64),
    /// To all clients after this one: all keys are out of date.
    All(u64),
    Done,
}

impl Invalidation {
    /// `client` has changed this key, which is invalidation number `number`; `None`: all keys.
    pub(in crate::command) fn new(key: Option<&[u8]>, client: u64, number: u64) -> Invalidation {
        let stage = if key.is_some() { Stage::Readers(0) } else { Stage::All(0) };
        Invalidation { entry: entry(key), client, number, stage }
    }

    /// Does one step. Returns whether all is delivered.
    pub(in crate::command) fn advance(&mut self, tracking: &Tracking) -> bool {
        let mut table = tracking.table.lock();
        let notice = Arc::clone(&self.entry.notice);
        let key = &*notice.payload;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Readers(after) => {
                let readers = table.keys.get(key).map_or(&[][..], Vec::as_slice);
                let rest = &readers[readers.partition_point(|reader| *reader <= after)..];
                let some = rest[..rest.len().min(PER_STEP)].to_vec();
                for reader in &some {
                    let tracked = table.clients.get_mut(reader);
                    match tracked.and_then(|tracked| tracked.keys.get_mut(key)) {
                        // All that it has read includes the change.
                        Some(reads) if reads.first >= self.number => continue,
                        // What it has read first does not. It waits for the next change.
                        Some(reads) if reads.latest >= self.number => reads.first = reads.latest,
                        _ => table.remove_reader(*reader, key),
                    }
                    self.send(&table, *reader);
                }
                some.last().map_or(Stage::Prefixes(None), |last| Stage::Readers(*last))
            }
            Stage::Prefixes(after) => {
                match next_prefix(&table.prefixes, after.as_deref(), key, &mut Work::of_units(TURN_WORK)) {
                    Some(prefix) => Stage::Prefix(Arc::clone(prefix), 0),
                    None => Stage::Done,
                }
            }
            Stage::Prefix(prefix, after) => {
                let clients = table.prefixes.get(&prefix).map_or(&[][..], Vec::as_slice);
                let rest = &clients[clients.partition_point(|client| *client <= after)..];
                let served = &rest[..rest.len().min(PER_STEP)];
                served.iter().for_each(|client| self.send(&table, *client));
                match served.last() {
                    Some(last) => Stage::Prefix(prefix, *last),
                    None => Stage::Prefixes(Some(prefix)),
                }
            }
            Stage::All(after) => {
                let next = table.clients.range(after + 1..).take(PER_STEP);
                let served: Vec<u64> = next.map(|(client, _)| *client).collect();
                served.iter().for_each(|client| self.send(&table, *client));
                served.last().map_or(Stage::Done, |last| Stage::All(*last))
            }
            Stage::Done => Stage::Done,
        };
        matches!(self.stage, Stage::Done)
    }

    fn send(&self, table: &Table, client: u64) {
        let Some(tracked) = table.clients.get(&client) else { return };
        // Clients hear of their own FLUSHALL, too.
        let is_of_one_key = !self.entry.notice.channel.is_empty();
        if !(is_of_one_key && tracked.is_noloop && client == self.client) {
            tracked.send(&self.entry);
        }
    }
}

#[cfg(test)]
mod tests;
