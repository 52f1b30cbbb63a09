//! The sweep: frees what has ended by its deadline or with its session.
//!
//! Guarantees: bounded steps; one thread sweeps at a time. Nothing depends on it: what has ended
//! counts as ended for every reader from that instant on. Not here: the index, the thread, and what
//! ends at a deadline (leases: `lock/transition/expiry.rs`; values: `engine/values/expiry.rs`).

use std::sync::Arc;

use crate::domain::Timestamp;
use crate::engine::{EXPIRIES_PER_STEP, EXPIRIES_PER_TURN, Engine};

impl Engine {
    /// Frees what has ended by now, in part if it is much. Returns when to call again;
    /// [`Timestamp::NEVER`]: when something is granted.
    pub fn expire_due(self: &Arc<Self>) -> Timestamp {
        // A journal that is down refuses; for every reader the leases have ended all the same.
        let has_orphans = self.close_orphans().unwrap_or(false);
        let next_pop = self.maintain_pops();
        self.cancel_waits();
        let guard = self.core.expiring.lock();
        self.expire(EXPIRIES_PER_STEP);
        drop(guard);
        let next = self.core.deadlines.next().min(self.core.sessions.next_sweep()).min(next_pop);
        if has_orphans || self.core.cancellations.are_pending() { Timestamp::default() } else { next }
    }

    /// Frees a little of what has ended by now, unless another thread is doing that. For threads
    /// that serve requests.
    pub(in crate::engine) fn expire_some(self: &Arc<Self>) {
        if let Some(_guard) = self.core.expiring.try_lock() {
            self.expire(EXPIRIES_PER_TURN);
        }
    }

    /// Looks at up to `max` sessions, and as many locks, of which something has ended, and stops
    /// after about as many leases.
    fn expire(self: &Arc<Self>, max: usize) {
        // As above, if the journal is down.
        let _ = self.patient_txn().sweep_sessions(max);
        let (deadlines, now) = (&self.core.deadlines, self.core.clock.now());
        for hash in deadlines.take_near(now, max) {
            let deadline = self.core.table.enter_in_time().next_deadline(hash);
            if !deadlines.record_imminent(hash, deadline, now) {
                // It has moved: back into the index.
                self.expire_key(hash);
            }
        }
        let mut freed = 0;
        for _ in 0..max {
            let Some(hash) = deadlines.take_due(now) else { break };
            freed += self.expire_key(hash);
            if freed >= max {
                break;
            }
        }
    }

    /// Frees what has ended of the keys under a hash, and sees to it that what is left there is
    /// looked at in time. Returns how many leases and waiters that changed.
    fn expire_key(self: &Arc<Self>, hash: u64) -> usize {
        let names = self.core.table.enter_in_time().names(hash);
        let mut changed = 0;
        for name in names {
            let txn = self.patient_txn();
            let left = txn.read_key(&name, |content, now| (content.next_deadline(), now));
            changed += txn.work();
            // A journal that is down refuses: it is tried again until it is up, and then all is in
            // the index anew.
            let (deadline, now) = match left {
                Ok(left) => left,
                Err(_) => (self.core.table.enter_in_time().next_deadline(hash), self.core.clock.now()),
            };
            self.core.deadlines.record_imminent(hash, deadline, now);
        }
        changed
    }
}
