//! The state of one connection, and the execution of its requests.
//!
//! Guarantees: every request yields exactly one [`Execution`], whatever its arguments. When the
//! client disconnects, its subscriptions, watches and CONN locks end. Not here: sockets and wire
//! formats.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::options;
use super::pubsub::{Deferred, Incoming, Subscriptions, Turn};
use super::registry::ClientInfo;
use super::server::cut_for_slow_log;
use super::steps::{LongRequest, Progress, REQUEST_WORK, TURN_WORK, work_of_bytes, work_of_changes};
use super::tracking::ClientTracking;
use super::transaction::Transaction;
use super::{Args, Command, CommandError, Context, KeySpec, ServerState, Waiting};
use crate::auth::User;
use crate::domain::{SessionId, Timestamp};
use crate::engine::{AnyTxn, PutOff, Watch};
use crate::journal::Seq;
use crate::lock::Origin;
use crate::reply::Reply;

/// The result of executing a request.
pub struct Execution {
    /// The reply, or `None` if the client has turned replies off. For a request that is not
    /// finished yet, only whether it is `Some` counts.
    pub reply: Option<Reply>,
    /// The reply must not be sent before this is durable.
    pub seq: Seq,
    /// What the connection does after the reply.
    pub next: AfterReply,
    /// The name of the command; empty if it is unknown.
    pub command: &'static str,
}

impl Execution {
    /// A request that was not executed now.
    #[cold]
    fn not_run(next: AfterReply, command: &'static str) -> Execution {
        Execution { reply: None, seq: Seq::default(), next, command }
    }
}

/// What a connection does after a reply.
pub enum AfterReply {
    /// Executes the next request.
    Request,
    /// Yields, then executes the same request again: it has had no effect and no reply yet.
    Again,
    /// Waits until a pause ends, then executes the same request again: it has had no effect and no
    /// reply yet.
    Paused,
    /// Waits; the reply comes from [`Waiting::reply`].
    Wait(Box<Waiting>),
    /// Continues the request in further turns; the reply comes from [`Client::advance`].
    Steps(Box<LongRequest>),
    /// Closes the connection.
    Close,
    /// Leaves the connection to the leader, which executes the request: it has had no effect and no
    /// reply yet.
    LeaveToLeader,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Replies {
    On,
    Off,
    /// Off for the next request only.
    Skip,
}

/// A request that has done no more work than this takes microseconds. Its end is not read from the
/// clock for the slow log, which would cost 2 % of it.
const SMALL_WORK: usize = 4 * REQUEST_WORK;
/// Shortest time for which the slow log can do without these requests.
const SMALL_TIME: Duration = Duration::from_millis(1);

/// Number of opened sessions that a connection remembers.
const OPENED_SESSIONS_MAX: usize = 16;

/// The state of one connection.
pub struct Client {
    server: Arc<ServerState>,
    info: Arc<ClientInfo>,
    database: u8,
    protocol: u8,
    pub(super) is_authenticated: bool,
    /// The user, as of this generation of the users.
    pub(super) user: Arc<User>,
    users_generation: u64,
    pub(super) transaction: Option<Transaction>,
    pub(super) watch: Option<Watch>,
    pub(super) subscriptions: Subscriptions,
    /// How the client tracks keys, if it does.
    pub(super) tracking: Option<ClientTracking>,
    /// Whether the client monitors the server.
    pub(super) is_monitor: bool,
    /// Whether the client asked for the script debugger, and for no script since.
    pub(super) wants_debugger: bool,
    /// Whether the client has connected to a Sentinel.
    pub(super) is_sentinel: bool,
    /// What the running transaction or script publishes, sent after it.
    pub(super) deferred: Deferred,
    pub(super) connection_session: Option<SessionId>,
    /// The most recently opened sessions, oldest first.
    opened_sessions: VecDeque<SessionId>,
    /// The name in the certificate of the client, if that names its user.
    pub(super) certificate_name: Option<Box<str>>,
    origin: Option<Arc<Origin>>,
    replies: Replies,
    /// The current request was CLIENT REPLY SKIP.
    skips_next: bool,
    /// The current command.
    command: &'static str,
    /// The current command counts all that it does as work.
    counts_work: bool,
    last_command: &'static str,
    /// The current request is the previous one again, which is counted already.
    is_retried: bool,
    /// How long the reply to the current request waits.
    pub(super) delay: Option<Duration>,
    /// The current request, if it was put off: others do long work, or keep all others out.
    put_off: Option<Box<PutOff>>,
    /// Number of commands that are not in the server's count yet.
    commands_run: u64,
    /// When the previous request of this batch was done that is not small, or when the batch began.
    ticked_at: Timestamp,
    /// Units of work done since the last turn ended.
    pub(super) work: usize,
    /// The value of `work` when the running transaction began.
    pub(super) transaction_began_at: usize,
}

impl Client {
    /// Registers a connection from `addr` to `local_addr`.
    pub fn new(server: &Arc<ServerState>, addr: String, local_addr: String) -> Client {
        let info = server.clients.register(
            addr,
            local_addr,
            server.engine.clock().now(),
            server.client_limits.subscriber_bytes_max,
        );
        let users_generation = server.users.generation();
        let user = server.users.default_user();
        let is_authenticated = user.is_open();
        info.set_user(is_authenticated.then(|| Arc::clone(user.name())));
        Client {
            server: Arc::clone(server),
            info,
            database: 0,
            protocol: 2,
            is_authenticated,
            user,
            users_generation,
            transaction: None,
            watch: None,
            subscriptions: Subscriptions::default(),
            tracking: None,
            is_monitor: false,
            wants_debugger: false,
            is_sentinel: false,
            deferred: Deferred::default(),
            connection_session: None,
            opened_sessions: VecDeque::new(),
            certificate_name: None,
            origin: None,
            replies: Replies::On,
            skips_next: false,
            command: "",
            counts_work: false,
            last_command: "NULL",
            is_retried: false,
            delay: None,
            put_off: None,
            commands_run: 0,
            ticked_at: Timestamp::default(),
            work: 0,
            transaction_began_at: 0,
        }
    }

