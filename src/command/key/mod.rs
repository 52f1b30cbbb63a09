//! Commands on keys of any kind: `DEL`, `UNLINK`, `EXISTS`, `TYPE`, `DBSIZE`, and in the modules below time to live
//! and enumeration.

mod expire;
mod keys;

use crate::command::steps::KEY_WORK;
use crate::command::{Args, Command, CommandError, Context, Flags, Group, Run, name_or_none};
use crate::domain::Owner;
use crate::lock::{Mode, Op, Outcome, Slot};
use crate::reply::Reply;
pub(in crate::command) use expire::{EXPIRE, PERSIST, PEXPIRE, PTTL, TTL};
pub(in crate::command) use keys::{KEYS, SCAN};

pub(in crate::command) const DEL: Command = Command {
    name: "del",
    syntax: "key [key ...]",
    summary: "Deletes one or more keys, regardless of their owners. Returns the number of keys deleted.",
    group: Group::Generic,
    arity: -2,
    flags: Flags::WRITE,
    keys: (1, -1, 1),
    run: Run::Handler(del),
};

pub(in crate::command) const UNLINK: Command = Command { name: "unlink", ..DEL };

pub(in crate::command) fn reply_deleted(is_deleted: bool) -> Reply {
    Reply::Integer(i64::from(is_deleted))
}

fn del(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() == 2 {
        return delete(context, args.at(1), None).map(reply_deleted);
    }
    context.spend(KEY_WORK * args.len());
    context.atomically(|context| {
        let mut deleted = 0;
        for key in args.from(1) {
            deleted += usize::from(delete(context, key, None)?);
        }
        Ok(Reply::count(deleted))
    })
}

pub(in crate::command) fn delete(
    context: &mut Context<'_>,
    key: &[u8],
    if_owner: Option<&[u8]>,
) -> Result<bool, CommandError> {
    let Some(name) = name_or_none(context, key)? else { return Ok(false) };
    let if_owner = match if_owner.map(Owner::new) {
        None => None,
        Some(Ok(owner)) => Some(owner),
        // No owner can have this value.
        Some(Err(_)) => return Ok(false),
    };
    match context.txn.submit(&name, &Op::Delete { if_owner })? {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        outcome => Ok(matches!(outcome, Outcome::Released(_))),
    }
}

pub(in crate::command) const EXISTS: Command = Command {
    name: "exists",
    syntax: "key [key ...]",
    summary: "Returns the number of keys that exist.",
    group: Group::Generic,
    arity: -2,
    flags: Flags::READONLY | Flags::FAST,
    keys: (1, -1, 1),
    run: Run::Handler(exists),
};

pub(in crate::command) const TYPE: Command = Command {
    name: "type",
    syntax: "key",
    summary: "Returns the type of a key: string for an exclusive lock, lock for a shared or limited one, none if it does not exist.",
    group: Group::Generic,
    arity: 2,
    flags: Flags::READONLY | Flags::FAST,
    keys: (1, 1, 1),
    run: Run::Handler(kind_of),
};

pub(in crate::command) const DBSIZE: Command = Command {
    name: "dbsize",
    syntax: "",
    summary: "Returns the number of keys in the current database.",
    group: Group::Server,
    arity: 1,
    flags: Flags::READONLY | Flags::FAST,
    keys: (0, 0, 0),
    run: Run::Handler(|context, _| Ok(Reply::unsigned(context.txn.keys_held(context.client.database())?))),
};

/// What Redis would call a key that is held in this mode.
pub(in crate::command) fn redis_type(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "string",
        Mode::Shared | Mode::Limit(_) => "lock",
    }
}

fn kind_of(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Simple("none")) };
    let kind = |slot: &Slot, _| slot.newest().map_or("none", |lease| redis_type(lease.mode));
    Ok(Reply::Simple(context.txn.read(&name, kind)?))
}

fn exists(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    // What can be done before others are kept out is done before.
    let mut names = Vec::with_capacity(args.len() - 1);
    for key in args.from(1) {
        names.extend(name_or_none(context, key)?);
    }
    context.spend(KEY_WORK * names.len());
    let count = |context: &mut Context<'_>| {
        let mut held = 0;
        for name in &names {
            held += usize::from(context.txn.is_held(name)?);
        }
        Ok(Reply::count(held))
    };
    if names.len() < 2 { count(context) } else { context.atomically(count) }
}
