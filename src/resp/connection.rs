//! One connection: reads bytes, executes requests, waits for one durability barrier per batch,
//! writes replies.
//!
//! Guarantees: replies leave in the order of their requests, each only once everything it depends
//! on is durable; a reply whose commit failed is replaced by an error. Memory is bounded: a client
//! that does not read its replies is not read from. A grant to a waiter whose socket is gone is
//! reverted. A connection yields to others after every turn of work: a request, a part of a long
//! pipeline or of a large reply. Not here: what commands mean.

mod blocked;
mod durable_replies;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;

use super::codec::encode;
use super::end::End;
use super::input::READ_BYTES_MIN;
use super::listener::{Arrival, ListenerLimits};
use super::requests::{ProtocolError, Scanner};
use crate::command::{AfterReply, Client, Execution, Incoming, LongRequest, ServerState, Turn, Waiting};
use crate::domain::Timestamp;
use crate::journal::Seq;
use crate::metrics::CommandCounts;
use crate::net::{Place, Stream, Unauthenticated};
use crate::reply::Reply;

/// The output is sent once it has this many bytes, even if more requests are buffered.
const FLUSH_BYTES: usize = 64 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// How long, and how much, input is discarded after the last reply.
const HANG_UP_TIME: Duration = Duration::from_secs(1);
const HANG_UP_BYTES: usize = 4 << 20;

/// A connection that has used up its turn goes on only below this size of the changes that wait for
/// storage, in bytes.
const BACKLOG_BYTES: usize = 32 << 20;

/// What to do after the batch is sent.
enum Then {
    Read,
    Continue,
    /// Yield, then continue with the batch.
    Yield,
    /// Continue the request in turns.
    Steps {
        request: Box<LongRequest>,
        is_answered: bool,
        command: &'static str,
    },
    /// Send a reply that is too large for the batch.
    Answer {
        reply: Reply,
        seq: Seq,
        closes: bool,
    },
    Wait {
        waiting: Box<Waiting>,
        is_answered: bool,
    },
    /// Wait until a pause ends.
    Pause,
    /// Wait for a while, because a password was wrong.
    Delay(Duration),
    Close,
    /// Leave the connection to the leader.
    LeaveToLeader,
    /// The input is malformed; close after the error reply.
    HangUp,
}

