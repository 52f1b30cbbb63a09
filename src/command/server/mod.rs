//! The server itself: `TIME`, `WAIT`, and in the modules below `CONFIG` and `INFO`.

mod config;
mod info;

use crate::command::{Args, Command, CommandError, Context, Flags, Group, Run, options};
use crate::reply::Reply;
pub(in crate::command) use config::CONFIG;
pub(in crate::command) use info::INFO;

pub(in crate::command) const TIME: Command = Command {
    name: "time",
    syntax: "",
    summary: "Returns the server's wall-clock time in seconds and microseconds. Leases do not depend on it.",
    group: Group::Server,
    arity: 1,
    flags: Flags::FAST,
    keys: (0, 0, 0),
    run: Run::Handler(|context, _| {
        let millis = context.txn.wall_millis();
        let micros = (millis % 1000) * 1000;
        Ok(Reply::Array(vec![Reply::bulk((millis / 1000).to_string()), Reply::bulk(micros.to_string())]))
    }),
};

pub(in crate::command) const WAIT: Command = Command {
    name: "wait",
    syntax: "numreplicas timeout",
    summary: "Returns 0: there are no replicas, and every reply is durable before it is sent.",
    group: Group::Generic,
    arity: 3,
    flags: Flags::NONE,
    keys: (0, 0, 0),
    run: Run::Handler(wait),
};

fn wait(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    options::integer(args.at(1))?;
    if options::integer(args.at(2))
        .map_err(|_| CommandError::fixed("ERR timeout is not an integer or out of range"))?
        < 0
    {
        return Err(CommandError::fixed("ERR timeout is negative"));
    }
    // Nothing to wait for, however many are asked for: there will never be one.
    Ok(Reply::Integer(0))
}
