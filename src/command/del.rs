//! `DEL key ...`, `UNLINK key ...`, `DELEX key [IFEQ value]`, `DELIFEQ key value`
//!
//! Release keys, whoever asks, as Redis does. Integer: how many were held.

use super::steps::KEY_WORK;
use super::{Args, Command, CommandError, Context, Flags, Group, Run, args, name_or_none};
use crate::domain::Owner;
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const DEL: Command = Command {
    name: "del",
    syntax: "key [key ...]",
    summary: "Releases keys, whoever holds them. Answers how many were held.",
    group: Group::Generic,
    arity: -2,
    flags: Flags::WRITE,
    keys: (1, -1, 1),
    run: Run::Handler(del),
};

pub(super) const UNLINK: Command = Command { name: "unlink", ..DEL };

pub(super) const DELEX: Command = Command {
    name: "delex",
    syntax: "key [IFEQ comparison-value]",
    summary: "Releases a key if this value owns it. Answers 1 or 0.",
    group: Group::String,
    arity: -2,
    flags: Flags::WRITE | Flags::FAST,
    keys: (1, 1, 1),
    run: Run::Handler(delex),
};

pub(super) const DELIFEQ: Command = Command {
    name: "delifeq",
    syntax: "key comparison-value",
    summary: "Releases a key if this value owns it. Answers 1 or 0.",
    group: Group::String,
    arity: 3,
    flags: Flags::WRITE | Flags::FAST,
    keys: (1, 1, 1),
    run: Run::Handler(|context, words| delete(context, words.word(1), Some(words.word(2))).map(reply)),
};

fn reply(is_deleted: bool) -> Reply {
    Reply::Integer(i64::from(is_deleted))
}

fn del(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    if words.len() == 2 {
        return delete(context, words.word(1), None).map(reply);
    }
    context.spend(KEY_WORK * words.len());
    context.atomically(|context| {
        let mut deleted = 0;
        for key in words.from(1) {
            deleted += usize::from(delete(context, key, None)?);
        }
        Ok(Reply::count(deleted))
    })
}

fn delex(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    match words.len() {
        2 => delete(context, words.word(1), None).map(reply),
        4 if args::is(words.word(2), "ifeq") => {
            delete(context, words.word(1), Some(words.word(3))).map(reply)
        }
        _ => Err(CommandError::SYNTAX),
    }
}

fn delete(context: &mut Context<'_>, key: &[u8], if_owner: Option<&[u8]>) -> Result<bool, CommandError> {
    let Some(name) = name_or_none(context, key)? else { return Ok(false) };
    let if_owner = match if_owner.map(Owner::new) {
        None => None,
        Some(Ok(owner)) => Some(owner),
        // Nobody can be called this.
        Some(Err(_)) => return Ok(false),
    };
    match context.submit_whole(&name, &Op::Delete { if_owner })? {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        outcome => Ok(matches!(outcome, Outcome::Released(_))),
    }
}
