//! `SET key value [NX | XX | IFEQ value] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]` and
//! `SETNX key value`
//!
//! Redis' lock idiom on the same leases: the value is the owner. A plain SET replaces the holder
//! and takes a new token; the holder's own SET keeps its token. Returns OK, or Null if the
//! condition does not hold. A running lock-delay counts as held for NX.

use super::options::{self, OptionSpec, flag, value};
use super::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, key, name_or_none};
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
    key::delete(context, args.at(1), Some(args.at(2))).map(key::reply_deleted)
}

/// The expiration that a SET asks for.
#[derive(Clone, Copy)]
enum Expiration {
    Never,
    /// Keeps the current one.
    Keep,
    After(Ttl),
    /// A time that has passed: the key is deleted.
    Past,
}

struct Wanted {
    condition: SetCondition,
    /// The condition contains a value that no owner can have.
    impossible: bool,
    get: bool,
    expiration: Expiration,
}

const CONDITION: u8 = 1;
const EXPIRY: u8 = 2;

const SET_OPTIONS: [OptionSpec; 9] = [
    flag("NX").group(CONDITION),
    flag("XX").group(CONDITION),
    value("IFEQ").group(CONDITION).once(),
    flag("GET"),
    value("EX").group(EXPIRY),
    value("PX").group(EXPIRY),
    value("EXAT").group(EXPIRY),
    value("PXAT").group(EXPIRY),
    flag("KEEPTTL").group(EXPIRY),
];

fn parse(context: &Context<'_>, args: Args<'_>) -> Result<Wanted, CommandError> {
    let [nx, xx, if_eq, get, ex, px, exat, pxat, keep_ttl] = args.options(3, &SET_OPTIONS)?;
    let owner = if_eq.value().map(Owner::new);
    let impossible = matches!(owner, Some(Err(_)));
    let condition = match owner {
        Some(Ok(owner)) => SetCondition::IfOwner(owner),
        _ if nx.is_given() => SetCondition::IfFree,
        _ if xx.is_given() || impossible => SetCondition::IfHeld,
        _ => SetCondition::Always,
    };
    let expiration = if let Some(ttl) = context.ttl_option(ex, px, "set")? {
        Expiration::After(ttl)
    } else if let Some(seconds) = exat.integer()? {
        until(context, seconds, 1000)?
    } else if let Some(millis) = pxat.integer()? {
        until(context, millis, 1)?
    } else if keep_ttl.is_given() {
        Expiration::Keep
    } else {
        Expiration::Never
    };
    Ok(Wanted { condition, impossible, get: get.is_given(), expiration })
}

/// Converts a wall-clock time to a TTL. Later changes of the wall clock have no effect.
fn until(context: &Context<'_>, at: i64, unit_ms: i64) -> Result<Expiration, CommandError> {
    let at = Some(at).filter(|at| *at > 0).and_then(|at| at.checked_mul(unit_ms));
    let at = at.ok_or_else(|| CommandError::expire_time("set"))? as u64;
    match at.saturating_sub(context.txn.wall_millis()) {
        0 => Ok(Expiration::Past),
        left => Ok(Expiration::After(context.ttl_of(left)?)),
    }
}

fn set(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let wanted = parse(context, args)?;
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    if !wanted.get && !matches!(wanted.expiration, Expiration::Past) {
        let is_set = put(context, &name, owner, &wanted)?;
        return Ok(if is_set { Reply::OK } else { Reply::Null });
    }
    context.atomically(|context| {
        let before = if wanted.get { current_value(context, &name)? } else { Reply::Null };
        let is_set = put(context, &name, owner, &wanted)?;
        if is_set && matches!(wanted.expiration, Expiration::Past) {
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
    let ttl = match wanted.expiration {
        Expiration::After(ttl) => Some(ttl),
        Expiration::Never | Expiration::Keep | Expiration::Past => None,
    };
    let request = Request { origin: Some(context.client.origin()), ..Request::exclusive(owner, ttl) };
    let op = Op::Set {
        request,
        condition: wanted.condition.clone(),
        keep_ttl: matches!(wanted.expiration, Expiration::Keep),
    };
    match context.txn.submit(name, &op)? {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        outcome => Ok(matches!(outcome, Outcome::Granted { .. })),
    }
}

fn setnx(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    let wanted = Wanted {
        condition: SetCondition::IfFree,
        impossible: false,
        get: false,
        expiration: Expiration::Never,
    };
    Ok(Reply::Integer(i64::from(put(context, &name, owner, &wanted)?)))
}

fn get(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    match name_or_none(context, args.at(1))? {
        Some(name) => current_value(context, &name),
        None => Ok(Reply::Null),
    }
}

/// The value of a key, as GET returns it.
fn current_value(context: &mut Context<'_>, name: &LockName) -> Result<Reply, CommandError> {
    let read = context.txn.read(name, |slot, _| match slot.newest() {
        None => Ok(Reply::Null),
        Some(lease) if lease.mode == Mode::Exclusive => Ok(Reply::bulk(lease.owner.as_bytes())),
        Some(_) => Err(CommandError::WRONG_TYPE),
    });
    read?
}

fn delex(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    match args.len() {
        2 => key::delete(context, args.at(1), None).map(key::reply_deleted),
        4 if options::is(args.at(2), "ifeq") => {
            key::delete(context, args.at(1), Some(args.at(3))).map(key::reply_deleted)
        }
        _ => Err(CommandError::SYNTAX),
    }
}
