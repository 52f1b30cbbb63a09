//! `GET`, `GETDEL`, `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`, `STRLEN`

use std::slice;

use super::{
    Args, Command, CommandError, Context, Edited, Expiry, Flags, KeyAccess, Op, Owner, Reply, command, edit,
    expiry, name_or_none, read, reply_of, reply_value,
};
use crate::command::options::flag;
use crate::command::steps::KEY_WORK;
use crate::domain::Timestamp;

pub(super) const GET: Command = command("get", 2, get, KeyAccess::Read)
    .flags(Flags::READONLY | Flags::FAST)
    .syntax("key")
    .summary(
        "Returns the string value of a key, which is the owner of the lock, or Null. Fails for shared and limited \
         locks, which may have several.",
    )
    .example("GET jobs:import");

pub(super) const GETDEL: Command = command("getdel", 2, getdel, KeyAccess::ReadWrite)
    .flags(Flags::WRITE | Flags::FAST | Flags::LOOKS_UP)
    .syntax("key")
    .summary("Returns the string value of a key and deletes the key.")
    .example("GETDEL jobs:import");

pub(super) const GETEX: Command = command("getex", -2, getex, KeyAccess::ReadWrite)
    .flags(Flags::WRITE | Flags::FAST | Flags::LOOKS_UP)
    .syntax(
        "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    )
    .summary("Returns the string value of a key after setting or removing its expiry.")
    .example("GETEX jobs:import PX 30000");

pub(super) const STRLEN: Command = command("strlen", 2, strlen, KeyAccess::Read)
    .flags(Flags::READONLY | Flags::FAST)
    .syntax("key")
    .summary("Returns the length of a string value in bytes; 0 if the key does not exist.")
    .example("STRLEN jobs:import");

fn get(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    reply_value(context, args.at(1))
}

fn getdel(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Null) };
    context.check_transaction_budget()?;
    context.spend(2 * KEY_WORK);
    let value = edit(context, &name, Expiry::Never, |before| Ok((Edited::Delete, before.map(Reply::bulk))))?;
    context.count_lookup(value.is_some());
    Ok(value.unwrap_or(Reply::Null))
}

fn getex(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let [ex, px, exat, pxat] = expiry::OPTIONS;
    let options = args.options(2, &[ex, px, exat, pxat, flag("PERSIST").group(expiry::GROUP)])?;
    let [ex, px, exat, pxat, persist] = options;
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Null) };
    let none = if persist.is_given() { Expiry::Never } else { Expiry::Keep };
    // As in Redis, the time of a key that does not exist is not even parsed.
    let expiry = match Expiry::of_options(context, [ex, px, exat, pxat], "getex") {
        Ok(expiry) => expiry.unwrap_or(none),
        Err(error) => return read(context, &name)?.map_or(Ok(Reply::Null), |_| Err(error)),
    };
    let op = match expiry {
        Expiry::Keep => return reply_value(context, args.at(1)),
        Expiry::Past => Op::Delete { if_owner: None },
        Expiry::Never | Expiry::After(_) => Op::SetTtl { ttl: expiry.ttl() },
    };
    context.check_transaction_budget()?;
    context.atomically(slice::from_ref(&name), |context| {
        let value = read(context, &name)?;
        let deadline = || context.txn.read_key(&name, |content, _| content.deadline());
        // Without an expiry, there is nothing to remove.
        if value.is_some() && (expiry != Expiry::Never || deadline()? != Some(Timestamp::NEVER)) {
            context.txn.submit(&name, &op)?;
        }
        Ok(reply_of(context, value.as_ref()))
    })
}

fn strlen(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Integer(0)) };
    Ok(Reply::count(read(context, &name)?.as_ref().map_or(0, |value: &Owner| value.as_bytes().len())))
}
