//! Blocked requests: where their outcomes are sent, and what is reverted if one cannot be passed on.
//!
//! Guarantees: dropping a [`Blocked`] removes its waiter at once and reverts what it got but did not
//! receive. LOCK and the pops of lists and sorted sets block in this one way.
//! Not here: the queues of locks and their order (in `lock`), those of pops (in `blocking/queues`).

mod cancel;
mod pop;
mod queues;
mod serve;
#[cfg(test)]
mod tests;

pub(super) use cancel::Cancellations;
pub use pop::{PopAction, PopRequest, Popped, PoppedElements, Popping};
pub(super) use queues::PopQueues;
pub use queues::WAITED_KEYS_MAX;
pub(super) use serve::Undelivered;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::{Engine, Seen, Unavailable};
use crate::domain::{FencingToken, LockName, Owner, WaiterId};
use crate::journal::Seq;
use crate::lock::Op;

/// The outcome of a blocked request.
#[derive(Debug, Clone, PartialEq)]
pub enum WaitOutcome {
    /// It holds the lock, once this Seq is durable.
    Granted(FencingToken, Seq),
    /// It got elements, once the Seq of what was seen is durable.
    Popped(Arc<Popped>, Seen),
    /// It timed out; that there was nothing for it until then is durable with this Seq.
    TimedOut(Seq),
    /// Its session ended, durably with this Seq.
    SessionEnded(Seq),
    /// Its turn came, but it cannot be executed; what that depends on is durable with this Seq.
    Refused(Unavailable, Seq),
    /// The same owner asked again elsewhere; that request has its place.
    Replaced,
    /// The journal failed; the request is not queued any more.
    Unavailable,
}

/// What has to happen if an outcome cannot be passed on.
enum Undo {
    Nothing,
    ReturnGrant(FencingToken),
    PushBack(Arc<Popped>, Seen),
}

impl WaitOutcome {
    fn undo(self) -> Undo {
        match self {
            WaitOutcome::Granted(token, _) => Undo::ReturnGrant(token),
            WaitOutcome::Popped(popped, seen) => Undo::PushBack(popped, seen),
            WaitOutcome::TimedOut(_)
            | WaitOutcome::SessionEnded(_)
            | WaitOutcome::Refused(..)
            | WaitOutcome::Replaced
            | WaitOutcome::Unavailable => Undo::Nothing,
        }
    }
}

const STRIPES: usize = 16;

/// The receivers of outcomes.
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

    pub(super) fn notify_all(&self, outcome: &WaitOutcome) {
        for stripe in &self.stripes {
            let all = std::mem::take(&mut *stripe.lock());
            for sender in all.into_values() {
                // The receiver was dropped; ignore the error.
                let _ = sender.send(outcome.clone());
            }
        }
    }
}

/// A place in one or more queues. Dropping it leaves the queues and reverts what it got but did not
/// receive.
pub struct Blocked {
    engine: Arc<Engine>,
    id: WaiterId,
    place: Place,
    receiver: oneshot::Receiver<WaitOutcome>,
    outcome: Option<WaitOutcome>,
}

/// What a blocked request waits for.
pub(super) enum Place {
    Lock { name: LockName, owner: Owner },
    Pop,
}

impl Blocked {
    pub(super) fn new(
        engine: Arc<Engine>,
        place: Place,
        (id, receiver): (WaiterId, oneshot::Receiver<WaitOutcome>),
    ) -> Blocked {
        Blocked { engine, id, place, receiver, outcome: None }
    }

    /// Waits for the outcome. Safe to drop half-way and call again.
    pub async fn outcome(&mut self) -> WaitOutcome {
        let outcome = (&mut self.receiver).await.unwrap_or(WaitOutcome::Unavailable);
        self.outcome = Some(outcome.clone());
        outcome
    }

    /// Reverts an outcome that was received and cannot be passed on: a grant is returned, elements
    /// go back to where they were. A grant stays if the same owner has asked again elsewhere and got
    /// it there.
    pub fn undo(&self) {
        if let Some(outcome) = &self.outcome {
            self.carry_out(outcome.clone().undo());
        }
    }

    fn carry_out(&self, undo: Undo) {
        match (undo, &self.place) {
            (Undo::ReturnGrant(token), Place::Lock { name, owner }) => {
                let op = Op::RevertGrant { owner: owner.clone(), token };
                // If the journal is down the lease stays until its deadline, as for any holder that
                // is gone.
                self.engine.cancel(name, op);
            }
            (Undo::PushBack(popped, seen), _) => self.engine.push_back(popped, seen),
            (Undo::ReturnGrant(_) | Undo::Nothing, _) => {}
        }
    }

    fn leave_queue(&self) {
        match &self.place {
            Place::Lock { name, owner } => {
                let op = Op::CancelWait { waiter: self.id, owner: owner.clone() };
                // If the journal is down the table is rebuilt without this waiter anyway.
                self.engine.cancel(name, op);
            }
            Place::Pop => drop(self.engine.core.pops.remove(self.id)),
        }
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
            Ok(outcome) => match outcome.undo() {
                Undo::Nothing => self.leave_queue(),
                undo => self.carry_out(undo),
            },
            Err(_) => self.leave_queue(),
        }
    }
}
