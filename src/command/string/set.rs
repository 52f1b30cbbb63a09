//! ```text
//! SET key value [NX | XX | IFEQ v | IFNE v | IFDEQ d | IFDNE d] [GET]
//!     [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
//! ```
//!
//! and `SETNX`, `SETEX`, `PSETEX`, `GETSET`.
//!
//! SET without a condition replaces a key of any kind. NX does not replace a lock-delay that is
//! running.

use std::slice;

use super::compare::Condition;
use super::{
    Args, Command, CommandError, Context, Edited, Expiry, Flags, KeyAccess, Op, Owner, Reply, SetCondition,
    command, compare, edit, expiry, inspect, put, read, reply_of,
};
use crate::command::options::{OptionSpec, flag};

pub(super) const SET: Command = command("set", -3, set, KeyAccess::Write)
    .flags(Flags::WRITE | Flags::DENYOOM | Flags::LOOKS_UP)
    .syntax(
        "key value [NX | XX | IFEQ comparison-value | IFNE comparison-value | IFDEQ comparison-digest | \
         IFDNE comparison-digest] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
         PXAT unix-time-milliseconds | KEEPTTL]",
    )
    .summary("Sets the string value of a key, replacing what it held before, as Redis' lock idiom does.")
    .example("SET jobs:import worker-1 NX PX 30000");

pub(super) const SETNX: Command = command("setnx", 3, setnx, KeyAccess::Write)
    .flags(Flags::WRITE | Flags::DENYOOM | Flags::FAST)
    .syntax("key value")
    .summary("Sets the string value of a key, without expiry, if the key does not exist.")
    .example("SETNX jobs:import worker-1");

pub(super) const SETEX: Command = command("setex", 4, |c, a| set_for(c, a, 1000, "setex"), KeyAccess::Write)
    .flags(Flags::WRITE | Flags::DENYOOM)
    .syntax("key seconds value")
    .summary("Sets the string value and the time to live of a key in seconds.")
    .example("SETEX jobs:import 30 worker-1");

pub(super) const PSETEX: Command = command("psetex", 4, |c, a| set_for(c, a, 1, "psetex"), KeyAccess::Write)
    .flags(Flags::WRITE | Flags::DENYOOM)
    .syntax("key milliseconds value")
    .summary("Sets the string value and the time to live of a key in milliseconds.")
    .example("PSETEX jobs:import 30000 worker-1");

pub(super) const GETSET: Command = command("getset", 3, getset, KeyAccess::ReadWrite)
    .flags(Flags::WRITE | Flags::DENYOOM | Flags::FAST | Flags::LOOKS_UP)
    .syntax("key value")
    .summary("Sets the string value of a key and returns the previous one, or Null.")
    .example("GETSET jobs:import worker-2");

struct SetOptions<'a> {
    condition: Condition<'a>,
    get: bool,
    expiry: Expiry,
}

const CONDITION: u8 = 2;

const OPTIONS: [OptionSpec; 12] = {
    let [ex, px, exat, pxat] = expiry::OPTIONS;
    let [if_equal, if_not_equal, if_digest, if_not_digest] = compare::OPTIONS;
    [
        flag("GET"),
        flag("NX").group(CONDITION),
        flag("XX").group(CONDITION),
        if_equal.group(CONDITION).once(),
        if_not_equal.group(CONDITION).once(),
        if_digest.group(CONDITION).once(),
        if_not_digest.group(CONDITION).once(),
        flag("KEEPTTL").group(expiry::GROUP),
        ex,
        px,
        exat,
        pxat,
    ]
};

fn parse<'a>(context: &Context<'_>, args: Args<'a>) -> Result<SetOptions<'a>, CommandError> {
    let options = args.options(3, &OPTIONS)?;
    let [get, nx, xx, if_equal, if_not_equal, if_digest, if_not_digest, keep_ttl, ex, px, exat, pxat] =
        options;
    let comparison = Condition::of_options([if_equal, if_not_equal, if_digest, if_not_digest])?;
    let condition = match comparison {
        Some(condition) => condition,
        None if nx.is_given() => Condition::IfAbsent,
        None if xx.is_given() => Condition::IfPresent,
        None => Condition::Always,
    };
    let none = if keep_ttl.is_given() { Expiry::Keep } else { Expiry::Never };
    let expiry = Expiry::of_options(context, [ex, px, exat, pxat], "set")?.unwrap_or(none);
    Ok(SetOptions { condition, get: get.is_given(), expiry })
}

fn set(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let SetOptions { condition, get, expiry } = parse(context, args)?;
    let name = context.key(args.at(1))?;
    let value = context.value(args.at(2))?;
    if !get
        && expiry != Expiry::Past
        && let Some(condition) = condition.of_lock()
    {
        let is_set = put(context, &name, value, condition, expiry)?;
        return Ok(if is_set { Reply::OK } else { Reply::Null });
    }
    if condition == Condition::IfAbsent || expiry == Expiry::Past {
        return set_exclusively(context, args, value, condition, get, expiry);
    }
    let (is_set, before) = edit(context, &name, expiry, |before| {
        let is_set = condition.holds(before);
        let edited = if is_set { Edited::Set(value.clone()) } else { Edited::Keep };
        Ok((edited, (is_set, before.map(Reply::bulk).filter(|_| get))))
    })?;
    if !get {
        return Ok(reply_set(is_set));
    }
    context.count_lookup(before.is_some());
    Ok(before.unwrap_or(Reply::Null))
}

/// SET where compare-and-set is not sufficient: NX must not end a lock-delay, and an expiry in the
/// past is a change even if the key does not exist.
fn set_exclusively(
    context: &mut Context<'_>,
    args: Args<'_>,
    value: Owner,
    condition: Condition<'_>,
    get: bool,
    expiry: Expiry,
) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    context.atomically(slice::from_ref(&name), |context| {
        // Without GET or a comparison, SET replaces keys that are not strings.
        let before = match condition.of_lock() {
            _ if get => read(context, &name)?,
            Some(_) => None,
            None => inspect(context, &name)?,
        };
        let put_if = match condition.of_lock() {
            Some(condition) => condition,
            None if condition.holds(before.as_ref().map(Owner::as_bytes)) => SetCondition::Always,
            None => return Ok(if get { reply_of(context, before.as_ref()) } else { Reply::Null }),
        };
        let is_set = put(context, &name, value, put_if, expiry)?;
        if is_set && expiry == Expiry::Past {
            context.txn.submit(&name, &Op::Delete { if_owner: None })?;
        }
        Ok(if get { reply_of(context, before.as_ref()) } else { reply_set(is_set) })
    })
}

fn reply_set(is_set: bool) -> Reply {
    if is_set { Reply::OK } else { Reply::Null }
}

fn setnx(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    let value = context.value(args.at(2))?;
    Ok(Reply::Integer(i64::from(put(context, &name, value, SetCondition::IfFree, Expiry::Never)?)))
}

fn set_for(
    context: &mut Context<'_>,
    args: Args<'_>,
    unit_ms: i64,
    command: &str,
) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    let expiry = Expiry::after(context, args.at(2), unit_ms, command)?;
    let value = context.value(args.at(3))?;
    put(context, &name, value, SetCondition::Always, expiry)?;
    Ok(Reply::OK)
}

fn getset(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    let value = context.value(args.at(2))?;
    let before = edit(context, &name, Expiry::Never, |before| {
        Ok((Edited::Set(value.clone()), before.map(Reply::bulk)))
    })?;
    context.count_lookup(before.is_some());
    Ok(before.unwrap_or(Reply::Null))
}