    /// Answers the client from now on as Redis Sentinel does.
    pub fn expect_sentinel(&mut self) {
        self.is_sentinel = true;
    }

    /// Whether the current turn has work left.
    pub fn has_turn_left(&self) -> bool {
        self.work < TURN_WORK
    }

    /// Begins a batch of requests.
    pub fn begin_batch(&mut self, now: Timestamp) {
        self.ticked_at = now;
    }

    /// Starts a new turn, after the connection has yielded.
    pub fn begin_turn(&mut self) {
        self.work = 0;
    }

    /// How long the reply to the previous request waits, and the next request, if they do: the
    /// client has given a wrong password.
    pub fn take_delay(&mut self) -> Option<Duration> {
        self.delay.take()
    }

    /// The public information about the connection.
    pub fn info(&self) -> &Arc<ClientInfo> {
        &self.info
    }

    /// The RESP version, 2 or 3.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Whether the client has authenticated or needs no password.
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// The state that all connections share.
    pub(super) fn server(&self) -> Arc<ServerState> {
        Arc::clone(&self.server)
    }

    fn stop_monitor(&mut self) {
        if std::mem::take(&mut self.is_monitor) {
            self.server.monitors.remove(self.info.id);
        }
    }

    pub(super) fn database(&self) -> u8 {
        self.database
    }

    /// Sets the command that is executed.
    pub(super) fn set_command(&mut self, command: &'static Command) {
        self.command = command.name;
        self.counts_work = !matches!(command.keys, KeySpec::None);
    }

    /// Whether this command is executed.
    pub(super) fn is_running(&self, name: &str) -> bool {
        self.command == name
    }

