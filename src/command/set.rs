//! Sets: members without order.
//!
//! Members are in insertion order while there are few.

use super::parts::Join;
use super::sources::{self, Operation, Source, Stored, of_type, sources};
use super::values::{self, Choice, Random, bulk_or_null, bulks, positive_count};
use super::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, options};
use crate::reply::Reply;
use crate::value::{Kind, Set, SetEdit};

pub(in crate::command) const COMMANDS: &[Command] = &[
    write("sadd", -3, sadd, Flags::DENYOOM | Flags::FAST)
        .in_parts(|_| 2, 1, Join::Sum)
        .syntax("key member [member ...]")
        .summary("Adds members to a set. Returns the number of members that are new.")
        .example("SADD workers 7 8"),
    write("srem", -3, srem, Flags::FAST)
        .in_parts(|_| 2, 1, Join::Sum)
        .syntax("key member [member ...]")
        .summary("Removes members from a set. Returns the number of removed members.")
        .example("SREM workers 7"),
    read("sismember", 3, sismember, Flags::FAST)
        .syntax("key member")
        .summary("Returns 1 if a set has the member, else 0.")
        .example("SISMEMBER workers 7"),
    read("smismember", -3, smismember, Flags::FAST)
        .in_parts(|_| 2, 1, Join::Append)
        .syntax("key member [member ...]")
        .summary("Returns for each member 1 if the set has it, else 0.")
        .example("SMISMEMBER workers 7 8"),
    read("scard", 2, scard, Flags::FAST)
        .syntax("key")
        .summary("Returns the number of members.")
        .example("SCARD workers"),
    read("smembers", 2, smembers, Flags::NONE)
        .syntax("key")
        .summary("Returns all members of a set.")
        .example("SMEMBERS workers"),
    write("spop", -2, spop, Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key [count]")
        .summary("Removes random members from a set and returns them.")
        .example("SPOP workers"),
    read("srandmember", -2, srandmember, Flags::NONE)
        .syntax("key [count]")
        .summary("Returns random members of a set; for a negative count, the same may occur again.")
        .example("SRANDMEMBER workers 2"),
    write("smove", 4, smove, Flags::FAST)
        .keys(KeySpec::Two(KeyAccess::ReadWrite, KeyAccess::Write))
        .syntax("source destination member")
        .summary("Moves a member from one set to another. Returns 1 if it was moved.")
        .example("SMOVE workers idle 7"),
    read("sscan", -3, sscan, Flags::NONE)
        .syntax("key cursor [MATCH pattern] [COUNT count]")
        .summary("Iterates over the members of a set.")
        .example("SSCAN workers 0 COUNT 100"),
    read("sinter", -2, sinter, Flags::NONE)
        .keys(KeySpec::all(KeyAccess::Read))
        .syntax("key [key ...]")
        .summary("Returns the members that all sets have.")
        .example("SINTER workers idle"),
    read("sintercard", -3, sintercard, Flags::NONE)
        .keys(KeySpec::Counted { count: 1, access: KeyAccess::Read })
        .syntax("numkeys key [key ...] [LIMIT limit]")
        .summary("Returns the number of members that all sets have.")
        .example("SINTERCARD 2 workers idle LIMIT 10"),
    write("sinterstore", -3, sinterstore, Flags::DENYOOM | Flags::LOOKS_UP)
        .keys(KeySpec::Custom(store_keys))
        .syntax("destination key [key ...]")
        .summary("Stores the members that all sets have. Returns their number.")
        .example("SINTERSTORE both workers idle"),
    read("sunion", -2, sunion, Flags::NONE)
        .keys(KeySpec::all(KeyAccess::Read))
        .syntax("key [key ...]")
        .summary("Returns the members that any of the sets has.")
        .example("SUNION workers idle"),
    write("sunionstore", -3, sunionstore, Flags::DENYOOM | Flags::LOOKS_UP)
        .keys(KeySpec::Custom(store_keys))
        .syntax("destination key [key ...]")
        .summary("Stores the members that any of the sets has. Returns their number.")
        .example("SUNIONSTORE all workers idle"),
    read("sdiff", -2, sdiff, Flags::NONE)
        .keys(KeySpec::all(KeyAccess::Read))
        .syntax("key [key ...]")
        .summary("Returns the members of the first set that no other set has.")
        .example("SDIFF workers idle"),
    write("sdiffstore", -3, sdiffstore, Flags::DENYOOM | Flags::LOOKS_UP)
        .keys(KeySpec::Custom(store_keys))
        .syntax("destination key [key ...]")
        .summary("Stores the members of the first set that no other set has. Returns their number.")
        .example("SDIFFSTORE busy workers idle"),
];

const fn write(name: &'static str, arity: i8, handler: super::Handler, flags: u16) -> Command {
    Command::new(name, arity, handler)
        .group(Group::Set)
        .flags(Flags::WRITE | flags)
        .event(name)
        .keys(KeySpec::first(KeyAccess::Write))
}

const fn read(name: &'static str, arity: i8, handler: super::Handler, flags: u16) -> Command {
    Command::new(name, arity, handler)
        .group(Group::Set)
        .flags(Flags::READONLY | flags)
        .keys(KeySpec::first(KeyAccess::Read))
}

/// The keys of a command that stores what it computes: `destination key [key ...]`.
fn store_keys<'a>(args: Args<'a>, visit: super::KeyVisitor<'_, 'a>) -> Result<(), CommandError> {
    visit(args.at(1), KeyAccess::Write);
    args.from(2).for_each(|key| visit(key, KeyAccess::Read));
    Ok(())
}

