//! Changes to one key under its guard, and their records.
//!
//! Guarantees: what changed is in the journal's queue before the guard is released. Changes count
//! as changes for WATCH. Not here: which keys, what an edit does.

use std::mem;
use std::sync::Arc;

use super::draft::{Draft, edited};
use crate::domain::{FencingToken, KeyspaceEvents, LockName, Timestamp, Ttl};
use crate::engine::apply::{Retry, Scope};
use crate::engine::keyspace::{Content, GuardedKey, KeyedValue};
use crate::engine::notifications::{CREATED, Cause, DELETED, Notification, renewed_until};
use crate::engine::{Engine, ExclusiveTxn, Txn, Unavailable};
use crate::journal::{Record, Seq, StoredValue};
use crate::lock::Op;
use crate::value::{Edit, Element, Kind, Value};

/// A key under its guard; what had ended of it is gone.
pub(in crate::engine) struct KeyWork<'w, 'k> {
    pub(in crate::engine) engine: &'w Engine,
    pub(in crate::engine) scope: Scope<'w>,
    pub(in crate::engine) key: &'w mut GuardedKey<'k>,
    /// The Seq of the last change that this work has journaled.
    pub(in crate::engine) appended: Seq,
}

impl Txn<'_> {
    /// Runs `work` on a key once what has ended of it is freed. `work` runs at most once.
    pub(in crate::engine) fn work_on_key<R>(
        &self,
        name: &LockName,
        work: impl FnOnce(&mut KeyWork<'_, '_>) -> Result<R, Unavailable>,
    ) -> Result<R, Unavailable> {
        let mut work = Some(work);
        let worked = self.in_steps(name, |key| {
            key.free_ended()?;
            let work = work.take().unwrap_or_else(|| unreachable!("nothing is retried after it"));
            Ok(work(key)?)
        });
        let (result, seq) = worked.map_err(|why| self.refuse(why))?;
        self.observe(seq);
        Ok(result)
    }
}

impl ExclusiveTxn<'_> {
    /// Makes the events of the last change to a key.
    pub(super) fn announce(&self, name: &LockName, event: Notification) -> Result<(), Unavailable> {
        self.work_on_key(name, |key| {
            key.announce(key.key.last_change(), &[event]);
            Ok(())
        })
    }

    /// [`ExclusiveTxn::announce`] of a key that has come into being, before the event that says how.
    pub(super) fn announce_new(&self, name: &LockName) -> Result<(), Unavailable> {
        self.work_on_key(name, |key| {
            key.engine.core.events.notify(key.key.last_change(), name, CREATED);
            Ok(())
        })
    }
}

impl Engine {
    /// Refuses what may add elements to a value when it has, or all values together have, as much
    /// as the limits allow.
    pub(super) fn check_room(&self, value: Option<&Value>) -> Result<(), Unavailable> {
        let core = &*self.core;
        self.check_backlog()?;
        if core.value_stats.limited_bytes() + core.pops.bytes() >= core.config.values_bytes_max {
            return Err(Unavailable::ValuesBytesMax);
        }
        if value.is_some_and(|value| value.len() >= core.config.value_elements_max) {
            return Err(Unavailable::ValueElementsMax);
        }
        Ok(())
    }
}

impl KeyWork<'_, '_> {
    pub(in crate::engine) fn content(&self) -> &Content {
        self.key.content
    }