    /// Whether the current request is the previous one again.
    pub(super) fn take_retried(&mut self) -> bool {
        std::mem::take(&mut self.is_retried)
    }

    /// The request that is executed next, if it was put off. Give it to
    /// [`Client::resume_request`] when it may go on.
    pub fn put_off(&mut self) -> Option<Box<PutOff>> {
        self.put_off.take()
    }

    /// Goes on with the request that was put off.
    pub fn resume_request(&mut self, put_off: Box<PutOff>) {
        self.put_off = Some(put_off);
        // Messages that have come meanwhile are sent with the reply.
        self.info.wake();
    }

    /// Counts a command.
    pub(super) fn count_command(&mut self) {
        self.commands_run += 1;
    }

    /// Adds the commands to the server's count, at the latest when the client sends no more.
    pub(super) fn publish_commands_run(&mut self) {
        self.server.commands_run.add(std::mem::take(&mut self.commands_run));
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscriptions.count() > 0
    }

    /// Whether the client has subscribed since the connection was opened or reset.
    pub fn has_subscribed(&self) -> bool {
        self.subscriptions.have_begun() || self.is_monitor || self.tracking.is_some()
    }

    /// Whether there are messages to be sent.
    pub fn has_messages(&self) -> bool {
        self.info.messages.has_any() || self.subscriptions.is_matching()
    }

    /// Whether the messages to be sent take a good part of the room for them.
    pub fn has_many_messages(&self) -> bool {
        self.info.messages.has_many()
    }

