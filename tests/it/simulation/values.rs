//! Hashes, sets, sorted sets, lists and scripts of the simulated server, compared with a model.
//!
//! Checks: the server has the state that all changes since the last failure make; after a failed
//! commit, that of the durable ones; after a crash, that of the durable ones and a first part of
//! the others.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use octostore::domain::{LockName, Timestamp};
use octostore::engine::{Engine, ScriptId, SharedTxn, Unavailable};
use octostore::journal::Seq;
use octostore::lock::Op;
use octostore::value::{Edit, End, Score, Value};

use super::oracle::ensure;
use super::world::{LONGEST_MS, World, ttl};
use crate::support::values::{Change, KEYS, Model, kind_of, script};

/// What is known of values.
#[derive(Default)]
pub(super) struct Values {
    durable: Model,
    /// Changes that are not known to be durable, each with the time at which it was made.
    pending: VecDeque<(Seq, u64, Change)>,
}

/// The elements of a value, and how many milliseconds are left of it.
type Found = (Vec<(Bytes, Bytes)>, Option<u64>);

/// How a server has ended.
pub(super) struct Death {
    pub(super) died_ms: u64,
    pub(super) has_rebooted: bool,
}

fn name(key: usize) -> LockName {
    LockName::new(0, format!("value {key}").as_bytes()).expect("a short name")
}

impl World {
    /// A client changes a value.
    pub(super) fn change_value(&mut self) {
        let change = Change::random(&mut self.random, LONGEST_MS);
        let engine = Arc::clone(&self.engine);
        let txn = engine.txn();
        let done = run(&change, &txn);
        let seq = txn.finish();
        self.say(|| format!("a value changes: {change:?}: {done:?}"));
        if done.is_ok() {
            self.values.pending.push_back((seq, self.now_ms, change));
        }
    }

    /// Finds out which changes are durable, and which are undone.
    pub(super) fn receive_durability(&mut self) {
        while let Some((seq, at_ms, change)) = self.values.pending.front() {
            match self.engine.durability_of(*seq) {
                Some(Ok(())) => self.values.durable.apply(change, *at_ms),
                Some(Err(_)) => {}
                None => return,
            }
            self.values.pending.pop_front();
        }
    }

    /// The server has the values that clients have made.
    pub(super) fn look_at_values(&mut self) -> Result<(), String> {
        let engine = Arc::clone(&self.engine);
        let (Some(found), now) = (found(&engine), self.now_ms) else { return Ok(()) };
        let mut model = self.values.durable.clone();
        self.values.pending.iter().for_each(|(_, at_ms, change)| model.apply(change, *at_ms));
        let fits = (0..KEYS).all(|key| found[key] == expected(&model, key, now));
        ensure(fits, || format!("at {now} ms the values are {model:?}, the server has {found:?}"))?;
        self.look_at_scripts(&model)
    }

    fn look_at_scripts(&self, model: &Model) -> Result<(), String> {
        let txn = self.engine.txn();
        model.scripts.iter().try_for_each(|number| {
            let text = script(*number);
            let stored = txn.script(&ScriptId::of(text.as_bytes()));
            let is_there = stored.is_ok_and(|stored| stored.as_deref() == Some(text.as_bytes()));
            ensure(is_there, || format!("the script {text} is lost"))
        })
    }

    /// A new server has what was durable, and a first part of what may have been.
    pub(super) fn look_at_recovered_values(&mut self, death: &Death) -> Result<(), String> {
        let engine = Arc::clone(&self.engine);
        let found = found(&engine).ok_or("the new server is unavailable")?;
        let mut model = std::mem::take(&mut self.values.durable);
        let mut pending = std::mem::take(&mut self.values.pending).into_iter();
        let now_ms = self.now_ms;
        let fits =
            |model: &Model| (0..KEYS).all(|key| is_recovered(found[key].as_ref(), model, key, death, now_ms));
        while !fits(&model) {
            let Some((_, at_ms, change)) = pending.next() else {
                return Err(format!("the last server had {model:?}, the new one has {found:?}"));
            };
            model.apply(&change, at_ms);
        }
        if death.has_rebooted {
            model.values.retain(|key, _| found[*key].is_some());
            for value in model.values.values_mut() {
                value.ends_ms = value.ttl_ms.map_or(u64::MAX, |ttl_ms| now_ms + ttl_ms);
            }
        }
        self.look_at_scripts(&model)?;
        self.values.durable = model;
        Ok(())
    }

