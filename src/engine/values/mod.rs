//! Hashes, sets, sorted sets and lists as keys of the keyspace.
//!
//! Guarantees: a change and its records are one step under the guard of the key. A value is created
//! by its first element, takes a fencing token then, and is gone with its last one. A value whose
//! deadline has passed does not exist for any reader. Nothing is evicted: over a limit, what may
//! add is refused.
//! Not here: what the values are (in `value`), commands, how locks change.

mod apart;
mod change;
mod copy;
mod draft;
mod expiry;
mod reclaim;
mod rename;
mod stats;
#[cfg(test)]
mod tests;

pub use self::apart::HeldValue;
pub(super) use self::apart::{Holds, is_ready_for_edits};
pub(super) use self::change::KeyWork;
pub use self::draft::Draft;
pub(super) use self::reclaim::Reclaimer;
pub use self::rename::Renamed;
pub use self::stats::{Making, ValueStats};

use std::sync::Arc;

use self::apart::Progress;
use super::keyspace::{Content, KeyKind, is_replaceable};
use super::notifications::DELETED;
use super::{Txn, Unavailable};
use crate::domain::{LockName, Timestamp};
use crate::value::{Edit, Kind, Value};

impl Txn<'_> {
    /// Edits the value of a key, for operations that may add elements. A key that does not exist
    /// gets an empty value first; a key whose value is empty after the edit is gone.
    ///
    /// Fails with [`Unavailable::WrongType`] for a value of another kind and for a lock, even one
    /// that only rests. `edit` runs at most once, under the guard of the key: it must not come back
    /// to the transaction.
    pub fn value<R>(
        &self,
        name: &LockName,
        kind: Kind,
        edit: impl FnOnce(&mut Edit<'_>) -> R,
    ) -> Result<R, Unavailable> {
        self.value_of_many(name, kind, |_| 1, edit)
    }

    /// [`Txn::value`] for an edit that visits `visits` elements, which may be very many. Then it
    /// works on a copy, without the guard.
    pub fn value_of_many<R>(
        &self,
        name: &LockName,
        kind: Kind,
        visits: impl FnOnce(&Value) -> usize,
        edit: impl FnOnce(&mut Edit<'_>) -> R,
    ) -> Result<R, Unavailable> {
        let progress = self.work_on_key(name, |key| {
            key.engine.check_room(key.content().value())?;
            match key.content() {
                Content::Value(_) => self.begin_edit(key, kind, visits, edit),
                Content::Lock(slot) if slot.is_vacant() => key.create(kind, edit).map(Progress::Done),
                Content::Lock(_) => Err(Unavailable::WrongType),
            }
        })?;
        self.finish_edit(name, progress)
    }

    /// Edits the value of a key, for operations that add nothing: no limit stops them. Returns
    /// `None`, without having called `edit`, if the key does not exist. Otherwise like
    /// [`Txn::value`].
    pub fn existing_value<R>(
        &self,
        name: &LockName,
        kind: Kind,
        edit: impl FnOnce(&mut Edit<'_>) -> R,
    ) -> Result<Option<R>, Unavailable> {
        self.existing_value_of_many(name, kind, |_| 1, edit)
    }

    /// [`Txn::existing_value`] for an edit that visits many elements, as [`Txn::value_of_many`]
    /// does.
    pub fn existing_value_of_many<R>(
        &self,
        name: &LockName,
        kind: Kind,
        visits: impl FnOnce(&Value) -> usize,
        edit: impl FnOnce(&mut Edit<'_>) -> R,
    ) -> Result<Option<R>, Unavailable> {
        let progress = self.work_on_key(name, |key| match key.content() {
            Content::Value(_) => self.begin_edit(key, kind, visits, edit).map(Some),
            content if content.exists() => Err(Unavailable::WrongType),
            _ => Ok(None),
        })?;
        progress.map(|progress| self.finish_edit(name, progress)).transpose()
    }

    /// Replaces whatever a key holds by a new value, which it takes. If that is empty, the key is
    /// gone. Fails with [`Unavailable::WrongType`] for locks that are more than a string: shared or
    /// limited ones, and those with a session, a queue or a lock-delay. Then the value stays where
    /// it is: freeing it may take long.
    pub fn replace_value(&self, name: &LockName, draft: &mut Option<Draft>) -> Result<(), Unavailable> {
        self.work_on_key(name, |key| {
            key.engine.check_room(None)?;
            if !is_replaceable(key.content()) {
                return Err(Unavailable::WrongType);
            }
            let _one_commit = key.engine.one_commit();
            let existed = key.content().exists();
            key.clear()?;
            key.scope.cause.replaces = existed;
            draft.take().map_or(Ok(()), |draft| key.put(draft))?;
            if existed && !key.content().exists() {
                let seq = key.key.last_change();
                key.announce(seq, &[DELETED]);
            }
            Ok(())
        })
    }

    /// The value of a key as it is now; `None` for a key that does not exist. Fails with
    /// [`Unavailable::WrongType`] for a lock that is held. A change of the key copies the value
    /// meanwhile, so keep it no longer than needed.
    pub fn share_value(&self, name: &LockName) -> Result<Option<Arc<Value>>, Unavailable> {
        self.read_key(name, |content, _| match content.shared_value() {
            None if content.exists() => Err(Unavailable::WrongType),
            value => Ok(value.map(Arc::clone)),
        })?
    }

    /// Reads the value of a key; `None` if the key does not exist. Fails with
    /// [`Unavailable::WrongType`] for a value of another kind and for a lock that is held. `read`
    /// runs under the guard of the key: it should copy what is needed and format nothing.
    pub fn read_value<R>(
        &self,
        name: &LockName,
        kind: Kind,
        read: impl FnOnce(Option<&Value>) -> R,
    ) -> Result<R, Unavailable> {
        self.read_shared_value(name, kind, |value| read(value.map(|value| &**value)))
    }

    /// [`Txn::read_value`] for values that may be large: `read` can keep the value, to go on without
    /// the guard. A change of the key copies the value meanwhile, so keep it no longer than needed.
    pub fn read_shared_value<R>(
        &self,
        name: &LockName,
        kind: Kind,
        read: impl FnOnce(Option<&Arc<Value>>) -> R,
    ) -> Result<R, Unavailable> {
        let (mut read, mut is_missing) = (Some(read), false);
        let mut read_once = |value: Option<&Arc<Value>>| match value {
            Some(value) if value.kind() != kind => Err(Unavailable::WrongType),
            value => Ok(read.take().map(|read| read(value))),
        };
        let peeked = self.peek(name, |entry| match entry.map(|entry| (entry, entry.value())) {
            Some((_, Some(keyed))) => read_once(Some(&keyed.value)),
            Some((entry, None)) if entry.exists() => Err(Unavailable::WrongType),
            _ => {
                is_missing = true;
                read_once(None)
            }
        })?;
        if is_missing {
            self.announce_miss(name);
        }
        let result = match peeked {
            Some(result) => result,
            None => self.read_key(name, |content, _| match content.kind() {
                Some(KeyKind::Lock(_)) => Err(Unavailable::WrongType),
                _ => read_once(content.shared_value()),
            })?,
        };
        result.map(|read| read.unwrap_or_else(|| unreachable!("either side reads once")))
    }

    /// Reads a key of any type as it is now; what has ended is left out. `read` runs under the
    /// guard of the key: it should copy what is needed and format nothing.
    pub fn read_key<R>(
        &self,
        name: &LockName,
        read: impl FnOnce(&Content, Timestamp) -> R,
    ) -> Result<R, Unavailable> {
        let (exists, result) = self.work_on_key(name, |key| {
            let content = key.content();
            Ok((content.exists(), read(content, key.scope.now)))
        })?;
        if !exists {
            self.announce_miss(name);
        }
        Ok(result)
    }

    /// The type of a key; `None` if it does not exist.
    pub fn kind_of(&self, name: &LockName) -> Result<Option<KeyKind>, Unavailable> {
        self.read_key(name, |content, _| content.kind())
    }
}
