//! `GET key`: the owner, if one holds the key alone.

use super::{Args, Command, CommandError, Context, Flags, Group, Run, name_or_none};
use crate::domain::LockName;
use crate::lock::Mode;
use crate::reply::Reply;

pub(super) const GET: Command = Command {
    name: "get",
    syntax: "key",
    summary: "Answers the owner of a key, or Null. A shared or limited lock has no single one.",
    group: Group::String,
    arity: 2,
    flags: Flags::READONLY | Flags::FAST,
    keys: (1, 1, 1),
    run: Run::Handler(run),
};

fn run(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    match name_or_none(context, words.word(1))? {
        Some(name) => value(context, &name),
        None => Ok(Reply::Null),
    }
}

/// The value of a key as strings have one.
pub(super) fn value(context: &mut Context<'_>, name: &LockName) -> Result<Reply, CommandError> {
    let read = context.access.read(name, |slot, _| match slot.newest() {
        None => Ok(Reply::Null),
        Some(lease) if lease.mode == Mode::Exclusive => Ok(Reply::bulk(lease.owner.as_bytes())),
        Some(_) => Err(CommandError::WRONG_TYPE),
    });
    context.look(read)?
}
