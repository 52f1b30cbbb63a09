//! The commands on strings. A string is a lease, as `LOCK` takes one.
//!
//! A string is an exclusive lease, and its value is the owner. A value that replaces another takes
//! a new token; the same value again keeps it.
//!
//! Guarantees: a command on one string is one operation. Few of them need an exclusive transaction.
//! Not here: expiry and enumeration of keys, which are commands on keys of any kind.

mod compare;
mod counter;
mod digest;
mod edit;
mod expiry;
mod get;
mod many;
mod range;
mod set;

use super::{
    Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, key, name_or_none, options,
};
use crate::domain::{LockName, Owner};
use crate::lock::{Mode, Op, Outcome, Request, SetCondition};
use crate::reply::Reply;
use edit::{Edited, edit};
pub(in crate::command) use expiry::Expiry;

pub(in crate::command) const COMMANDS: &[Command] = &[
    set::SET,
    set::SETNX,
    set::SETEX,
    set::PSETEX,
    set::GETSET,
    get::GET,
    get::GETDEL,
    get::GETEX,
    get::STRLEN,
    many::MGET,
    many::MSET,
    many::MSETNX,
    range::GETRANGE,
    range::SUBSTR,
    range::SETRANGE,
    range::APPEND,
    counter::INCR,
    counter::DECR,
    counter::INCRBY,
    counter::DECRBY,
    counter::INCRBYFLOAT,
    compare::DELEX,
    compare::DELIFEQ,
    compare::DIGEST,
];

/// A command on one string.
const fn command(name: &'static str, arity: i8, run: super::Handler, access: KeyAccess) -> Command {
    let flags = match access {
        KeyAccess::Read => Flags::READONLY,
        _ => Flags::WRITE,
    };
    Command::new(name, arity, run).group(Group::String).flags(flags).keys(KeySpec::first(access))
}

/// The value of a string, for a command that returns something of it, which counts as a lookup;
/// `None` if the key does not exist.
fn read(context: &Context<'_>, name: &LockName) -> Result<Option<Owner>, CommandError> {
    let value = inspect(context, name);
    match &value {
        Ok(value) => context.count_lookup(value.is_some()),
        Err(error) if *error == CommandError::WRONG_TYPE => context.count_lookup(true),
        Err(_) => {}
    }
    value
}

/// [`read()`] without counting, for commands that change the value.
fn inspect(context: &Context<'_>, name: &LockName) -> Result<Option<Owner>, CommandError> {
    let read = context.txn.read(name, |slot, _| match slot.newest() {
        None => Ok(None),
        Some(lease) if lease.mode == Mode::Exclusive => Ok(Some(lease.owner.clone())),
        Some(_) => Err(CommandError::WRONG_TYPE),
    });
    read?
}

/// The value of the key of an argument, as a reply.
fn reply_value(context: &mut Context<'_>, key: &[u8]) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, key)? else { return Ok(Reply::Null) };
    Ok(reply_of(context, read(context, &name)?.as_ref()))
}

fn reply_of(context: &mut Context<'_>, value: Option<&Owner>) -> Reply {
    let Some(value) = value else { return Reply::Null };
    context.spend(super::steps::work_of_bytes(value.as_bytes().len()));
    Reply::bulk(value.as_bytes())
}

/// Sets the value of a key if the condition holds. Returns whether it did.
fn put(
    context: &mut Context<'_>,
    name: &LockName,
    value: Owner,
    condition: SetCondition,
    expiry: Expiry,
) -> Result<bool, CommandError> {
    let origin = Some(context.client.origin());
    let request = Request { origin, ..Request::exclusive(value, expiry.ttl()) };
    let op = Op::Set { request, condition, keep_ttl: matches!(expiry, Expiry::Keep) };
    match context.txn.submit(name, &op)? {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        outcome => Ok(matches!(outcome, Outcome::Granted { .. })),
    }
}
