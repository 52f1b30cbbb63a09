//! `RENEW key owner [EX s | PX ms] [TOKEN t]`
//!
//! 1: the lease now ends TTL from now. 0: not held; nothing is created.

use crate::command::options::{self, OptionSpec, once, value};
use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec};
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const RENEW: Command = Command::new("renew", -3, run)
    .group(Group::Lock)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Write))
    .syntax("key owner [EX seconds | PX milliseconds] [TOKEN token]")
    .summary(
        "Extends a lease to TTL from now. Returns 1, or 0 if the owner does not hold the \
         lock.",
    )
    .example("RENEW jobs:import worker-1 PX 30000");

const OPTIONS: [OptionSpec; 3] = once([value("EX").group(1), value("PX").group(1), value("TOKEN")]);

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    let [ex, px, token] = args.options(3, &OPTIONS)?;
    let ttl = context.ttl_option(ex, px, "renew")?;
    let token = match token.value().map(options::token).transpose()? {
        Some(None) => return Ok(Reply::Integer(0)),
        token => token.flatten(),
    };
    let outcome = context.txn.submit(&name, &Op::Renew { owner, ttl, token })?;
    Ok(Reply::Integer(i64::from(matches!(outcome, Outcome::Renewed { .. }))))
}
