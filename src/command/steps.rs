//! Executes long requests in turns, so that other connections are served in between.
//!
//! Guarantees: work is counted in units, not measured with a clock, so a turn has the same end on
//! every machine. One counter per connection covers all its requests: a long pipeline takes turns,
//! too. Inside EXEC, which has exclusive access, the same units bound what a transaction may read.
//! Not here: sockets; `resp/connection.rs` yields between two turns.

use std::time::Duration;

use super::server::cut_for_slow_log;
use super::{Args, CommandError, Context, OwnedArgs};
use crate::engine::{AnyTxn, Cause, Seen, Txn};
use crate::reply::Reply;

/// Units of work in one turn of a connection. One unit takes about 100 ns, a turn less than 1 ms.
pub(super) const TURN_WORK: usize = 4096;
/// Base cost of a request.
pub(super) const REQUEST_WORK: usize = 8;
/// Cost of one key of a command with several keys.
pub(super) const KEY_WORK: usize = 8;
/// Base cost of a script.
pub(super) const SCRIPT_WORK: usize = 64;
/// Cost of one lease or waiter that a request changes, beyond the first few.
const CHANGE_WORK: usize = 16;
/// Changes that are part of the base cost of a request.
const CHANGES_FREE: usize = 4;
/// Units that the commands of one EXEC may spend on reading.
const TRANSACTION_WORK: usize = 16 * TURN_WORK;
/// Bytes that are copied, compared or matched in about one unit.
const BYTES_PER_UNIT: usize = 64;

/// The remainder of a request that takes more than one turn.
pub trait Steps: Send {
    /// Works until the turn is used up (`Context::has_turn_left`) or the reply is complete. Makes
    /// progress in every call, even if the turn is already used up.
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError>;
}

/// A request that takes more turns. Its reply waits for what all of them have seen.
pub struct LongRequest {
    pub(super) steps: Box<dyn Steps>,
    pub(super) seen: Seen,
    pub(super) cause: Cause,
    /// The arguments, as the slow log has them.
    pub(super) args: Vec<Vec<u8>>,
    /// How long the turns so far took.
    pub(super) took: Duration,
}

impl LongRequest {
    /// A request after its first turn.
    #[cold]
    pub(super) fn begun(steps: Box<dyn Steps>, txn: &Txn<'_>, args: Args<'_>, took: Duration) -> LongRequest {
        LongRequest { steps, seen: txn.seen(), cause: txn.cause(), args: cut_for_slow_log(args), took }
    }
}

/// The state of a request after a turn.
pub enum Progress {
    /// Another turn is needed.
    More,
    /// The request is complete.
    Done(Reply),
}

/// Units of work for `bytes` bytes.
pub(super) fn work_of_bytes(bytes: usize) -> usize {
    bytes.div_ceil(BYTES_PER_UNIT)
}

/// Units of work for the leases and waiters that a request has changed: its own, and those that had ended.
pub(super) fn work_of_changes(changes: usize) -> usize {
    changes.saturating_sub(CHANGES_FREE) * CHANGE_WORK
}

impl Context<'_> {
    /// Adds units of work to the current turn.
    pub(super) fn spend(&mut self, units: usize) {
        self.client.work = self.client.work.saturating_add(units);
    }

    /// Whether the current turn has work left.
    pub(super) fn has_turn_left(&self) -> bool {
        self.client.has_turn_left()
    }

    /// Units left in the current turn.
    pub(super) fn turn_left(&self) -> usize {
        TURN_WORK.saturating_sub(self.client.work)
    }

    /// Executes `steps`: the first turn now, the others after the replies to earlier requests have
    /// been sent. Inside EXEC all turns run now, within the transaction's read budget.
    pub(super) fn in_turns(&mut self, mut steps: impl Steps + 'static) -> Result<Reply, CommandError> {
        loop {
            match steps.advance(self) {
                Ok(Progress::Done(reply)) => return Ok(reply),
                Ok(Progress::More) => {}
                // Something must be freed in turns first.
                Err(error) if error.is_unsettled() && matches!(self.txn, AnyTxn::Shared(_)) => {}
                Err(error) => return Err(error),
            }
            if let AnyTxn::Shared(_) = self.txn {
                self.steps = Some(Box::new(steps));
                // A placeholder, as for a parked request.
                return Ok(Reply::Null);
            }
            self.check_transaction_budget()?;
        }
    }

    /// Starts a transaction's read budget.
    pub(super) fn begin_transaction(&mut self) {
        self.client.transaction_began_at = self.client.work;
    }

    /// Fails if the running transaction has exhausted its read budget. For commands that may read
    /// much more than their arguments, even if they write.
    pub(super) fn check_transaction_budget(&self) -> Result<(), CommandError> {
        match self.client.work.saturating_sub(self.client.transaction_began_at) > TRANSACTION_WORK {
            true => Err(CommandError::fixed(
                "ERR read budget of the transaction exhausted; the command was not executed",
            )),
            false => Ok(()),
        }
    }
}

/// The arguments of a request from number `next` on.
pub(super) struct RemainingArgs {
    args: OwnedArgs,
    next: usize,
}

impl RemainingArgs {
    /// Copies the arguments from number `next` on.
    pub(super) fn new(args: Args<'_>, next: usize) -> RemainingArgs {
        RemainingArgs { args: args.to_owned(), next }
    }

    /// Runs `work` on each argument in order. Returns `true` after the last one, `false` if the
    /// turn is used up.
    pub(super) fn each(
        &mut self,
        context: &mut Context<'_>,
        mut work: impl FnMut(&mut Context<'_>, &[u8]) -> Result<(), CommandError>,
    ) -> Result<bool, CommandError> {
        let args = self.args.as_args();
        while self.next < args.len() {
            work(context, args.at(self.next))?;
            self.next += 1;
            if !context.has_turn_left() {
                break;
            }
        }
        Ok(self.next >= args.len())
    }
}
