//! A model of values as keys, and random changes to them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use octostore::value::{End, Kind};

use super::random::Random;

/// The number of keys. Each has values of one kind only, and there are two of each kind.
pub(crate) const KEYS: usize = 8;
const KINDS: [Kind; KEYS / 2] = [Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List];
const SCRIPTS: u64 = 20;

/// The kind of a key's values.
pub(crate) fn kind_of(key: usize) -> Kind {
    KINDS[key % KINDS.len()]
}

/// The text of a script.
pub(crate) fn script(number: u64) -> String {
    format!("return {number} -- caf\u{e9}")
}

/// A change to a key.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Adds or overwrites an element. Sets have only the field, and lists only the value. The
    /// value of a sorted set's member is its score.
    Put {
        key: usize,
        field: Bytes,
        value: Bytes,
        end: End,
    },
    /// Removes an element: of a list, the one at this end.
    Remove {
        key: usize,
        field: Bytes,
        end: End,
    },
    Delete {
        key: usize,
    },
    SetTtl {
        key: usize,
        millis: Option<u64>,
    },
    /// Replaces what has the new name. Nothing happens if there is no value.
    Rename {
        from: usize,
        to: usize,
    },
    PutScript(u64),
}

impl Change {
    /// A random change; no TTL is longer than this.
    pub(crate) fn random(random: &mut Random, ttl_ms_max: u64) -> Change {
        let key = random.below(KEYS as u64) as usize;
        let end = random.of(&[End::Front, End::Back]);
        let fields = [&b"a"[..], b"b", b"caf\xc3\xa9", b"\xff\0", b"\0", b"a long field that is text"];
        let field = Bytes::from_static(random.of(&fields));
        match random.below(20) {
            0..12 => Change::Put { key, field, value: value(random, kind_of(key)), end },
            12..15 => Change::Remove { key, field, end },
            15 => Change::Delete { key },
            16 | 17 => {
                let ttl_ms = 1 + random.below(ttl_ms_max);
                Change::SetTtl { key, millis: random.permille(800).then_some(ttl_ms) }
            }
            18 => Change::Rename { from: key, to: (key + KINDS.len()) % KEYS },
            _ => Change::PutScript(random.below(SCRIPTS)),
        }
    }
}

fn value(random: &mut Random, kind: Kind) -> Bytes {
    match kind {
        Kind::Set => Bytes::new(),
        Kind::SortedSet => random.below(100).to_string().into(),
        Kind::Hash | Kind::List => {
            let first = random.of(&[b' ', b'a', 0, 0x80]);
            let length = if random.permille(20) { 20_000 } else { random.below(60) };
            (0..length).map(|_| first + random.below(26) as u8).collect()
        }
    }
}

/// A value of the model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelValue {
    /// Fields and values; those of lists in their order.
    pub(crate) elements: Vec<(Bytes, Bytes)>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) ends_ms: u64,
}

impl ModelValue {
    /// The elements, in the order of fields unless the order is part of the value.
    pub(crate) fn sorted(&self, key: usize) -> Vec<(Bytes, Bytes)> {
        let mut elements = self.elements.clone();
        if kind_of(key) != Kind::List {
            elements.sort();
        }
        elements
    }
}

/// What keys hold, and which scripts are stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) values: BTreeMap<usize, ModelValue>,
    pub(crate) scripts: BTreeSet<u64>,
}

impl Model {
    /// Applies a change at this time.
    pub(crate) fn apply(&mut self, change: &Change, now_ms: u64) {
        self.values.retain(|key, value| !change.concerns(*key) || value.ends_ms > now_ms);
        match change {
            Change::Put { key, field, value, end } => {
                let empty = ModelValue { elements: Vec::new(), ttl_ms: None, ends_ms: u64::MAX };
                let elements = &mut self.values.entry(*key).or_insert(empty).elements;
                match (kind_of(*key), end) {
                    (Kind::List, End::Front) => elements.insert(0, (Bytes::new(), value.clone())),
                    (Kind::List, End::Back) => elements.push((Bytes::new(), value.clone())),
                    _ => {
                        elements.retain(|(known, _)| known != field);
                        elements.push((field.clone(), value.clone()));
                    }
                }
            }
            Change::Remove { key, field, end } => {
                let Some(ModelValue { elements, .. }) = self.values.get_mut(key) else { return };
                match (kind_of(*key), end) {
                    (Kind::List, End::Front) => drop(elements.remove(0)),
                    (Kind::List, End::Back) => drop(elements.pop()),
                    _ => elements.retain(|(known, _)| known != field),
                }
                if elements.is_empty() {
                    self.values.remove(key);
                }
            }
            Change::Delete { key } => drop(self.values.remove(key)),
            Change::SetTtl { key, millis } => {
                if let Some(value) = self.values.get_mut(key) {
                    value.ttl_ms = *millis;
                    value.ends_ms = millis.map_or(u64::MAX, |millis| now_ms + millis);
                }
            }
            Change::Rename { from, to } => {
                if let Some(value) = self.values.remove(from) {
                    self.values.insert(*to, value);
                }
            }
            Change::PutScript(number) => drop(self.scripts.insert(*number)),
        }
    }
}

impl Change {
    fn concerns(&self, other: usize) -> bool {
        match self {
            Change::Put { key, .. }
            | Change::Remove { key, .. }
            | Change::Delete { key }
            | Change::SetTtl { key, .. } => *key == other,
            Change::Rename { from, to } => *from == other || *to == other,
            Change::PutScript(_) => false,
        }
    }
}
