//! COPY: a second key with the same content.
//!
//! Guarantees: the copy takes a new fencing token, as every new key does, and ends when the original
//! does. Not here: whether a client may.

use std::sync::Arc;

use super::{Draft, HeldValue};
use crate::domain::{KeyspaceEvents, LockName, Timestamp, Ttl};
use crate::engine::keyspace::{Content, is_replaceable, ttl_until};
use crate::engine::notifications::Notification;
use crate::engine::{ELEMENTS_AT_ONCE_MAX, ExclusiveTxn, SharedTxn, Unavailable, run_long, visit_elements};
use crate::lock::{Op, Request, SetCondition};
use crate::value::Value;

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

/// A copy of a large value that was made before the transaction that stores it.
struct Prepared<'a> {
    original: HeldValue<'a>,
    /// `None` once it is stored.
    copy: Option<Draft>,
}

impl SharedTxn<'_> {
    /// [`ExclusiveTxn::copy`] in a transaction of its own. A large value is copied before that.
    pub fn copy(&self, from: &LockName, to: &LockName, replaces: bool) -> Result<bool, Unavailable> {
        let names = [from.clone(), to.clone()];
        let is_small = self.share_before(from)?.is_none_or(|value| value.len() <= ELEMENTS_AT_ONCE_MAX);
        if is_small || (!replaces && self.exists_before(to)?) {
            return self.exclusively(&names, |txn| txn.copy(from, to, replaces))?;
        }
        let held = self.hold_value(from)?;
        run_long(|| {
            let mut prepared = None;
            if let Some(original) = held {
                let _making = self.make_value(original.bytes())?;
                prepared = Some(Prepared { copy: Some(Draft::copy_of(&original)), original });
            }
            self.exclusively(&names, |txn| txn.copy_prepared(from, to, replaces, prepared.as_mut()))?
        })
    }
}

impl ExclusiveTxn<'_> {
    /// Copies a key. Returns whether it did: not if there is no original, and not over an existing
    /// key unless `replaces`. Fails with [`Unavailable::WrongType`] if either key is a lock that is
    /// more than a string.
    pub fn copy(&self, from: &LockName, to: &LockName, replaces: bool) -> Result<bool, Unavailable> {
        self.copy_prepared(from, to, replaces, None)
    }

    /// [`ExclusiveTxn::copy`] that uses what was prepared if the value is still the same.
    fn copy_prepared(
        &self,
        from: &LockName,
        to: &LockName,
        replaces: bool,
        prepared: Option<&mut Prepared<'_>>,
    ) -> Result<bool, Unavailable> {
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
                match prepared.filter(|prepared| Arc::ptr_eq(&prepared.original, &value)) {
                    Some(prepared) => self.replace_value(to, &mut prepared.copy)?,
                    None => {
                        let copy = visit_elements(value.len(), || Draft::copy_of(&value));
                        self.replace_value(to, &mut Some(copy))?;
                    }
                }
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