pub(super) struct Connection {
    stream: Stream,
    server: Arc<ServerState>,
    client: Client,
    scanner: Scanner,
    limits: ListenerLimits,
    unauthenticated: Unauthenticated,
    /// Until the client has authenticated.
    place: Option<Place>,
    input: BytesMut,
    read_bytes: usize,
    output: BytesMut,
    /// The end of each reply in `output`, and the Seq it waits for.
    replies: Vec<(usize, Seq)>,
    highest: Seq,
    /// Commands of the batch that are not in the metrics yet.
    ran: CommandCounts,
    batch_began: Timestamp,
    batch_ended: Timestamp,
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        input: BytesMut,
        client: Client,
        server: Arc<ServerState>,
        limits: ListenerLimits,
        unauthenticated: Unauthenticated,
    ) -> Connection {
        let scanner = Scanner::new(limits.scan.clone());
        let mut connection = Connection {
            stream,
            server,
            client,
            scanner,
            limits,
            unauthenticated,
            place: None,
            input,
            read_bytes: READ_BYTES_MIN,
            output: BytesMut::new(),
            replies: Vec::new(),
            highest: Seq::default(),
            ran: CommandCounts::default(),
            batch_began: Timestamp::default(),
            batch_ended: Timestamp::default(),
        };
        connection.follow_authentication();
        connection
    }

    /// Bounds what the connection may send and how long it may exist while it has not authenticated.
    #[inline]
    fn follow_authentication(&mut self) {
        let is_authenticated = self.client.is_authenticated();
        if is_authenticated == self.place.is_some() {
            self.change_limits(is_authenticated);
        }
    }

    #[cold]
    fn change_limits(&mut self, is_authenticated: bool) {
        self.place = (!is_authenticated).then(|| {
            let (server, info) = (Arc::clone(&self.server), Arc::clone(self.client.info()));
            let connections_max = server.settings.connections_max().load(Ordering::Relaxed);
            self.unauthenticated.enter(connections_max, self.limits.auth_timeout, move || {
                server.metrics.redis.refuse();
                tracing::warn!(
                    client = %info.addr,
                    "connection closed for a newer one: half of --connections-max have not authenticated"
                );
                info.kill();
            })
        });
        self.scanner.set_limits(match is_authenticated {
            true => self.limits.scan.clone(),
            false => self.limits.scan.unauthenticated(),
        });
    }

    /// Serves the connection until the client or the server closes it, or another service goes on with
    /// it.
    pub(super) async fn run(mut self) -> Option<Arrival> {
        let end = self.serve().await;
        let state = matches!(end, Err(End::HandedOver)).then(|| self.client.state());
        while self.client.unsubscribe_some() {
            yield_now().await;
        }
        let addr = &self.client.info().addr;
        match end {
            Ok(()) | Err(End::Closed) => {}
            Err(End::HandedOver) => {
                return Some(Arrival { stream: self.stream, input: self.input, client: state });
            }
            Err(End::Failed(error)) => tracing::debug!(client = %addr, %error, "connection lost"),
            Err(End::Stalled) => {
                tracing::warn!(client = %addr, "connection closed: client does not read its replies (--output-stall-ms)");
            }
            Err(End::Unauthenticated) => {
                tracing::debug!(client = %addr, "connection closed: not authenticated in time (--auth-timeout-ms)");
            }
            Err(End::Idle) => tracing::info!(client = %addr, "connection closed: idle (--idle-timeout-s)"),
        }
        None
    }

    async fn serve(&mut self) -> Result<(), End> {
        loop {
            let then = match self.execute_batch() {
                Then::Yield => {
                    self.send_most_messages().await?;
                    self.yield_turn().await?;
                    continue;
                }
                Then::Delay(time) => {
                    self.delay_guesses(time).await?;
                    continue;
                }
                Then::Answer { reply, seq, closes } => {
                    self.await_durable().await;
                    self.send().await?;
                    self.answer_in_parts(reply, seq).await?;
                    match closes {
                        true => Then::Close,
                        false => continue,
                    }
                }
                then => {
                    self.flush().await?;
                    then
                }
            };
            match then {
                Then::Read => {
                    let (read, has_waited) = observing_waits(self.read()).await;
                    read?;
                    if has_waited {
                        self.client.begin_turn();
                    }
                }
                Then::Continue | Then::Yield | Then::Delay(_) | Then::Answer { .. } => {}
                Then::Steps { request, is_answered, command } => {
                    if self.take_turns(request, is_answered, command).await? {
                        return Ok(());
                    }
                }
                Then::Wait { waiting, is_answered } => {
                    self.client.update_registry(self.batch_ended, true);
                    self.wait(waiting, is_answered).await?;
                }
                Then::Pause => self.await_end_of_pause().await?,
                Then::Close => return Ok(()),
                Then::LeaveToLeader => return Err(End::HandedOver),
                Then::HangUp => {
                    self.stream.linger(HANG_UP_TIME, HANG_UP_BYTES).await;
                    return Ok(());
                }
            }
        }
    }

    /// Executes the complete requests in the input until none is left or the output must be sent
    /// first.
    ///
    /// Not inlined: within a future, variables are fields of its state.
    #[inline(never)]
    fn execute_batch(&mut self) -> Then {
        let server = Arc::clone(&self.server);
        let now = server.engine.clock().now();
        if self.ran.is_empty() {
            self.batch_began = now;
        }
        self.client.begin_batch(now);
        let mut done = 0;
        let then = loop {
            self.follow_authentication();
            if self.output.len() >= FLUSH_BYTES {
                break Then::Continue;
            }
            if !self.client.has_turn_left() {
                break Then::Yield;
            }
            let length = match self.scanner.scan(&self.input[done..]) {
                Ok(Some(length)) => length,
                Ok(None) => break Then::Read,
                Err(error) => break self.refuse(&error),
            };
            let args = self.scanner.args(&self.input[done..done + length]);
            if args.is_empty() {
                done += length;
                continue;
            }
            match self.client.execute(&self.server, args) {
                Execution { reply: Some(reply), seq, next: AfterReply::Request, command }
                    if !reply.is_larger_than(FLUSH_BYTES) =>
                {
                    done += length;
                    self.ran.add(command, matches!(reply, Reply::Error(_)));
                    self.answer(&reply, seq);
                    if let Some(time) = self.client.take_delay() {
                        break Then::Delay(time);
                    }
                }
                uncommon => {
                    let (is_done, then) = self.after_uncommon(uncommon);
                    if is_done {
                        done += length;
                    }
                    if let Some(then) = then {
                        break then;
                    }
                }
            }
        };
        self.input.advance(done);
        then
    }

    /// What follows the execution of a request with no reply, with a large one, or after which the
    /// next request cannot just be executed. Also returns whether the request is over, as far as its
    /// input is concerned.
    #[inline(never)]
    fn after_uncommon(&mut self, execution: Execution) -> (bool, Option<Then>) {
        let Execution { reply, seq, next, command } = execution;
        let next = match next {
            AfterReply::Again => return (false, Some(Then::Yield)),
            AfterReply::Paused => return (false, Some(Then::Pause)),
            AfterReply::LeaveToLeader => return (false, Some(Then::LeaveToLeader)),
            AfterReply::Steps(request) => {
                return (true, Some(Then::Steps { request, is_answered: reply.is_some(), command }));
            }
            next => next,
        };
        self.ran.add(command, matches!(reply, Some(Reply::Error(_))));
        if let AfterReply::Wait(waiting) = next {
            return (true, Some(Then::Wait { waiting, is_answered: reply.is_some() }));
        }
        let closes = matches!(next, AfterReply::Close);
        match reply {
            Some(reply) if reply.is_larger_than(FLUSH_BYTES) => {
                return (true, Some(Then::Answer { reply, seq, closes }));
            }
            Some(reply) => self.answer(&reply, seq),
            None => {}
        }
        let mut delay = || self.client.take_delay().map(Then::Delay);
        (true, if closes { Some(Then::Close) } else { delay() })
    }

    /// Answers input that is no request.
    #[cold]
    fn refuse(&mut self, error: &ProtocolError) -> Then {
        if let ProtocolError::Http = error {
            tracing::warn!(client = %self.client.info().addr, "connection closed: HTTP request on the port for Redis clients; HTTP is served at --http");
            return Then::Close;
        }
        self.answer(&Reply::Error(format!("ERR {error}").into()), Seq::default());
        Then::HangUp
    }

    /// Yields to other tasks and starts a new turn. Waits for storage first if much is waiting for it:
    /// a small request can change a large value, so the size of the input does not bound it. Waits
    /// as long as a request is put off.
    async fn yield_turn(&mut self) -> Result<(), End> {
        if self.server.engine.backlog_bytes() > BACKLOG_BYTES {
            self.await_durable().await;
        }
        match self.client.put_off() {
            None => self.server.engine.give_way().await,
            Some(put_off) => {
                // It may take long until its turn comes. Earlier replies do not wait for that.
                self.flush().await?;
                self.await_attempt(put_off).await?;
            }
        }
        self.client.begin_turn();
        Ok(())
    }

    /// Completes a request in turns, yielding in between. Abandons it if the client disconnects.
    /// Returns whether the connection must close.
    async fn take_turns(
        &mut self,
        mut request: Box<LongRequest>,
        is_answered: bool,
        command: &'static str,
    ) -> Result<bool, End> {
        let server = Arc::clone(&self.server);
        self.batch_began = server.engine.clock().now();
        let Execution { reply, seq, next, .. } = loop {
            self.yield_turn().await?;
            if self.client.info().is_killed() || self.stream.peer_has_closed() {
                return Err(End::Closed);
            }
            if let Some(execution) = self.client.advance(&server, &mut request) {
                break execution;
            }
        };
        self.ran.add(command, matches!(reply, Some(Reply::Error(_))));
        match reply.filter(|_| is_answered) {
            Some(reply) => self.answer_in_parts(reply, seq).await?,
            None => self.record_commands(),
        }
        Ok(matches!(next, AfterReply::Close))
    }

    /// Waits for more input, sending messages meanwhile.
    async fn read(&mut self) -> Result<(), End> {
        self.client.update_registry(self.batch_ended, false);
        self.send_most_messages().await?;
        if self.input.is_empty() && self.input.capacity() > READ_BYTES_MAX * 2 {
            self.input = BytesMut::new();
        }
        loop {
            if self.client.info().is_killed() {
                return Err(End::Closed);
            }
            let has_more = self.client.has_messages() && self.send_messages().await?;
            if self.client.info().is_handed_over() && self.client.follows_leaders() {
                return Err(End::HandedOver);
            }
            self.input.reserve(self.read_bytes);
            let idle = self.server.settings.idle_timeout().filter(|_| !self.client.has_subscribed());
            let auth = self.place.as_ref().map(Place::time_left);
            let before = self.input.len();
            let read = {
                let read = self.stream.read_buf(&mut self.input);
                tokio::select! {
                    // Between two reads, the messages have their turn.
                    biased;
                    read = read => Some(read),
                    () = self.client.info().woken() => None,
                    () = yield_now(), if has_more => None,
                    () = sleep(idle), if idle.is_some() => return Err(End::Idle),
                    () = sleep(auth), if auth.is_some() => return Err(End::Unauthenticated),
                }
            };
            match read {
                None => {}
                Some(Ok(0)) => return Err(End::Closed),
                Some(Ok(bytes)) => {
                    self.server.metrics.redis.received.add(bytes as u64);
                    // A full read asks for a larger one.
                    if self.input.len() - before >= self.read_bytes {
                        self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
                    }
                    return Ok(());
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Sends messages until few are left, if there are many: each request of a client can queue one
    /// for itself (CLIENT TRACKING), and it must not be cut off for its own haste.
    async fn send_most_messages(&mut self) -> Result<(), End> {
        if self.client.has_many_messages() {
            self.flush().await?;
            while self.client.has_many_messages() && self.send_messages().await? {}
        }
        Ok(())
    }

    /// Sends the messages of one turn. Returns whether there are more; other tasks run before
    /// those.
    async fn send_messages(&mut self) -> Result<bool, End> {
        let server = Arc::clone(&self.server);
        let turn = server.pubsub.turn().await;
        let has_more = self.write_messages();
        if has_more || server.pubsub.has_crowd() {
            yield_now().await;
        }
        drop(turn);
        self.send().await?;
        // Some may have come meanwhile, and only the first one in an empty queue wakes this task.
        Ok(self.client.has_messages())
    }

    /// Writes the messages of one turn into the output. Returns whether there may be more.
    fn write_messages(&mut self) -> bool {
        let mut turn = Turn::default();
        while self.output.len() < FLUSH_BYTES {
            match self.client.next_message(&mut turn) {
                Incoming::Message(message) => encode(&message, self.client.protocol(), &mut self.output),
                Incoming::Nothing => return false,
                Incoming::Unfinished => break,
            }
        }
        true
    }
}

/// Completes with a future's output, and with whether the future yielded before that.
async fn observing_waits<F: Future>(future: F) -> (F::Output, bool) {
    let mut future = pin!(future);
    let mut has_waited = false;
    let output = poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        has_waited |= poll.is_pending();
        poll
    });
    (output.await, has_waited)
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

const _: () = assert!(READ_BYTES_MIN <= READ_BYTES_MAX && READ_BYTES_MAX <= FLUSH_BYTES);
