//! RENAME: a key gets another name.
//!
//! Guarantees: the key takes a new fencing token, as every new key does, and keeps its deadline. No
//! element is written again. Not here: whether a client may.

use crate::domain::{KeyspaceEvents, LockName};
use crate::engine::keyspace::{Content, is_replaceable, ttl_until};
use crate::engine::notifications::Notification;
use crate::engine::{ExclusiveTxn, Unavailable};
use crate::lock::{Op, Request, SetCondition};

/// The result of a renaming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renamed {
    /// The key has its new name.
    Done,
    /// There is no key of the old name.
    NoSuchKey,
    /// There is a key of the new name, which was not to be replaced.
    Exists,
}

const RENAMED_FROM: Notification = (KeyspaceEvents::GENERIC, "rename_from");
const RENAMED_TO: Notification = (KeyspaceEvents::GENERIC, "rename_to");

/// What is behind a name that is to change.
enum Source {
    None,
    Value,
    /// A string, as the request that takes it again.
    String(Request),
}

impl ExclusiveTxn<'_> {
    /// Renames a key. A key that has the new name is gone if `replaces`, else nothing happens.
    /// Fails with [`Unavailable::WrongType`] if either key is a lock that is more than a string.
    pub fn rename(&self, from: &LockName, to: &LockName, replaces: bool) -> Result<Renamed, Unavailable> {
        let source = self.read_key(from, |content, now| match content {
            Content::Value(_) => Ok(Source::Value),
            Content::Lock(slot) => match (slot.newest(), slot.plain_lease()) {
                (None, _) => Ok(Source::None),
                (Some(_), None) => Err(Unavailable::WrongType),
                (Some(_), Some(lease)) => {
                    let ttl = ttl_until(lease.deadline, now);
                    let request = Request::exclusive(lease.owner.clone(), ttl);
                    Ok(Source::String(Request { origin: lease.origin.clone(), ..request }))
                }
            },
        })??;
        if matches!(source, Source::None) {
            return Ok(Renamed::NoSuchKey);
        }
        let (exists, can_go) = self.read_key(to, |content, _| (content.exists(), is_replaceable(content)))?;
        match () {
            () if exists && !replaces => return Ok(Renamed::Exists),
            () if !can_go => return Err(Unavailable::WrongType),
            () if from == to => return Ok(Renamed::Done),
            () => {}
        }
        self.silently(|| match source {
            Source::None => Ok(()),
            Source::Value => self.move_value(from, to),
            Source::String(request) => {
                self.submit(from, &Op::Delete { if_owner: None })?;
                self.work_on_key(to, |key| key.clear())?;
                let condition = SetCondition::Always;
                self.submit(to, &Op::Set { request, condition, keep_ttl: false }).map(drop)
            }
        })?;
        self.announce_new(to)?;
        self.announce(from, RENAMED_FROM)?;
        self.announce(to, RENAMED_TO)?;
        Ok(Renamed::Done)
    }

    fn move_value(&self, from: &LockName, to: &LockName) -> Result<(), Unavailable> {
        let taken = self.work_on_key(from, |key| Ok(key.take_value()))?;
        let Some(keyed) = taken else { return Ok(()) };
        let seq = self.work_on_key(to, |key| {
            key.clear()?;
            key.adopt(keyed)
        })?;
        // Readers of the old name see this change, too.
        self.work_on_key(from, |key| {
            key.is_changed_by(seq);
            Ok(())
        })
    }
}
