//! `SET key value [NX | XX | IFEQ value] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]` and `SETNX key value`
//!
//! Redis' lock idiom on the same leases: the value is the owner. A plain SET replaces the holder under a new token; the
//! holder's own SET keeps it. OK, or Null if the condition does not hold, which for NX includes a lock-delay that is running.

use super::{Args, Command, CommandError, Context, Flags, Group, Run, args, get};
use crate::domain::{LockName, Owner, Ttl};
use crate::lock::{Op, Outcome, Request, SetCondition};
use crate::reply::Reply;

pub(super) const SET: Command = Command {
    name: "set",
    syntax: "key value [NX | XX | IFEQ comparison-value] [GET] \
             [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    summary: "Makes the value the key's only owner, as Redis' lock idiom does.",
    group: Group::String,
    arity: -3,
    flags: Flags::WRITE | Flags::DENYOOM,
    keys: (1, 1, 1),
    run: Run::Handler(set),
};

pub(super) const SETNX: Command = Command {
    name: "setnx",
    syntax: "key value",
    summary: "Makes the value the key's owner, without an end, if nobody holds it.",
    group: Group::String,
    arity: 3,
    flags: Flags::WRITE | Flags::DENYOOM | Flags::FAST,
    keys: (1, 1, 1),
    run: Run::Handler(setnx),
};

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

fn parse(context: &Context<'_>, words: Args<'_>) -> Result<Wanted, CommandError> {
    let mut wanted =
        Wanted { condition: SetCondition::Always, impossible: false, get: false, ends: Ends::Never };
    // As in Redis, the same option may come again, another of its kind not, and numbers are read once all options are known.
    let (mut condition, mut end, mut amount) = (None, None, &b""[..]);
    let may = |kind: &mut Option<&'static str>, name| *kind.get_or_insert(name) == name;
    let mut options = words.options(3);
    while let Some(word) = options.next_word() {
        let is = |name| args::is(word, name);
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
        Some("exat") => wanted.ends = until(context, args::integer(amount)?, 1000)?,
        Some("pxat") => wanted.ends = until(context, args::integer(amount)?, 1)?,
        _ => {}
    }
    Ok(wanted)
}

/// A wall-clock time becomes a TTL at once: from here on the wall clock may move as it likes.
fn until(context: &Context<'_>, at: i64, unit_ms: i64) -> Result<Ends, CommandError> {
    let at = Some(at).filter(|at| *at > 0).and_then(|at| at.checked_mul(unit_ms));
    let at = at.ok_or_else(|| CommandError::expire_time("set"))? as u64;
    match at.saturating_sub(context.access.wall_millis()) {
        0 => Ok(Ends::Past),
        left => Ok(Ends::After(context.ttl_of(left)?)),
    }
}

fn set(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let wanted = parse(context, words)?;
    let name = context.name(words.word(1))?;
    let owner = context.owner(words.word(2))?;
    if !wanted.get && !matches!(wanted.ends, Ends::Past) {
        let is_set = put(context, &name, owner, &wanted)?;
        return Ok(if is_set { Reply::OK } else { Reply::Null });
    }
    context.atomically(|context| {
        let before = if wanted.get { get::value(context, &name)? } else { Reply::Null };
        let is_set = put(context, &name, owner, &wanted)?;
        if is_set && matches!(wanted.ends, Ends::Past) {
            context.look(context.access.submit(&name, &Op::Delete { if_owner: None }))?;
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
    match context.look(context.access.submit(name, &op))? {
        Outcome::NotExclusive => Err(CommandError::WRONG_TYPE),
        outcome => Ok(matches!(outcome, Outcome::Granted { .. })),
    }
}

fn setnx(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(words.word(1))?;
    let owner = context.owner(words.word(2))?;
    let wanted = Wanted { condition: SetCondition::IfFree, impossible: false, get: false, ends: Ends::Never };
    Ok(Reply::Integer(i64::from(put(context, &name, owner, &wanted)?)))
}
