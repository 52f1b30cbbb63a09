//! One connection's state, and how its requests are carried out.
//!
//! Promise: every request gets exactly one [`Executed`], whatever its words; when the client goes, its subscriptions,
//! watches and CONN locks go with it. Absent: sockets and wire formats.

use std::collections::VecDeque;
use std::sync::Arc;

use super::args;
use super::clients::ClientInfo;
use super::hub::Publication;
use super::pubsub::{Incoming, Subscriptions, Turn};
use super::steps::{Progress, REQUEST_WORK, Steps, TURN_WORK};
use super::transaction::Transaction;
use super::{Args, Command, CommandError, Context, Flags, Run, Service};
use crate::domain::SessionId;
use crate::engine::{Blocked, Watch};
use crate::journal::Seq;
use crate::lock::Origin;
use crate::reply::Reply;

/// What became of a request.
pub struct Executed {
    /// What to answer; `None`: nothing. If it waits for a lock or has turns left to take, only whether there is to be an answer.
    pub reply: Option<Reply>,
    /// The reply must not leave before this is durable.
    pub seq: Seq,
    /// How the connection goes on.
    pub next: Next,
    /// The name of the command; empty if there is none of that name.
    pub command: &'static str,
}

/// How a connection goes on after a request.
pub enum Next {
    /// With the next request.
    Request,
    /// With the same request, once others had their turn: nothing was done yet, and there is no reply.
    Again,
    /// It waits for a lock; the reply comes from [`Client::verdict`].
    Wait(Blocked),
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
    service: Arc<Service>,
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
    pub fn new(service: &Arc<Service>, addr: String, local_addr: String) -> Client {
        let info = service.clients.register(addr, local_addr, service.engine.clock().now());
        Client {
            service: Arc::clone(service),
            info,
            database: 0,
            protocol: 2,
            is_authenticated: service.password.is_none(),
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
        self.subscriptions.has_mailbox()
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
        self.is_authenticated = self.service.password.is_none();
    }

    /// Removes some of its subscriptions, as many as a turn allows. Returns whether there are any left.
    pub fn unsubscribe_some(&mut self) -> bool {
        self.subscriptions.clear_some(&self.service, self.info.id)
    }

    /// Carries a request out. `service` is the one it was made with, passed along to spare a count of references.
    pub fn execute(&mut self, service: &Arc<Service>, words: Args<'_>) -> Executed {
        let replies = self.replies;
        self.skips_next = false;
        self.command = "";
        self.work += REQUEST_WORK;
        let access = service.engine.access();
        let mut context = Context {
            service,
            client: self,
            access: &access,
            seq: Seq::default(),
            parked: None,
            steps: None,
            closes: false,
        };
        let done = context.run(words);
        if done.as_ref().is_err_and(CommandError::is_unsettled) {
            let (reply, seq, next, command) = (None, Seq::default(), Next::Again, self.command);
            return Executed { reply, seq, next, command };
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
            (Some(parked), _) => Next::Wait(parked),
            (None, Some(steps)) => Next::Steps(steps),
            (None, None) if closes => Next::Close,
            (None, None) => Next::Request,
        };
        if !self.command.is_empty() {
            self.last_command = self.command;
        }
        Executed { reply: (!is_silent).then_some(reply), seq, next, command: self.command }
    }

    /// Takes the next turn of a request. `None`: it needs another one.
    pub fn advance(&mut self, service: &Arc<Service>, steps: &mut dyn Steps) -> Option<Executed> {
        self.begin_turn();
        let access = service.engine.access();
        let mut context = Context {
            service,
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
        let next = if context.closes { Next::Close } else { Next::Request };
        Some(Executed { reply, seq: context.seq, next, command: context.client.last_command })
    }

    pub(super) fn set_replies(&mut self, word: &[u8]) -> Result<Reply, CommandError> {
        self.replies = match word {
            word if args::is(word, "on") => Replies::On,
            word if args::is(word, "off") => Replies::Off,
            word if args::is(word, "skip") && self.replies == Replies::Off => Replies::Off,
            word if args::is(word, "skip") => Replies::Skip,
            _ => return Err(CommandError::SYNTAX),
        };
        self.skips_next = self.replies == Replies::Skip;
        Ok(Reply::OK)
    }

    /// Waits for a parked request's reply, and what that has to wait for.
    pub async fn verdict(parked: &mut Blocked) -> (Reply, Seq) {
        super::lock::verdict(parked).await
    }

    /// Tells the registry what this connection did. Call between batches of requests, and before it is shown.
    pub fn rest(&mut self, is_waiting: bool) {
        let now = self.service.engine.clock().now();
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
        self.subscriptions.clear(&self.service, self.info.id);
        if let Some(id) = self.connection_session {
            self.service.engine.connection_is_gone(id);
        }
        self.service.clients.remove(self.info.id);
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
        let id = self.look(self.access.open_session("", None, None))?;
        self.client.connection_session = Some(id);
        Ok(id)
    }

    /// Finds the command, checks what is common to all, and runs or queues it.
    fn run(&mut self, words: Args<'_>) -> Result<Reply, CommandError> {
        let command = self.admit(words).map_err(|error| self.abort_transaction(words, error))?;
        if self.client.transaction.is_some() && !command.is(Flags::NOT_QUEUED) {
            return self.queue(command, words);
        }
        self.call(command, words)
    }

    /// The command that these words name, if the connection may send it now.
    fn admit(&mut self, words: Args<'_>) -> Result<&'static Command, CommandError> {
        let command = find(words)?;
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
    pub(super) fn call(&mut self, command: &'static Command, words: Args<'_>) -> Result<Reply, CommandError> {
        self.service.commands_run.add(1);
        match command.run {
            Run::Handler(handler) => handler(self, words),
            Run::Subcommands(_) => Ok(super::docs::help(command)),
        }
    }
}

/// The command, or the subcommand, that these words name, if there are enough of them.
fn find(words: Args<'_>) -> Result<&'static Command, CommandError> {
    let Some(command) = Command::find(words.word(0)) else { return Err(unknown(words)) };
    if !command.accepts(words.len()) {
        return Err(CommandError::arity(command.name));
    }
    let Run::Subcommands(subcommands) = command.run else { return Ok(command) };
    if words.len() == 1 {
        // COMMAND alone is COMMAND INFO.
        return subcommands.first().ok_or(CommandError::SYNTAX);
    }
    let word = words.word(1);
    if args::is(word, "help") {
        return Ok(command);
    }
    let found = subcommands.iter().find(|subcommand| args::is(word, subcommand.own_name()));
    let subcommand = found.ok_or_else(|| {
        let (word, name) = (shown(word, 128), command.name.to_ascii_uppercase());
        CommandError::new(format!("ERR unknown subcommand '{word}'. Try {name} HELP."))
    })?;
    if subcommand.accepts(words.len()) { Ok(subcommand) } else { Err(CommandError::arity(subcommand.name)) }
}

/// Input as it may be repeated in an error: cut, and with no control bytes.
fn shown(word: &[u8], bytes_max: usize) -> String {
    let word = String::from_utf8_lossy(&word[..word.len().min(bytes_max)]);
    word.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn unknown(words: Args<'_>) -> CommandError {
    let mut begin = String::new();
    for word in words.from(1) {
        if begin.len() >= 128 {
            break;
        }
        begin.push_str(&format!("'{}' ", shown(word, 128 - begin.len())));
    }
    let name = shown(words.word(0), 128);
    CommandError::new(format!("ERR unknown command '{name}', with args beginning with: {begin}"))
}
