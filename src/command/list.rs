//! Lists: items in the order in which clients put them.

use super::blocking;
use super::options::{self, OptionSpec, value};
use super::parts::Join;
use super::values::{self, bulk_or_null, bulks, positive_count};
use super::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec};
use crate::reply::Reply;
use crate::value::{End, List, ListEdit};

pub(in crate::command) const COMMANDS: &[Command] = &[
    write("lpush", -3, lpush, Flags::DENYOOM | Flags::FAST)
        .in_parts(|_| 2, 1, Join::Last)
        .syntax("key element [element ...]")
        .summary("Adds elements at the front of a list, one after the other. Returns its length.")
        .example("LPUSH queue a b"),
    write("rpush", -3, rpush, Flags::DENYOOM | Flags::FAST)
        .in_parts(|_| 2, 1, Join::Last)
        .syntax("key element [element ...]")
        .summary("Adds elements at the back of a list. Returns its length.")
        .example("RPUSH queue a b"),
    write("lpushx", -3, lpushx, Flags::DENYOOM | Flags::FAST)
        .event("lpush")
        .in_parts(|_| 2, 1, Join::Last)
        .syntax("key element [element ...]")
        .summary("Adds elements at the front of a list that exists. Returns its length, or 0.")
        .example("LPUSHX queue a"),
    write("rpushx", -3, rpushx, Flags::DENYOOM | Flags::FAST)
        .event("rpush")
        .in_parts(|_| 2, 1, Join::Last)
        .syntax("key element [element ...]")
        .summary("Adds elements at the back of a list that exists. Returns its length, or 0.")
        .example("RPUSHX queue a"),
    write("lpop", -2, lpop, Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key [count]")
        .summary("Removes elements from the front of a list and returns them.")
        .example("LPOP queue"),
    write("rpop", -2, rpop, Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key [count]")
        .summary("Removes elements from the back of a list and returns them.")
        .example("RPOP queue"),
    read("llen", 2, llen, Flags::FAST)
        .syntax("key")
        .summary("Returns the number of elements of a list.")
        .example("LLEN queue"),
    read("lrange", 4, lrange, Flags::NONE)
        .syntax("key start stop")
        .summary("Returns the elements between two indexes; negative ones count from the back.")
        .example("LRANGE queue 0 -1"),
    read("lindex", 3, lindex, Flags::NONE)
        .syntax("key index")
        .summary("Returns the element at an index, or Null.")
        .example("LINDEX queue 0"),
    read("lpos", -3, lpos, Flags::NONE)
        .syntax("key element [RANK rank] [COUNT num-matches] [MAXLEN len]")
        .summary("Returns the index of an element, or the indexes of several equal ones.")
        .example("LPOS queue a"),
    write("lset", 4, lset, Flags::DENYOOM)
        .syntax("key index element")
        .summary("Replaces the element at an index.")
        .example("LSET queue 0 a"),
    write("linsert", 5, linsert, Flags::DENYOOM)
        .syntax("key <BEFORE | AFTER> pivot element")
        .summary("Inserts an element beside another. Returns the length of the list, or -1.")
        .example("LINSERT queue BEFORE b a"),
    write("lrem", 4, lrem, Flags::NONE)
        .syntax("key count element")
        .summary("Removes equal elements: `count` from the front, from the back if negative, or all.")
        .example("LREM queue 0 a"),
    write("ltrim", 4, ltrim, Flags::NONE)
        .syntax("key start stop")
        .summary("Removes all elements but those between two indexes.")
        .example("LTRIM queue 0 99"),
    write("lmove", 5, lmove, Flags::DENYOOM)
        .keys(KeySpec::Two(KeyAccess::ReadWrite, KeyAccess::Write))
        .syntax("source destination <LEFT | RIGHT> <LEFT | RIGHT>")
        .summary("Moves an element from an end of one list to an end of another, and returns it.")
        .example("LMOVE queue running LEFT RIGHT"),
    write("rpoplpush", 3, rpoplpush, Flags::DENYOOM)
        .keys(KeySpec::Two(KeyAccess::ReadWrite, KeyAccess::Write))
        .syntax("source destination")
        .summary("Moves the last element of one list to the front of another, and returns it.")
        .example("RPOPLPUSH queue running"),
    write("lmpop", -4, lmpop, Flags::NONE)
        .keys(KeySpec::Counted { count: 1, access: KeyAccess::ReadWrite })
        .syntax("numkeys key [key ...] <LEFT | RIGHT> [COUNT count]")
        .summary("Removes elements from the first list that has any, and returns them with its key.")
        .example("LMPOP 2 urgent queue LEFT COUNT 10"),
];

const fn write(name: &'static str, arity: i8, handler: super::Handler, flags: u16) -> Command {
    Command::new(name, arity, handler)
        .group(Group::List)
        .flags(Flags::WRITE | flags)
        .event(name)
        .keys(KeySpec::first(KeyAccess::Write))
}

const fn read(name: &'static str, arity: i8, handler: super::Handler, flags: u16) -> Command {
    Command::new(name, arity, handler)
        .group(Group::List)
        .flags(Flags::READONLY | flags)
        .keys(KeySpec::first(KeyAccess::Read))
}

/// Parses an end of a list.
pub(super) fn parse_end(arg: &[u8]) -> Result<End, CommandError> {
    match arg {
        arg if options::is(arg, "left") => Ok(End::Front),
        arg if options::is(arg, "right") => Ok(End::Back),
        _ => Err(CommandError::SYNTAX),
    }
}

/// Takes at most `count` items out.
fn pop_many(mut list: ListEdit<'_>, end: End, count: usize) -> Vec<Reply> {
    let items = std::iter::from_fn(|| end.pop(&mut list));
    items.take(count).map(|item| Reply::Bulk(item.into_vec())).collect()
}

fn push_all(mut list: ListEdit<'_>, args: Args<'_>, end: End) -> usize {
    args.from(2).for_each(|item| end.push(&mut list, item));
    list.len()
}

fn push(context: &mut Context<'_>, args: Args<'_>, end: End) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    values::edit::<List, _>(context, args.at(1), |list| push_all(list, args, end)).map(Reply::count)
}

fn lpush(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    push(context, args, End::Front)
}

fn rpush(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    push(context, args, End::Back)
}

/// Pushes to a list that exists. An edit that may add elements creates none here: it leaves a new
/// list empty, and an empty list is no key.
fn push_existing(context: &mut Context<'_>, args: Args<'_>, end: End) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    let len = values::edit::<List, _>(context, args.at(1), |list| {
        if list.is_empty() { 0 } else { push_all(list, args, end) }
    });
    len.map(Reply::count)
}

