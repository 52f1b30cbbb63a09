//! `RENEW key owner [EX s | PX ms] [TOKEN t]`
//!
//! 1: the lease now ends TTL from now. 0: not held; nothing is created.

use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, options};
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const RENEW: Command = Command::new("renew", -3, run)
    .group(Group::Lock)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax("key owner [EX seconds | PX milliseconds] [TOKEN token]")
    .summary(
        "Extends a lease to TTL from now. Returns 1, or 0 if the owner does not hold the \
         lock.",
    )
    .example("RENEW jobs:import worker-1 PX 30000");

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    let (mut ttl, mut token) = (None, None);
    let mut options = args.options(3);
    while let Some(arg) = options.next_arg() {
        if options::is(arg, "ex") && ttl.is_none() {
            ttl = Some(context.ttl(options.value()?, 1000, "renew")?);
        } else if options::is(arg, "px") && ttl.is_none() {
            ttl = Some(context.ttl(options.value()?, 1, "renew")?);
        } else if options::is(arg, "token") && token.is_none() {
            token = Some(options::token(options.value()?)?);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let token = match token {
        Some(None) => return Ok(Reply::Integer(0)),
        token => token.flatten(),
    };
    let outcome = context.txn.submit(&name, &Op::Renew { owner, ttl, token })?;
    Ok(Reply::Integer(i64::from(matches!(outcome, Outcome::Renewed { .. }))))
}
