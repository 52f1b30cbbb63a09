//! Sets: members without order.
//!
//! Members are in insertion order while there are few.

use super::parts::Join;
use super::values::{self, Choice, Random, bulk_or_null, bulks, positive_count};
use super::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, options};
use crate::reply::Reply;
use crate::value::{Set, SetEdit};

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
    let popped = values::edit_existing::<Set, _>(context, args.at(1), pop)?.unwrap_or_default();
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
    context.atomically_on_keys(args, |context| {
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

/// Computes a set from the sets of some keys.
type Combine = fn(&mut Context<'_>, &[&[u8]]) -> Result<Set, CommandError>;

/// The members that all sets have.
fn intersection(context: &mut Context<'_>, keys: &[&[u8]]) -> Result<Set, CommandError> {
    let mut smallest: Option<(usize, &[u8])> = None;
    for key in keys {
        let len = values::read(context, key, Set::len)?;
        if smallest.is_none_or(|(least, _)| len < least) {
            smallest = Some((len, key));
        }
    }
    let Some((len @ 1.., smallest)) = smallest else { return Ok(Set::default()) };
    values::leave_thread_for(len);
    let mut common = values::inspect(context, smallest, members_of)?;
    context.spend_elements(common.len());
    for key in keys.iter().filter(|key| **key != smallest) {
        context.spend_elements(common.len());
        values::inspect(context, key, |set: &Set| common.retain(|member| set.contains(member)))?;
    }
    Ok(set_of(&common))
}

/// The members that any of the sets has.
fn union(context: &mut Context<'_>, keys: &[&[u8]]) -> Result<Set, CommandError> {
    let mut all = Set::default();
    for key in keys {
        let len = values::read_many(context, key, Set::len, |set| {
            all.extend(set.iter());
            set.len()
        })?;
        context.spend_elements(len);
    }
    Ok(all)
}

/// The members of the first set that no other has.
fn difference(context: &mut Context<'_>, keys: &[&[u8]]) -> Result<Set, CommandError> {
    let Some((first, others)) = keys.split_first() else { return Ok(Set::default()) };
    let mut left = members(context, first)?;
    for key in others {
        context.spend_elements(left.len());
        values::read(context, key, |set: &Set| left.retain(|member| !set.contains(member)))?;
    }
    Ok(set_of(&left))
}

fn members(context: &mut Context<'_>, key: &[u8]) -> Result<Vec<Vec<u8>>, CommandError> {
    let members = values::read_many(context, key, Set::len, members_of)?;
    context.spend_elements(members.len());
    Ok(members)
}

fn members_of(set: &Set) -> Vec<Vec<u8>> {
    set.iter().map(<[u8]>::to_vec).collect()
}

fn set_of(members: &[Vec<u8>]) -> Set {
    let mut set = Set::default();
    set.extend(members.iter().map(|member| &**member));
    set
}

fn combine(context: &mut Context<'_>, args: Args<'_>, combine: Combine) -> Result<Reply, CommandError> {
    let keys: Vec<&[u8]> = args.from(1).collect();
    let set = context.atomically_on_keys(args, |context| combine(context, &keys))?;
    Ok(Reply::Set(set.iter().map(Reply::bulk).collect()))
}

fn combine_and_store(
    context: &mut Context<'_>,
    args: Args<'_>,
    combine: Combine,
) -> Result<Reply, CommandError> {
    context.check_transaction_budget()?;
    let keys: Vec<&[u8]> = args.from(2).collect();
    context.atomically_on_keys(args, |context| {
        let result = combine(context, &keys)?;
        context.spend_elements(2 * result.len());
        values::replace::<Set, _>(context, args.at(1), |mut set| {
            for member in result.iter() {
                set.insert(member);
            }
        })?;
        Ok(Reply::count(result.len()))
    })
}

fn sinter(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, intersection)
}

fn sinterstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, intersection)
}

fn sunion(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, union)
}

fn sunionstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, union)
}

fn sdiff(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, difference)
}

fn sdiffstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, difference)
}

fn sintercard(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, next) = values::counted_keys(args, 1, CommandError::KEY_COUNT)?;
    let [limit] = args.options(next, &[options::value("LIMIT").check(values::check_limit)])?;
    let limit = values::limit_of(limit)?;
    let set = context.atomically_on_keys(args, |context| intersection(context, &keys))?;
    Ok(Reply::count(set.len().min(limit)))
}
