//! `INCR`, `DECR`, `INCRBY`, `DECRBY`, `INCRBYFLOAT`
//!
//! The TTL of the key stays. A number that changes takes a new token, as every new value does.

use super::{
    Args, Command, CommandError, Context, Edited, Expiry, Flags, KeyAccess, Owner, Reply, command, edit,
    options,
};
use crate::command::number::Number;

pub(super) const INCR: Command = integer("incr", 2, |context, args| add(context, args, 1))
    .syntax("key")
    .summary("Adds one to the integer value of a key, 0 if it does not exist. Returns the result.")
    .example("INCR jobs:count");

pub(super) const DECR: Command = integer("decr", 2, |context, args| add(context, args, -1))
    .syntax("key")
    .summary("Subtracts one from the integer value of a key, 0 if it does not exist. Returns the result.")
    .example("DECR jobs:count");

pub(super) const INCRBY: Command = integer("incrby", 3, incrby)
    .syntax("key increment")
    .summary("Adds to the integer value of a key, 0 if it does not exist. Returns the result.")
    .example("INCRBY jobs:count 5");

pub(super) const DECRBY: Command = integer("decrby", 3, decrby)
    .syntax("key decrement")
    .summary("Subtracts from the integer value of a key, 0 if it does not exist. Returns the result.")
    .example("DECRBY jobs:count 5");

pub(super) const INCRBYFLOAT: Command = integer("incrbyfloat", 3, incrbyfloat)
    .event("incrbyfloat")
    .syntax("key increment")
    .summary("Adds to the numeric value of a key, 0 if it does not exist. Returns the result.")
    .example("INCRBYFLOAT jobs:load 0.5");

const fn integer(name: &'static str, arity: i8, run: crate::command::Handler) -> Command {
    command(name, arity, run, KeyAccess::ReadWrite)
        .flags(Flags::WRITE | Flags::DENYOOM | Flags::FAST)
        .event("incrby")
}

fn incrby(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    add(context, args, options::integer(args.at(2))?)
}

fn decrby(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let decrement = options::integer(args.at(2))?;
    let increment = decrement.checked_neg().ok_or(CommandError::fixed("ERR decrement would overflow"))?;
    add(context, args, increment)
}

fn add(context: &mut Context<'_>, args: Args<'_>, increment: i64) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    edit(context, &name, Expiry::Keep, |before| {
        let before = before.map_or(Ok(0), options::integer)?;
        let after = before.checked_add(increment);
        let after = after.ok_or(CommandError::fixed("ERR increment or decrement would overflow"))?;
        Ok((Edited::Set(Owner::new(after.to_string().as_bytes())?), Reply::Integer(after)))
    })
}

fn incrbyfloat(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    context.check_transaction_budget()?;
    let after = edit(context, &name, Expiry::Keep, |before| {
        let number = |text| Number::parse(text).ok_or(CommandError::fixed("ERR value is not a valid float"));
        let after = number(before.unwrap_or(b"0"))?.sum(&number(args.at(2))?)?;
        Ok((Edited::Set(Owner::new(after.as_bytes())?), after))
    })?;
    context.spend(WORK_PER_DIGIT * after.len());
    Ok(Reply::bulk(after.as_bytes()))
}

/// Units of work for each digit of a sum: numbers with an exponent have hundreds.
const WORK_PER_DIGIT: usize = 8;
