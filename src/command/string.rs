//! `SET key value [NX | XX | IFEQ value] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]` and `SETNX key value`
//!
//! Redis' lock idiom on the same leases: the value is the owner. A plain SET replaces the holder under a new token; the
//! holder's own SET keeps it. OK, or Null if the condition does not hold, which for NX includes a lock-delay that is running.

use super::{
    Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, key, name_or_none, options,
};
use crate::domain::{LockName, Owner, Ttl};
use crate::lock::{Mode, Op, Outcome, Request, SetCondition};
use crate::reply::Reply;

pub(in crate::command) const COMMANDS: &[Command] = &[SET, SETNX, GET, DELEX, DELIFEQ];

const SET: Command = Command::new("set", -3, set)
    .group(Group::String)
    .flags(Flags::WRITE | Flags::DENYOOM)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax(
        "key value [NX | XX | IFEQ comparison-value] [GET] [EX seconds | PX milliseconds | \
         EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    )
    .summary("Sets the owner of a key, replacing any other, as Redis' lock idiom does.")
    .example("SET jobs:import worker-1 NX PX 30000");

const SETNX: Command = Command::new("setnx", 3, setnx)
    .group(Group::String)
    .flags(Flags::WRITE | Flags::DENYOOM | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax("key value")
    .summary("Sets the owner of a key, without expiry, if the key does not exist.")
    .example("SETNX jobs:import worker-1");

const GET: Command = Command::new("get", 2, get)
    .group(Group::String)
    .flags(Flags::READONLY | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::Read))
    .syntax("key")
    .summary(
        "Returns the owner of a key, or Null. Fails for shared and limited locks, which may \
         have several.",
    )
    .example("GET jobs:import");

const DELEX: Command = Command::new("delex", -2, delex)
    .group(Group::String)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax("key [IFEQ comparison-value]")
    .summary(
        "Deletes a key if its owner equals the given value. Returns 1, or 0 if it was not \
         deleted.",
    )
    .example("DELEX jobs:import IFEQ worker-1");

const DELIFEQ: Command = Command::new("delifeq", 3, delifeq)
    .group(Group::String)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax("key comparison-value")
    .summary(
        "Deletes a key if its owner equals the given value. Returns 1, or 0 if it was not \
         deleted.",
    )
    .example("DELIFEQ jobs:import worker-1");

fn delifeq(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    key::delete(context, args.at(1), Some(args.at(2)))
}

/// When the key is to end.
#[derive(Clone, Copy)]
enum Ends {
    Never,
    As,
    After(Ttl),
    /// It has ended already, so the key is deleted.
    Past,
}

struct Wanted {
    condition: SetCondition,
    /// The condition names a value that no owner can have.
    impossible: bool,
    get: bool,
    ends: Ends,
}

fn parse(context: &Context<'_>, args: Args<'_>) -> Result<Wanted, CommandError> {
    let mut wanted =
        Wanted { condition: SetCondition::Always, impossible: false, get: false, ends: Ends::Never };
    // As in Redis, the same option may come again, another of its kind not, and numbers are read once all options are known.
    let (mut condition, mut end, mut amount) = (None, None, &b""[..]);
    let may = |kind: &mut Option<&'static str>, name| *kind.get_or_insert(name) == name;
    let mut options = args.options(3);
    while let Some(arg) = options.next_arg() {
        let is = |name| options::is(arg, name);
        if is("get") {
            wanted.get = true;
        } else if is("nx") && may(&mut condition, "nx") {
            wanted.condition = SetCondition::IfFree;
        } else if is("xx") && may(&mut condition, "xx") {
            wanted.condition = SetCondition::IfHeld;
        } else if is("ifeq") && condition.replace("ifeq").is_none() {
            wanted.condition = match Owner::new(options.value()?) {
                Ok(owner) => SetCondition::IfOwner(owner),
                Err(_) => {
                    wanted.impossible = true;
                    SetCondition::IfHeld
                }
            };
        } else if is("keepttl") && may(&mut end, "keepttl") {
            wanted.ends = Ends::As;
        } else if let Some(name) = ["ex", "px", "exat", "pxat"].into_iter().find(|name| is(name))
            && may(&mut end, name)
        {
            amount = options.value()?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    match end {
        Some("ex") => wanted.ends = Ends::After(context.ttl(amount, 1000, "set")?),
        Some("px") => wanted.ends = Ends::After(context.ttl(amount, 1, "set")?),
        Some("exat") => wanted.ends = until(context, options::integer(amount)?, 1000)?,
        Some("pxat") => wanted.ends = until(context, options::integer(amount)?, 1)?,
        _ => {}
    }
    Ok(wanted)
}

/// A wall-clock time becomes a TTL at once: from here on the wall clock may move as it likes.
fn until(context: &Context<'_>, at: i64, unit_ms: i64) -> Result<Ends, CommandError> {
    let at = Some(at).filter(|at| *at > 0).and_then(|at| at.checked_mul(unit_ms));
    let at = at.ok_or_else(|| CommandError::expire_time("set"))? as u64;
    match at.saturating_sub(context.txn.wall_millis()) {
        0 => Ok(Ends::Past),
        left => Ok(Ends::After(context.ttl_of(left)?)),
    }
}

fn set(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let wanted = parse(context, args)?;
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    if !wanted.get && !matches!(wanted.ends, Ends::Past) {
        let is_set = put(context, &name, owner, &wanted)?;
        return Ok(if is_set { Reply::OK } else { Reply::Null });
    }
    context.atomically(std::slice::from_ref(&name), |context| {
        let before = if wanted.get { value(context, &name)? } else { Reply::Null };
        let is_set = put(context, &name, owner, &wanted)?;
        if is_set && matches!(wanted.ends, Ends::Past) {
            context.txn.submit(&name, &Op::Delete { if_owner: None })?;
        }
        Ok(match (wanted.get, is_set) {
            (true, _) => before,
            (false, true) => Reply::OK,
            (false, false) => Reply::Null,
        })
    })
}

fn put(
    context: &mut Context<'_>,
    name: &LockName,
    owner: Owner,
    wanted: &Wanted,
) -> Result<bool, CommandError> {
    if wanted.impossible {
        return Ok(false);
    }
    let ttl = match wanted.ends {
        Ends::After(ttl) => Some(ttl),
        Ends::Never | Ends::As | Ends::Past => None,
    };
    let request = Request { origin: Some(context.client.origin()), ..Request::exclusive(owner, ttl) };
    let op =
        Op::Set { request, condition: wanted.condition.clone(), keep_ttl: matches!(wanted.ends, Ends::As) };
    match context.txn.submit(name, &op)? {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        outcome => Ok(matches!(outcome, Outcome::Granted { .. })),
    }
}

fn setnx(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    let wanted = Wanted { condition: SetCondition::IfFree, impossible: false, get: false, ends: Ends::Never };
    Ok(Reply::Integer(i64::from(put(context, &name, owner, &wanted)?)))
}

fn get(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    match name_or_none(context, args.at(1))? {
        Some(name) => value(context, &name),
        None => Ok(Reply::Null),
    }
}

/// The value of a key as strings have one.
fn value(context: &mut Context<'_>, name: &LockName) -> Result<Reply, CommandError> {
    let read = context.txn.read(name, |slot, _| match slot.newest() {
        None => Ok(Reply::Null),
        Some(lease) if lease.mode == Mode::Exclusive => Ok(Reply::bulk(lease.owner.as_bytes())),
        Some(_) => Err(CommandError::WRONG_TYPE),
    });
    read?
}

fn delex(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    match args.len() {
        2 => key::delete(context, args.at(1), None),
        4 if options::is(args.at(2), "ifeq") => key::delete(context, args.at(1), Some(args.at(3))),
        _ => Err(CommandError::SYNTAX),
    }
}
