//! `TTL`, `PTTL`, `EXPIRETIME`, `PEXPIRETIME`, `EXPIRE key s [NX | XX | GT | LT]`, `PEXPIRE`,
//! `EXPIREAT`, `PEXPIREAT`, `PERSIST`
//!
//! They act on a key regardless of its owner, as in Redis. A time of day becomes a duration at
//! once, so later changes of the wall clock have no effect on it.

use std::slice;

use crate::command::error::printable;
use crate::command::options::{self, flag};
use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, name_or_none};
use crate::domain::{LockName, Timestamp, Ttl};
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

pub(super) const EXPIRETIME: Command = Command::new("expiretime", 2, |c, w| end(c, w, 1000))
    .group(Group::Generic)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Read))
    .syntax("key")
    .summary(
        "Returns the time at which a key expires, in seconds since 1970; -1 without expiry, -2 \
         if it does not exist.",
    )
    .example("EXPIRETIME jobs:import");

pub(super) const PEXPIRETIME: Command = Command::new("pexpiretime", 2, |c, w| end(c, w, 1))
    .group(Group::Generic)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Read))
    .syntax("key")
    .summary(
        "Returns the time at which a key expires, in milliseconds since 1970; -1 without expiry, \
         -2 if it does not exist.",
    )
    .example("PEXPIRETIME jobs:import");

pub(super) const EXPIRE: Command =
    Command::new("expire", -3, |context, args| expire(context, args, AFTER_SECONDS))
        .group(Group::Generic)
        .flags(Flags::WRITE | Flags::FAST)
        .keys(KeySpec::first(KeyAccess::Write))
        .syntax("key seconds [NX | XX | GT | LT]")
        .summary(
            "Sets the time to live of a key in seconds. Returns 1, or 0 if the key does not \
             exist or the condition is not met.",
        )
        .example("EXPIRE jobs:import 30");

pub(super) const PEXPIRE: Command =
    Command::new("pexpire", -3, |context, args| expire(context, args, AFTER_MILLIS))
        .group(Group::Generic)
        .flags(Flags::WRITE | Flags::FAST)
        .keys(KeySpec::first(KeyAccess::Write))
        .syntax("key milliseconds [NX | XX | GT | LT]")
        .summary(
            "Sets the time to live of a key in milliseconds. Returns 1, or 0 if the key does not \
             exist or the condition is not met.",
        )
        .example("PEXPIRE jobs:import 30000 GT");

pub(super) const EXPIREAT: Command =
    Command::new("expireat", -3, |context, args| expire(context, args, AT_SECONDS))
        .group(Group::Generic)
        .flags(Flags::WRITE | Flags::FAST)
        .keys(KeySpec::first(KeyAccess::Write))
        .syntax("key unix-time-seconds [NX | XX | GT | LT]")
        .summary(
            "Sets the time at which a key expires, in seconds since 1970. Returns 1, or 0 if the key \
             does not exist or the condition is not met.",
        )
        .example("EXPIREAT jobs:import 2147483647");

pub(super) const PEXPIREAT: Command =
    Command::new("pexpireat", -3, |context, args| expire(context, args, AT_MILLIS))
        .group(Group::Generic)
        .flags(Flags::WRITE | Flags::FAST)
        .keys(KeySpec::first(KeyAccess::Write))
        .syntax("key unix-time-milliseconds [NX | XX | GT | LT]")
        .summary(
            "Sets the time at which a key expires, in milliseconds since 1970. Returns 1, or 0 if the \
             key does not exist or the condition is not met.",
        )
        .example("PEXPIREAT jobs:import 2147483647000");

/// How a command of this family states a time.
#[derive(Clone, Copy)]
struct Form {
    command: &'static str,
    unit_ms: i64,
    /// Since 1970, not from now.
    is_absolute: bool,
}

const AFTER_SECONDS: Form = Form { command: "expire", unit_ms: 1000, is_absolute: false };
const AFTER_MILLIS: Form = Form { command: "pexpire", unit_ms: 1, is_absolute: false };
const AT_SECONDS: Form = Form { command: "expireat", unit_ms: 1000, is_absolute: true };
const AT_MILLIS: Form = Form { command: "pexpireat", unit_ms: 1, is_absolute: true };

impl Form {
    /// Milliseconds from now until the time that `amount` states.
    fn millis_left(self, context: &Context<'_>, amount: &[u8]) -> Result<i64, CommandError> {
        let millis = options::integer(amount)?.checked_mul(self.unit_ms);
        // PEXPIRETIME returns this time.
        let now = i64::try_from(context.txn.wall_millis_of_now()).unwrap_or(i64::MAX);
        let left = match self.is_absolute {
            true => millis.map(|at| at.saturating_sub(now)),
            // Redis adds the time of day and checks that the sum fits.
            false => millis.filter(|millis| now.checked_add(*millis).is_some()),
        };
        left.ok_or_else(|| CommandError::expire_time(self.command))
    }
}

