//! Serves blocked pops: gives elements to those who wait for them, ends waits at their time, and
//! puts back what could not be delivered.
//!
//! Guarantees: keys are served in the order in which they got something, each in order of arrival,
//! after the transaction that changed them. One thread serves at a time, in bounded steps; the
//! expiry thread does what is left. Elements are put back only if their removal is not undone by
//! other means. Not here: queues, replies.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::queues::First;
use super::{Popped, WaitOutcome};
use crate::domain::{LockName, Timestamp};
use crate::engine::values::KeyWork;
use crate::engine::{EXPIRIES_PER_STEP, Engine, ExclusiveTxn, Seen, SharedTxn, Unavailable};
use crate::journal::Seq;
use crate::value::{Kind, Value};

/// Requests that one step serves. Elements count a part of a request each.
const SERVED_PER_STEP: usize = 64;
const ELEMENTS_PER_REQUEST: usize = 16;

/// Elements on their way back to where they were.
#[derive(Default)]
pub(in crate::engine) struct Undelivered(pub(super) Mutex<VecDeque<PendingReturn>>);

/// A removal that is to be reverted.
pub(super) struct PendingReturn {
    popped: Arc<Popped>,
    /// What the removal has seen.
    seen: Seen,
    /// The Seq of the change that has put the elements back.
    put_back: Option<Seq>,
}

/// How far the requests that wait for a key were served.
enum Served {
    /// The key has nothing more, or nothing waits for it.
    All,
    /// There is more to do.
    Part,
    /// The next request moves an element to another key.
    UpToMove,
}

impl Engine {
    /// Serves those who wait for keys that have got something, a part of them if they are many.
    pub(in crate::engine) fn serve_pops(self: &Arc<Self>) {
        self.serve_step(Engine::txn);
    }

    /// Serves blocked pops, on a thread that may be kept busy. Returns when to come back.
    pub(in crate::engine) fn maintain_pops(self: &Arc<Self>) -> Timestamp {
        let core = &*self.core;
        self.return_undelivered(Engine::resume_patient_txn);
        self.serve_step(Engine::patient_txn);
        for id in core.pops.take_due(core.clock.now(), EXPIRIES_PER_STEP) {
            // If the client is gone, nothing is lost.
            core.waiters.notify(id, WaitOutcome::TimedOut(self.last()));
        }
        match core.pops.has_ready() || !core.undelivered.0.lock().is_empty() {
            true => Timestamp::default(),
            false => core.pops.next_timeout(),
        }
    }

    /// Asks the expiry thread to go on.
    fn leave_to_expiry(&self) {
        self.core.deadlines.alarm.armed(Timestamp::default());
    }

    fn serve_step<'a>(self: &'a Arc<Self>, txn: impl Fn(&'a Arc<Self>) -> SharedTxn<'a>) {
        let pops = &self.core.pops;
        let mut budget = SERVED_PER_STEP;
        while pops.has_ready() {
            let Some(_serving) = pops.begin_serving() else { return };
            while let Some(name) = pops.next_ready() {
                match self.serve_key(&txn, &name, &mut budget) {
                    // If the journal is down, all waiters are notified.
                    Ok(Served::All) | Err(Unavailable::Journal(_)) => {}
                    Ok(_) | Err(_) => {
                        pops.put_back(name);
                        return self.leave_to_expiry();
                    }
                }
            }
        }
    }

    fn serve_key<'a>(
        self: &'a Arc<Self>,
        txn: &impl Fn(&'a Arc<Self>) -> SharedTxn<'a>,
        name: &LockName,
        budget: &mut usize,
    ) -> Result<Served, Unavailable> {
        loop {
            let serving = txn(self);
            if !serving.prepare_serving(name)? {
                self.core.holds.serve_later(name);
                // Perhaps it was released just before that.
                if !serving.prepare_serving(name)? {
                    return Ok(Served::All);
                }
            }
            let served = serving.work_on_key(name, |key| key.serve(budget))?;
            if !matches!(served, Served::UpToMove) {
                return Ok(served);
            }
            txn(self).exclusively(std::slice::from_ref(name), |exclusive| exclusive.serve_move(name))??;
            *budget = budget.saturating_sub(1);
        }
    }

    /// Puts elements back that were not delivered.
    pub(super) fn push_back(self: &Arc<Self>, popped: Arc<Popped>, seen: Seen) {
        self.core.undelivered.0.lock().push_back(PendingReturn { popped, seen, put_back: None });
        self.return_undelivered(Engine::resume_txn);
        self.leave_to_expiry();
    }