fn sadd(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    values::edit::<Set, _>(context, args.at(1), |mut set| {
        Reply::count(args.from(2).filter(|member| set.insert(member)).count())
    })
}

fn srem(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    let removed = values::edit_existing::<Set, _>(context, args.at(1), |mut set| {
        args.from(2).filter(|member| set.remove(member)).count()
    })?;
    Ok(Reply::count(removed.unwrap_or(0)))
}

fn sismember(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |set: &Set| Reply::Integer(set.contains(args.at(2)).into()))
}

fn smismember(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    values::read(context, args.at(1), |set: &Set| {
        Reply::Array(args.from(2).map(|member| Reply::Integer(set.contains(member).into())).collect())
    })
}

fn scard(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |set: &Set| Reply::count(set.len()))
}

fn smembers(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let members = values::read_many(context, args.at(1), Set::len, |set| {
        set.iter().map(Reply::bulk).collect::<Vec<_>>()
    })?;
    context.spend_elements(members.len());
    Ok(Reply::Set(members))
}

fn spop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let count = match args.len() {
        2 => None,
        3 => Some(positive_count(args.at(2))?),
        _ => return Err(CommandError::SYNTAX),
    };
    let mut random = Random::new(context);
    let pop = |mut set: SetEdit<'_>| {
        let indexes = Choice::Distinct(count.unwrap_or(1)).indexes(set.len(), &mut random);
        let chosen: Vec<Vec<u8>> =
            indexes.iter().filter_map(|index| set.get_index(*index)).map(<[u8]>::to_vec).collect();
        for member in &chosen {
            set.remove(member);
        }
        chosen
    };
    let visits = |set: &Set| count.map_or(1, |count| count.min(set.len()));
    let popped = values::edit_existing_many(context, args.at(1), visits, pop)?.unwrap_or_default();
    context.spend_elements(popped.len());
    let mut popped = popped.into_iter().map(Reply::Bulk);
    Ok(match count {
        None => popped.next().unwrap_or(Reply::Null),
        Some(_) => Reply::Set(popped.collect()),
    })
}

fn srandmember(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let choice = match args.len() {
        2 => None,
        3 => Some(Choice::parse(args.at(2))?),
        _ => return Err(CommandError::SYNTAX),
    };
    let mut random = Random::new(context);
    let (len, reply) = values::read_many(
        context,
        args.at(1),
        |set: &Set| Choice::amount(choice, set.len()),
        |set: &Set| {
            let indexes = choice.unwrap_or(Choice::Distinct(1)).indexes(set.len(), &mut random);
            let mut chosen = indexes.iter().filter_map(|index| set.get_index(*index));
            (indexes.len(), if choice.is_none() { bulk_or_null(chosen.next()) } else { bulks(chosen) })
        },
    )?;
    context.spend_elements(len);
    Ok(reply)
}

