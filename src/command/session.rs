//! `SESSION OPEN | KEEPALIVE | CLOSE | INFO`: one keepalive for any number of locks.

use super::lockinfo::session_text;
use super::{Args, Command, CommandError, Context, Flags, Group, Run, args};
use crate::domain::{SessionId, Ttl};
use crate::engine::Unavailable;
use crate::reply::Reply;

const fn subcommand(
    name: &'static str,
    syntax: &'static str,
    arity: i8,
    flags: u16,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    let (group, keys) = (Group::Lock, (0, 0, 0));
    Command { name, syntax, summary, group, arity, flags, keys, run: Run::Handler(run) }
}

pub(super) const SESSION: Command = Command {
    name: "session",
    syntax: "",
    summary: "Opens, keeps alive, closes and shows sessions, which end with all their locks.",
    group: Group::Lock,
    arity: -2,
    flags: Flags::NONE,
    keys: (0, 0, 0),
    run: Run::Subcommands(&[
        subcommand(
            "session|open",
            "[EX seconds | PX milliseconds] [NAME text]",
            -2,
            Flags::WRITE | Flags::FAST,
            "Opens a session. Answers its id, which is a secret.",
            open,
        ),
        subcommand(
            "session|keepalive",
            "id",
            3,
            Flags::WRITE | Flags::FAST,
            "Moves a session's end to its TTL from now. Answers the milliseconds left, or Null if it has ended.",
            keep_alive,
        ),
        subcommand(
            "session|close",
            "id",
            3,
            Flags::WRITE,
            "Ends a session and, at the same instant, all its locks. Answers how many.",
            close,
        ),
        subcommand(
            "session|info",
            "id",
            3,
            Flags::READONLY | Flags::FAST,
            "Answers a session's name, remaining milliseconds and number of locks.",
            info,
        ),
    ]),
};

const NAME_BYTES_MAX: usize = 1024;

fn open(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let (mut ttl, mut name) = (None, None);
    let mut options = words.options(2);
    while let Some(word) = options.next_word() {
        if args::is(word, "ex") && ttl.is_none() {
            ttl = Some(context.ttl(options.value()?, 1000, "session|open")?);
        } else if args::is(word, "px") && ttl.is_none() {
            ttl = Some(context.ttl(options.value()?, 1, "session|open")?);
        } else if args::is(word, "name") && name.is_none() {
            let text = std::str::from_utf8(options.value()?).ok();
            let text = text.filter(|text| text.len() <= NAME_BYTES_MAX);
            name = Some(text.ok_or_else(|| {
                CommandError::new(format!("ERR a session's name is UTF-8 of at most {NAME_BYTES_MAX} bytes"))
            })?);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let ttl = match ttl {
        Some(ttl) => ttl,
        None => Ttl::from_millis(u64::from(context.service.limits.ttl_ms_default))?,
    };
    let id = context.look(context.access.open_session(name.unwrap_or(""), None, Some(ttl)))?;
    context.client.opened_session(id);
    Ok(Reply::bulk(session_text(id)))
}

fn id(words: Args<'_>) -> Result<SessionId, CommandError> {
    args::session_id(words.word(2)).ok_or(Unavailable::NoSession.into())
}

fn keep_alive(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let Ok(id) = id(words) else { return Ok(Reply::Null) };
    let access = context.access;
    match access.keep_alive(id) {
        Err(Unavailable::NoSession) => {
            context.depend_on_all()?;
            Ok(Reply::Null)
        }
        kept => {
            let deadline = context.look(kept)?;
            let left = deadline.millis_left(access.now());
            Ok(Reply::unsigned(left.unwrap_or(u64::MAX)))
        }
    }
}

fn close(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let released = context.look(context.access.close_session(id(words)?, true))?;
    Ok(Reply::Integer(i64::from(released)))
}

fn info(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let (record, locks, seq) = context.access.session(id(words)?)?;
    context.seq = context.seq.max(seq);
    let left = record.deadline.millis_left(context.access.now());
    Ok(Reply::Map(vec![
        (Reply::bulk("name"), Reply::bulk(record.name)),
        (Reply::bulk("ttl_ms"), left.map_or(Reply::Null, Reply::unsigned)),
        (Reply::bulk("locks"), Reply::count(locks)),
    ]))
}
