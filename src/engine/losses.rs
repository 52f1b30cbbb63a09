//! The debug log of leases that their holder did not release: why each one ended, and who came back
//! too late.
//!
//! Guarantees: a line names the lock (escaped), the token and the address of the holder, never the
//! owner, which is a secret. Nothing is formatted or copied unless the level is enabled. Not here:
//! whether the end is durable already.

use std::fmt;
use std::sync::Arc;

use super::late_owners::Lost;
use crate::domain::{LockName, Timestamp};
use crate::lock::{Effect, EndReason, Lease, Op, Origin};

/// Logs the end of a lease, unless its owner released it.
pub(super) fn log_end(name: &LockName, op: &Op, effect: &Effect) {
    let Effect::Ended { lease, how } = effect else { return };
    let why = match how {
        EndReason::Expired => "it expired",
        EndReason::Session { clean: false } => "its session expired or its connection was closed",
        EndReason::Session { clean: true } => "its session was closed",
        EndReason::Forced => "an operator ended it",
        EndReason::Replaced => "a SET gave the lock to another owner",
        EndReason::Released => match op {
            Op::Delete { if_owner: None } => "a DEL or an end in the past ended it",
            Op::RevertGrant { .. } => "the client that waited was gone when it was granted",
            _ => return,
        },
    };
    log_loss(name, lease, why);
}

#[inline(never)]
fn log_loss(name: &LockName, lease: &Lease, why: &str) {
    let holder = Holder(lease.origin.as_deref());
    tracing::debug!(lock = ?name, token = lease.token.get(), %holder, why, "lease ended");
}

/// Logs that an owner wanted to release or renew a lease after its end.
#[inline(never)]
pub(super) fn log_late(name: &LockName, op: &Op, lost: &Lost, now: Timestamp) {
    let wanted = if matches!(op, Op::Renew { .. }) { "renew" } else { "release" };
    let (holder, late_ms) = (Holder(lost.origin.as_deref()), now.millis_since(lost.at));
    tracing::debug!(lock = ?name, token = lost.token.get(), %holder, late_ms, "late {wanted}: the lease had ended");
}

/// What is remembered of the holder for [`log_late`].
pub(super) fn origin_if_logged(lease: &Lease) -> Option<Arc<Origin>> {
    lease.origin.clone().filter(|_| tracing::enabled!(tracing::Level::DEBUG))
}

/// Where a holder is: its address, and its name if it has one.
struct Holder<'a>(Option<&'a Origin>);

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, "unknown"),
            Some(origin) if origin.client_name.is_empty() => write!(f, "{}", origin.addr),
            Some(origin) => write!(f, "{} ({})", origin.addr, origin.client_name),
        }
    }
}
