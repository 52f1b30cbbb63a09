//! One connection's state, and how its requests are carried out.
//!
//! Promise: every request gets exactly one [`Execution`], whatever its words; when the client goes, its subscriptions,
//! watches and CONN locks go with it. Absent: sockets and wire formats.

use std::collections::VecDeque;
use std::sync::Arc;

use super::options;
use super::pubsub::Publication;
use super::pubsub::{Incoming, Subscriptions, Turn};
use super::registry::ClientInfo;
use super::steps::{Progress, REQUEST_WORK, Steps, TURN_WORK};
use super::transaction::Transaction;
use super::{Args, Command, CommandError, Context, Flags, Run, ServerState};
use crate::engine::{Parked, Watch};
use crate::journal::Seq;
use crate::lock::{Origin, SessionId};
use crate::reply::Reply;

/// What became of a request.
pub struct Execution {
    /// What to answer; `None`: nothing. If it waits for a lock or has turns left to take, only whether there is to be an answer.
    pub reply: Option<Reply>,
    /// The reply must not leave before this is durable.
    pub seq: Seq,
    /// How the connection goes on.
    pub next: AfterReply,
    /// The name of the command; empty if there is none of that name.
    pub command: &'static str,
}

/// How a connection goes on after a request.
pub enum AfterReply {
    /// With the next request.
    Request,
    /// With the same request, once others had their turn: nothing was done yet, and there is no reply.
    Again,
    /// It waits for a lock; the reply comes from [`Client::verdict`].
    Wait(Parked),
    /// It has turns left to take; the reply comes from [`Client::advance`].
    Steps(Box<dyn Steps>),
    /// It ends after the reply.
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Replies {
    On,
    Off,
    /// Not to the next request.
    Skip,
}

/// Sessions that a connection is remembered to have opened.
const OPENED_SESSIONS_MAX: usize = 16;

/// One connection.
pub struct Client {
    server: Arc<ServerState>,
    info: Arc<ClientInfo>,
    database: u8,
    protocol: u8,
    pub(super) is_authenticated: bool,
    pub(super) transaction: Option<Transaction>,
    pub(super) watch: Option<Watch>,
    pub(super) subscriptions: Subscriptions,
    /// What a command of the transaction that runs publishes, once the transaction is over.
    pub(super) deferred: Option<Publication>,
    connection_session: Option<SessionId>,
    /// The latest that it opened, the oldest first.
    opened_sessions: VecDeque<SessionId>,
    origin: Option<Arc<Origin>>,
    replies: Replies,
    /// The request that is carried out said that the next one is to be skipped.
    skips_next: bool,
    /// The one that is carried out.
    command: &'static str,
    last_command: &'static str,
    /// Units of work done since the last turn ended.
    pub(super) work: usize,
    /// What `work` was when the transaction that runs began.
    pub(super) transaction_began_at: usize,
}

impl Client {
    /// Registers a connection between these two addresses.
    pub fn new(server: &Arc<ServerState>, addr: String, local_addr: String) -> Client {
        let info = server.clients.register(addr, local_addr, server.engine.clock().now());
        Client {
            server: Arc::clone(server),
            info,
            database: 0,
            protocol: 2,
            is_authenticated: server.password.is_none(),
            transaction: None,
            watch: None,
            subscriptions: Subscriptions::default(),
            deferred: None,
            connection_session: None,
            opened_sessions: VecDeque::new(),
            origin: None,
            replies: Replies::On,
            skips_next: false,
            command: "",
            last_command: "NULL",
            work: 0,
            transaction_began_at: 0,
        }
    }

    /// Whether it may go on before others are served.
    pub fn has_turn_left(&self) -> bool {
        self.work < TURN_WORK
    }

    /// Others were served: starts a new turn.
    pub fn begin_turn(&mut self) {
        self.work = 0;
    }

    /// What others may know of it.
    pub fn info(&self) -> &Arc<ClientInfo> {
        &self.info
    }

    /// 2 or 3.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Whether it gave the password, or needs none.
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    pub(super) fn database(&self) -> u8 {
        self.database
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscriptions.count() > 0
    }

    /// Whether it has subscribed to something since it was opened or reset.
    pub fn has_subscribed(&self) -> bool {
        self.subscriptions.has_queue()
    }

    /// The oldest message for it that was not sent yet.
    pub fn next_message(&mut self, turn: &mut Turn) -> Incoming {
        self.subscriptions.next_message(turn)
    }

    pub(super) fn select(&mut self, database: u8) {
        self.database = database;
        self.info.update(|details| details.database = database);
    }

    pub(super) fn set_protocol(&mut self, protocol: u8) {
        self.protocol = protocol;
        self.info.update(|details| details.protocol = protocol);
    }

