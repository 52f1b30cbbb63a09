//! `FENCE key [token]`
//!
//! Returns the token of the newest holder, or Null. With a token: 1 if it holds the key, else 0.

use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, options};
use crate::reply::Reply;

pub(super) const FENCE: Command = Command::new("fence", -2, run)
    .group(Group::Lock)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Read))
    .syntax("key [token]")
    .summary(
        "Returns the fencing token of the newest holder, or whether the given token holds \
         the lock.",
    )
    .example("FENCE jobs:import");

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    match args.len() {
        2 => {
            let token = context.txn.read_key(&name, |content, _| content.token())?;
            Ok(token.map_or(Reply::Null, |token| Reply::Integer(token.get())))
        }
        3 => {
            let token = options::token(args.at(2))?;
            let holds = context
                .txn
                .read_key(&name, |content, _| token.is_some_and(|token| content.has_token(token)))?;
            Ok(Reply::Integer(i64::from(holds)))
        }
        _ => Err(CommandError::arity("fence")),
    }
}
