//! `UNLOCK key owner [TOKEN t]`
//!
//! 1: released. 0: not held by that owner, or not under that token.

use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, options};
use crate::domain::FencingToken;
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const UNLOCK: Command = Command::new("unlock", -3, run)
    .group(Group::Lock)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax("key owner [TOKEN token]")
    .summary("Releases a lock. Returns 1, or 0 if the owner does not hold it under the token.")
    .example("UNLOCK jobs:import worker-1");

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    let token = match option_token(args, 3)? {
        Wanted::Invalid => return Ok(Reply::Integer(0)),
        Wanted::Any => None,
        Wanted::This(token) => Some(token),
    };
    let outcome = context.txn.submit(&name, &Op::Release { owner, token })?;
    Ok(Reply::Integer(i64::from(matches!(outcome, Outcome::Released(_)))))
}

/// Which acquisition is meant.
pub(in crate::command) enum Wanted {
    /// Whichever the owner has.
    Any,
    /// The one with this token.
    This(FencingToken),
    /// None: the number given is no token.
    Invalid,
}

/// Reads `[TOKEN t]` as the only option, at word `n`.
pub(in crate::command) fn option_token(args: Args<'_>, n: usize) -> Result<Wanted, CommandError> {
    let mut wanted = Wanted::Any;
    let mut options = args.options(n);
    while let Some(arg) = options.next_arg() {
        if !options::is(arg, "token") || !matches!(wanted, Wanted::Any) {
            return Err(CommandError::SYNTAX);
        }
        wanted = options::token(options.value()?)?.map_or(Wanted::Invalid, Wanted::This);
    }
    Ok(wanted)
}
