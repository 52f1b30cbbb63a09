//! COPY: a second key with the same content.
//!
//! Guarantees: the copy takes a new fencing token, as every new key does, and ends when the original
//! does. Not here: whether a client may.

use std::sync::Arc;

use crate::domain::{KeyspaceEvents, LockName, Timestamp, Ttl};
use crate::engine::keyspace::{Content, is_replaceable, ttl_until};
use crate::engine::notifications::Notification;
use crate::engine::{ExclusiveTxn, Unavailable};
use crate::lock::{Op, Request, SetCondition};
use crate::value::{Edit, Value};

const COPIED_TO: Notification = (KeyspaceEvents::GENERIC, "copy_to");

/// What is to be copied.
enum Original {
    None,
    Value(Arc<Value>, Option<Ttl>),
    /// A string, as the request that takes it again.
    String(Request),
}

impl Original {
    fn of(content: &Content, now: Timestamp) -> Result<Original, Unavailable> {
        Ok(match content {
            Content::Value(keyed) => {
                Original::Value(Arc::clone(&keyed.value), ttl_until(keyed.deadline, now))
            }
            Content::Lock(slot) => match (slot.newest(), slot.plain_lease()) {
                (None, _) => Original::None,
                (Some(_), None) => return Err(Unavailable::WrongType),
                (Some(_), Some(lease)) => {
                    let request = Request::exclusive(lease.owner.clone(), ttl_until(lease.deadline, now));
                    Original::String(Request { origin: lease.origin.clone(), ..request })
                }
            },
        })
    }
}

impl ExclusiveTxn<'_> {
    /// Copies a key. Returns whether it did: not if there is no original, and not over an existing
    /// key unless `replaces`. Fails with [`Unavailable::WrongType`] if either key is a lock that is
    /// more than a string.
    pub fn copy(&self, from: &LockName, to: &LockName, replaces: bool) -> Result<bool, Unavailable> {
        let original = self.read_key(from, Original::of)??;
        if matches!(original, Original::None) {
            return Ok(false);
        }
        let (exists, can_go) =
            self.work_on_key(to, |key| Ok((key.content().exists(), is_replaceable(key.content()))))?;
        if exists && !replaces {
            return Ok(false);
        }
        if !can_go {
            return Err(Unavailable::WrongType);
        }
        self.silently(|| match original {
            Original::None => Ok(()),
            Original::Value(value, ttl) => {
                self.replace_value(to, value.kind(), |edit| fill(edit, &value))?;
                match ttl {
                    Some(_) => self.submit(to, &Op::SetTtl { ttl }).map(drop),
                    None => Ok(()),
                }
            }
            Original::String(request) => {
                let condition = SetCondition::Always;
                self.submit(to, &Op::Set { request, condition, keep_ttl: false }).map(drop)
            }
        })?;
        self.announce_new(to)?;
        self.announce(to, COPIED_TO)?;
        Ok(true)
    }
}

/// Adds all elements of `source`, in order, to an empty value of its kind.
fn fill(edit: &mut Edit<'_>, source: &Value) {
    match source {
        Value::Hash(hash) => {
            let Some(mut copy) = edit.hash() else { return };
            for (field, value) in hash.iter() {
                copy.insert(field, value);
            }
        }
        Value::Set(set) => {
            let Some(mut copy) = edit.set() else { return };
            for member in set.iter() {
                copy.insert(member);
            }
        }
        Value::SortedSet(sorted) => {
            let Some(mut copy) = edit.sorted_set() else { return };
            for (member, score) in sorted.range(0..sorted.len()) {
                copy.insert(member, score);
            }
        }
        Value::List(list) => {
            let Some(mut copy) = edit.list() else { return };
            for item in list.range(0..list.len()) {
                copy.push_back(item);
            }
        }
    }
}
