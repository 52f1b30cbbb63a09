//! `FORCEUNLOCK key`
//!
//! Integer: holders removed. The next waiter is granted with a new token. Logged.

use crate::command::{Args, Command, CommandError, Context, Flags, Group, Run};
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(in crate::command) const FORCEUNLOCK: Command = Command {
    name: "forceunlock",
    syntax: "key",
    summary: "Revokes all leases of a lock. Returns the number of holders removed. For operators; logged.",
    group: Group::Lock,
    arity: 2,
    flags: Flags::WRITE | Flags::ADMIN,
    keys: (1, 1, 1),
    run: Run::Handler(run),
};

/// Units that the end of one lease takes.
const WORK_PER_HOLDER: usize = 16;

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(args.at(1))?;
    match context.txn.submit(&name, &Op::Force)? {
        Outcome::Released(holders) if holders > 0 => {
            context.spend(holders as usize * WORK_PER_HOLDER);
            let by = &context.client.info().addr;
            tracing::warn!(lock = ?name, holders, %by, "lock forced");
            Ok(Reply::Integer(i64::from(holders)))
        }
        _ => Ok(Reply::Integer(0)),
    }
}
