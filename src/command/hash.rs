//! Hashes: fields with a value each.
//!
//! Fields are in insertion order while there are few, as in Redis.

use super::number::Number;
use super::parts::Join;
use super::values::{self, Choice, Random, bulk_or_null, bulks};
use super::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, options};
use crate::reply::Reply;
use crate::value::{Hash, HashEdit};

pub(in crate::command) const COMMANDS: &[Command] = &[
    write("hset", -4, hset, Flags::DENYOOM | Flags::FAST)
        .in_parts(|_| 2, 2, Join::Sum)
        .syntax("key field value [field value ...]")
        .summary("Sets fields of a hash. Returns the number of fields that are new.")
        .example("HSET job:1 state running worker 7"),
    write("hsetnx", 4, hsetnx, Flags::DENYOOM | Flags::FAST)
        .event("hset")
        .syntax("key field value")
        .summary("Sets a field of a hash if it does not exist. Returns 1 if it was set.")
        .example("HSETNX job:1 state queued"),
    write("hmset", -4, hmset, Flags::DENYOOM | Flags::FAST)
        .event("hset")
        .in_parts(|_| 2, 2, Join::Last)
        .syntax("key field value [field value ...]")
        .summary("Sets fields of a hash.")
        .example("HMSET job:1 state running worker 7"),
    read("hget", 3, hget, Flags::FAST)
        .syntax("key field")
        .summary("Returns the value of a field, or Null.")
        .example("HGET job:1 state"),
    read("hmget", -3, hmget, Flags::FAST)
        .in_parts(|_| 2, 1, Join::Append)
        .syntax("key field [field ...]")
        .summary("Returns the values of fields, each Null if the field does not exist.")
        .example("HMGET job:1 state worker"),
    read("hgetall", 2, hgetall, Flags::NONE)
        .syntax("key")
        .summary("Returns all fields and values of a hash.")
        .example("HGETALL job:1"),
    write("hdel", -3, hdel, Flags::FAST)
        .in_parts(|_| 2, 1, Join::Sum)
        .syntax("key field [field ...]")
        .summary("Removes fields from a hash. Returns the number of removed fields.")
        .example("HDEL job:1 worker"),
    read("hexists", 3, hexists, Flags::FAST)
        .syntax("key field")
        .summary("Returns 1 if a field exists, else 0.")
        .example("HEXISTS job:1 state"),
    read("hlen", 2, hlen, Flags::FAST)
        .syntax("key")
        .summary("Returns the number of fields.")
        .example("HLEN job:1"),
    read("hstrlen", 3, hstrlen, Flags::FAST)
        .syntax("key field")
        .summary("Returns the length of the value of a field in bytes, or 0.")
        .example("HSTRLEN job:1 state"),
    read("hkeys", 2, hkeys, Flags::NONE)
        .syntax("key")
        .summary("Returns all fields of a hash.")
        .example("HKEYS job:1"),
    read("hvals", 2, hvals, Flags::NONE)
        .syntax("key")
        .summary("Returns all values of a hash.")
        .example("HVALS job:1"),
    write("hincrby", 4, hincrby, Flags::DENYOOM | Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key field increment")
        .summary("Adds an integer to the value of a field, 0 if there is none. Returns the sum.")
        .example("HINCRBY job:1 attempts 1"),
    write("hincrbyfloat", 4, hincrbyfloat, Flags::DENYOOM | Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key field increment")
        .summary("Adds a decimal number to the value of a field, 0 if there is none. Returns the sum.")
        .example("HINCRBYFLOAT job:1 cost 0.25"),
    read("hrandfield", -2, hrandfield, Flags::NONE)
        .syntax("key [count [WITHVALUES]]")
        .summary("Returns random fields of a hash; for a negative count, the same may occur again.")
        .example("HRANDFIELD job:1 2 WITHVALUES"),
    read("hscan", -3, hscan, Flags::NONE)
        .syntax("key cursor [MATCH pattern] [COUNT count] [NOVALUES]")
        .summary("Iterates over the fields and values of a hash.")
        .example("HSCAN job:1 0 COUNT 100"),
];

const fn write(name: &'static str, arity: i8, handler: super::Handler, flags: u16) -> Command {
    Command::new(name, arity, handler)
        .group(Group::Hash)
        .flags(Flags::WRITE | flags)
        .event(name)
        .keys(KeySpec::first(KeyAccess::Write))
}

const fn read(name: &'static str, arity: i8, handler: super::Handler, flags: u16) -> Command {
    Command::new(name, arity, handler)
        .group(Group::Hash)
        .flags(Flags::READONLY | flags)
        .keys(KeySpec::first(KeyAccess::Read))
}

/// Sets the fields of a request, which come with their values from argument 2 on. Returns the number
/// of new ones.
fn set_fields(context: &mut Context<'_>, args: Args<'_>, name: &str) -> Result<usize, CommandError> {
    if args.len() % 2 == 1 {
        return Err(CommandError::arity(name));
    }
    context.spend_elements(args.len());
    values::edit::<Hash, _>(context, args.at(1), |mut hash| {
        (2..args.len()).step_by(2).filter(|n| hash.insert(args.at(*n), args.at(*n + 1))).count()
    })
}

fn hset(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    set_fields(context, args, "hset").map(Reply::count)
}

fn hmset(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    set_fields(context, args, "hmset").map(|_| Reply::OK)
}

fn hsetnx(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let is_set = values::edit::<Hash, _>(context, args.at(1), |mut hash| {
        !hash.contains(args.at(2)) && hash.insert(args.at(2), args.at(3))
    })?;
    Ok(Reply::Integer(i64::from(is_set)))
}

fn hget(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |hash: &Hash| bulk_or_null(hash.get(args.at(2))))
}

fn hmget(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    values::read(context, args.at(1), |hash: &Hash| {
        Reply::Array(args.from(2).map(|field| bulk_or_null(hash.get(field))).collect())
    })
}

fn hgetall(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let pairs = values::read_many(context, args.at(1), Hash::len, |hash| {
        hash.iter().map(|(field, value)| (Reply::bulk(field), Reply::bulk(value))).collect::<Vec<_>>()
    })?;
    context.spend_elements(2 * pairs.len());
    Ok(Reply::Map(pairs))
}

fn hdel(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    let removed = values::edit_existing::<Hash, _>(context, args.at(1), |mut hash| {
        args.from(2).filter(|field| hash.remove(field)).count()
    })?;
    Ok(Reply::count(removed.unwrap_or(0)))
}

fn hexists(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |hash: &Hash| Reply::Integer(hash.contains(args.at(2)).into()))
}