    /// Frees what has ended of a lock.
    pub(in crate::engine) fn free_ended(&mut self) -> Result<(), Retry> {
        match self.key.lock() {
            Some(mut lock) if !lock.slot.is_vacant() => {
                self.engine.run_on_lock(&Op::Inspect, &self.scope, &mut lock).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Edits the value.
    pub(in crate::engine) fn edit<R>(
        &mut self,
        kind: Kind,
        edit: impl FnOnce(&mut Edit<'_>) -> R,
    ) -> Result<R, Unavailable> {
        let event = self.notification(kind);
        let keyed = match &mut *self.key.content {
            Content::Value(keyed) if keyed.value.kind() == kind => keyed,
            _ => return Err(Unavailable::WrongType),
        };
        let (id, before) = (keyed.id, keyed.bytes());
        // Those who still read it keep what they read.
        let (result, elements) = edited(Arc::make_mut(&mut keyed.value), edit);
        self.engine.core.value_stats.resized(before, keyed.bytes());
        if let Some(elements) = elements {
            self.record_edit(id, elements, event)?;
        }
        Ok(result)
    }

    /// Replaces the value `original` by an edited copy of it, which it takes together with the
    /// elements that were changed. Fails with [`Unavailable::Unsettled`] if the key holds another
    /// value.
    pub(super) fn replace_edited(
        &mut self,
        original: &Arc<Value>,
        copy: &mut Option<(Value, Option<Vec<Element>>)>,
    ) -> Result<(), Unavailable> {
        let event = self.notification(original.kind());
        let keyed = match &mut *self.key.content {
            Content::Value(keyed) if Arc::ptr_eq(&keyed.value, original) => keyed,
            _ => return Err(Unavailable::Unsettled),
        };
        let Some((value, elements)) = copy.take() else { return Ok(()) };
        let (id, before) = (keyed.id, keyed.bytes());
        keyed.value = Arc::new(value);
        self.engine.core.value_stats.resized(before, keyed.bytes());
        match elements {
            Some(elements) => self.record_edit(id, elements, event),
            None => Ok(()),
        }
    }

    /// Journals the elements that an edit has changed, or the end of a value that is empty now.
    fn record_edit(
        &mut self,
        id: FencingToken,
        elements: Vec<Element>,
        event: Notification,
    ) -> Result<(), Unavailable> {
        match self.content().value().is_some_and(Value::is_empty) {
            true => self.end_value(&[event, DELETED]),
            false => self.append(element_records(id, elements), &[event]).map(drop),
        }
    }

    /// Puts a new value into the vacant key, unless it is still empty after the edit.
    pub(in crate::engine) fn create<R>(
        &mut self,
        kind: Kind,
        edit: impl FnOnce(&mut Edit<'_>) -> R,
    ) -> Result<R, Unavailable> {
        let (draft, result) = Draft::new(kind, edit);
        self.put(draft).map(|()| result)
    }

    /// Puts a new value into the vacant key, unless it is empty.
    pub(super) fn put(&mut self, draft: Draft) -> Result<(), Unavailable> {
        let tokens = &self.engine.core.tokens;
        if tokens.are_exhausted() {
            return Err(Unavailable::TokensExhausted);
        }
        if draft.is_empty() {
            return Ok(());
        }
        let Draft { value, elements } = draft;
        let (new, event) = ([CREATED], self.notification(value.kind()));
        let new: &[_] = if self.scope.cause.replaces { &[] } else { &new };
        let token = tokens.take(self.engine.journal(), self.scope.table.epoch);
        let name = self.scope.name.clone();
        let (value, deadline) = (Arc::new(value), Timestamp::NEVER);
        let keyed = KeyedValue { name, id: token, token, ttl: None, deadline, value };
        self.engine.core.value_stats.added(keyed.bytes());
        let records = [put_record(&keyed)].into_iter().chain(element_records(token, elements));
        *self.key.content = Content::Value(Box::new(keyed));
        let events = [new, &[event]].concat();
        self.append(records, &events).map(drop)
    }

    /// Puts a value that came from another key into this vacant one, under a new fencing token.
    pub(super) fn adopt(&mut self, mut keyed: Box<KeyedValue>) -> Result<Seq, Unavailable> {
        keyed.token = self.engine.core.tokens.take(self.engine.journal(), self.scope.table.epoch);
        keyed.name = self.scope.name.clone();
        self.engine.core.value_stats.added(keyed.bytes());
        let record = put_record(&keyed);
        *self.key.content = Content::Value(keyed);
        self.append([record], &[])
    }

    /// Takes the value out of the key, to be adopted by another. Until then the journal knows
    /// nothing.
    pub(super) fn take_value(&mut self) -> Option<Box<KeyedValue>> {
        match mem::take(&mut *self.key.content) {
            Content::Value(keyed) => {
                self.engine.core.value_stats.removed(keyed.bytes());
                Some(keyed)
            }
            lock => {
                *self.key.content = lock;
                None
            }
        }
    }

    /// Makes the key vacant, as a part of another change: ends the value, or the lease of a string.
    pub(super) fn clear(&mut self) -> Result<(), Unavailable> {
        match self.key.lock() {
            None => self.end_value(&[]),
            Some(lock) if lock.slot.is_vacant() => Ok(()),
            Some(mut lock) => {
                let scope = self.scope.with_cause(Cause { is_silent: true, ..self.scope.cause });
                let op = Op::Delete { if_owner: None };
                self.engine.step_and_return(&op, &scope, &mut lock).map(drop)
            }
        }
    }

    /// Ends the value, if the key holds one. Without notifications, this is a part of another change.
    pub(in crate::engine) fn end_value(&mut self, events: &[Notification]) -> Result<(), Unavailable> {
        let Some(keyed) = self.take_value() else { return Ok(()) };
        let gone = Record::ValueGone(keyed.id);
        self.engine.core.reclaimer.discard(keyed);
        self.append([gone], events).map(drop)
    }

    /// Moves the deadline of the value to a TTL from now; `None`: it does not end by itself.
    pub(in crate::engine) fn set_ttl(&mut self, ttl: Option<Ttl>) -> Result<Timestamp, Unavailable> {
        let Content::Value(keyed) = &mut *self.key.content else { return Err(Unavailable::WrongType) };
        (keyed.ttl, keyed.deadline) = (ttl, self.scope.now.after(ttl));
        let (record, deadline) = (put_record(keyed), keyed.deadline);
        self.append([record], &[renewed_until(deadline)]).map(|_| deadline)
    }

    /// The notification of an edit.
    fn notification(&self, kind: Kind) -> Notification {
        let class = match kind {
            Kind::Hash => KeyspaceEvents::HASH,
            Kind::Set => KeyspaceEvents::SET,
            Kind::SortedSet => KeyspaceEvents::SORTED_SET,
            Kind::List => KeyspaceEvents::LIST,
        };
        self.scope.cause.notification(class, "")
    }

    /// Makes the events of a change. Without notifications, it is a part of another change.
    pub(in crate::engine) fn announce(&self, seq: Seq, events: &[Notification]) {
        let cause = self.scope.cause;
        if !events.is_empty() && !cause.is_silent {
            let (name, client) = (self.scope.name, cause.client);
            self.engine.core.events.key_changed(seq, name, client, events.iter().copied());
        }
    }

    /// Remembers a change that was journaled for another key and is one of this key, too.
    pub(super) fn is_changed_by(&self, seq: Seq) {
        self.engine.core.watches.changed(self.scope.name);
        self.key.changed_by(seq);
    }

    /// Journals changes of this key and makes their events.
    fn append(
        &mut self,
        records: impl IntoIterator<Item = Record>,
        events: &[Notification],
    ) -> Result<Seq, Unavailable> {
        // Should this fail, the key has changed and the journal has not. Every reader asks first
        // whether the journal is down, and it stays down until this table is replaced.
        let seq = self.engine.journal().append(self.scope.table.epoch, records)?;
        self.appended = seq;
        self.is_changed_by(seq);
        self.announce(seq, events);
        if let Some(value) = self.content().value() {
            self.engine.core.pops.signal(self.scope.name, value.kind());
        }
        Ok(seq)
    }
}

fn put_record(keyed: &KeyedValue) -> Record {
    Record::ValuePut(Box::new(StoredValue {
        id: keyed.id,
        token: keyed.token,
        name: keyed.name.clone(),
        kind: keyed.value.kind(),
        ttl: keyed.ttl,
        deadline: keyed.deadline,
    }))
}

fn element_records(id: FencingToken, elements: Vec<Element>) -> impl Iterator<Item = Record> {
    elements.into_iter().map(move |Element { field, value }| Record::Element { id, field, value })
}