pub(super) const PERSIST: Command = Command::new("persist", 2, persist)
    .group(Group::Generic)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Write))
    .syntax("key")
    .summary(
        "Removes the expiry of a key. Returns 1, or 0 if the key has no expiry or MAXHOLD \
         limits it.",
    )
    .example("PERSIST jobs:import");

/// The remaining lifetime of a lease.
struct Remaining {
    /// Its end.
    deadline: Timestamp,
    /// In milliseconds; `None` without expiry.
    millis: Option<u64>,
    /// The maximum that MAXHOLD allows, in milliseconds.
    max: Option<u64>,
}

/// The remaining lifetime of a key; `None` if it does not exist.
fn expiry_of(context: &mut Context<'_>, name: &LockName) -> Result<Option<Remaining>, CommandError> {
    let read = context.txn.read_key(name, |content, now| {
        let hold_until = content.lease().map_or(Timestamp::NEVER, Lease::hold_until);
        let max = hold_until.millis_left(now);
        content.deadline().map(|deadline| Remaining { deadline, millis: deadline.millis_left(now), max })
    });
    Ok(read?)
}

/// [`expiry_of`] for a command that only reads.
fn look_up(context: &mut Context<'_>, name: &LockName) -> Result<Option<Remaining>, CommandError> {
    let remaining = expiry_of(context, name)?;
    context.count_lookup(remaining.is_some());
    Ok(remaining)
}

fn left(context: &mut Context<'_>, args: Args<'_>, unit_ms: u64) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Integer(-2)) };
    Ok(match look_up(context, &name)?.map(|remaining| remaining.millis) {
        None => Reply::Integer(-2),
        Some(None) => Reply::Integer(-1),
        Some(Some(millis)) => Reply::unsigned((millis + unit_ms / 2) / unit_ms),
    })
}

fn end(context: &mut Context<'_>, args: Args<'_>, unit_ms: u64) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Integer(-2)) };
    let deadline = look_up(context, &name)?.map(|remaining| remaining.deadline);
    Ok(match deadline.map(|deadline| context.txn.wall_millis_of(deadline)) {
        None => Reply::Integer(-2),
        Some(None) => Reply::Integer(-1),
        Some(Some(millis)) => Reply::unsigned(millis / unit_ms),
    })
}

fn expire(context: &mut Context<'_>, args: Args<'_>, form: Form) -> Result<Reply, CommandError> {
    let name = name_or_none(context, args.at(1))?;
    let unsupported =
        |arg: &[u8]| CommandError::new(format!("ERR Unsupported option {}", printable(arg, 128)));
    let specs = [flag("NX"), flag("XX"), flag("GT"), flag("LT")];
    let [nx, xx, gt, lt] = args.options_or(3, &specs, unsupported)?.map(|option| option.is_given());
    if nx && (xx || gt || lt) {
        return Err(CommandError::fixed(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if gt && lt {
        return Err(CommandError::fixed("ERR GT and LT options at the same time are not compatible"));
    }
    let op = |millis: i64| match u64::try_from(millis).map(Ttl::from_millis) {
        Ok(Ok(ttl)) => Op::SetTtl { ttl: Some(ttl) },
        // A time that has passed deletes the key.
        Ok(Err(_)) | Err(_) => Op::Delete { if_owner: None },
    };
    let is_conditional = nx || xx || gt || lt;
    let millis = form.millis_left(context, args.at(2))?;
    let Some(name) = name else { return Ok(Reply::Integer(0)) };
    if !is_conditional && !form.is_absolute {
        return apply(context, &name, &op(millis));
    }
    // The time until an absolute one is computed at the instant from which it counts.
    context.atomically(slice::from_ref(&name), |context| {
        let millis = form.millis_left(context, args.at(2))?;
        if !is_conditional {
            return apply(context, &name, &op(millis));
        }
        let Some(left) = expiry_of(context, &name)? else { return Ok(Reply::Integer(0)) };
        // A key without expiry counts as one with an infinite TTL.
        let far = |millis: Option<u64>| millis.map_or(i128::MAX, i128::from);
        let (is, will_be) = (far(left.millis), i128::from(millis).min(far(left.max)));
        let holds = (!nx || left.millis.is_none())
            && (!xx || left.millis.is_some())
            && (!gt || will_be > is)
            && (!lt || will_be < is);
        if holds { apply(context, &name, &op(millis)) } else { Ok(Reply::Integer(0)) }
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
    context.atomically(slice::from_ref(&name), |context| match expiry_of(context, &name)? {
        Some(Remaining { millis: Some(_), max: None, .. }) => {
            apply(context, &name, &Op::SetTtl { ttl: None })
        }
        _ => Ok(Reply::Integer(0)),
    })
}
