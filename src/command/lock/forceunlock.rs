//! `FORCEUNLOCK key`
//!
//! Integer: holders removed. The next waiter is granted with a new token. Logged.

use crate::command::steps::{Progress, Steps};
use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec};
use crate::domain::LockName;
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const FORCEUNLOCK: Command = Command::new("forceunlock", 2, run)
    .group(Group::Lock)
    .flags(Flags::WRITE | Flags::ADMIN)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax("key")
    .summary(
        "Revokes all leases of a lock. Returns the number of holders removed. For operators; \
         logged.",
    )
    .example("FORCEUNLOCK jobs:import");

/// Units that the end of one lease takes.
const WORK_PER_HOLDER: usize = 16;

/// The holders of a lock that is forced, and how many of them were removed so far.
struct Forced {
    name: LockName,
    holders: u32,
}

impl Steps for Forced {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        match context.observe(context.access.submit(&self.name, &Op::Force))? {
            Outcome::ReleasedSome(holders) => {
                self.holders += holders;
                context.spend(holders as usize * WORK_PER_HOLDER);
                return Ok(Progress::More);
            }
            Outcome::Released(holders) => self.holders += holders,
            _ => {}
        }
        if self.holders > 0 {
            let (name, holders, by) = (&self.name, self.holders, &context.client.info().addr);
            tracing::warn!(lock = ?name, holders, %by, "lock forced");
        }
        Ok(Progress::Done(Reply::Integer(i64::from(self.holders))))
    }
}

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut steps = Forced { name: context.name(args.at(1))?, holders: 0 };
    if !context.access.is_alone() {
        return context.in_turns(steps);
    }
    loop {
        if let Progress::Done(reply) = steps.advance(context)? {
            return Ok(reply);
        }
    }
}
