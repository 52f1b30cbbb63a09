//! Pops that wait: for the first of several lists or sorted sets that has an element.
//!
//! Guarantees: requests that wait for a key are served in order of arrival, after the command,
//! transaction or script that has added elements. Inside EXEC and scripts nothing waits. Not here:
//! queues, and the pops that never wait.

use super::list::parse_end;
use super::options;
use super::values;
use super::waiting::Waiting;
use super::{Args, Command, CommandError, Context, Flags, Group, Handler, KeyAccess, KeySpec, name_or_none};
use crate::domain::{LockName, Timestamp, Ttl};
use crate::engine::{
    AnyTxn, PopAction, PopRequest, Popped, PoppedElements, Popping, WAITED_KEYS_MAX, WaitOutcome,
};
use crate::reply::{Reply, double};
use crate::value::End;

pub(in crate::command) const COMMANDS: &[Command] = &[
    pop("blpop", Group::List, Flags::NONE, blpop)
        .summary(
            "Takes the first element of the first list that has any, or waits for one. Returns its key, too.",
        )
        .example("BLPOP urgent queue 5"),
    pop("brpop", Group::List, Flags::NONE, brpop)
        .summary(
            "Takes the last element of the first list that has any, or waits for one. Returns its key, too.",
        )
        .example("BRPOP urgent queue 5"),
    Command::new("blmove", 6, blmove)
        .group(Group::List)
        .flags(Flags::WRITE | Flags::DENYOOM | Flags::NOSCRIPT | Flags::BLOCKING)
        .keys(KeySpec::Two(KeyAccess::ReadWrite, KeyAccess::Write))
        .syntax("source destination <LEFT | RIGHT> <LEFT | RIGHT> timeout")
        .summary("Moves an element from an end of one list to an end of another, or waits for one.")
        .example("BLMOVE queue running LEFT RIGHT 5"),
    Command::new("brpoplpush", 4, brpoplpush)
        .group(Group::List)
        .flags(Flags::WRITE | Flags::DENYOOM | Flags::NOSCRIPT | Flags::BLOCKING)
        .keys(KeySpec::Two(KeyAccess::ReadWrite, KeyAccess::Write))
        .syntax("source destination timeout")
        .summary("Moves the last element of one list to the front of another, or waits for one.")
        .example("BRPOPLPUSH queue running 5"),
    multi_pop("blmpop", Group::List, blmpop)
        .syntax("timeout numkeys key [key ...] <LEFT | RIGHT> [COUNT count]")
        .summary("Takes elements of the first list that has any, or waits for some. Returns its key, too.")
        .example("BLMPOP 5 2 urgent queue LEFT COUNT 10"),
    pop("bzpopmin", Group::SortedSet, Flags::FAST, bzpopmin)
        .summary(
            "Takes the member with the lowest score of the first sorted set that has any, or waits for one.",
        )
        .example("BZPOPMIN queue 5"),
    pop("bzpopmax", Group::SortedSet, Flags::FAST, bzpopmax)
        .summary(
            "Takes the member with the highest score of the first sorted set that has any, or waits for one.",
        )
        .example("BZPOPMAX queue 5"),
    multi_pop("bzmpop", Group::SortedSet, bzmpop)
        .syntax("timeout numkeys key [key ...] <MIN | MAX> [COUNT count]")
        .summary(
            "Takes members of the first sorted set that has any, or waits for some. Returns its key, too.",
        )
        .example("BZMPOP 5 1 queue MIN COUNT 10"),
];

const fn pop(name: &'static str, group: Group, flags: u16, handler: Handler) -> Command {
    Command::new(name, -3, handler)
        .group(group)
        .flags(Flags::WRITE | Flags::NOSCRIPT | Flags::BLOCKING | flags)
        .keys(KeySpec::Range { first: 1, last: -2, step: 1, access: KeyAccess::ReadWrite })
        .syntax("key [key ...] timeout")
}

