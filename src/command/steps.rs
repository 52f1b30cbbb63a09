//! Requests that are carried out in turns, so that other connections are served in between.
//!
//! Guarantees: work is counted in units, not measured with a clock, so a turn has the same end on every
//! machine. One counter per connection covers all its requests: a long pipeline takes turns, too. Inside
//! EXEC, where nobody else may come in between, the same units bound what a transaction may read.
//! Not here: sockets; `resp/connection.rs` yields between two turns.

use super::{Args, CommandError, Context, OwnedArgs};
use crate::reply::Reply;

/// Units of work in one turn of a connection. One unit takes about 100 ns, a turn less than 1 ms.
pub(super) const TURN_WORK: usize = 4096;
/// What a request costs before it does anything.
pub(super) const REQUEST_WORK: usize = 8;
/// What the look at one key of a command with several keys costs.
pub(super) const KEY_WORK: usize = 8;
/// Units that the commands of one EXEC may spend on reading.
const TRANSACTION_WORK: usize = 16 * TURN_WORK;
/// Bytes that are copied, compared or matched in about one unit.
const BYTES_PER_UNIT: usize = 64;

/// The rest of a request that takes more than one turn.
pub trait Steps: Send {
    /// Works until the turn is used up (`Context::has_turn_left`) or the reply is there. Gets forward in
    /// every call, even if nothing of the turn is left. What earlier turns looked at is kept in `self`: the
    /// reply waits for the `seq` of the last turn.
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError>;
}

/// How far a request is after a turn.
pub enum Progress {
    /// It needs another turn.
    More,
    /// It is done.
    Done(Reply),
}

/// The units that work on so many bytes takes.
pub(super) fn work_of_bytes(bytes: usize) -> usize {
    bytes.div_ceil(BYTES_PER_UNIT)
}

impl Context<'_> {
    /// Counts units of work.
    pub(super) fn spend(&mut self, units: usize) {
        self.client.work = self.client.work.saturating_add(units);
    }

    /// Whether the connection may work on before it lets others run.
    pub(super) fn has_turn_left(&self) -> bool {
        self.client.has_turn_left()
    }

    /// How many units of the turn are left.
    pub(super) fn turn_left(&self) -> usize {
        TURN_WORK.saturating_sub(self.client.work)
    }

    /// Carries `steps` out: the first turn now, the others after replies to earlier requests were sent. Inside
    /// EXEC there are no turns: all is done now, unless the transaction may not read that much.
    pub(super) fn in_turns(&mut self, mut steps: impl Steps + 'static) -> Result<Reply, CommandError> {
        loop {
            match steps.advance(self)? {
                Progress::Done(reply) => return Ok(reply),
                Progress::More if !self.access.is_alone() => {
                    self.steps = Some(Box::new(steps));
                    // As for a parked request: whether there is to be a reply at all.
                    return Ok(Reply::Null);
                }
                Progress::More => {}
            }
            self.check_transaction_budget()?;
        }
    }

    /// Starts the count of what a transaction reads.
    pub(super) fn begin_transaction(&mut self) {
        self.client.transaction_began_at = self.client.work;
    }

    /// Fails if the transaction that runs has read what one may read.
    pub(super) fn check_transaction_budget(&self) -> Result<(), CommandError> {
        match self.client.work.saturating_sub(self.client.transaction_began_at) > TRANSACTION_WORK {
            true => Err(CommandError::fixed(
                "ERR the transaction's budget for reading is used up, as others wait until it ends; it was not \
                 run",
            )),
            false => Ok(()),
        }
    }
}

/// Steps over the words of a request from number `next` on.
pub(super) struct RemainingArgs {
    args: OwnedArgs,
    next: usize,
}

impl RemainingArgs {
    /// Copies the words that are left.
    pub(super) fn new(args: Args<'_>, next: usize) -> RemainingArgs {
        RemainingArgs { args: args.to_owned(), next }
    }

    /// Runs `work` on one word after the other. `true`: there are none left; else the turn is used up.
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
