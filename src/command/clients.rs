//! `CLIENT ...`: who is connected.
//!
//! Promise: what is shown of a connection is at most one batch of requests old. Absent: sockets; a connection looks
//! itself whether it is to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Args, Command, CommandError, Context, Flags, Group, Progress, Run, Steps, args};
use crate::domain::Timestamp;
use crate::reply::{Reply, Rope};

/// Everyone who is connected.
#[derive(Default)]
pub struct Clients {
    last_id: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
}

/// What others may know of a connection.
pub struct ClientInfo {
    /// Its number, never used again.
    pub id: u64,
    /// Its own address.
    pub addr: String,
    /// The address it connected to.
    pub local_addr: String,
    opened: Timestamp,
    details: Mutex<Details>,
    is_killed: AtomicBool,
    attention: Notify,
}

/// What changes while a connection lasts.
#[derive(Default, Clone)]
pub(super) struct Details {
    pub(super) name: String,
    pub(super) lib_name: String,
    pub(super) lib_version: String,
    pub(super) database: u8,
    pub(super) protocol: u8,
    pub(super) last_seen: Timestamp,
    pub(super) last_command: &'static str,
    pub(super) channels: usize,
    pub(super) patterns: usize,
    pub(super) queued: Option<usize>,
    pub(super) watched: usize,
    pub(super) is_waiting: bool,
}

impl Clients {
    fn connected(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ClientInfo>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(&self, addr: String, local_addr: String, now: Timestamp) -> Arc<ClientInfo> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let details = Details { protocol: 2, last_seen: now, last_command: "NULL", ..Details::default() };
        let info = Arc::new(ClientInfo {
            id,
            addr,
            local_addr,
            opened: now,
            details: Mutex::new(details),
            is_killed: AtomicBool::new(false),
            attention: Notify::new(),
        });
        self.connected().insert(id, Arc::clone(&info));
        info
    }

    pub(super) fn remove(&self, id: u64) {
        self.connected().remove(&id);
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.connected().len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn waiting(&self) -> usize {
        self.all().iter().filter(|info| info.details().is_waiting).count()
    }

    /// Ends all connections, each after the requests it has received.
    pub fn kill_all(&self) {
        self.all().iter().for_each(|info| info.kill());
    }

    fn all(&self) -> Vec<Arc<ClientInfo>> {
        self.connected().values().cloned().collect()
    }
}

impl ClientInfo {
    fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Details)) {
        change(&mut self.details());
    }

    pub(super) fn name(&self) -> String {
        self.details().name.clone()
    }

    /// Ends the connection as soon as it looks.
    pub fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        self.call();
    }

    /// Makes the connection look at [`ClientInfo::is_killed`] and its mailbox.
    pub(super) fn call(&self) {
        self.attention.notify_one();
    }

    /// Whether it is to end.
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Completes when there is something to look at. For the connection itself.
    pub async fn called(&self) {
        self.attention.notified().await;
    }

    fn kind(&self) -> &'static str {
        let details = self.details();
        if details.channels + details.patterns > 0 { "pubsub" } else { "normal" }
    }

    /// One line, as Redis writes it.
    fn line(&self, now: Timestamp) -> String {
        let details = self.details().clone();
        let mut flags = String::new();
        flags.extend((details.channels + details.patterns > 0).then_some('P'));
        flags.extend(details.queued.is_some().then_some('x'));
        flags.extend(details.is_waiting.then_some('b'));
        if flags.is_empty() {
            flags.push('N');
        }
        format!(
            "id={} addr={} laddr={} name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub=0 multi={} watch={} \
             cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.addr,
            self.local_addr,
            details.name,
            now.millis_since(self.opened) / 1000,
            now.millis_since(details.last_seen) / 1000,
            details.database,
            details.channels,
            details.patterns,
            details.queued.map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX)),
            details.watched,
            details.last_command,
            details.protocol,
            details.lib_name,
            details.lib_version,
        )
    }
}

const fn subcommand(
    name: &'static str,
    syntax: &'static str,
    arity: i8,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    let (group, keys) = (Group::Connection, (0, 0, 0));
    Command { name, syntax, summary, group, arity, flags: Flags::NONE, keys, run: Run::Handler(run) }
}