fn lpushx(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    push_existing(context, args, End::Front)
}

fn rpushx(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    push_existing(context, args, End::Back)
}

fn pop(context: &mut Context<'_>, args: Args<'_>, end: End, name: &str) -> Result<Reply, CommandError> {
    let count = match args.len() {
        2 => None,
        3 => Some(positive_count(args.at(2))?),
        _ => return Err(CommandError::arity(name)),
    };
    let wanted = count.unwrap_or(1);
    let visits = |list: &List| wanted.min(list.len());
    let popped = values::edit_existing_many(context, args.at(1), visits, |list| pop_many(list, end, wanted))?;
    context.spend_elements(popped.as_ref().map_or(0, Vec::len));
    Ok(match (popped, count) {
        (Some(items), Some(_)) => Reply::Array(items),
        (None, Some(_)) => Reply::NullArray,
        (items, None) => items.into_iter().flatten().next().unwrap_or(Reply::Null),
    })
}

fn lpop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop(context, args, End::Front, "lpop")
}

fn rpop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop(context, args, End::Back, "rpop")
}

fn llen(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |list: &List| Reply::count(list.len()))
}

fn lrange(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (start, stop) = (options::integer(args.at(2))?, options::integer(args.at(3))?);
    let range = |list: &List| values::index_range(start, stop, list.len());
    let count = |list: &List| range(list).len();
    let (len, reply) = values::read_many(context, args.at(1), count, |list| {
        let items = list.range(range(list));
        (items.len(), bulks(items))
    })?;
    context.spend_elements(len);
    Ok(reply)
}

fn lindex(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |list: &List| {
        if list.is_empty() {
            return Ok(Reply::Null);
        }
        let index = values::index(options::integer(args.at(2))?, list.len());
        Ok(bulk_or_null(index.and_then(|index| list.get(index))))
    })?
}

/// Fails unless an option of LPOS has a number that is not negative.
fn check_number(arg: &[u8], refusal: &'static str) -> Result<(), CommandError> {
    match options::integer(arg) {
        Ok(0..) => Ok(()),
        _ => Err(CommandError::fixed(refusal)),
    }
}

fn check_rank(arg: &[u8]) -> Result<(), CommandError> {
    match options::integer(arg)? {
        0 => Err(CommandError::fixed(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
             negative to start from the end of the list",
        )),
        _ => Ok(()),
    }
}

const LPOS_OPTIONS: [OptionSpec; 3] = [
    value("RANK").check(check_rank),
    value("COUNT").check(|arg| check_number(arg, "ERR COUNT can't be negative")),
    value("MAXLEN").check(|arg| check_number(arg, "ERR MAXLEN can't be negative")),
];

