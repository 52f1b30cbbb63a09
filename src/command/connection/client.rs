//! `CLIENT ...`: the registry of connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::Unblock;
use crate::command::pause::PauseMode;
use crate::command::registry::ClientInfo;
use crate::command::{
    Args, Command, CommandError, Context, Flags, Group, Progress, Steps, options, tracking,
};
use crate::domain::{Timestamp, Ttl};
use crate::reply::{Reply, Rope};

pub(super) const CLIENT: Command = Command::container(
    "client",
    -2,
    &[
        Command::new("client|id", 2, |context, _| Ok(Reply::unsigned(context.client.info().id)))
            .group(Group::Connection)
            .flags(Flags::ANY_NODE | Flags::NOSCRIPT)
            .summary("Returns the id of the connection.")
            .example("CLIENT ID"),
        Command::new("client|setname", 3, setname)
            .group(Group::Connection)
            .flags(Flags::ANY_NODE | Flags::NOSCRIPT)
            .syntax("connection-name")
            .summary("Sets the name of the connection.")
            .example("CLIENT SETNAME worker-1"),
        Command::new("client|getname", 2, getname)
            .group(Group::Connection)
            .flags(Flags::ANY_NODE | Flags::NOSCRIPT)
            .summary("Returns the name of the connection, or Null.")
            .example("CLIENT GETNAME"),
        Command::new("client|setinfo", 4, set_info)
            .group(Group::Connection)
            .flags(Flags::ANY_NODE | Flags::NOSCRIPT)
            .syntax("LIB-NAME libname | LIB-VER libver")
            .summary("Sets the name or version of the client library.")
            .example("CLIENT SETINFO LIB-NAME my-client"),
        Command::new("client|info", 2, info)
            .group(Group::Connection)
            .flags(Flags::ANY_NODE | Flags::NOSCRIPT)
            .summary("Returns information about the connection.")
            .example("CLIENT INFO"),
        Command::new("client|list", -2, list)
            .group(Group::Connection)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("[TYPE type | ID client-id [client-id ...]]")
            .summary("Returns information about all connections, or about those that match.")
            .example("CLIENT LIST TYPE normal"),
        Command::new("client|kill", -3, kill)
            .group(Group::Connection)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("filter [value] [filter value ...]")
            .summary("Closes connections by ADDR, LADDR, ID, TYPE, USER, MAXAGE and SKIPME.")
            .example("CLIENT KILL TYPE pubsub"),
        Command::new("client|unblock", -3, unblock)
            .group(Group::Connection)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("client-id [TIMEOUT | ERROR]")
            .summary(
                "Ends the wait of another connection's request as if its time was over, or with an \
                 error. Returns 1, or 0 if none waits.",
            )
            .example("CLIENT UNBLOCK 1000 ERROR"),
        Command::new("client|pause", -3, pause)
            .group(Group::Connection)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("timeout [WRITE | ALL]")
            .summary(
                "Makes requests wait for this number of milliseconds, at most an hour: those that may \
                 change something, or all but those about the connection. Leases end meanwhile.",
            )
            .example("CLIENT PAUSE 0 WRITE"),
        Command::new("client|unpause", 2, unpause)
            .group(Group::Connection)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .summary("Ends a pause.")
            .example("CLIENT UNPAUSE"),
        Command::new("client|no-evict", 3, on_or_off)
            .group(Group::Connection)
            .flags(Flags::ANY_NODE | Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("ON | OFF")
            .summary("Accepted for compatibility: the server evicts no clients.")
            .example("CLIENT NO-EVICT ON"),
        Command::new("client|no-touch", 3, on_or_off)
            .group(Group::Connection)
            .flags(Flags::ANY_NODE | Flags::NOSCRIPT)
            .syntax("ON | OFF")
            .summary("Accepted for compatibility: reads never modify keys.")
            .example("CLIENT NO-TOUCH ON"),
        Command::new("client|reply", 3, |context, args| context.client.set_replies(args.at(2)))
            .group(Group::Connection)
            .flags(Flags::NOSCRIPT)
            .syntax("ON | OFF | SKIP")
            .summary("Turns replies to the connection on or off, or skips the next one.")
            .example("CLIENT REPLY ON"),
        tracking::TRACKING,
        tracking::CACHING,
        tracking::TRACKINGINFO,
        tracking::GETREDIR,
    ],
)
.group(Group::Connection)
.summary("A container for client connection commands.");

fn info(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.client.update_registry(context.txn.now(), false);
    let now = context.txn.now();
    Ok(Reply::Text(context.client.info().line(now) + "\n"))
}

fn getname(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.client.info().name();
    Ok(if name.is_empty() { Reply::Null } else { Reply::bulk(name) })
}

fn setname(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.client.set_name(valid_name(args.at(2))?);
    Ok(Reply::OK)
}

/// A name that fits into a line of `CLIENT LIST`.
pub(in crate::command) fn valid_name(name: &[u8]) -> Result<&str, CommandError> {
    printable(name)
        .ok_or(CommandError::fixed("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn printable(text: &[u8]) -> Option<&str> {
    let is_printable = text.len() <= 1024 && text.iter().all(|byte| (b'!'..=b'~').contains(byte));
    std::str::from_utf8(text).ok().filter(|_| is_printable)
}

fn set_info(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (what, value) = (args.at(2), args.at(3));
    let is_name = options::is(what, "lib-name");
    if !is_name && !options::is(what, "lib-ver") {
        return Err(CommandError::new(format!("ERR Unrecognized option '{}'", what.escape_ascii())));
    }
    let what = if is_name { "lib-name" } else { "lib-ver" };
    let value = printable(value).ok_or_else(|| {
        CommandError::new(format!("ERR {what} cannot contain spaces, newlines or special characters."))
    })?;
    context.client.info().update(|details| {
        let place = if is_name { &mut details.lib_name } else { &mut details.lib_version };
        *place = value.to_owned();
    });
    Ok(Reply::OK)
}

fn on_or_off(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let arg = args.at(2);
    if options::is(arg, "on") || options::is(arg, "off") { Ok(Reply::OK) } else { Err(CommandError::SYNTAX) }
}

fn list(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.client.update_registry(context.txn.now(), false);
    let (kind, ids) = match args.at(2) {
        _ if args.len() == 2 => (None, None),
        filter if options::is(filter, "type") && args.len() == 4 => (Some(known_type(args.at(3))?), None),
        filter if options::is(filter, "id") && args.len() > 3 => {
            (None, Some(args.from(3).map(client_id).collect::<Result<_, _>>()?))
        }
        _ => return Err(CommandError::SYNTAX),
    };
    let all = context.server.clients.all().into_iter();
    context.in_turns(Listing { all, kind, ids, text: Rope::default() })
}

fn client_id(arg: &[u8]) -> Result<u64, CommandError> {
    let id = options::integer(arg).ok().and_then(|id| u64::try_from(id).ok());
    id.ok_or(CommandError::fixed("ERR Invalid client ID"))
}

/// Units of work to check one connection, and to write its line.
const VISIT_WORK: usize = 1;
const LINE_WORK: usize = 16;

/// A CLIENT LIST in progress.
struct Listing {
    all: std::vec::IntoIter<Arc<ClientInfo>>,
    kind: Option<String>,
    ids: Option<BTreeSet<u64>>,
    text: Rope,
}

impl Steps for Listing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let now = context.txn.now();
        for info in self.all.by_ref() {
            context.spend(VISIT_WORK);
            let is_wanted = self.kind.as_deref().is_none_or(|kind| kind == info.client_type())
                && self.ids.as_ref().is_none_or(|ids| ids.contains(&info.id));
            if is_wanted {
                self.text.push(&[info.line(now).as_bytes(), b"\n"]);
                context.spend(LINE_WORK);
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done(Reply::LongText(std::mem::take(&mut self.text))))
    }
}

fn known_type(arg: &[u8]) -> Result<String, CommandError> {
    let arg = String::from_utf8_lossy(arg).to_ascii_lowercase();
    match arg.as_str() {
        "normal" | "pubsub" | "master" | "replica" => Ok(arg),
        "slave" => Ok("replica".to_owned()),
        _ => Err(CommandError::new(format!("ERR Unknown client type '{}'", arg.escape_default()))),
    }
}

fn unblock(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let how = match args.at(3) {
        _ if args.len() == 3 => Unblock::Timeout,
        _ if args.len() > 4 => return Err(CommandError::subcommand_arity(args)),
        how if options::is(how, "timeout") => Unblock::Timeout,
        how if options::is(how, "error") => Unblock::Error,
        _ => return Err(CommandError::fixed("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let id = u64::try_from(options::integer(args.at(2))?).ok();
    let info = id.and_then(|id| context.server.clients.find(id));
    Ok(Reply::Integer(i64::from(info.is_some_and(|info| info.unblock(how)))))
}

/// Longest pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 3_600_000;

fn pause(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mode = match args.at(3) {
        _ if args.len() == 3 => PauseMode::All,
        _ if args.len() > 4 => return Err(CommandError::subcommand_arity(args)),
        mode if options::is(mode, "write") => PauseMode::Write,
        mode if options::is(mode, "all") => PauseMode::All,
        _ => return Err(CommandError::fixed("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let millis = match options::integer(args.at(2)) {
        Ok(millis) => u64::try_from(millis).map_err(|_| CommandError::fixed("ERR timeout is negative"))?,
        Err(_) => return Err(CommandError::fixed("ERR timeout is not an integer or out of range")),
    };
    if let Ok(time) = Ttl::from_millis(millis.min(PAUSE_MS_MAX)) {
        context.server.pauses.start(context.txn.now().after(Some(time)), mode);
    }
    Ok(Reply::OK)
}

fn unpause(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.server.pauses.end();
    Ok(Reply::OK)
}

/// Whether CLIENT KILL closes this connection.
type Filter = Box<dyn Fn(&ClientInfo) -> bool + Send>;

fn kill(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let own = context.client.info().id;
    let now = context.txn.now();
    let all = context.server.clients.all();
    if args.len() == 3 {
        let found = all.iter().find(|info| info.addr.as_bytes() == args.at(2));
        let info = found.ok_or(CommandError::fixed("ERR No such client"))?;
        info.kill();
        context.closes |= info.id == own;
        return Ok(Reply::OK);
    }
    let mut skip_me = true;
    let mut wanted = Vec::new();
    let filters = args.skip(2);
    if !filters.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    for n in (0..filters.len()).step_by(2) {
        let (name, value) = (filters.at(n), filters.at(n + 1));
        match options::is(name, "skipme") {
            true if options::is(value, "yes") => skip_me = true,
            true if options::is(value, "no") => skip_me = false,
            _ => wanted.push(filter(context, name, value.to_vec(), now)?),
        }
    }
    context.in_turns(Killing { all: all.into_iter(), wanted, skip_me, killed: 0 })
}

/// A filter of CLIENT KILL.
fn filter(
    context: &Context<'_>,
    name: &[u8],
    value: Vec<u8>,
    now: Timestamp,
) -> Result<Filter, CommandError> {
    let is = |expected| options::is(name, expected);
    Ok(if is("id") {
        let id = options::integer(&value).ok().filter(|id| *id > 0);
        let id = id.ok_or(CommandError::fixed("ERR client-id should be greater than 0"))?;
        Box::new(move |info| i64::try_from(info.id) == Ok(id))
    } else if is("addr") {
        Box::new(move |info| info.addr.as_bytes() == value)
    } else if is("laddr") {
        Box::new(move |info| info.local_addr.as_bytes() == value)
    } else if is("type") {
        let kind = known_type(&value)?;
        Box::new(move |info| info.client_type() == kind)
    } else if is("maxage") {
        let age = u64::try_from(options::integer(&value)?).unwrap_or(0);
        Box::new(move |info| now.millis_since(info.opened) / 1000 >= age)
    } else if is("user") {
        let user = context
            .server
            .users
            .find(&value)
            .ok_or_else(|| CommandError::new(format!("ERR No such user '{}'", value.escape_ascii())))?;
        Box::new(move |info| info.user().is_some_and(|name| name == *user.name()))
    } else {
        return Err(CommandError::SYNTAX);
    })
}

/// A CLIENT KILL in progress.
struct Killing {
    all: std::vec::IntoIter<Arc<ClientInfo>>,
    wanted: Vec<Filter>,
    skip_me: bool,
    killed: usize,
}

/// Units of work to close a connection.
const KILL_WORK: usize = 8;

impl Steps for Killing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let own = context.client.info().id;
        for info in self.all.by_ref() {
            context.spend(VISIT_WORK + self.wanted.len());
            if self.wanted.iter().all(|is_wanted| is_wanted(&info)) && !(self.skip_me && info.id == own) {
                info.kill();
                context.closes |= info.id == own;
                context.spend(KILL_WORK);
                self.killed += 1;
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done(Reply::count(self.killed)))
    }
}