fn smove(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (source, destination, member) = (args.at(1), args.at(2), args.at(3));
    context.edit_atomically_on_keys(args, |context| {
        let (exists, has_member) =
            values::inspect(context, source, |set: &Set| (!set.is_empty(), set.contains(member)))?;
        if exists {
            values::check_type::<Set>(context, destination)?;
        }
        if has_member && source != destination {
            // First what may be refused.
            context.txn.set_event("sadd");
            values::edit::<Set, _>(context, destination, |mut set| set.insert(member))?;
            context.txn.set_event("srem");
            values::edit_existing::<Set, _>(context, source, |mut set| set.remove(member))?;
        }
        Ok(Reply::Integer(has_member.into()))
    })
}

fn sscan(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::scan(context, args, |set: &Set, cursor, count| {
        let (next, members) = set.scan(cursor, count);
        (next, members.map(|member| (member.to_vec(), None)).collect())
    })
}

const KINDS: &[Kind] = &[Kind::Set];

/// Passes on the members of the result, those of a union once for each set that has them. The set
/// of a key that does not exist is empty.
fn each_member<'s>(operation: Operation, sources: &'s [Source], each: impl FnMut(&'s [u8])) {
    let has = |source: &Source, member: &[u8]| of_type(source).is_some_and(|set: &Set| set.contains(member));
    let members = |source: Option<&'s Source>| source.and_then(of_type).into_iter().flat_map(Set::iter);
    match operation {
        Operation::Union => sources.iter().flat_map(|source| members(Some(source))).for_each(each),
        Operation::Intersection => {
            let smallest = sources.iter().min_by_key(|source| sources::len(source));
            let is_common = |member: &&[u8]| sources.iter().all(|source| has(source, member));
            members(smallest).filter(is_common).for_each(each);
        }
        Operation::Difference => {
            let others = sources.get(1..).unwrap_or_default();
            let is_left = |member: &&[u8]| !others.iter().any(|other| has(other, member));
            members(sources.first()).filter(is_left).for_each(each);
        }
    }
}

fn combine(context: &mut Context<'_>, args: Args<'_>, operation: Operation) -> Result<Reply, CommandError> {
    let keys: Vec<&[u8]> = args.from(1).collect();
    let visits = |sources: &[Source]| operation.visits(sources);
    let sources = sources(context, args, &keys, KINDS, visits)?;
    Ok(context.compute(visits(&sources), move || {
        let mut seen = Set::default();
        each_member(operation, &sources, |member| seen.extend([member]));
        Reply::Set(seen.iter().map(Reply::bulk).collect())
    }))
}

fn combine_and_store(
    context: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
) -> Result<Reply, CommandError> {
    let keys: Vec<&[u8]> = args.from(2).collect();
    let visits = |sources: &[Source]| operation.visits(sources);
    let compute = |sources: &[Source]| {
        values::draft::<Set>(|mut set| {
            each_member(operation, sources, |member| {
                set.insert(member);
            });
        })
    };
    Stored { destination: args.at(1), keys: &keys, kinds: KINDS, visits, compute }.store(context, args)
}

fn sinter(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, Operation::Intersection)
}

fn sinterstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, Operation::Intersection)
}

fn sunion(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, Operation::Union)
}

fn sunionstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, Operation::Union)
}

fn sdiff(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, Operation::Difference)
}

fn sdiffstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, Operation::Difference)
}

fn sintercard(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, next) = values::counted_keys(args, 1, CommandError::KEY_COUNT)?;
    let [limit] = args.options(next, &[options::value("LIMIT").check(values::check_limit)])?;
    let limit = values::limit_of(limit)?;
    let visits = |sources: &[Source]| Operation::Intersection.visits(sources);
    let sources = sources(context, args, &keys, KINDS, visits)?;
    Ok(context.compute(visits(&sources), move || {
        let mut count = 0;
        each_member(Operation::Intersection, &sources, |_| count += 1);
        Reply::count(limit.min(count))
    }))
}