fn lpos(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let [rank, count, len_max] = args.options(3, &LPOS_OPTIONS)?;
    let (rank, count, len_max) = (rank.integer()?.unwrap_or(1), count.integer()?, len_max.integer()?);
    let unlimited_if_zero = |number: i64| match usize::try_from(number) {
        Ok(number @ 1..) => number,
        _ => usize::MAX,
    };
    let wanted = count.map_or(1, unlimited_if_zero);
    let compared = len_max.map_or(usize::MAX, unlimited_if_zero);
    let skipped = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let (len, found) = values::read_many(
        context,
        args.at(1),
        |list: &List| compared.min(list.len()),
        |list: &List| {
            let items = list.range(0..list.len()).enumerate();
            let is_equal = |(index, item): (usize, &[u8])| (item == args.at(2)).then(|| Reply::count(index));
            let found: Vec<Reply> = if rank > 0 {
                items.take(compared).filter_map(is_equal).skip(skipped).take(wanted).collect()
            } else {
                items.rev().take(compared).filter_map(is_equal).skip(skipped).take(wanted).collect()
            };
            (list.len(), found)
        },
    )?;
    context.spend_elements(len.min(compared));
    Ok(match count {
        Some(_) => Reply::Array(found),
        None => found.into_iter().next().unwrap_or(Reply::Null),
    })
}

fn lset(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = |mut list: ListEdit<'_>| {
        let index = values::index(options::integer(args.at(2))?, list.len());
        match index.is_some_and(|index| list.set(index, args.at(3))) {
            true => Ok(Reply::OK),
            false => Err(CommandError::fixed("ERR index out of range")),
        }
    };
    let done = values::edit_existing::<List, _>(context, args.at(1), set)?;
    done.unwrap_or(Err(CommandError::fixed("ERR no such key")))
}

fn linsert(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.check_transaction_budget()?;
    let after = match args.at(2) {
        arg if options::is(arg, "before") => 0,
        arg if options::is(arg, "after") => 1,
        _ => return Err(CommandError::SYNTAX),
    };
    let (visited, reply) = values::edit_many(context, args.at(1), List::len, |mut list: ListEdit<'_>| {
        if list.is_empty() {
            return (0, Reply::Integer(0));
        }
        let pivot = list.range(0..list.len()).position(|item| item == args.at(3));
        let Some(pivot) = pivot else { return (list.len(), Reply::Integer(-1)) };
        list.insert(pivot + after, args.at(4));
        (list.len(), Reply::count(list.len()))
    })?;
    context.spend_elements(visited);
    Ok(reply)
}

fn lrem(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.check_transaction_budget()?;
    let count = options::integer(args.at(2))?;
    let max = match usize::try_from(count.unsigned_abs()) {
        Ok(max @ 1..) => max,
        _ => usize::MAX,
    };
    let removed = values::edit_existing_many(context, args.at(1), List::len, |mut list: ListEdit<'_>| {
        (list.len(), list.remove_equal(args.at(3), max, count < 0))
    })?;
    let (visited, removed) = removed.unwrap_or_default();
    context.spend_elements(visited);
    Ok(Reply::count(removed))
}

fn ltrim(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (start, stop) = (options::integer(args.at(2))?, options::integer(args.at(3))?);
    let kept = |len| values::index_range(start, stop, len);
    let visits = |list: &List| list.len() - kept(list.len()).len();
    let removed = values::edit_existing_many(context, args.at(1), visits, |mut list: ListEdit<'_>| {
        let len = list.len();
        list.keep(kept(len));
        len - list.len()
    })?;
    context.spend_elements(removed.unwrap_or(0));
    Ok(Reply::OK)
}

fn lmove(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (from, to) = (parse_end(args.at(3))?, parse_end(args.at(4))?);
    blocking::move_without_wait(context, args, from, to)
}

fn rpoplpush(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    blocking::move_without_wait(context, args, End::Back, End::Front)
}

fn lmpop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, next) = values::counted_keys(args, 1, CommandError::SYNTAX)?;
    if next >= args.len() {
        return Err(CommandError::SYNTAX);
    }
    let end = parse_end(args.at(next))?;
    let count = values::pop_count(args, next + 1)?;
    context.txn.set_event(end.pop_event());
    values::edit_keys(context, args, &keys, |context| {
        for key in &keys {
            let visits = |list: &List| count.min(list.len());
            let popped = values::edit_existing_many(context, key, visits, |list| pop_many(list, end, count))?;
            if let Some(items) = popped {
                context.spend_elements(items.len());
                return Ok(Reply::Array(vec![Reply::bulk(key), Reply::Array(items)]));
            }
        }
        Ok(Reply::NullArray)
    })
}