    /// Removes the oldest queued message.
    pub fn next_message(&mut self, turn: &mut Turn) -> Incoming {
        self.follow_users();
        self.subscriptions.next_message(&self.info, self.protocol, turn, &self.user)
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

    /// The client as LOCKINFO reports it.
    pub(super) fn origin(&mut self) -> Arc<Origin> {
        let info = &self.info;
        let make = || Arc::new(Origin { addr: info.addr.clone(), client_name: info.name() });
        Arc::clone(self.origin.get_or_insert_with(make))
    }

    /// Records a session that the client opened.
    pub(super) fn opened_session(&mut self, id: SessionId) {
        if self.opened_sessions.len() == OPENED_SESSIONS_MAX {
            self.opened_sessions.pop_front();
        }
        self.opened_sessions.push_back(id);
    }

    /// Whether the client may see the id of a session: it opened the session, or the session is its
    /// CONN session.
    pub(super) fn knows_session(&self, id: SessionId) -> bool {
        self.connection_session == Some(id) || self.opened_sessions.contains(&id)
    }

    /// Restores the initial state, except for CONN locks and for subscriptions, which
    /// [`Client::unsubscribe_some`] removes.
    pub(super) fn reset(&mut self) {
        self.transaction = None;
        self.watch = None;
        self.stop_tracking();
        self.stop_monitor();
        self.wants_debugger = false;
        self.select(0);
        self.set_protocol(2);
        self.set_name("");
        self.replies = Replies::On;
        self.opened_sessions = VecDeque::new();
        self.forget_user();
    }

    /// Returns to the user of a new connection: that of its certificate, if any, or else `default`.
    fn forget_user(&mut self) {
        let users = &self.server.users;
        let proved = self.certificate_name.as_ref().and_then(|name| users.with_certificate(name));
        if let Some(user) = proved {
            return self.set_user(user, true);
        }
        let default = users.default_user();
        let is_authenticated = default.is_open();
        self.set_user(default, is_authenticated);
    }

    /// Makes the client the user of this name, which a certificate has proved, whenever there is
    /// one that is on and the client has not authenticated as another.
    pub fn accept_certificate(&mut self, name: &str) {
        self.certificate_name = Some(name.into());
        self.forget_user();
    }

    /// Makes the client a user.
    pub(super) fn set_user(&mut self, user: Arc<User>, is_authenticated: bool) {
        self.info.set_user(is_authenticated.then(|| Arc::clone(user.name())));
        (self.user, self.is_authenticated) = (user, is_authenticated);
    }

    /// Takes over changes of users.
    #[inline]
    fn follow_users(&mut self) {
        let generation = self.server.users.generation();
        if generation != self.users_generation {
            self.refresh_user(generation);
        }
    }

    /// Takes over a change of users. A client whose user is gone may do nothing more.
    #[cold]
    fn refresh_user(&mut self, generation: u64) {
        self.users_generation = generation;
        if !self.is_authenticated {
            self.forget_user();
        } else if let Some(user) = self.server.users.current(&self.user) {
            self.user = user;
        } else {
            self.is_authenticated = false;
            self.info.kill();
        }
    }

    /// Removes as many subscriptions as one turn allows. Returns whether any are left.
    pub fn unsubscribe_some(&mut self) -> bool {
        self.subscriptions.clear_some(&self.server, &self.info)
    }

    /// Executes a request. `server` is the one passed to [`Client::new`]; passing it again saves
    /// cloning the `Arc`.
    pub fn execute(&mut self, server: &Arc<ServerState>, args: Args<'_>) -> Execution {
        if server.pauses.stops(args, || server.engine.clock().now()) && self.is_authenticated {
            // Others do not wait for it meanwhile.
            self.put_off = None;
            return Execution::not_run(AfterReply::Paused, "");
        }
        self.follow_users();
        let replies = self.replies;
        self.skips_next = false;
        self.command = "";
        self.counts_work = false;
        let work_before = self.work;
        self.work += REQUEST_WORK + work_of_bytes(args.size());
        let txn = server.engine.txn();
        if let Some(put_off) = self.put_off.take() {
            txn.resume(put_off);
        }
        let mut context = Context::new(server, self, AnyTxn::Shared(&txn));
        let done = context.dispatch(args);
        context.spend(work_of_changes(txn.work()));
        if done.as_ref().is_err_and(CommandError::is_unsettled) {
            self.put_off = Some(txn.put_off().unwrap_or_default());
            self.is_retried = true;
            return Execution::not_run(AfterReply::Again, self.command);
        }
        if context.is_for_leader {
            return Execution::not_run(AfterReply::LeaveToLeader, "");
        }
        let reply = done.unwrap_or_else(Reply::from);
        let Context { waiting, steps, closes, .. } = context;
        // Messages and subscription confirmations are not replies.
        let is_message = matches!(reply, Reply::Push(_) | Reply::Sequence(_));
        let is_silent = self.replies != Replies::On && !is_message;
        if (replies, self.replies, self.skips_next) == (Replies::Skip, Replies::Skip, false) {
            self.replies = Replies::On;
        }
        let is_small = self.counts_work && self.work - work_before <= SMALL_WORK;
        let slow = server.settings.slowlog_time().filter(|limit| !is_small || *limit < SMALL_TIME);
        let slow = slow.map(|limit| (limit, self.tick(server)));
        let next = match (waiting, steps) {
            (Some(waiting), _) => AfterReply::Wait(waiting),
            (None, Some(steps)) => {
                let took = slow.map_or(Duration::ZERO, |(_, took)| took);
                self.put_off = txn.put_off();
                AfterReply::Steps(Box::new(LongRequest::begun(steps, &txn, args, took)))
            }
            (None, None) if closes => AfterReply::Close,
            (None, None) => AfterReply::Request,
        };
        // What is no command, such as a header of HTTP, may have a secret anywhere.
        if let Some((limit, took)) = slow
            && took >= limit
            && !matches!(next, AfterReply::Steps(_))
            && !self.command.is_empty()
        {
            self.log_slow(args, took);
        }
        if !self.command.is_empty() {
            self.last_command = self.command;
        }
        let reply = (!is_silent).then_some(reply);
        Execution { reply, seq: txn.finish(), next, command: self.command }
    }

    #[cold]
    fn log_slow(&self, args: Args<'_>, took: Duration) {
        let (log, info) = (&self.server.slow_log, &self.info);
        log.add(&self.server, took, cut_for_slow_log(args), &info.addr, info.name());
    }

    /// Returns the time since the previous request was done.
    #[inline(never)]
    fn tick(&mut self, server: &ServerState) -> Duration {
        let now = server.engine.clock().now();
        Duration::from_nanos(now.nanos_since(std::mem::replace(&mut self.ticked_at, now)))
    }

    /// Runs the next turn of a request. Returns `None` if it needs another one.
    pub fn advance(&mut self, server: &Arc<ServerState>, request: &mut LongRequest) -> Option<Execution> {
        self.begin_turn();
        self.tick(server);
        let txn = server.engine.resume_txn(request.seen);
        txn.set_cause(request.cause);
        if let Some(put_off) = self.put_off.take() {
            txn.resume(put_off);
        }
        let mut context = Context::new(server, self, AnyTxn::Shared(&txn));
        let progress = request.steps.advance(&mut context);
        context.spend(work_of_changes(txn.work()));
        let closes = context.closes;
        if progress.as_ref().is_err_and(CommandError::is_unsettled) {
            self.put_off = Some(txn.put_off().unwrap_or_default());
        }
        request.took += self.tick(server);
        let reply = match progress {
            Ok(Progress::Done(reply)) => reply,
            Err(error) if !error.is_unsettled() => error.into(),
            Ok(Progress::More) | Err(_) => {
                request.seen = txn.seen();
                return None;
            }
        };
        if server.settings.slowlog_time().is_some_and(|limit| request.took >= limit) {
            let args = std::mem::take(&mut request.args);
            server.slow_log.add(server, request.took, args, &self.info.addr, self.info.name());
        }
        let next = if closes { AfterReply::Close } else { AfterReply::Request };
        Some(Execution { reply: Some(reply), seq: txn.finish(), next, command: self.last_command })
    }

    /// Whether requests get replies, as long as CLIENT REPLY says nothing else.
    pub(super) fn is_answered(&self) -> bool {
        self.replies == Replies::On
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

    /// Publishes the connection's state in the registry. Called between batches and before CLIENT
    /// LIST or INFO.
    pub fn update_registry(&mut self, now: Timestamp, is_waiting: bool) {
        self.publish_commands_run();
        let (channels, patterns, shard_channels) = self.subscriptions.counts();
        let (is_monitor, tracking) = (self.is_monitor, self.tracking);
        let queued = self.transaction.as_ref().map(Transaction::len);
        let watched = self.watch.as_ref().map_or(0, Watch::len);
        // CLIENT LIST and CLIENT INFO report themselves.
        let command = if self.command.is_empty() { self.last_command } else { self.command };
        self.info.update(|details| {
            details.last_seen = now;
            details.last_command = command;
            details.channels = channels;
            details.patterns = patterns;
            details.shard_channels = shard_channels;
            details.queued = queued;
            details.watched = watched;
            details.is_monitor = is_monitor;
            details.tracking = tracking;
            details.is_waiting = is_waiting;
            // Between the start of a wait and this call, it may have been ended.
            details.unblock = details.unblock.filter(|_| is_waiting);
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.publish_commands_run();
        self.watch = None;
        self.stop_tracking();
        self.stop_monitor();
        self.subscriptions.clear(&self.server, &self.info);
        if let Some(id) = self.connection_session {
            self.server.engine.connection_is_gone(id);
        }
        self.server.clients.remove(self.info.id);
    }
}

impl Context<'_> {
    /// The session that ends with the connection; opens it if necessary.
    pub(super) fn connection_session(&mut self) -> Result<SessionId, CommandError> {
        if let Some(id) = self.client.connection_session {
            if self.txn.has_session(id) {
                return Ok(id);
            }
            // The commit that opened the session failed.
            self.client.connection_session = None;
            self.txn.forget_connection(id);
        }
        let id = self.txn.open_session("", None, None)?;
        self.client.connection_session = Some(id);
        Ok(id)
    }
}
