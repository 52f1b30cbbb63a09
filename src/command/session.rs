//! `SESSION OPEN | KEEPALIVE | CLOSE | INFO`: one keepalive for any number of locks.

use super::lock::session_text;
use super::options::{self, OptionSpec, once, value};
use super::{Args, Command, CommandError, Context, Flags, Group};
use crate::domain::SessionId;
use crate::engine::Unavailable;
use crate::reply::Reply;

pub(super) const SESSION: Command = Command::container(
    "session",
    -2,
    &[
        Command::new("session|open", -2, open)
            .group(Group::Lock)
            .flags(Flags::WRITE | Flags::FAST)
            .syntax("[EX seconds | PX milliseconds] [NAME text]")
            .summary("Opens a session. Returns its id, which is a secret.")
            .example("SESSION OPEN EX 10 NAME worker-1"),
        Command::new("session|keepalive", 3, keep_alive)
            .group(Group::Lock)
            .flags(Flags::WRITE | Flags::FAST)
            .syntax("id")
            .summary(
                "Extends a session to its TTL from now. Returns the remaining milliseconds, or Null \
                 if the session does not exist.",
            )
            .example("SESSION KEEPALIVE 00000000000000000000000000000000"),
        Command::new("session|close", 3, close)
            .group(Group::Lock)
            .flags(Flags::WRITE)
            .syntax("id")
            .summary(
                "Closes a session and atomically releases all its locks. Returns the number of locks \
                 released.",
            )
            .example("SESSION CLOSE 00000000000000000000000000000000"),
        Command::new("session|info", 3, info)
            .group(Group::Lock)
            .flags(Flags::READONLY | Flags::FAST)
            .syntax("id")
            .summary("Returns the name, remaining milliseconds and number of locks of a session.")
            .example("SESSION INFO 00000000000000000000000000000000"),
    ],
)
.group(Group::Lock)
.summary("A container for session commands. A session ends together with all its locks.");

const NAME_BYTES_MAX: usize = 1024;

const OPEN_OPTIONS: [OptionSpec; 3] = once([value("EX").group(1), value("PX").group(1), value("NAME")]);

fn open(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let [ex, px, name] = args.options(2, &OPEN_OPTIONS)?;
    let ttl = context.ttl_option(ex, px, "session|open")?;
    let ttl = ttl.map_or_else(|| context.server.limits.ttl_default(), Ok)?;
    let name = name.value().map_or(Some(""), |name| std::str::from_utf8(name).ok());
    let name = name.filter(|name| name.len() <= NAME_BYTES_MAX).ok_or_else(|| {
        CommandError::new(format!("ERR session name must be UTF-8 of at most {NAME_BYTES_MAX} bytes"))
    })?;
    let id = context.txn.open_session(name, None, Some(ttl))?;
    context.client.opened_session(id);
    Ok(Reply::bulk(session_text(id)))
}

fn id(args: Args<'_>) -> Result<SessionId, CommandError> {
    options::session_id(args.at(2)).ok_or(Unavailable::NoSession.into())
}

fn keep_alive(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Ok(id) = id(args) else { return Ok(Reply::Null) };
    match context.txn.keep_alive(id) {
        Ok(deadline) => {
            let left = deadline.millis_left(context.txn.now());
            Ok(Reply::unsigned(left.unwrap_or(u64::MAX)))
        }
        Err(Unavailable::NoSession) => Ok(Reply::Null),
        Err(why) => Err(why.into()),
    }
}

fn close(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let released = context.txn.close_session(id(args)?, true)?;
    Ok(Reply::Integer(i64::from(released)))
}

fn info(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (record, locks) = context.txn.session(id(args)?)?;
    let left = record.deadline.millis_left(context.txn.now());
    Ok(Reply::Map(vec![
        (Reply::bulk("name"), Reply::bulk(record.name)),
        (Reply::bulk("ttl_ms"), left.map_or(Reply::Null, Reply::unsigned)),
        (Reply::bulk("locks"), Reply::count(locks)),
    ]))
}