const fn multi_pop(name: &'static str, group: Group, handler: Handler) -> Command {
    Command::new(name, -5, handler)
        .group(group)
        .flags(Flags::WRITE | Flags::BLOCKING)
        .keys(KeySpec::Counted { count: 2, access: KeyAccess::ReadWrite })
}

fn blpop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop_one(context, args, PopAction::Items { from: End::Front, count: 1 })
}

fn brpop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop_one(context, args, PopAction::Items { from: End::Back, count: 1 })
}

fn bzpopmin(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop_one(context, args, PopAction::Members { from: End::Front, count: 1 })
}

fn bzpopmax(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop_one(context, args, PopAction::Members { from: End::Back, count: 1 })
}

/// Executes `name key [key ...] timeout`.
fn pop_one(context: &mut Context<'_>, args: Args<'_>, action: PopAction) -> Result<Reply, CommandError> {
    let last = args.len() - 1;
    let until = deadline(context, args.at(last))?;
    let keys = keys(context, args.range(1, last))?;
    execute(context, PopRequest::new(keys, action), until, Form::KEY_AND_ELEMENT)
}

fn blmove(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (from, to) = (parse_end(args.at(3))?, parse_end(args.at(4))?);
    move_one(context, args, from, to)
}

fn brpoplpush(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    move_one(context, args, End::Back, End::Front)
}

/// Executes `name source destination ... timeout`.
fn move_one(context: &mut Context<'_>, args: Args<'_>, from: End, to: End) -> Result<Reply, CommandError> {
    let until = deadline(context, args.at(args.len() - 1))?;
    let (source, destination) = (context.key(args.at(1))?, context.key(args.at(2))?);
    let request = PopRequest::new(vec![source], PopAction::Move { from, destination, to });
    execute(context, request, until, Form::ELEMENT)
}

/// Executes `name source destination ...` without a timeout: moves an item if there is one.
pub(super) fn move_without_wait(
    context: &mut Context<'_>,
    args: Args<'_>,
    from: End,
    to: End,
) -> Result<Reply, CommandError> {
    context.check_transaction_budget()?;
    let Some(source) = name_or_none(context, args.at(1))? else { return Ok(Reply::Null) };
    let request =
        PopRequest::new(vec![source], PopAction::Move { from, destination: context.key(args.at(2))?, to });
    // Inside an exclusive transaction, nothing waits.
    context
        .edit_atomically_on_keys(args, |context| execute(context, request, Timestamp::NEVER, Form::ELEMENT))
}

fn blmpop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop_many(context, args, parse_end, |from, count| PopAction::Items { from, count })
}

fn bzmpop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let end = |arg: &[u8]| match arg {
        arg if options::is(arg, "min") => Ok(End::Front),
        arg if options::is(arg, "max") => Ok(End::Back),
        _ => Err(CommandError::SYNTAX),
    };
    pop_many(context, args, end, |from, count| PopAction::Members { from, count })
}

/// Executes `name timeout numkeys key [key ...] end [COUNT count]`.
fn pop_many(
    context: &mut Context<'_>,
    args: Args<'_>,
    end: fn(&[u8]) -> Result<End, CommandError>,
    action: fn(End, usize) -> PopAction,
) -> Result<Reply, CommandError> {
    let (_, end_at) = values::counted_keys(args, 2, CommandError::SYNTAX)?;
    let from = end(args.at(end_at))?;
    let action = action(from, values::pop_count(args, end_at + 1)?);
    let until = deadline(context, args.at(1))?;
    let keys = keys(context, args.range(3, end_at))?;
    execute(context, PopRequest::new(keys, action), until, Form::KEY_AND_ELEMENTS)
}

/// The keys of a request.
fn keys(context: &Context<'_>, args: Args<'_>) -> Result<Vec<LockName>, CommandError> {
    if args.len() > WAITED_KEYS_MAX {
        return Err(CommandError::new(format!(
            "ERR a blocking command takes at most {WAITED_KEYS_MAX} keys"
        )));
    }
    args.from(0).map(|key| context.key(key)).collect()
}

