//! Requests that wait: for a lock, or for elements.
//!
//! Guarantees: what a request got and its client does not get is reverted. Not here: queues, sockets.

use super::CommandError;
use crate::engine::{Blocked, Engine, Unavailable, WaitOutcome};
use crate::journal::Seq;
use crate::reply::Reply;

/// A request that waits. Dropping it ends the wait, and reverts what it got but did not receive.
pub struct Waiting {
    blocked: Blocked,
    form: ReplyForm,
}

/// Makes the reply from an outcome; `None`: the request timed out.
pub(super) type ReplyForm = fn(Option<&WaitOutcome>) -> Reply;

/// How a wait is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblock {
    /// As if the request had timed out.
    Timeout,
    /// With an error.
    Error,
}

impl Waiting {
    pub(super) fn new(blocked: Blocked, form: ReplyForm) -> Waiting {
        Waiting { blocked, form }
    }

    /// Waits for the outcome. Returns the reply and the Seq that must be durable first. Safe to drop
    /// half-way and call again.
    pub async fn reply(&mut self) -> (Reply, Seq) {
        let error = |error: CommandError| (Reply::from(error), Seq::default());
        let outcome = self.blocked.outcome().await;
        match outcome {
            WaitOutcome::Granted(_, seq) => ((self.form)(Some(&outcome)), seq),
            WaitOutcome::Popped(_, seen) => ((self.form)(Some(&outcome)), seen.seq()),
            WaitOutcome::TimedOut(seq) => ((self.form)(None), seq),
            WaitOutcome::SessionEnded(seq) => (CommandError::from(Unavailable::NoSession).into(), seq),
            WaitOutcome::Refused(why, seq) => (CommandError::from(why).into(), seq),
            WaitOutcome::Replaced => error(CommandError::fixed(
                "ERR superseded by a newer request of the same owner, which takes its place in the queue",
            )),
            WaitOutcome::Unavailable => {
                error(CommandError::fixed("MISCONF journal failed while the request was queued; retry"))
            }
        }
    }

    /// Ends the wait, and reverts what the request got meanwhile. Returns the reply and the Seq that
    /// must be durable first.
    pub fn unblock(self, engine: &Engine, how: Unblock) -> (Reply, Seq) {
        self.undo();
        let timed_out = (self.form)(None);
        drop(self);
        match how {
            Unblock::Timeout => (timed_out, engine.last()),
            Unblock::Error => {
                let error = CommandError::fixed("UNBLOCKED client unblocked via CLIENT UNBLOCK");
                (error.into(), Seq::default())
            }
        }
    }

    /// Reverts an outcome whose reply could not be sent.
    pub fn undo(&self) {
        self.blocked.undo();
    }
}
