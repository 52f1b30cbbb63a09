//! The native lock commands, one file per verb.

mod fence;
mod forceunlock;
#[allow(clippy::module_inception)] // The verb has the family's name.
mod lock;
mod lockinfo;
mod locks;
mod renew;
mod unlock;

use super::{Command, session};
pub(super) use lockinfo::session_text;

pub(super) const COMMANDS: &[Command] = &[
    lock::LOCK,
    unlock::UNLOCK,
    renew::RENEW,
    fence::FENCE,
    lockinfo::LOCKINFO,
    locks::LOCKS,
    forceunlock::FORCEUNLOCK,
    session::SESSION,
];
