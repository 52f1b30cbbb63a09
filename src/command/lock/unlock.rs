//! `UNLOCK key owner [TOKEN t]`
//!
//! 1: released. 0: not held by that owner, or not under that token.

use crate::command::options::{self, OptionSpec, once, value};
use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec};
use crate::domain::FencingToken;
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

/// The token in the options; `None`: it is an integer that no token is.
#[inline(never)]
fn token(args: Args<'_>) -> Result<Option<FencingToken>, CommandError> {
    let [token] = args.options(3, &OPTIONS)?;
    token.value().map_or(Ok(None), options::token)
}

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.borrowed_name(args.at(1))?;
    let owner = context.borrowed_owner(args.at(2))?;
    let token = if args.len() == 3 { None } else { token(args)? };
    if args.len() > 3 && token.is_none() {
        // No acquisition has this token.
        return Ok(Reply::Integer(0));
    }
    let op = Op::Release { owner: owner.to_owned(), token };
    let outcome = context.txn.submit(&name.to_owned(), &op)?;
    Ok(Reply::Integer(i64::from(matches!(outcome, Outcome::Released(_)))))
}
