//! `MGET`, `MSET`, `MSETNX`
//!
//! Several keys are read or written at one instant.

use super::{
    Args, Command, CommandError, Context, Expiry, Flags, Group, KeyAccess, KeySpec, Reply, SetCondition, put,
    reply_value,
};
use crate::command::parts::Join;
use crate::command::steps::KEY_WORK;
use crate::domain::{LockName, Owner};

pub(super) const MGET: Command = Command::new("mget", -2, mget)
    .in_parts(|_| 1, 1, Join::Append)
    .group(Group::String)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::all(KeyAccess::Read))
    .syntax("key [key ...]")
    .summary("Returns the string values of one or more keys, Null for each that is no string.")
    .example("MGET jobs:import jobs:export");

pub(super) const MSET: Command = Command::new("mset", -3, mset)
    .in_parts(|_| 1, 2, Join::Last)
    .group(Group::String)
    .flags(Flags::WRITE | Flags::DENYOOM)
    .keys(KeySpec::every(2, KeyAccess::Write))
    .syntax("key value [key value ...]")
    .summary("Sets the string values of one or more keys.")
    .example("MSET jobs:import worker-1 jobs:export worker-2");

pub(super) const MSETNX: Command = Command::new("msetnx", -3, msetnx)
    .group(Group::String)
    .flags(Flags::WRITE | Flags::DENYOOM)
    .keys(KeySpec::every(2, KeyAccess::Write))
    .syntax("key value [key value ...]")
    .summary("Sets the string values of one or more keys if none of the keys exists. Returns 1, or 0.")
    .example("MSETNX jobs:import worker-1 jobs:export worker-2");

fn mget(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let read = |context: &mut Context<'_>| {
        let values = args.from(1).map(|key| match reply_value(context, key) {
            Err(error) if error == CommandError::WRONG_TYPE => Ok(Reply::Null),
            value => value,
        });
        values.collect::<Result<_, _>>().map(Reply::Array)
    };
    context.spend(KEY_WORK * args.len());
    if args.len() == 2 { read(context) } else { context.atomically_on_keys(args, read) }
}

/// The pairs of the request, checked before anything is written.
fn pairs(
    context: &Context<'_>,
    args: Args<'_>,
    command: &str,
) -> Result<Vec<(LockName, Owner)>, CommandError> {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::arity(command));
    }
    (1..args.len())
        .step_by(2)
        .map(|n| Ok((context.key(args.at(n))?, context.value(args.at(n + 1))?)))
        .collect()
}

fn put_all(context: &mut Context<'_>, pairs: Vec<(LockName, Owner)>) -> Result<(), CommandError> {
    pairs.into_iter().try_for_each(|(name, value)| {
        put(context, &name, value, SetCondition::Always, Expiry::Never).map(drop)
    })
}

fn mset(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let pairs = pairs(context, args, "mset")?;
    context.spend(KEY_WORK * args.len());
    context.atomically_on_keys(args, |context| put_all(context, pairs))?;
    Ok(Reply::OK)
}

fn msetnx(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let pairs = pairs(context, args, "msetnx")?;
    context.spend(KEY_WORK * args.len());
    let is_set = context.atomically_on_keys(args, |context| {
        for (name, _) in &pairs {
            if context.txn.exists(name)? {
                return Ok(false);
            }
        }
        put_all(context, pairs)?;
        Ok(true)
    })?;
    Ok(Reply::Integer(i64::from(is_set)))
}