    /// Goes once through all elements on their way back. They are forgotten when they are back for
    /// good: a commit that fails takes that back, too.
    fn return_undelivered<'a>(self: &'a Arc<Self>, txn: impl Fn(&'a Arc<Self>, Seen) -> SharedTxn<'a>) {
        let undelivered = &self.core.undelivered.0;
        let count = undelivered.lock().len();
        for _ in 0..count {
            let Some(mut pending) = undelivered.lock().pop_front() else { return };
            if self.carry_on(&mut pending, |seen| txn(self, seen)) {
                undelivered.lock().push_back(pending);
            }
        }
    }

    /// Puts elements back, or checks whether they are back for good. Returns whether there is more to
    /// do.
    fn carry_on<'a>(&self, pending: &mut PendingReturn, txn: impl FnOnce(Seen) -> SharedTxn<'a>) -> bool {
        let is_durable = |seq| self.journal().durability_of(seq).map(|durable| durable.is_ok());
        if let Some(seq) = pending.put_back {
            match is_durable(seq) {
                Some(true) => return false,
                Some(false) => pending.put_back = None,
                None => return true,
            }
        }
        if is_durable(pending.seen.seq()) == Some(false) {
            // The removal was taken back, so the elements are there.
            return false;
        }
        match txn(pending.seen).put_back(&pending.popped) {
            Ok(seq) => {
                pending.put_back = Some(seq);
                is_durable(seq) != Some(true)
            }
            Err(Unavailable::Journal(_) | Unavailable::Unsettled | Unavailable::Busy) => true,
            Err(_) => {
                tracing::warn!(
                    key = ?pending.popped.name,
                    "elements of a blocked pop lost: the client is gone, and the key has another type now"
                );
                false
            }
        }
    }
}

impl KeyWork<'_, '_> {
    /// Serves requests that wait for this key.
    fn serve(&mut self, budget: &mut usize) -> Result<Served, Unavailable> {
        let (pops, waiters) = (&self.engine.core.pops, &self.engine.core.waiters);
        // What is taken out and put back again is so in one commit.
        let _one_commit = self.engine.one_commit();
        loop {
            let Some(kind) = self.content().value().map(Value::kind) else { return Ok(Served::All) };
            if *budget == 0 {
                return Ok(if pops.is_awaited(self.scope.name, kind) { Served::Part } else { Served::All });
            }
            let (id, request) = match pops.claim_first(self.scope.name, kind, waiters, false) {
                First::None => return Ok(Served::All),
                First::Move => return Ok(Served::UpToMove),
                First::Claimed(id, request) => (id, request),
            };
            let popped = self.pop(&request, false)?;
            let popped = popped.unwrap_or_else(|| unreachable!("a value has elements"));
            *budget = budget.saturating_sub(1 + popped.elements.len() / ELEMENTS_PER_REQUEST);
            let (popped, seen) = (Arc::new(popped), Seen::of(self.scope.table.epoch, self.appended));
            if !waiters.notify(id, WaitOutcome::Popped(Arc::clone(&popped), seen)) {
                self.put_elements(&popped)?;
            }
        }
    }
}

impl ExclusiveTxn<'_> {
    /// Serves the first request that waits for a list, which moves an item to another one.
    fn serve_move(&self, name: &LockName) -> Result<(), Unavailable> {
        let core = &*self.engine().core;
        let is_list = |key: &mut KeyWork<'_, '_>| Ok(matches!(key.content().value(), Some(Value::List(_))));
        if !self.work_on_key(name, is_list)? {
            return Ok(());
        }
        let First::Claimed(id, request) = core.pops.claim_first(name, Kind::List, &core.waiters, true) else {
            return Ok(());
        };
        let popped = match &request.action {
            super::PopAction::Move { .. } => self.move_first(name, &request, false),
            _ => self.work_on_key(name, |key| key.pop(&request, false)),
        };
        let (outcome, popped) = match popped {
            Ok(Some(popped)) => {
                let popped = Arc::new(popped);
                (WaitOutcome::Popped(Arc::clone(&popped), self.seen()), Some(popped))
            }
            Ok(None) => unreachable!("a value has elements"),
            // If the journal is down, all waiters are notified.
            Err(why @ Unavailable::Journal(_)) => return Err(why),
            Err(why) => (WaitOutcome::Refused(why, self.seen().seq()), None),
        };
        match (core.waiters.notify(id, outcome), popped) {
            (false, Some(popped)) => self.return_popped(&popped),
            _ => Ok(()),
        }
    }
}
