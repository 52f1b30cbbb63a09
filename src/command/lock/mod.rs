//! The native lock commands, one file per verb.

mod fence;
mod forceunlock;
#[allow(clippy::module_inception)] // The verb has the family's name.
mod lock;
mod lockinfo;
mod locks;
mod renew;
mod unlock;

pub(super) use fence::FENCE;
pub(super) use forceunlock::FORCEUNLOCK;
pub(super) use lock::{LOCK, verdict};
pub(super) use lockinfo::{LOCKINFO, session_text};
pub(super) use locks::LOCKS;
pub(super) use renew::RENEW;
pub(super) use unlock::UNLOCK;