pub(super) const CLIENT: Command = Command {
    name: "client",
    syntax: "",
    summary: "Shows, names and ends connections.",
    group: Group::Connection,
    arity: -2,
    flags: Flags::NONE,
    keys: (0, 0, 0),
    run: Run::Subcommands(&[
        subcommand("client|id", "", 2, "Answers this connection's number.", |context, _| {
            Ok(Reply::unsigned(context.client.info().id))
        }),
        subcommand("client|setname", "connection-name", 3, "Names this connection.", |context, words| {
            context.client.set_name(valid_name(words.word(2))?);
            Ok(Reply::OK)
        }),
        subcommand("client|getname", "", 2, "Answers this connection's name, or Null.", |context, _| {
            let name = context.client.info().name();
            Ok(if name.is_empty() { Reply::Null } else { Reply::bulk(name) })
        }),
        subcommand(
            "client|setinfo",
            "LIB-NAME libname | LIB-VER libver",
            4,
            "Notes the client library's name or version.",
            set_info,
        ),
        subcommand("client|info", "", 2, "Answers what is known of this connection.", |context, _| {
            context.client.rest(false);
            let now = context.access.now();
            Ok(Reply::Text(context.client.info().line(now) + "\n"))
        }),
        subcommand(
            "client|list",
            "[TYPE type] [ID client-id [client-id ...]]",
            -2,
            "Answers what is known of all connections.",
            list,
        ),
        subcommand(
            "client|kill",
            "filter [value] [filter value ...]",
            -3,
            "Ends connections by ADDR, LADDR, ID, TYPE, USER, MAXAGE, SKIPME.",
            kill,
        ),
        subcommand(
            "client|no-evict",
            "ON | OFF",
            3,
            "Accepted for compatibility: nothing is ever evicted.",
            on_or_off,
        ),
        subcommand(
            "client|no-touch",
            "ON | OFF",
            3,
            "Accepted for compatibility: reading never changes a key.",
            on_or_off,
        ),
        subcommand(
            "client|reply",
            "ON | OFF | SKIP",
            3,
            "Turns replies to this connection on or off, or skips the next one.",
            |context, words| context.client.set_replies(words.word(2)),
        ),
    ]),
};

/// A name that fits into a line of `CLIENT LIST`.
pub(super) fn valid_name(name: &[u8]) -> Result<&str, CommandError> {
    printable(name)
        .ok_or(CommandError::fixed("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn printable(text: &[u8]) -> Option<&str> {
    let is_printable = text.len() <= 1024 && text.iter().all(|byte| (b'!'..=b'~').contains(byte));
    std::str::from_utf8(text).ok().filter(|_| is_printable)
}

fn set_info(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let (what, value) = (words.word(2), words.word(3));
    let is_name = args::is(what, "lib-name");
    if !is_name && !args::is(what, "lib-ver") {
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

fn on_or_off(_: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let word = words.word(2);
    if args::is(word, "on") || args::is(word, "off") { Ok(Reply::OK) } else { Err(CommandError::SYNTAX) }
}

fn list(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    context.client.rest(false);
    let (mut kind, mut ids) = (None, None);
    let mut options = words.options(2);
    while let Some(word) = options.next_word() {
        if args::is(word, "type") && kind.is_none() {
            kind = Some(known_kind(options.value()?)?);
        } else if args::is(word, "id") && ids.is_none() {
            let mut wanted = BTreeSet::new();
            while let Some(id) = options.next_word() {
                let id = args::integer(id).ok().and_then(|id| u64::try_from(id).ok());
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
    let all = context.service.clients.all().into_iter();
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
        let now = context.access.now();
        for info in self.all.by_ref() {
            context.spend(LOOK_WORK);
            let is_wanted = self.kind.as_deref().is_none_or(|kind| kind == info.kind())
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

fn known_kind(word: &[u8]) -> Result<String, CommandError> {
    let word = String::from_utf8_lossy(word).to_ascii_lowercase();
    match word.as_str() {
        "normal" | "pubsub" | "master" | "replica" => Ok(word),
        "slave" => Ok("replica".to_owned()),
        _ => Err(CommandError::new(format!("ERR Unknown client type '{}'", word.escape_default()))),
    }
}

/// Whether CLIENT KILL means this connection.
type Filter = Box<dyn Fn(&ClientInfo) -> bool + Send>;

fn kill(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let own = context.client.info().id;
    let now = context.access.now();
    let all = context.service.clients.all();
    if words.len() == 3 {
        let found = all.iter().find(|info| info.addr.as_bytes() == words.word(2));
        let info = found.ok_or(CommandError::fixed("ERR No such client"))?;
        info.kill();
        context.closes |= info.id == own;
        return Ok(Reply::OK);
    }
    let mut skip_me = true;
    let mut wanted: Vec<Filter> = Vec::new();
    let mut options = words.options(2);
    while let Some(word) = options.next_word() {
        let value = options.value()?.to_vec();
        if args::is(word, "id") {
            let id = args::integer(&value).ok().filter(|id| *id > 0);
            let id = id.ok_or(CommandError::fixed("ERR client-id should be greater than 0"))?;
            wanted.push(Box::new(move |info| i64::try_from(info.id) == Ok(id)));
        } else if args::is(word, "addr") {
            wanted.push(Box::new(move |info| info.addr.as_bytes() == value));
        } else if args::is(word, "laddr") {
            wanted.push(Box::new(move |info| info.local_addr.as_bytes() == value));
        } else if args::is(word, "type") {
            let kind = known_kind(&value)?;
            wanted.push(Box::new(move |info| info.kind() == kind));
        } else if args::is(word, "user") {
            if value != b"default" {
                let user = value.escape_ascii();
                return Err(CommandError::new(format!("ERR No such user '{user}'")));
            }
        } else if args::is(word, "maxage") {
            let age = u64::try_from(args::integer(&value)?).unwrap_or(0);
            wanted.push(Box::new(move |info| now.millis_since(info.opened) / 1000 >= age));
        } else if args::is(word, "skipme") && (args::is(&value, "yes") || args::is(&value, "no")) {
            skip_me = args::is(&value, "yes");
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