fn hlen(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |hash: &Hash| Reply::count(hash.len()))
}

fn hstrlen(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |hash: &Hash| {
        Reply::count(hash.get(args.at(2)).map_or(0, |value| value.len()))
    })
}

fn hkeys(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (len, fields) = values::read_many(context, args.at(1), Hash::len, |hash| {
        (hash.len(), bulks(hash.iter().map(|(field, _)| field)))
    })?;
    context.spend_elements(len);
    Ok(fields)
}

fn hvals(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (len, values) = values::read_many(context, args.at(1), Hash::len, |hash| {
        (hash.len(), bulks(hash.iter().map(|(_, value)| value)))
    })?;
    context.spend_elements(len);
    Ok(values)
}

fn hincrby(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let increment = options::integer(args.at(3))?;
    let add = |hash: &mut HashEdit<'_>| {
        let before = hash.get(args.at(2)).map_or(Ok(0), options::integer);
        let before = before.map_err(|_| CommandError::fixed("ERR hash value is not an integer"))?;
        let sum = before
            .checked_add(increment)
            .ok_or(CommandError::fixed("ERR increment or decrement would overflow"))?;
        hash.insert(args.at(2), sum.to_string().as_bytes());
        Ok(Reply::Integer(sum))
    };
    values::edit::<Hash, _>(context, args.at(1), |mut hash| add(&mut hash))?
}

/// Digits of a sum that cost one unit of work.
const DIGITS_PER_UNIT: usize = 4;

fn hincrbyfloat(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.check_transaction_budget()?;
    let increment = args.at(3);
    let number = Number::parse(increment).ok_or(CommandError::fixed("ERR value is not a valid float"))?;
    if number.is_infinite() {
        return Err(CommandError::fixed("ERR value is NaN or Infinity"));
    }
    let add = |hash: &mut HashEdit<'_>| -> Result<String, CommandError> {
        let before = Number::parse(hash.get(args.at(2)).unwrap_or(b"0"));
        let sum = before.ok_or(CommandError::fixed("ERR hash value is not a float"))?.sum(&number)?;
        hash.insert(args.at(2), sum.as_bytes());
        Ok(sum)
    };
    let sum = values::edit::<Hash, _>(context, args.at(1), |mut hash| add(&mut hash))??;
    context.spend(sum.len() / DIGITS_PER_UNIT);
    Ok(Reply::bulk(sum))
}

fn hrandfield(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let choice = if args.len() > 2 { Some(Choice::parse(args.at(2))?) } else { None };
    let with_values = match args.len() {
        ..=3 => false,
        4 if options::is(args.at(3), "withvalues") => true,
        _ => return Err(CommandError::SYNTAX),
    };
    let mut random = Random::new(context);
    let (len, reply) = values::read_many(
        context,
        args.at(1),
        |hash: &Hash| Choice::amount(choice, hash.len()),
        |hash: &Hash| {
            let indexes = choice.unwrap_or(Choice::Distinct(1)).indexes(hash.len(), &mut random);
            let chosen = indexes.iter().filter_map(|index| hash.get_index(*index));
            let reply = match choice {
                None => bulk_or_null(chosen.map(|(field, _)| field).next()),
                Some(_) if with_values => Reply::Pairs(
                    chosen.map(|(field, value)| (Reply::bulk(field), Reply::bulk(value))).collect(),
                ),
                Some(_) => bulks(chosen.map(|(field, _)| field)),
            };
            (indexes.len(), reply)
        },
    )?;
    context.spend_elements(len);
    Ok(reply)
}

fn hscan(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::scan(context, args, |hash: &Hash, cursor, count| {
        let (next, fields) = hash.scan(cursor, count);
        (next, fields.map(|(field, value)| (field.to_vec(), Some(value.to_vec()))).collect())
    })
}
