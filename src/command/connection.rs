//! `HELLO`, `AUTH`, `PING`, `ECHO`, `SELECT`, `RESET`, `QUIT`: the connection itself.

use super::steps::{Progress, Steps};
use super::{Args, Command, CommandError, Context, Flags, Group, REDIS_VERSION, Run, args};
use crate::domain::DATABASES;
use crate::reply::Reply;

const fn command(
    name: &'static str,
    syntax: &'static str,
    arity: i8,
    flags: u16,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    let (group, keys) = (Group::Connection, (0, 0, 0));
    Command { name, syntax, summary, group, arity, flags: flags | Flags::FAST, keys, run: Run::Handler(run) }
}

pub(super) const HELLO: Command = command(
    "hello",
    "[protover [AUTH username password] [SETNAME clientname]]",
    -1,
    Flags::NO_AUTH,
    "Chooses RESP2 or RESP3. Answers what this server is.",
    hello,
);

pub(super) const AUTH: Command = command(
    "auth",
    "[username] password",
    -2,
    Flags::NO_AUTH,
    "Gives the password. The only user is called default.",
    auth,
);

pub(super) const PING: Command =
    command("ping", "[message]", -1, Flags::SUBSCRIBED, "Answers PONG, or the message.", ping);

pub(super) const ECHO: Command =
    command("echo", "message", 2, Flags::NONE, "Answers the message.", |_, words| {
        Ok(Reply::bulk(words.word(1)))
    });

pub(super) const SELECT: Command =
    command("select", "index", 2, Flags::NONE, "Chooses the database, 0 to 15, that keys are in.", select);

pub(super) const RESET: Command = command(
    "reset",
    "",
    1,
    Flags::NO_AUTH | Flags::NOT_QUEUED | Flags::SUBSCRIBED,
    "Makes the connection as it was when it was opened. Locks taken with CONN stay until it closes.",
    |context, _| {
        context.client.reset();
        context.in_turns(Unsubscribe)
    },
);

/// The end of RESET.
struct Unsubscribe;

impl Steps for Unsubscribe {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        Ok(match context.client.unsubscribe_some() {
            true => Progress::More,
            false => Progress::Done(Reply::Simple("RESET")),
        })
    }
}

pub(super) const QUIT: Command = command(
    "quit",
    "",
    -1,
    Flags::NO_AUTH | Flags::NOT_QUEUED | Flags::SUBSCRIBED,
    "Closes the connection.",
    |context, _| {
        context.closes = true;
        Ok(Reply::OK)
    },
);

fn log_in(context: &mut Context<'_>, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    let is_right = context.service.password.admits(password);
    if user != b"default" || !is_right {
        context.service.metrics.failed_logins.add(1);
        tracing::warn!(client = %context.client.info().addr, "wrong user or password");
        return Err(CommandError::fixed("WRONGPASS invalid username-password pair or user is disabled."));
    }
    context.client.is_authenticated = true;
    Ok(())
}

fn auth(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    match words.len() {
        2 if context.service.password.is_none() => Err(CommandError::fixed(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        )),
        2 => log_in(context, b"default", words.word(1)).map(|()| Reply::OK),
        3 => log_in(context, words.word(1), words.word(2)).map(|()| Reply::OK),
        _ => Err(CommandError::SYNTAX),
    }
}

fn hello(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let mut options = words.options(1);
    let protocol = match options.next_word() {
        None => context.client.protocol(),
        Some(word) => match args::integer(word) {
            Ok(2) => 2,
            Ok(3) => 3,
            Ok(_) => return Err(CommandError::fixed("NOPROTO unsupported protocol version")),
            Err(_) => {
                return Err(CommandError::fixed("ERR Protocol version is not an integer or out of range"));
            }
        },
    };
    let (mut credentials, mut name) = (None, None);
    while let Some(word) = options.next_word() {
        let wrong =
            |_| CommandError::new(format!("ERR Syntax error in HELLO option '{}'", word.escape_ascii()));
        if args::is(word, "auth") {
            credentials = Some((options.value().map_err(wrong)?, options.value().map_err(wrong)?));
        } else if args::is(word, "setname") {
            name = Some(super::clients::valid_name(options.value().map_err(wrong)?)?);
        } else {
            return Err(wrong(CommandError::SYNTAX));
        }
    }
    if let Some((user, password)) = credentials {
        log_in(context, user, password)?;
    }
    if !context.client.is_authenticated {
        return Err(CommandError::fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
             same time",
        ));
    }
    if let Some(name) = name {
        context.client.set_name(name);
    }
    context.client.set_protocol(protocol);
    Ok(Reply::Map(vec![
        (Reply::bulk("server"), Reply::bulk("redis")),
        (Reply::bulk("version"), Reply::bulk(REDIS_VERSION)),
        (Reply::bulk("proto"), Reply::Integer(i64::from(protocol))),
        (Reply::bulk("id"), Reply::unsigned(context.client.info().id)),
        (Reply::bulk("mode"), Reply::bulk("standalone")),
        (Reply::bulk("role"), Reply::bulk("master")),
        (Reply::bulk("modules"), Reply::Array(vec![])),
        (Reply::bulk("octostore"), Reply::bulk(env!("CARGO_PKG_VERSION"))),
    ]))
}

fn ping(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let message = words.word(1);
    match words.len() {
        1 | 2 if context.client.is_subscribed() && context.client.protocol() == 2 => {
            Ok(Reply::Array(vec![Reply::bulk("pong"), Reply::bulk(message)]))
        }
        1 => Ok(Reply::Simple("PONG")),
        2 => Ok(Reply::bulk(message)),
        _ => Err(CommandError::arity("ping")),
    }
}

fn select(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let index = args::integer(words.word(1))?;
    match u8::try_from(index) {
        Ok(index) if index < DATABASES => {
            context.client.select(index);
            Ok(Reply::OK)
        }
        _ => Err(CommandError::fixed("ERR DB index is out of range")),
    }
}
