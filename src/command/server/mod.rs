//! The server itself: `TIME`, `WAIT`. Submodules: `CONFIG`, `INFO`.

mod config;
mod info;

use crate::command::{Args, Categories, Command, CommandError, Context, Flags, Group, options};
use crate::reply::Reply;

pub(in crate::command) const COMMANDS: &[Command] = &[config::CONFIG, info::INFO, TIME, WAIT];

const TIME: Command = Command::new("time", 1, time)
    .group(Group::Server)
    .flags(Flags::FAST)
    .summary(
        "Returns the server's wall-clock time in seconds and microseconds. Leases do not \
         depend on it.",
    )
    .example("TIME");

fn time(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let millis = context.txn.wall_millis();
    let micros = (millis % 1000) * 1000;
    Ok(Reply::Array(vec![Reply::bulk((millis / 1000).to_string()), Reply::bulk(micros.to_string())]))
}

const WAIT: Command = Command::new("wait", 3, wait)
    .group(Group::Generic)
    .own_categories(Categories::CONNECTION)
    .flags(Flags::NOSCRIPT)
    .syntax("numreplicas timeout")
    .summary("Returns 0: there are no replicas, and every reply is durable before it is sent.")
    .example("WAIT 0 100");

fn wait(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    options::integer(args.at(1))?;
    if options::integer(args.at(2))
        .map_err(|_| CommandError::fixed("ERR timeout is not an integer or out of range"))?
        < 0
    {
        return Err(CommandError::fixed("ERR timeout is negative"));
    }
    // There are no replicas to wait for.
    Ok(Reply::Integer(0))
}
