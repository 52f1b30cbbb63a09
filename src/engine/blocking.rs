//! Blocked requests: where their outcomes are sent, and what their drop reverts.
//!
//! Guarantees: dropping a [`Blocked`] removes its waiter at once and reverts a grant that was not
//! received. Not here: queues and their order (in `lock`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::{EXPIRIES_PER_STEP, Engine, Unavailable};
use crate::domain::{FencingToken, LockName, Owner, Timestamp, WaiterId};
use crate::journal::Seq;
use crate::lock::Op;

/// The outcome of a blocked request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitOutcome {
    /// It holds the lock, once this Seq is durable.
    Granted(FencingToken, Seq),
    /// It timed out; that the lock was held by others until then is durable with this Seq.
    TimedOut(Seq),
    /// Its session ended, durably with this Seq.
    SessionEnded(Seq),
    /// The same owner asked again elsewhere; that request has its place.
    Replaced,
    /// The journal failed; the request is not queued any more.
    Unavailable,
}

const STRIPES: usize = 16;

#[derive(Default)]
pub(super) struct Waiters {
    last: AtomicU64,
    stripes: [Mutex<HashMap<WaiterId, oneshot::Sender<WaitOutcome>>>; STRIPES],
}

impl Waiters {
    fn stripe(&self, id: WaiterId) -> MutexGuard<'_, HashMap<WaiterId, oneshot::Sender<WaitOutcome>>> {
        self.stripes[id.0 as usize % STRIPES].lock()
    }

    pub(super) fn register(&self) -> (WaiterId, oneshot::Receiver<WaitOutcome>) {
        let id = WaiterId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let (sender, receiver) = oneshot::channel();
        self.stripe(id).insert(id, sender);
        (id, receiver)
    }

    pub(super) fn is_there(&self, id: WaiterId) -> bool {
        self.stripe(id).get(&id).is_some_and(|sender| !sender.is_closed())
    }

    /// Sends the outcome to a waiter, once; `false` if the receiver was dropped.
    pub(super) fn notify(&self, id: WaiterId, outcome: WaitOutcome) -> bool {
        let sender = self.stripe(id).remove(&id);
        sender.is_some_and(|sender| sender.send(outcome).is_ok())
    }

    pub(super) fn forget(&self, id: WaiterId) {
        self.stripe(id).remove(&id);
    }

    pub(super) fn notify_all(&self, outcome: WaitOutcome) {
        for stripe in &self.stripes {
            let all = std::mem::take(&mut *stripe.lock());
            for sender in all.into_values() {
                // The receiver was dropped; ignore the error.
                let _ = sender.send(outcome);
            }
        }
    }
}

/// A place in a queue. Dropping it leaves the queue and reverts a grant that was not received.
pub struct Blocked {
    engine: Arc<Engine>,
    name: LockName,
    owner: Owner,
    id: WaiterId,
    receiver: oneshot::Receiver<WaitOutcome>,
    outcome: Option<WaitOutcome>,
}

impl Blocked {
    pub(super) fn new(
        engine: Arc<Engine>,
        name: LockName,
        owner: Owner,
        id: WaiterId,
        receiver: oneshot::Receiver<WaitOutcome>,
    ) -> Blocked {
        Blocked { engine, name, owner, id, receiver, outcome: None }
    }

    /// Waits for the outcome. Safe to drop half-way and call again.
    pub async fn outcome(&mut self) -> WaitOutcome {
        let outcome = (&mut self.receiver).await.unwrap_or(WaitOutcome::Unavailable);
        self.outcome = Some(outcome);
        outcome
    }

    /// The token that it was granted, once [`Blocked::outcome`] said so.
    pub fn granted(&self) -> Option<FencingToken> {
        match self.outcome {
            Some(WaitOutcome::Granted(token, _)) => Some(token),
            _ => None,
        }
    }

    /// Gives a grant back that was received and cannot be passed on. If the same owner has asked
    /// again elsewhere and learned of the grant there, it stays.
    pub fn give_back(&self, token: FencingToken) {
        let op = Op::RevertGrant { owner: self.owner.clone(), token };
        // If the journal is down the lease stays until its deadline, as for any holder that is
        // gone.
        self.engine.cancel(&self.name, op);
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        self.receiver.close();
        self.engine.core.waiters.forget(self.id);
        match self.receiver.try_recv() {
            Ok(WaitOutcome::Granted(token, _)) => self.give_back(token),
            _ => {
                let op = Op::CancelWait { waiter: self.id, owner: self.owner.clone() };
                // If the journal is down the table is rebuilt without this waiter anyway.
                self.engine.cancel(&self.name, op);
            }
        }
    }
}

/// What is left to do after waiters that are gone: [`Op::CancelWait`] and [`Op::RevertGrant`] on
/// locks of which so much had ended that it has to be freed in steps first, or which a transaction
/// kept others out of. The expiry thread does it.
#[derive(Default)]
pub(super) struct Cancellations {
    pending: Mutex<VecDeque<(LockName, Op)>>,
}

impl Cancellations {
    pub(super) fn are_pending(&self) -> bool {
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
    fn cancel(self: &Arc<Self>, name: &LockName, op: Op) {
        if let Err(Unavailable::Unsettled | Unavailable::Busy) = self.txn().submit(name, &op) {
            self.core.cancellations.push(name.clone(), op);
            self.core.deadlines.alarm.armed(Timestamp::default());
        }
    }

    /// Works on what [`Engine::cancel`] has left, and stops after about [`EXPIRIES_PER_STEP`]
    /// leases and waiters.
    pub(super) fn cancel_waits(self: &Arc<Self>) {
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