    pub(super) fn set_name(&mut self, name: &str) {
        self.info.update(|details| details.name = name.to_owned());
        self.origin = None;
    }

    /// Who asks, for those who look at the locks.
    pub(super) fn origin(&mut self) -> Arc<Origin> {
        let info = &self.info;
        let make = || Arc::new(Origin { addr: info.addr.clone(), client_name: info.name() });
        Arc::clone(self.origin.get_or_insert_with(make))
    }

    /// Notes that it opened a session.
    pub(super) fn opened_session(&mut self, id: SessionId) {
        if self.opened_sessions.len() == OPENED_SESSIONS_MAX {
            self.opened_sessions.pop_front();
        }
        self.opened_sessions.push_back(id);
    }

    /// Whether it may see the id of a session: it opened it, or the session is its own (CONN).
    pub(super) fn knows_session(&self, id: SessionId) -> bool {
        self.connection_session == Some(id) || self.opened_sessions.contains(&id)
    }

    /// Back to how it was when it was opened, but for locks taken with CONN, and for subscriptions: see
    /// [`Client::unsubscribe_some`].
    pub(super) fn reset(&mut self) {
        self.transaction = None;
        self.watch = None;
        self.select(0);
        self.set_protocol(2);
        self.set_name("");
        self.replies = Replies::On;
        self.opened_sessions = VecDeque::new();
        self.is_authenticated = self.server.password.is_none();
    }

    /// Removes some of its subscriptions, as many as a turn allows. Returns whether there are any left.
    pub fn unsubscribe_some(&mut self) -> bool {
        self.subscriptions.clear_some(&self.server, self.info.id)
    }

    /// Carries a request out. `server` is the one it was made with, passed along to spare a count of references.
    pub fn execute(&mut self, server: &Arc<ServerState>, args: Args<'_>) -> Execution {
        let replies = self.replies;
        self.skips_next = false;
        self.command = "";
        self.work += REQUEST_WORK;
        let access = server.engine.access();
        let mut context = Context {
            server,
            client: self,
            access: &access,
            seq: Seq::default(),
            parked: None,
            steps: None,
            closes: false,
        };
        let done = context.run(args);
        if done.as_ref().is_err_and(CommandError::is_unsettled) {
            let (reply, seq, next, command) = (None, Seq::default(), AfterReply::Again, self.command);
            return Execution { reply, seq, next, command };
        }
        let reply = context.reply_to(done);
        let Context { seq, parked, steps, closes, .. } = context;
        // Messages, and the confirmations that they are to come, answer no request.
        let is_message = matches!(reply, Reply::Push(_) | Reply::Sequence(_));
        let is_silent = self.replies != Replies::On && !is_message;
        if (replies, self.replies, self.skips_next) == (Replies::Skip, Replies::Skip, false) {
            self.replies = Replies::On;
        }
        let next = match (parked, steps) {
            (Some(parked), _) => AfterReply::Wait(parked),
            (None, Some(steps)) => AfterReply::Steps(steps),
            (None, None) if closes => AfterReply::Close,
            (None, None) => AfterReply::Request,
        };
        if !self.command.is_empty() {
            self.last_command = self.command;
        }
        Execution { reply: (!is_silent).then_some(reply), seq, next, command: self.command }
    }

    /// Takes the next turn of a request. `None`: it needs another one.
    pub fn advance(&mut self, server: &Arc<ServerState>, steps: &mut dyn Steps) -> Option<Execution> {
        self.begin_turn();
        let access = server.engine.access();
        let mut context = Context {
            server,
            client: self,
            access: &access,
            seq: Seq::default(),
            parked: None,
            steps: None,
            closes: false,
        };
        let done = match steps.advance(&mut context) {
            Ok(Progress::More) => return None,
            Ok(Progress::Done(reply)) => Ok(reply),
            Err(error) if error.is_unsettled() => return None,
            Err(error) => Err(error),
        };
        let reply = Some(context.reply_to(done));
        let next = if context.closes { AfterReply::Close } else { AfterReply::Request };
        Some(Execution { reply, seq: context.seq, next, command: context.client.last_command })
    }

    pub(super) fn set_replies(&mut self, arg: &[u8]) -> Result<Reply, CommandError> {
        self.replies = match arg {
            arg if options::is(arg, "on") => Replies::On,
            arg if options::is(arg, "off") => Replies::Off,
            arg if options::is(arg, "skip") && self.replies == Replies::Off => Replies::Off,
            arg if options::is(arg, "skip") => Replies::Skip,
            _ => return Err(CommandError::SYNTAX),
        };
        self.skips_next = self.replies == Replies::Skip;
        Ok(Reply::OK)
    }

