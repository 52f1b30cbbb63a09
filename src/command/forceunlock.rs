//! `FORCEUNLOCK key`
//!
//! Integer: holders removed. The next waiter is granted with a new token. Logged.

use super::{Args, Command, CommandError, Context, Flags, Group, Run};
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const FORCEUNLOCK: Command = Command {
    name: "forceunlock",
    syntax: "key",
    summary: "Takes a lock away from whoever holds it. Answers how many held it. For operators; logged.",
    group: Group::Lock,
    arity: 2,
    flags: Flags::WRITE | Flags::ADMIN,
    keys: (1, 1, 1),
    run: Run::Handler(run),
};

fn run(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(words.word(1))?;
    match context.look(context.access.submit(&name, &Op::Force))? {
        Outcome::Released(holders) if holders > 0 => {
            tracing::warn!(lock = ?name, holders, by = %context.client.info().addr, "lock forced");
            Ok(Reply::Integer(i64::from(holders)))
        }
        _ => Ok(Reply::Integer(0)),
    }
}