/// When a wait ends: `timeout` is in seconds, 0 means never.
fn deadline(context: &Context<'_>, timeout: &[u8]) -> Result<Timestamp, CommandError> {
    let too_large = || double::parse_rounded(timeout).filter(|seconds| seconds.is_infinite());
    let seconds = double::parse(timeout).or_else(too_large);
    let seconds = seconds.ok_or(CommandError::fixed("ERR timeout is not a float or out of range"))?;
    let millis = (seconds * 1000.0).ceil();
    match millis {
        _ if millis > i64::MAX as f64 => Err(CommandError::fixed("ERR timeout is out of range")),
        _ if millis < 0.0 => Err(CommandError::fixed("ERR timeout is negative")),
        _ => Ok(context.txn.now().after(Ttl::from_millis(millis as u64).ok())),
    }
}

/// Takes elements, or waits for some if other requests may run meanwhile, which excludes EXEC and
/// scripts.
fn execute(
    context: &mut Context<'_>,
    request: PopRequest,
    until: Timestamp,
    form: Form,
) -> Result<Reply, CommandError> {
    let popped = match context.txn {
        AnyTxn::Exclusive(txn) => {
            return Ok(txn.pop(&request)?.map_or(form.none, |popped| (form.of)(&popped)));
        }
        AnyTxn::Shared(txn) => txn.pop_or_wait(request, until)?,
    };
    match popped {
        Popping::Done(popped) => {
            context.spend(popped.elements.len());
            Ok((form.of)(&popped))
        }
        Popping::Blocked(blocked) => {
            context.waiting = Some(Box::new(Waiting::new(blocked, form.after_wait)));
            Ok(Reply::Null)
        }
    }
}

/// The form of a reply.
struct Form {
    of: fn(&Popped) -> Reply,
    /// The reply of a command that does not wait.
    none: Reply,
    after_wait: fn(Option<&WaitOutcome>) -> Reply,
}

impl Form {
    const KEY_AND_ELEMENT: Form = Form {
        of: key_and_element,
        none: Reply::NullArray,
        after_wait: |outcome| after_wait(outcome, key_and_element),
    };
    const KEY_AND_ELEMENTS: Form = Form {
        of: key_and_elements,
        none: Reply::NullArray,
        after_wait: |outcome| after_wait(outcome, key_and_elements),
    };
    const ELEMENT: Form =
        Form { of: element, none: Reply::Null, after_wait: |outcome| after_wait(outcome, element) };
}

fn after_wait(outcome: Option<&WaitOutcome>, form: fn(&Popped) -> Reply) -> Reply {
    match outcome {
        Some(WaitOutcome::Popped(popped, _)) => form(popped),
        _ => Reply::NullArray,
    }
}

fn key_and_element(popped: &Popped) -> Reply {
    let mut parts = vec![Reply::bulk(popped.name.key())];
    match &popped.elements {
        PoppedElements::Items(items) => parts.extend(items.iter().map(Reply::bulk)),
        PoppedElements::Members(members) => parts.extend(
            members.iter().flat_map(|(member, score)| [Reply::bulk(member), Reply::Double(score.get())]),
        ),
    }
    Reply::Array(parts)
}

fn key_and_elements(popped: &Popped) -> Reply {
    let elements = match &popped.elements {
        PoppedElements::Items(items) => items.iter().map(Reply::bulk).collect(),
        PoppedElements::Members(members) => {
            let pairs = members.iter();
            pairs
                .map(|(member, score)| Reply::Array(vec![Reply::bulk(member), Reply::Double(score.get())]))
                .collect()
        }
    };
    Reply::Array(vec![Reply::bulk(popped.name.key()), Reply::Array(elements)])
}

fn element(popped: &Popped) -> Reply {
    match &popped.elements {
        PoppedElements::Items(items) => items.first().map_or(Reply::Null, Reply::bulk),
        PoppedElements::Members(_) => Reply::Null,
    }
}
