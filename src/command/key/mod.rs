//! Commands on keys of any kind: `DEL`, `UNLINK`, `EXISTS`, `TOUCH`, `TYPE`, `DBSIZE`. Submodules:
//! time to live, renaming, copies, enumeration, encodings.

mod copy;
mod expire;
mod keys;
mod object;
mod random;
mod rename;

use crate::command::parts::Join;
use crate::command::steps::KEY_WORK;
use crate::command::{
    Args, Categories, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, name_or_none,
};
use crate::domain::{LockName, Owner};
use crate::engine::KeyKind;
use crate::lock::{Mode, Op, Outcome};
use crate::reply::Reply;

pub(in crate::command) const COMMANDS: &[Command] = &[
    DEL,
    UNLINK,
    EXISTS,
    TOUCH,
    TYPE,
    object::OBJECT,
    copy::COPY,
    expire::TTL,
    expire::PTTL,
    expire::EXPIRE,
    expire::PEXPIRE,
    expire::EXPIREAT,
    expire::PEXPIREAT,
    expire::EXPIRETIME,
    expire::PEXPIRETIME,
    expire::PERSIST,
    rename::RENAME,
    rename::RENAMENX,
    keys::SCAN,
    keys::KEYS,
    random::RANDOMKEY,
    DBSIZE,
];

pub(in crate::command) use copy::database;

const DEL: Command = Command::new("del", -2, del)
    .in_parts(|_| 1, 1, Join::Sum)
    .group(Group::Generic)
    .flags(Flags::WRITE)
    .keys(KeySpec::all(KeyAccess::Write))
    .syntax("key [key ...]")
    .summary(
        "Deletes one or more keys, regardless of their owners. Returns the number of keys \
         deleted.",
    )
    .example("DEL jobs:import jobs:export");

const UNLINK: Command = Command { name: "unlink", ..DEL }
    .flags(Flags::WRITE | Flags::FAST)
    .example("UNLINK jobs:import jobs:export");

fn del(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() == 2 {
        return delete(context, args.at(1), None);
    }
    let names = names(context, args)?;
    context.atomically(&names, |context| {
        let mut deleted = 0;
        for name in &names {
            let outcome = context.txn.submit(name, &Op::Delete { if_owner: None })?;
            if is_released(outcome)? {
                context.txn.free_ended(name)?;
                deleted += 1;
            }
        }
        Ok(Reply::count(deleted))
    })
}

/// Parses the keys of a command with several, before others are kept out.
fn names(context: &mut Context<'_>, args: Args<'_>) -> Result<Vec<LockName>, CommandError> {
    context.spend(KEY_WORK * args.len());
    let mut names = Vec::with_capacity(args.len() - 1);
    for key in args.from(1) {
        names.extend(name_or_none(context, key)?);
    }
    Ok(names)
}

/// Deletes one key, if it has this owner where one is given. Returns the number of keys deleted.
pub(in crate::command) fn delete(
    context: &mut Context<'_>,
    key: &[u8],
    if_owner: Option<&[u8]>,
) -> Result<Reply, CommandError> {
    let none = Reply::Integer(0);
    let Some(name) = name_or_none(context, key)? else { return Ok(none) };
    let if_owner = match if_owner.map(Owner::new) {
        None => None,
        Some(Ok(owner)) => Some(owner),
        // No owner can have this value.
        Some(Err(_)) => return Ok(none),
    };
    context.end_all(&name, &Op::Delete { if_owner }, |outcome| {
        is_released(outcome).map(|is_released| Reply::Integer(i64::from(is_released)))
    })
}

fn is_released(outcome: Outcome) -> Result<bool, CommandError> {
    match outcome {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        outcome => Ok(matches!(outcome, Outcome::Released(_))),
    }
}

const EXISTS: Command = Command::new("exists", -2, exists)
    .in_parts(|_| 1, 1, Join::Sum)
    .group(Group::Generic)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::all(KeyAccess::Read))
    .syntax("key [key ...]")
    .summary("Returns the number of keys that exist.")
    .example("EXISTS jobs:import jobs:export");

const TOUCH: Command = Command { name: "touch", ..EXISTS }
    .summary("Returns the number of keys that exist. It changes nothing: no key is evicted.")
    .example("TOUCH jobs:import jobs:export");

const TYPE: Command = Command::new("type", 2, kind_of)
    .group(Group::Generic)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Read))
    .syntax("key")
    .summary(
        "Returns the type of a key: string for an exclusive lock, lock for a shared or \
         limited one, hash, set, zset or list for a value, none if it does not exist.",
    )
    .example("TYPE jobs:import");

const DBSIZE: Command = Command::new("dbsize", 1, dbsize)
    .group(Group::Server)
    .own_categories(Categories::KEYSPACE)
    .flags(Flags::READONLY | Flags::FAST)
    .summary("Returns the number of keys in the current database.")
    .example("DBSIZE");

fn dbsize(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::unsigned(context.txn.key_count(context.database)?))
}

/// The name of a key's type; `lock` is one that Redis does not have.
pub(in crate::command) fn type_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Lock(Mode::Exclusive) => "string",
        KeyKind::Lock(Mode::Shared | Mode::Limit(_)) => "lock",
        KeyKind::Value(kind) => kind.name(),
    }
}

fn kind_of(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Simple("none")) };
    let kind = context.txn.kind_of(&name)?;
    context.count_lookup(kind.is_some());
    Ok(Reply::Simple(kind.map_or("none", type_name)))
}

fn exists(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let names = names(context, args)?;
    let count = |context: &mut Context<'_>| {
        let mut existing = 0;
        for name in &names {
            let exists = context.txn.exists(name)?;
            context.count_lookup(exists);
            existing += usize::from(exists);
        }
        Ok(Reply::count(existing))
    };
    if names.len() < 2 { count(context) } else { context.atomically(&names, count) }
}
