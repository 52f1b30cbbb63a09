//! `LOCKS cursor [MATCH glob] [COUNT n]`, and SCAN, which is the same with Redis' TYPE.
//!
//! The next cursor and keys that are held. Every key held through the whole scan is returned.

use super::glob::Glob;
use super::{Args, Command, CommandError, Context, Flags, Group, Run, args, keys};
use crate::lock::LockName;
use crate::reply::Reply;

pub(super) const LOCKS: Command = Command {
    name: "locks",
    syntax: "cursor [MATCH pattern] [COUNT count]",
    summary: "Goes through the locks that are held, as SCAN does.",
    group: Group::Lock,
    arity: -2,
    flags: Flags::READONLY,
    keys: (0, 0, 0),
    run: Run::Handler(|context, words| run(context, words, false)),
};

pub(super) const SCAN: Command = Command {
    name: "scan",
    syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    summary: "Goes through the keys of this database.",
    group: Group::Generic,
    arity: -2,
    flags: Flags::READONLY,
    keys: (0, 0, 0),
    run: Run::Handler(|context, words| run(context, words, true)),
};

/// Keys looked at for one call, whatever COUNT says.
const COUNT_MAX: i64 = 1_000;
const COUNT_DEFAULT: usize = 10;

fn run(context: &mut Context<'_>, words: Args<'_>, has_type: bool) -> Result<Reply, CommandError> {
    let cursor = std::str::from_utf8(words.word(1)).ok().and_then(|text| text.parse::<i128>().ok());
    let cursor = cursor.ok_or(CommandError::fixed("ERR invalid cursor"))?;
    // No scan answers a larger cursor, or a negative one: nothing is behind them.
    let cursor = u64::try_from(cursor).unwrap_or(u64::MAX).min((1 << 48) - 1);
    let (mut pattern, mut count, mut kind) = (None, COUNT_DEFAULT, None);
    let mut options = words.options(2);
    while let Some(word) = options.next_word() {
        if args::is(word, "match") {
            pattern = Some(Glob::new(options.value()?)?);
        } else if args::is(word, "count") {
            let wanted = options.integer()?;
            if wanted < 1 {
                return Err(CommandError::SYNTAX);
            }
            count = wanted.min(COUNT_MAX) as usize;
        } else if args::is(word, "type") && has_type {
            kind = Some(options.value()?);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let (names, next) = {
        let access = context.access;
        let (names, next, seq) = access.scan(context.client.database(), cursor, count)?;
        context.seq = context.seq.max(seq);
        (names, next)
    };
    let mut found = Vec::new();
    for name in names {
        let fits = pattern.as_ref().is_none_or(|pattern| pattern.matches(name.key()));
        if fits && (kind.is_none() || is_of_kind(context, &name, kind)?) {
            found.push(Reply::bulk(name.key()));
        }
    }
    Ok(Reply::Array(vec![Reply::bulk(next.to_string()), Reply::Array(found)]))
}

fn is_of_kind(context: &mut Context<'_>, name: &LockName, kind: Option<&[u8]>) -> Result<bool, CommandError> {
    let found = context.look(context.access.read(name, |slot, _| keys::kind(slot)))?;
    Ok(kind.is_some_and(|kind| args::is(kind, found)))
}
