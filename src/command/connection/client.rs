//! `CLIENT ...`: connections as seen by others.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::registry::ClientInfo;
use crate::command::{Args, Command, CommandError, Context, Flags, Group, Progress, Run, Steps, options};
use crate::reply::{Reply, Rope};

const fn subcommand(
    name: &'static str,
    syntax: &'static str,
    arity: i8,
    summary: &'static str,
    run: crate::command::Handler,
) -> Command {
    let (group, keys) = (Group::Connection, (0, 0, 0));
    Command { name, syntax, summary, group, arity, flags: Flags::NONE, keys, run: Run::Handler(run) }
}

pub(in crate::command) const CLIENT: Command = Command {
    name: "client",
    syntax: "",
    summary: "A container for client connection commands.",
    group: Group::Connection,
    arity: -2,
    flags: Flags::NONE,
    keys: (0, 0, 0),
    run: Run::Subcommands(&[
        subcommand("client|id", "", 2, "Returns the id of the connection.", |context, _| {
            Ok(Reply::unsigned(context.client.info().id))
        }),
        subcommand(
            "client|setname",
            "connection-name",
            3,
            "Sets the name of the connection.",
            |context, args| {
                context.client.set_name(valid_name(args.at(2))?);
                Ok(Reply::OK)
            },
        ),
        subcommand("client|getname", "", 2, "Returns the name of the connection, or Null.", |context, _| {
            let name = context.client.info().name();
            Ok(if name.is_empty() { Reply::Null } else { Reply::bulk(name) })
        }),
        subcommand(
            "client|setinfo",
            "LIB-NAME libname | LIB-VER libver",
            4,
            "Sets the name or version of the client library.",
            set_info,
        ),
        subcommand("client|info", "", 2, "Returns information about the connection.", |context, _| {
            context.client.update_registry(false);
            let now = context.txn.now();
            Ok(Reply::Text(context.client.info().line(now) + "\n"))
        }),
        subcommand(
            "client|list",
            "[TYPE type] [ID client-id [client-id ...]]",
            -2,
            "Returns information about all connections, or about those that match.",
            list,
        ),
        subcommand(
            "client|kill",
            "filter [value] [filter value ...]",
            -3,
            "Closes connections by ADDR, LADDR, ID, TYPE, USER, MAXAGE and SKIPME.",
            kill,
        ),
        subcommand(
            "client|no-evict",
            "ON | OFF",
            3,
            "Accepted for compatibility: the server evicts no clients.",
            on_or_off,
        ),
        subcommand(
            "client|no-touch",
            "ON | OFF",
            3,
            "Accepted for compatibility: reads never modify keys.",
            on_or_off,
        ),
        subcommand(
            "client|reply",
            "ON | OFF | SKIP",
            3,
            "Turns replies to the connection on or off, or skips the next one.",
            |context, args| context.client.set_replies(args.at(2)),
        ),
    ]),
};

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
