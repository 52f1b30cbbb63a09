//! `EXISTS key ...`, `TYPE key`, `KEYS pattern`, `DBSIZE`

use super::glob::Glob;
use super::{Args, Command, CommandError, Context, Flags, Group, Run, name_or_none};
use crate::lock::{Mode, Slot};
use crate::reply::Reply;

pub(super) const EXISTS: Command = Command {
    name: "exists",
    syntax: "key [key ...]",
    summary: "Answers how many of the keys are held.",
    group: Group::Generic,
    arity: -2,
    flags: Flags::READONLY | Flags::FAST,
    keys: (1, -1, 1),
    run: Run::Handler(exists),
};

pub(super) const TYPE: Command = Command {
    name: "type",
    syntax: "key",
    summary: "Answers string for a key with one owner, lock for a shared or limited one, none for a free one.",
    group: Group::Generic,
    arity: 2,
    flags: Flags::READONLY | Flags::FAST,
    keys: (1, 1, 1),
    run: Run::Handler(kind_of),
};

pub(super) const KEYS: Command = Command {
    name: "keys",
    syntax: "pattern",
    summary: "Answers all keys of this database that match. Use LOCKS or SCAN where there are many.",
    group: Group::Generic,
    arity: 2,
    flags: Flags::READONLY,
    keys: (0, 0, 0),
    run: Run::Handler(keys),
};

pub(super) const DBSIZE: Command = Command {
    name: "dbsize",
    syntax: "",
    summary: "Answers how many keys of this database are held.",
    group: Group::Server,
    arity: 1,
    flags: Flags::READONLY | Flags::FAST,
    keys: (0, 0, 0),
    run: Run::Handler(|context, _| {
        let held = context.access.keys_held(context.client.database());
        context.look(held).map(Reply::unsigned)
    }),
};

/// What Redis would call it.
pub(super) fn kind(slot: &Slot) -> &'static str {
    match slot.newest() {
        None => "none",
        Some(lease) if lease.mode == Mode::Exclusive => "string",
        Some(_) => "lock",
    }
}

fn kind_of(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, words.word(1))? else { return Ok(Reply::Simple("none")) };
    context.look(context.access.read(&name, |slot, _| kind(slot))).map(Reply::Simple)
}

fn exists(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let count = |context: &mut Context<'_>| {
        let mut held = 0;
        for key in words.from(1) {
            if let Some(name) = name_or_none(context, key)? {
                let is_held = context.look(context.access.read(&name, |slot, _| slot.newest().is_some()))?;
                held += usize::from(is_held);
            }
        }
        Ok(Reply::count(held))
    };
    if words.len() == 2 { count(context) } else { context.atomically(count) }
}

fn keys(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let pattern = Glob::new(words.word(1))?;
    let scan = context.access.scan(context.client.database(), 0, usize::MAX);
    let (names, _, seq) = scan?;
    context.seq = context.seq.max(seq);
    let fitting = names.iter().filter(|name| pattern.matches(name.key()));
    Ok(Reply::Array(fitting.map(|name| Reply::bulk(name.key())).collect()))
}
