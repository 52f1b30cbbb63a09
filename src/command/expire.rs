//! `TTL`, `PTTL`, `EXPIRE key s [NX | XX | GT | LT]`, `PEXPIRE key ms [...]`, `PERSIST`
//!
//! On the lease of a key, whoever owns it, as in Redis.

use super::{Args, Command, CommandError, Context, Flags, Group, Run, args, name_or_none};
use crate::domain::LockName;
use crate::lock::{Lease, Op, Outcome};
use crate::reply::Reply;

const fn command(
    name: &'static str,
    syntax: &'static str,
    arity: i8,
    flags: u16,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    let (group, keys) = (Group::Generic, (1, 1, 1));
    Command { name, syntax, summary, group, arity, flags: flags | Flags::FAST, keys, run: Run::Handler(run) }
}

pub(super) const TTL: Command = command(
    "ttl",
    "key",
    2,
    Flags::READONLY,
    "Answers the seconds a key has left; -1 no end, -2 free.",
    |c, w| left(c, w, 1000),
);

pub(super) const PTTL: Command = command(
    "pttl",
    "key",
    2,
    Flags::READONLY,
    "Answers the milliseconds a key has left; -1 no end, -2 free.",
    |context, words| left(context, words, 1),
);

pub(super) const EXPIRE: Command = command(
    "expire",
    "key seconds [NX | XX | GT | LT]",
    -3,
    Flags::WRITE,
    "Moves the end of a key to this many seconds from now. Answers 1, or 0 if it is free or the condition fails.",
    |context, words| expire(context, words, 1000, "expire"),
);

pub(super) const PEXPIRE: Command = command(
    "pexpire",
    "key milliseconds [NX | XX | GT | LT]",
    -3,
    Flags::WRITE,
    "Moves the end of a key to this many milliseconds from now.",
    |context, words| expire(context, words, 1, "pexpire"),
);

pub(super) const PERSIST: Command = command(
    "persist",
    "key",
    2,
    Flags::WRITE,
    "Takes the end of a key away. Answers 1, or 0 if it had none, or MAXHOLD sets one.",
    persist,
);

/// How long a lease still effective_ttl, in milliseconds; `None`: without an end.
struct Left {
    millis: Option<u64>,
    /// The most that it can be made.
    most: Option<u64>,
}

/// `None`: nobody holds it.
fn look_at(context: &mut Context<'_>, name: &LockName) -> Result<Option<Left>, CommandError> {
    let read = context.access.read(name, |slot, now| {
        let left = |lease: &Lease| Left {
            millis: lease.deadline.millis_left(now),
            most: lease.hold_until().millis_left(now),
        };
        slot.newest().map(left)
    });
    context.look(read)
}

fn left(context: &mut Context<'_>, words: Args<'_>, unit_ms: u64) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, words.word(1))? else { return Ok(Reply::Integer(-2)) };
    Ok(match look_at(context, &name)?.map(|left| left.millis) {
        None => Reply::Integer(-2),
        Some(None) => Reply::Integer(-1),
        Some(Some(millis)) => Reply::unsigned((millis + unit_ms / 2) / unit_ms),
    })
}

fn expire(
    context: &mut Context<'_>,
    words: Args<'_>,
    unit_ms: i64,
    command: &str,
) -> Result<Reply, CommandError> {
    let name = name_or_none(context, words.word(1))?;
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for word in words.from(3) {
        let flags = [("nx", &mut nx), ("xx", &mut xx), ("gt", &mut gt), ("lt", &mut lt)];
        match flags.into_iter().find(|(flag, _)| args::is(word, flag)) {
            Some((_, is_set)) => *is_set = true,
            None => {
                let word = word.escape_ascii();
                return Err(CommandError::new(format!("ERR Unsupported option {word}")));
            }
        }
    }
    if nx && (xx || gt || lt) {
        return Err(CommandError::fixed(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if gt && lt {
        return Err(CommandError::fixed("ERR GT and LT options at the same time are not compatible"));
    }
    let amount = args::integer(words.word(2))?;
    let millis = context.millis(amount, unit_ms).ok_or_else(|| CommandError::expire_time(command))?;
    let Some(name) = name else { return Ok(Reply::Integer(0)) };
    // A time that has passed releases the key.
    let op = match u64::try_from(millis) {
        Err(_) | Ok(0) => Op::Delete { if_owner: None },
        Ok(millis) => match context.ttl_of(millis) {
            Ok(ttl) => Op::SetTtl { ttl: Some(ttl) },
            // Of a key that is free, any end will do.
            Err(error) => return look_at(context, &name)?.map_or(Ok(Reply::Integer(0)), |_| Err(error)),
        },
    };
    if !(nx || xx || gt || lt) {
        return apply(context, &name, &op);
    }
    context.atomically(|context| {
        let Some(left) = look_at(context, &name)? else { return Ok(Reply::Integer(0)) };
        // No end counts as infinitely far.
        let far = |millis: Option<u64>| millis.map_or(i128::MAX, i128::from);
        let (is, will_be) = (far(left.millis), i128::from(millis).min(far(left.most)));
        let holds = (!nx || left.millis.is_none())
            && (!xx || left.millis.is_some())
            && (!gt || will_be > is)
            && (!lt || will_be < is);
        if holds { apply(context, &name, &op) } else { Ok(Reply::Integer(0)) }
    })
}

fn apply(context: &mut Context<'_>, name: &LockName, op: &Op) -> Result<Reply, CommandError> {
    match context.submit_whole(name, op)? {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        Outcome::NotHeld => Ok(Reply::Integer(0)),
        _ => Ok(Reply::Integer(1)),
    }
}

fn persist(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, words.word(1))? else { return Ok(Reply::Integer(0)) };
    context.atomically(|context| match look_at(context, &name)? {
        Some(Left { millis: Some(_), most: None }) => apply(context, &name, &Op::SetTtl { ttl: None }),
        _ => Ok(Reply::Integer(0)),
    })
}
