//! The end of what has expired: leases at their deadline, the lock-delay, waiters at their timeout.
//!
//! Guarantees: whatever the operation is, what has ended by its time does not take part in it; a step
//! ends a bounded number. Not here: who looks for locks that are due (`engine/expiry`), values
//! (`engine/values/expiry.rs`).

use super::{ENDS_PER_STEP, Env, Step, left};
use crate::lock::effect::{EndReason, LeaveReason};

impl<E: Env> Step<'_, E> {
    /// Frees what has ended by now: leases, the delay, waiters. `false`: there is more than one
    /// step may do.
    pub(super) fn expire_due(&mut self) -> bool {
        if self.slot.contention.is_none() && self.slot.due_holder(self.now).is_none() {
            return true;
        }
        self.expire_what_is_due()
    }

    #[inline(never)]
    fn expire_what_is_due(&mut self) -> bool {
        let mut room = ENDS_PER_STEP;
        if !self.free_revoked(&mut room) {
            return false;
        }
        while let Some(token) = self.slot.due_holder(self.now) {
            if room == 0 {
                return false;
            }
            room -= 1;
            self.end(token, EndReason::Expired);
        }
        if self.slot.delay().is_some_and(|delay| delay.until <= self.now) {
            self.end_delay();
        }
        let Some(contention) = self.slot.contention.as_mut() else { return true };
        while let Some(place) = contention.queue.due(self.now) {
            if room == 0 {
                return false;
            }
            room -= 1;
            if let Some(waiter) = contention.queue.remove(place) {
                self.effects.push(left(&waiter, LeaveReason::TimedOut));
            }
        }
        self.promote();
        true
    }
}