    /// Removes all values and scripts.
    pub(super) fn remove_values(&mut self) {
        let txn = self.engine.txn();
        let delete = |key| txn.submit(&name(key), &Op::Delete { if_owner: None }).map(drop);
        let removed = (0..KEYS).try_for_each(delete).and_then(|()| txn.flush_scripts());
        removed.expect("a server that is up");
        self.values = Values::default();
    }
}

fn run(change: &Change, txn: &SharedTxn<'_>) -> Result<(), Unavailable> {
    match change {
        Change::Put { key, field, value, end } => {
            txn.value(&name(*key), kind_of(*key), |edit| put(edit, field, value, *end))
        }
        Change::Remove { key, field, end } => {
            txn.existing_value(&name(*key), kind_of(*key), |edit| remove(edit, field, *end)).map(drop)
        }
        Change::Delete { key } => txn.submit(&name(*key), &Op::Delete { if_owner: None }).map(drop),
        Change::SetTtl { key, millis } => {
            txn.submit(&name(*key), &Op::SetTtl { ttl: millis.map(ttl) }).map(drop)
        }
        Change::Rename { from, to } => {
            let (from, to) = (name(*from), name(*to));
            txn.exclusively(&[from.clone(), to.clone()], |txn| txn.rename(&from, &to, true))?.map(drop)
        }
        Change::PutScript(number) => {
            let text = script(*number);
            txn.put_script(&ScriptId::of(text.as_bytes()), text.as_bytes()).map(drop)
        }
    }
}

fn put(edit: &mut Edit<'_>, field: &[u8], value: &[u8], end: End) {
    if let Some(mut hash) = edit.hash() {
        hash.insert(field, value);
    } else if let Some(mut set) = edit.set() {
        set.insert(field);
    } else if let Some(mut sorted) = edit.sorted_set() {
        let score = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).and_then(Score::new);
        sorted.insert(field, score.expect("a number"));
    } else if let Some(mut list) = edit.list() {
        end.push(&mut list, value);
    }
}

fn remove(edit: &mut Edit<'_>, field: &[u8], end: End) {
    if let Some(mut hash) = edit.hash() {
        hash.remove(field);
    } else if let Some(mut set) = edit.set() {
        set.remove(field);
    } else if let Some(mut sorted) = edit.sorted_set() {
        sorted.remove(field);
    } else if let Some(mut list) = edit.list() {
        end.pop(&mut list);
    }
}

/// The values that the server has; `None` while it is unavailable.
fn found(engine: &Arc<Engine>) -> Option<Vec<Option<Found>>> {
    let txn = engine.txn();
    let read = |key| {
        let read = txn.read_key(&name(key), |content, now| {
            let left = content.deadline().unwrap_or(Timestamp::NEVER).millis_left(now);
            content.value().map(|value| (elements(value), left))
        });
        read.ok()
    };
    (0..KEYS).map(read).collect()
}

fn elements(value: &Value) -> Vec<(Bytes, Bytes)> {
    let pair = |field: &[u8], value: &[u8]| (Bytes::copy_from_slice(field), Bytes::copy_from_slice(value));
    let mut elements: Vec<(Bytes, Bytes)> = match value {
        Value::Hash(hash) => hash.iter().map(|(field, value)| pair(field, value)).collect(),
        Value::Set(set) => set.iter().map(|member| pair(member, b"")).collect(),
        Value::SortedSet(sorted) => {
            let all = sorted.range(0..sorted.len());
            all.map(|(member, score)| pair(member, score.get().to_string().as_bytes())).collect()
        }
        Value::List(list) => list.range(0..list.len()).map(|item| pair(b"", item)).collect(),
    };
    if !matches!(value, Value::List(_)) {
        elements.sort();
    }
    elements
}

fn expected(model: &Model, key: usize, now_ms: u64) -> Option<Found> {
    let value = model.values.get(&key).filter(|value| value.ends_ms > now_ms)?;
    Some((value.sorted(key), value.ttl_ms.map(|_| value.ends_ms - now_ms)))
}

/// Whether a new server may have found this where the last one had the state of the model.
fn is_recovered(found: Option<&Found>, model: &Model, key: usize, death: &Death, now_ms: u64) -> bool {
    if !death.has_rebooted {
        return found == expected(model, key, now_ms).as_ref();
    }
    // A value has its full TTL again. It may be back if it ended before: its end was not durable.
    let value = model.values.get(&key);
    let is_gone = value.is_none_or(|value| value.ends_ms <= death.died_ms);
    match found {
        Some(found) => value.is_some_and(|value| *found == (value.sorted(key), value.ttl_ms)),
        None => is_gone,
    }
}
