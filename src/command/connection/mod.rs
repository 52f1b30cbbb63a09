//! The connection itself: `HELLO`, `AUTH`, `PING`, `ECHO`, `SELECT`, `RESET`, `QUIT`. Submodule:
//! `CLIENT`.

mod client;

use std::sync::Arc;

use crate::auth::{DEFAULT_USER, DenialReason, WRONG_PASSWORD_DELAY, log_failed_login};
use crate::command::options::{self, value, values};
use crate::command::steps::{Progress, Steps};
use crate::command::{Args, Caller, Command, CommandError, Context, Flags, Group, REDIS_VERSION, key};
use crate::reply::Reply;

pub(in crate::command) const COMMANDS: &[Command] =
    &[HELLO, AUTH, PING, ECHO, SELECT, RESET, QUIT, client::CLIENT];

const HELLO: Command = Command::new("hello", -1, hello)
    .group(Group::Connection)
    .flags(Flags::ANY_NODE | Flags::NO_AUTH | Flags::FAST | Flags::NOSCRIPT)
    .syntax("[protover [AUTH username password] [SETNAME clientname]]")
    .summary("Selects RESP2 or RESP3. Returns information about the server.")
    .example("HELLO 3 SETNAME worker-1");

const AUTH: Command = Command::new("auth", -2, auth)
    .group(Group::Connection)
    .flags(Flags::ANY_NODE | Flags::NO_AUTH | Flags::FAST | Flags::NOSCRIPT)
    .syntax("[username] password")
    .summary("Authenticates the connection as a user, by default as the user default.")
    .example("AUTH default secret");

const PING: Command = Command::new("ping", -1, ping)
    .group(Group::Connection)
    .flags(Flags::ANY_NODE | Flags::SUBSCRIBED | Flags::FAST)
    .syntax("[message]")
    .summary("Returns PONG, or the message.")
    .example("PING");

const ECHO: Command = Command::new("echo", 2, |_, args| Ok(Reply::bulk(args.at(1))))
    .group(Group::Connection)
    .flags(Flags::ANY_NODE | Flags::FAST)
    .syntax("message")
    .summary("Returns the message.")
    .example("ECHO hello");

const SELECT: Command = Command::new("select", 2, select)
    .group(Group::Connection)
    .flags(Flags::ANY_NODE | Flags::FAST)
    .syntax("index")
    .summary("Selects the current database, 0 to 15.")
    .example("SELECT 1");

/// The flags of commands that a connection may send in every state.
const AT_ANY_TIME: u16 =
    Flags::ANY_NODE | Flags::NO_AUTH | Flags::NOT_QUEUED | Flags::SUBSCRIBED | Flags::FAST | Flags::NOSCRIPT;

const RESET: Command = Command::new("reset", 1, reset)
    .group(Group::Connection)
    .flags(AT_ANY_TIME)
    .summary(
        "Resets the connection to its initial state. Locks acquired with CONN remain held \
         until it closes.",
    )
    .example("RESET");

fn reset(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.client.reset();
    context.in_turns(Unsubscribe)
}

/// The last part of RESET.
struct Unsubscribe;

impl Steps for Unsubscribe {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        Ok(match context.client.unsubscribe_some() {
            true => Progress::More,
            false => Progress::Done(Reply::Simple("RESET")),
        })
    }
}

const QUIT: Command = Command::new("quit", -1, quit)
    .group(Group::Connection)
    .flags(AT_ANY_TIME)
    .summary("Closes the connection.")
    .example("QUIT");

fn quit(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.closes = true;
    Ok(Reply::OK)
}

fn log_in(context: &mut Context<'_>, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    let Some(found) = context.server.users.authenticate(user, password) else {
        context.server.metrics.failed_logins.add(1);
        context.client.delay = Some(WRONG_PASSWORD_DELAY);
        // Never with the input.
        log_failed_login(&context.client.info().addr);
        // A name that no user has may be a password in the wrong place.
        let known = context.server.users.find(user);
        let name = known.map_or_else(|| "(unknown)".into(), |user| Arc::clone(user.name()));
        let command: &[u8] = if context.client.is_running(HELLO.name) { b"HELLO" } else { b"AUTH" };
        context.log_denial(DenialReason::Auth, command, name);
        return Err(CommandError::fixed("WRONGPASS invalid username-password pair or user is disabled."));
    };
    context.client.set_user(found, true);
    Ok(())
}

fn auth(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    match args.len() {
        2 if context.server.users.default_user().needs_no_password() => Err(CommandError::fixed(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        )),
        2 => log_in(context, DEFAULT_USER.as_bytes(), args.at(1)).map(|()| Reply::OK),
        3 => log_in(context, args.at(1), args.at(2)).map(|()| Reply::OK),
        _ => Err(CommandError::SYNTAX),
    }
}

fn hello(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let protocol = match args.len() {
        1 => context.client.protocol(),
        _ => match options::integer(args.at(1)) {
            Ok(2) => 2,
            Ok(3) => 3,
            Ok(_) => return Err(CommandError::fixed("NOPROTO unsupported protocol version")),
            Err(_) => {
                return Err(CommandError::fixed("ERR Protocol version is not an integer or out of range"));
            }
        },
    };
    let wrong =
        |arg: &[u8]| CommandError::new(format!("ERR Syntax error in HELLO option '{}'", arg.escape_ascii()));
    // Without a protocol, there is nothing behind it either.
    let first = args.len().min(2);
    let [credentials, name] = args.options_or(first, &[values("AUTH", 2), value("SETNAME")], wrong)?;
    let name = name.value().map(client::valid_name).transpose()?;
    if let Some(credentials) = credentials.values() {
        log_in(context, credentials.at(0), credentials.at(1))?;
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
    let mut fields = vec![
        (Reply::bulk("server"), Reply::bulk("redis")),
        (Reply::bulk("version"), Reply::bulk(REDIS_VERSION)),
        (Reply::bulk("proto"), Reply::Integer(i64::from(protocol))),
        (Reply::bulk("id"), Reply::unsigned(context.client.info().id)),
        (Reply::bulk("mode"), Reply::bulk(context.mode())),
    ];
    if !context.client.is_sentinel {
        let role = if context.server.is_standby { "replica" } else { "master" };
        fields.push((Reply::bulk("role"), Reply::bulk(role)));
    }
    fields.extend([
        (Reply::bulk("modules"), Reply::Array(vec![])),
        (Reply::bulk("octostore"), Reply::bulk(env!("CARGO_PKG_VERSION"))),
    ]);
    Ok(Reply::Map(fields))
}

fn ping(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let message = args.at(1);
    match args.len() {
        1 | 2 if context.is_in_pubsub_mode() => {
            Ok(Reply::Array(vec![Reply::bulk("pong"), Reply::bulk(message)]))
        }
        1 => Ok(Reply::Simple("PONG")),
        2 => Ok(Reply::bulk(message)),
        _ => Err(CommandError::arity("ping")),
    }
}

/// The database that a request selects, if it is a valid SELECT.
pub(super) fn selected_database(args: Args<'_>) -> Option<u8> {
    let is_select = args.len() == 2 && options::is(args.at(0), SELECT.name);
    is_select.then(|| key::database(args.at(1)).ok())?
}

fn select(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let index = key::database(args.at(1))?;
    context.check_database(index, "ERR SELECT is not allowed in cluster mode")?;
    context.database = index;
    // The database of a script ends with the script.
    if !matches!(context.caller, Caller::Script { .. }) {
        context.client.select(index);
    }
    Ok(Reply::OK)
}