    /// Waits for a parked request's reply, and what that has to wait for.
    pub async fn verdict(parked: &mut Parked) -> (Reply, Seq) {
        super::lock::verdict(parked).await
    }

    /// Tells the registry what this connection did. Call between batches of requests, and before it is shown.
    pub fn update_registry(&mut self, is_waiting: bool) {
        let now = self.server.engine.clock().now();
        let (channels, patterns) = self.subscriptions.counts();
        let queued = self.transaction.as_ref().map(Transaction::len);
        let watched = self.watch.as_ref().map_or(0, Watch::len);
        // Of the request that is carried out, if it asks about its own connection.
        let command = if self.command.is_empty() { self.last_command } else { self.command };
        self.info.update(|details| {
            details.last_seen = now;
            details.last_command = command;
            details.channels = channels;
            details.patterns = patterns;
            details.queued = queued;
            details.watched = watched;
            details.is_waiting = is_waiting;
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.watch = None;
        self.subscriptions.clear(&self.server, self.info.id);
        if let Some(id) = self.connection_session {
            self.server.engine.connection_is_gone(id);
        }
        self.server.clients.remove(self.info.id);
    }
}

impl Context<'_> {
    /// The session that ends with this connection.
    pub(super) fn connection_session(&mut self) -> Result<SessionId, CommandError> {
        if let Some(id) = self.client.connection_session {
            if self.access.has_session(id) {
                return Ok(id);
            }
            // The commit that opened it failed.
            self.client.connection_session = None;
            self.access.forget_connection(id);
        }
        let id = self.observe(self.access.open_session("", None, None))?;
        self.client.connection_session = Some(id);
        Ok(id)
    }

    /// Finds the command, checks what is common to all, and runs or queues it.
    fn run(&mut self, args: Args<'_>) -> Result<Reply, CommandError> {
        let command = self.admit(args).map_err(|error| self.abort_transaction(args, error))?;
        if self.client.transaction.is_some() && !command.is(Flags::NOT_QUEUED) {
            return self.queue(command, args);
        }
        self.call(command, args)
    }

    /// The command that these words name, if the connection may send it now.
    fn admit(&mut self, args: Args<'_>) -> Result<&'static Command, CommandError> {
        let command = find(args)?;
        self.client.command = command.name;
        if !self.client.is_authenticated && !command.is(Flags::NO_AUTH) {
            return Err(CommandError::fixed("NOAUTH Authentication required."));
        }
        if self.client.is_subscribed() && self.client.protocol == 2 && !command.is(Flags::SUBSCRIBED) {
            return Err(CommandError::new(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                 this context",
                command.name
            )));
        }
        Ok(command)
    }

    /// Runs a command that was found, with its checks done.
    pub(super) fn call(&mut self, command: &'static Command, args: Args<'_>) -> Result<Reply, CommandError> {
        self.server.commands_run.add(1);
        match command.run {
            Run::Handler(handler) => handler(self, args),
            Run::Subcommands(_) => Ok(super::docs::help(command)),
        }
    }
}

/// The command, or the subcommand, that these words name, if there are enough of them.
fn find(args: Args<'_>) -> Result<&'static Command, CommandError> {
    let Some(command) = Command::find(args.at(0)) else { return Err(unknown(args)) };
    if !command.accepts(args.len()) {
        return Err(CommandError::arity(command.name));
    }
    let Run::Subcommands(subcommands) = command.run else { return Ok(command) };
    if args.len() == 1 {
        // COMMAND alone is COMMAND INFO.
        return subcommands.first().ok_or(CommandError::SYNTAX);
    }
    let arg = args.at(1);
    if options::is(arg, "help") {
        return Ok(command);
    }
    let found = subcommands.iter().find(|subcommand| options::is(arg, subcommand.own_name()));
    let subcommand = found.ok_or_else(|| {
        let (arg, name) = (printable(arg, 128), command.name.to_ascii_uppercase());
        CommandError::new(format!("ERR unknown subcommand '{arg}'. Try {name} HELP."))
    })?;
    if subcommand.accepts(args.len()) { Ok(subcommand) } else { Err(CommandError::arity(subcommand.name)) }
}

/// Input as it may be repeated in an error: cut, and with no control bytes.
fn printable(arg: &[u8], bytes_max: usize) -> String {
    let arg = String::from_utf8_lossy(&arg[..arg.len().min(bytes_max)]);
    arg.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn unknown(args: Args<'_>) -> CommandError {
    let mut begin = String::new();
    for arg in args.from(1) {
        if begin.len() >= 128 {
            break;
        }
        begin.push_str(&format!("'{}' ", printable(arg, 128 - begin.len())));
    }
    let name = printable(args.at(0), 128);
    CommandError::new(format!("ERR unknown command '{name}', with args beginning with: {begin}"))
}
