//! `SESSION OPEN | KEEPALIVE | CLOSE | INFO`: one keepalive for any number of locks.

use super::lock::session_text;
use super::{Args, Command, CommandError, Context, Flags, Group, Run, options};
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
    summary: "A container for session commands. A session ends together with all its locks.",
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
            "Opens a session. Returns its id, which is a secret.",
            open,
        ),
        subcommand(
            "session|keepalive",
            "id",
            3,
            Flags::WRITE | Flags::FAST,
            "Extends a session to its TTL from now. Returns the remaining milliseconds, or Null if the session does not exist.",
            keep_alive,
        ),
        subcommand(
            "session|close",
            "id",
            3,
            Flags::WRITE,
            "Closes a session and atomically releases all its locks. Returns the number of locks released.",
            close,
        ),
        subcommand(
            "session|info",
            "id",
            3,
            Flags::READONLY | Flags::FAST,
            "Returns the name, remaining milliseconds and number of locks of a session.",
            info,
        ),
    ]),
};

const NAME_BYTES_MAX: usize = 1024;

fn open(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut ttl, mut name) = (None, None);
    let mut options = args.options(2);
    while let Some(arg) = options.next_arg() {
        if options::is(arg, "ex") && ttl.is_none() {
            ttl = Some(context.ttl(options.value()?, 1000, "session|open")?);
        } else if options::is(arg, "px") && ttl.is_none() {
            ttl = Some(context.ttl(options.value()?, 1, "session|open")?);
        } else if options::is(arg, "name") && name.is_none() {
            let text = std::str::from_utf8(options.value()?).ok();
            let text = text.filter(|text| text.len() <= NAME_BYTES_MAX);
            name = Some(text.ok_or_else(|| {
                CommandError::new(format!("ERR session name must be UTF-8 of at most {NAME_BYTES_MAX} bytes"))
            })?);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let ttl = match ttl {
        Some(ttl) => ttl,
        None => Ttl::from_millis(u64::from(context.server.limits.ttl_ms_default))?,
    };
    let id = context.txn.open_session(name.unwrap_or(""), None, Some(ttl))?;
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
