//! `TTL`, `PTTL`, `EXPIRE key s [NX | XX | GT | LT]`, `PEXPIRE key ms [...]`, `PERSIST`
//!
//! They act on the lease of a key regardless of its owner, as in Redis.

use crate::command::{
    Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, name_or_none, options,
};
use crate::domain::LockName;
use crate::lock::{Lease, Op, Outcome};
use crate::reply::Reply;

pub(super) const TTL: Command = Command::new("ttl", 2, |c, w| left(c, w, 1000))
    .group(Group::Generic)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Read))
    .syntax("key")
    .summary(
        "Returns the remaining time to live of a key in seconds; -1 without expiry, -2 if it \
         does not exist.",
    )
    .example("TTL jobs:import");

pub(super) const PTTL: Command = Command::new("pttl", 2, |context, args| left(context, args, 1))
    .group(Group::Generic)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Read))
    .syntax("key")
    .summary(
        "Returns the remaining time to live of a key in milliseconds; -1 without expiry, -2 \
         if it does not exist.",
    )
    .example("PTTL jobs:import");

pub(super) const EXPIRE: Command =
    Command::new("expire", -3, |context, args| expire(context, args, 1000, "expire"))
        .group(Group::Generic)
        .flags(Flags::WRITE | Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key seconds [NX | XX | GT | LT]")
        .summary(
            "Sets the time to live of a key in seconds. Returns 1, or 0 if the key does not \
             exist or the condition is not met.",
        )
        .example("EXPIRE jobs:import 30");

pub(super) const PEXPIRE: Command =
    Command::new("pexpire", -3, |context, args| expire(context, args, 1, "pexpire"))
        .group(Group::Generic)
        .flags(Flags::WRITE | Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key milliseconds [NX | XX | GT | LT]")
        .summary(
            "Sets the time to live of a key in milliseconds. Returns 1, or 0 if the key does not \
             exist or the condition is not met.",
        )
        .example("PEXPIRE jobs:import 30000 GT");

pub(super) const PERSIST: Command = Command::new("persist", 2, persist)
    .group(Group::Generic)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax("key")
    .summary(
        "Removes the expiry of a key. Returns 1, or 0 if the key has no expiry or MAXHOLD \
         limits it.",
    )
    .example("PERSIST jobs:import");

/// How long a lease still lasts, in milliseconds; `None`: without an end.
struct Left {
    millis: Option<u64>,
    /// The maximum that MAXHOLD allows.
    max: Option<u64>,
}

/// The remaining lifetime of a key; `None` if it does not exist.
fn expiry_of(context: &mut Context<'_>, name: &LockName) -> Result<Option<Left>, CommandError> {
    let read = context.txn.read(name, |slot, now| {
        let left = |lease: &Lease| Left {
            millis: lease.deadline.millis_left(now),
            max: lease.hold_until().millis_left(now),
        };
        slot.newest().map(left)
    });
    Ok(read?)
}

fn left(context: &mut Context<'_>, args: Args<'_>, unit_ms: u64) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Integer(-2)) };
    Ok(match expiry_of(context, &name)?.map(|left| left.millis) {
        None => Reply::Integer(-2),
        Some(None) => Reply::Integer(-1),
        Some(Some(millis)) => Reply::unsigned((millis + unit_ms / 2) / unit_ms),
    })
}

fn expire(
    context: &mut Context<'_>,
    args: Args<'_>,
    unit_ms: i64,
    command: &str,
) -> Result<Reply, CommandError> {
    let name = name_or_none(context, args.at(1))?;
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for arg in args.from(3) {
        let flags = [("nx", &mut nx), ("xx", &mut xx), ("gt", &mut gt), ("lt", &mut lt)];
        match flags.into_iter().find(|(flag, _)| options::is(arg, flag)) {
            Some((_, is_set)) => *is_set = true,
            None => {
                let arg = arg.escape_ascii();
                return Err(CommandError::new(format!("ERR Unsupported option {arg}")));
            }
        }
    }
    if nx && (xx || gt || lt) {
        return Err(CommandError::fixed(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if gt && lt {
        return Err(CommandError::fixed("ERR GT and LT options at the same time are not compatible"));
    }
    let amount = options::integer(args.at(2))?;
    let millis = context.millis(amount, unit_ms).ok_or_else(|| CommandError::expire_time(command))?;
    let Some(name) = name else { return Ok(Reply::Integer(0)) };
    // A time that has passed releases the key.
    let op = match u64::try_from(millis) {
        Err(_) | Ok(0) => Op::Delete { if_owner: None },
        Ok(millis) => match context.ttl_of(millis) {
            Ok(ttl) => Op::SetTtl { ttl: Some(ttl) },
            // Of a key that is free, any end will do.
            Err(error) => return expiry_of(context, &name)?.map_or(Ok(Reply::Integer(0)), |_| Err(error)),
        },
    };
    if !(nx || xx || gt || lt) {
        return apply(context, &name, &op);
    }
    context.atomically(std::slice::from_ref(&name), |context| {
        let Some(left) = expiry_of(context, &name)? else { return Ok(Reply::Integer(0)) };
        // No end counts as infinitely far.
        let far = |millis: Option<u64>| millis.map_or(i128::MAX, i128::from);
        let (is, will_be) = (far(left.millis), i128::from(millis).min(far(left.max)));
        let holds = (!nx || left.millis.is_none())
            && (!xx || left.millis.is_some())
            && (!gt || will_be > is)
            && (!lt || will_be < is);
        if holds { apply(context, &name, &op) } else { Ok(Reply::Integer(0)) }
    })
}

fn apply(context: &mut Context<'_>, name: &LockName, op: &Op) -> Result<Reply, CommandError> {
    context.end_all(name, op, |outcome| match outcome {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        Outcome::NotHeld => Ok(Reply::Integer(0)),
        _ => Ok(Reply::Integer(1)),
    })
}

fn persist(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Integer(0)) };
    context.atomically(std::slice::from_ref(&name), |context| match expiry_of(context, &name)? {
        Some(Left { millis: Some(_), max: None }) => apply(context, &name, &Op::SetTtl { ttl: None }),
        _ => Ok(Reply::Integer(0)),
    })
}
