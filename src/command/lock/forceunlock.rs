//! `FORCEUNLOCK key`
//!
//! Integer: holders removed. The next waiter is granted with a new token. Logged.

use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec};
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const FORCEUNLOCK: Command = Command::new("forceunlock", 2, run)
    .group(Group::Lock)
    .flags(Flags::WRITE | Flags::ADMIN)
    .keys(KeySpec::first(KeyAccess::Write))
    .syntax("key")
    .summary(
        "Revokes all leases of a lock. Returns the number of holders removed. For operators; \
         logged.",
    )
    .example("FORCEUNLOCK jobs:import");

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    let by = context.client.info().addr.clone();
    context.end_all(&name, &Op::Force, |outcome| match outcome {
        Outcome::Released(holders) if holders > 0 => {
            tracing::warn!(lock = ?name, holders, %by, "lock forced");
            Ok(Reply::Integer(i64::from(holders)))
        }
        _ => Ok(Reply::Integer(0)),
    })
}
