//! `CLIENT ...`: connections as seen by others.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::registry::ClientInfo;
use crate::command::{Args, Command, CommandError, Context, Flags, Group, Progress, Steps, options};
use crate::reply::{Reply, Rope};

pub(super) const CLIENT: Command = Command::container(
    "client",
    -2,
    &[
        Command::new("client|id", 2, |context, _| Ok(Reply::unsigned(context.client.info().id)))
            .group(Group::Connection)
            .flags(Flags::NOSCRIPT)
            .summary("Returns the id of the connection.")
            .example("CLIENT ID"),
        Command::new("client|setname", 3, setname)
            .group(Group::Connection)
            .flags(Flags::NOSCRIPT)
            .syntax("connection-name")
            .summary("Sets the name of the connection.")
            .example("CLIENT SETNAME worker-1"),
        Command::new("client|getname", 2, getname)
            .group(Group::Connection)
            .flags(Flags::NOSCRIPT)
            .summary("Returns the name of the connection, or Null.")
            .example("CLIENT GETNAME"),
        Command::new("client|setinfo", 4, set_info)
            .group(Group::Connection)
            .flags(Flags::NOSCRIPT)
            .syntax("LIB-NAME libname | LIB-VER libver")
            .summary("Sets the name or version of the client library.")
            .example("CLIENT SETINFO LIB-NAME my-client"),
        Command::new("client|info", 2, info)
            .group(Group::Connection)
            .flags(Flags::NOSCRIPT)
            .summary("Returns information about the connection.")
            .example("CLIENT INFO"),
        Command::new("client|list", -2, list)
            .group(Group::Connection)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("[TYPE type] [ID client-id [client-id ...]]")
            .summary("Returns information about all connections, or about those that match.")
            .example("CLIENT LIST TYPE normal"),
        Command::new("client|kill", -3, kill)
            .group(Group::Connection)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("filter [value] [filter value ...]")
            .summary("Closes connections by ADDR, LADDR, ID, TYPE, USER, MAXAGE and SKIPME.")
            .example("CLIENT KILL TYPE pubsub"),
        Command::new("client|no-evict", 3, on_or_off)
            .group(Group::Connection)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("ON | OFF")
            .summary("Accepted for compatibility: the server evicts no clients.")
            .example("CLIENT NO-EVICT ON"),
        Command::new("client|no-touch", 3, on_or_off)
            .group(Group::Connection)
            .flags(Flags::NOSCRIPT)
            .syntax("ON | OFF")
            .summary("Accepted for compatibility: reads never modify keys.")
            .example("CLIENT NO-TOUCH ON"),
        Command::new("client|reply", 3, |context, args| context.client.set_replies(args.at(2)))
            .group(Group::Connection)
            .flags(Flags::NOSCRIPT)
            .syntax("ON | OFF | SKIP")
            .summary("Turns replies to the connection on or off, or skips the next one.")
            .example("CLIENT REPLY ON"),
    ],
)
.group(Group::Connection)
.summary("A container for client connection commands.");

fn info(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.client.update_registry(false);
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
    context.client.update_registry(false);
    let (mut kind, mut ids) = (None, None);
    let mut options = args.options(2);
    while let Some(arg) = options.next_arg() {
        if options::is(arg, "type") && kind.is_none() {
            kind = Some(known_type(options.value()?)?);
        } else if options::is(arg, "id") && ids.is_none() {
            let mut wanted = BTreeSet::new();
            while let Some(id) = options.next_arg() {
                let id = options::integer(id).ok().and_then(|id| u64::try_from(id).ok());
                wanted.insert(id.ok_or(CommandError::fixed("ERR Invalid client ID"))?);
            }
            ids = Some(wanted).filter(|ids| !ids.is_empty());
            if ids.is_none() {
                return Err(CommandError::SYNTAX);
            }
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let all = context.server.clients.all().into_iter();
    context.in_turns(Listing { all, kind, ids, text: Rope::default() })
}

/// What the look at one connection costs, and what it costs to write its line.
const LOOK_WORK: usize = 1;
const LINE_WORK: usize = 16;

/// A CLIENT LIST that has not seen all connections yet.
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
            context.spend(LOOK_WORK);
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

/// Whether CLIENT KILL means this connection.
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
    let mut wanted: Vec<Filter> = Vec::new();
    let mut options = args.options(2);
    while let Some(arg) = options.next_arg() {
        let value = options.value()?.to_vec();
        if options::is(arg, "id") {
            let id = options::integer(&value).ok().filter(|id| *id > 0);
            let id = id.ok_or(CommandError::fixed("ERR client-id should be greater than 0"))?;
            wanted.push(Box::new(move |info| i64::try_from(info.id) == Ok(id)));
        } else if options::is(arg, "addr") {
            wanted.push(Box::new(move |info| info.addr.as_bytes() == value));
        } else if options::is(arg, "laddr") {
            wanted.push(Box::new(move |info| info.local_addr.as_bytes() == value));
        } else if options::is(arg, "type") {
            let kind = known_type(&value)?;
            wanted.push(Box::new(move |info| info.client_type() == kind));
        } else if options::is(arg, "user") {
            if value != b"default" {
                let user = value.escape_ascii();
                return Err(CommandError::new(format!("ERR No such user '{user}'")));
            }
        } else if options::is(arg, "maxage") {
            let age = u64::try_from(options::integer(&value)?).unwrap_or(0);
            wanted.push(Box::new(move |info| now.millis_since(info.opened) / 1000 >= age));
        } else if options::is(arg, "skipme") && (options::is(&value, "yes") || options::is(&value, "no")) {
            skip_me = options::is(&value, "yes");
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    context.in_turns(Killing { all: all.into_iter(), wanted, skip_me, killed: 0 })
}

/// A CLIENT KILL that has not seen all connections yet.
struct Killing {
    all: std::vec::IntoIter<Arc<ClientInfo>>,
    wanted: Vec<Filter>,
    skip_me: bool,
    killed: usize,
}

/// What it costs to end a connection.
const KILL_WORK: usize = 8;

impl Steps for Killing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let own = context.client.info().id;
        for info in self.all.by_ref() {
            context.spend(LOOK_WORK + self.wanted.len());
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
