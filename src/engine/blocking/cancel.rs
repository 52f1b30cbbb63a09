//! Cancelled waits, and grants to be reverted, that could not be dealt with at once.
//!
//! Guarantees: a thread that serves requests does a bounded part of it; the expiry thread does the
//! rest.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::{LockName, Timestamp};
use crate::engine::{EXPIRIES_PER_STEP, Engine, Unavailable};
use crate::lock::Op;

/// [`Op::CancelWait`] and [`Op::RevertGrant`] on locks of which so much had ended that it has to be
/// freed in steps first, or which a transaction kept others out of.
#[derive(Default)]
pub(in crate::engine) struct Cancellations {
    pending: Mutex<VecDeque<(LockName, Op)>>,
}

impl Cancellations {
    pub(in crate::engine) fn are_pending(&self) -> bool {
        !self.pending.lock().is_empty()
    }

    fn push(&self, name: LockName, op: Op) {
        self.pending.lock().push_back((name, op));
    }

    fn pop(&self) -> Option<(LockName, Op)> {
        self.pending.lock().pop_front()
    }
}

impl Engine {
    /// Runs what is left to do after a waiter that is gone: now or, if that would keep this thread
    /// busy, on the expiry thread.
    pub(super) fn cancel(self: &Arc<Self>, name: &LockName, op: Op) {
        if let Err(Unavailable::Unsettled | Unavailable::Busy) = self.txn().submit(name, &op) {
            self.core.cancellations.push(name.clone(), op);
            self.core.deadlines.alarm.armed(Timestamp::default());
        }
    }

    /// Works on what [`Engine::cancel`] has left, and stops after about [`EXPIRIES_PER_STEP`]
    /// leases and waiters.
    pub(in crate::engine) fn cancel_waits(self: &Arc<Self>) {
        let mut changed = 0;
        while changed < EXPIRIES_PER_STEP
            && let Some((name, op)) = self.core.cancellations.pop()
        {
            let txn = self.patient_txn();
            if txn.submit(&name, &op) == Err(Unavailable::Unsettled) {
                self.core.cancellations.push(name, op);
            }
            changed += 1 + txn.work();
        }
    }
}
