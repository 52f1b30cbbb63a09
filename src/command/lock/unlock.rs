//! `UNLOCK key owner [TOKEN t]`
//!
//! 1: released. 0: not held by that owner, or not under that token.

use crate::command::options::{self, OptionSpec, once, value};
use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec};
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const UNLOCK: Command = Command::new("unlock", -3, run)
    .group(Group::Lock)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Write))
    .syntax("key owner [TOKEN token]")
    .summary("Releases a lock. Returns 1, or 0 if the owner does not hold it under the token.")
    .example("UNLOCK jobs:import worker-1");

const OPTIONS: [OptionSpec; 1] = once([value("TOKEN")]);

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    let [token] = args.options(3, &OPTIONS)?;
    let token = match token.value().map(options::token).transpose()? {
        // No acquisition has this token.
        Some(None) => return Ok(Reply::Integer(0)),
        token => token.flatten(),
    };
    let outcome = context.txn.submit(&name, &Op::Release { owner, token })?;
    Ok(Reply::Integer(i64::from(matches!(outcome, Outcome::Released(_)))))
}
