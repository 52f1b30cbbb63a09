//! One connection: bytes in, requests, one durable barrier a batch, bytes out.
//!
//! Guarantees: replies leave in the order of their requests, each only after what it stands on is durable; one whose
//! commit failed says so. Memory is bounded: a client that does not read its replies is not read from. A grant to a
//! waiter whose socket is gone is given back. Others are served after every turn of work, be it one request, a long
//! pipeline or a large reply. Not here: what commands mean.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::codec::{Encoder, encode};
use super::listener::ListenerLimits;
use super::scan::Scanner;
use crate::command::{
    AfterReply, Client, Execution, Incoming, LongRequest, OUTCOME_UNKNOWN, ServerState, Turn,
};
use crate::domain::Timestamp;
use crate::engine::Blocked;
use crate::journal::Seq;
use crate::metrics::CommandCounts;
use crate::reply::Reply;

/// The output is sent once it has this many bytes, even if more requests are buffered.
const FLUSH_BYTES: usize = 64 << 10;
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// How often a waiter with a full input buffer is checked for a disconnect.
const FULL_INPUT_CHECK: Duration = Duration::from_millis(50);

/// Time and number of reads for which input is discarded after the last reply.
const HANG_UP_TIME: Duration = Duration::from_secs(1);
const HANG_UP_READS: usize = 64;

/// Why a connection ends.
enum End {
    Closed,
    Failed(io::Error),
    Stalled,
    Idle,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Failed(error)
    }
}

/// What to do after the batch is sent.
enum Then {
    Read,
    Continue,
    /// Yield, then continue with the batch.
    Yield,
    /// Continue the request in turns.
    Steps {
        request: LongRequest,
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
        parked: Blocked,
        is_answered: bool,
    },
    Close,
    /// The input is malformed; close after the error reply.
    HangUp,
}

pub(super) struct Connection {
    stream: TcpStream,
    server: Arc<ServerState>,
    client: Client,
    scanner: Scanner,
    limits: ListenerLimits,
    is_restricted: bool,
    input: BytesMut,
    read_bytes: usize,
    output: BytesMut,
    /// The end of each reply in `output`, and the Seq it waits for.
    replies: Vec<(usize, Seq)>,
    highest: Seq,
    /// Commands of the batch that are not in the metrics yet.
    ran: CommandCounts,
    batch_began: Timestamp,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, server: Arc<ServerState>, limits: ListenerLimits) -> Connection {
        let address = |address: io::Result<std::net::SocketAddr>| {
            address.map_or_else(|_| "?".to_owned(), |address| address.to_string())
        };
        let client = Client::new(&server, address(stream.peer_addr()), address(stream.local_addr()));
        let is_restricted = !client.is_authenticated();
        let scan = if is_restricted { limits.scan.unauthenticated() } else { limits.scan.clone() };
        Connection {
            stream,
            server,
            client,
            scanner: Scanner::new(scan),
            limits,
            is_restricted,
            input: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            output: BytesMut::new(),
            replies: Vec::new(),
            highest: Seq::default(),
            ran: CommandCounts::default(),
            batch_began: Timestamp::default(),
        }
    }

    /// Serves the connection until the client or the server closes it.
    pub(super) async fn run(mut self) {
        self.server.metrics.redis.open();
        let end = self.serve().await;
        while self.client.unsubscribe_some() {
            yield_now().await;
        }
        self.server.metrics.redis.close();
        let addr = &self.client.info().addr;
        match end {
            Ok(()) | Err(End::Closed) => {}
            Err(End::Failed(error)) => tracing::debug!(client = %addr, %error, "connection lost"),
            Err(End::Stalled) => {
                tracing::warn!(client = %addr, "connection closed: client does not read its replies (--output-stall-ms)");
            }
            Err(End::Idle) => tracing::info!(client = %addr, "connection closed: idle (--idle-timeout-s)"),
        }
    }

    async fn serve(&mut self) -> Result<(), End> {
        loop {
            let then = match self.execute_batch() {
                Then::Yield => {
                    self.yield_turn().await;
                    continue;
                }
                Then::Answer { reply, seq, closes } => {
                    self.settle().await;
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
                    let (read, has_waited) = noting_waits(self.read()).await;
                    read?;
                    if has_waited {
                        self.client.begin_turn();
                    }
                }
                Then::Continue | Then::Yield | Then::Answer { .. } => {}
                Then::Steps { request, is_answered, command } => {
                    if self.take_turns(request, is_answered, command).await? {
                        return Ok(());
                    }
                }
                Then::Wait { parked, is_answered } => {
                    self.client.update_registry(true);
                    self.wait(parked, is_answered).await?;
                }
                Then::Close => return Ok(()),
                Then::HangUp => return self.hang_up().await,
            }
        }
    }

    /// Executes the complete requests in the input until none is left or the output must be sent first.
    fn execute_batch(&mut self) -> Then {
        let server = Arc::clone(&self.server);
        if self.ran.is_empty() {
            self.batch_began = server.engine.clock().now();
        }
        let mut done = 0;
        let then = loop {
            if self.output.len() >= FLUSH_BYTES {
                break Then::Continue;
            }
            if !self.client.has_turn_left() {
                break Then::Yield;
            }
            let length = match self.scanner.scan(&self.input[done..]) {
                Ok(Some(length)) => length,
                Ok(None) => break Then::Read,
                Err(super::scan::ProtocolError::Http) => {
                    tracing::warn!(client = %self.client.info().addr, "connection closed: HTTP request on the RESP port");
                    break Then::Close;
                }
                Err(error) => {
                    self.answer(&Reply::Error(format!("ERR {error}").into()), Seq::default());
                    break Then::HangUp;
                }
            };
            let args = self.scanner.args(&self.input[done..done + length]);
            if args.is_empty() {
                done += length;
                continue;
            }
            let Execution { reply, seq, next, command } = self.client.execute(&self.server, args);
            if matches!(next, AfterReply::Again) {
                break Then::Yield;
            }
            done += length;
            let next = match next {
                AfterReply::Steps(request) => {
                    break Then::Steps { request, is_answered: reply.is_some(), command };
                }
                next => next,
            };
            let is_error = matches!(reply, Some(Reply::Error(_)));
            self.ran.add(command, is_error);
            if self.is_restricted && self.client.is_authenticated() {
                self.is_restricted = false;
                self.scanner.set_limits(self.limits.scan.clone());
            }
            if let AfterReply::Wait(parked) = next {
                break Then::Wait { parked, is_answered: reply.is_some() };
            }
            let closes = matches!(next, AfterReply::Close);
            match reply {
                Some(reply) if reply.is_larger_than(FLUSH_BYTES) => {
                    break Then::Answer { reply, seq, closes };
                }
                Some(reply) => self.answer(&reply, seq),
                None => {}
            }
            if closes {
                break Then::Close;
            }
        };
        self.input.advance(done);
        then
    }

    /// Yields to other tasks and starts a new turn.
    async fn yield_turn(&mut self) {
        tokio::task::yield_now().await;
        self.client.begin_turn();
    }

    /// Completes a request in turns, yielding in between. Abandons it if the client disconnects. Returns whether
    /// the connection must close.
    async fn take_turns(
        &mut self,
        mut request: LongRequest,
        is_answered: bool,
        command: &'static str,
    ) -> Result<bool, End> {
        let server = Arc::clone(&self.server);
        self.batch_began = server.engine.clock().now();
        let Execution { reply, seq, next, .. } = loop {
            self.yield_turn().await;
            if self.client.info().is_killed() || is_gone(&self.stream) {
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

    /// Sends a large reply in parts once it is durable, yielding in between.
    async fn answer_in_parts(&mut self, reply: Reply, seq: Seq) -> Result<(), End> {
        let reply = match self.server.engine.barrier(seq).await {
            Ok(()) => reply,
            Err(_) => OUTCOME_UNKNOWN,
        };
        self.record_commands();
        let mut encoder = Encoder::new(reply, self.client.protocol());
        let mut pace = Pace::default();
        while encoder.encode(&mut self.output, FLUSH_BYTES) {
            self.send_at(&mut pace).await?;
            self.yield_turn().await;
        }
        self.send_at(&mut pace).await
    }

    /// Closes the connection so that the client can read the error: closing a socket with unread input resets it
    /// and discards the reply.
    async fn hang_up(&mut self) -> Result<(), End> {
        self.stream.shutdown().await?;
        let drained = async {
            for _ in 0..HANG_UP_READS {
                self.input.clear();
                self.input.reserve(READ_BYTES_MAX);
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    break;
                }
            }
            Ok(())
        };
        timeout(HANG_UP_TIME, drained).await.unwrap_or(Ok(()))
    }

    fn answer(&mut self, reply: &Reply, seq: Seq) {
        encode(reply, self.client.protocol(), &mut self.output);
        self.replies.push((self.output.len(), seq));
        self.highest = self.highest.max(seq);
    }

    /// Waits until the replies are durable, then sends them.
    async fn flush(&mut self) -> Result<(), End> {
        self.settle().await;
        self.record_commands();
        self.send().await
    }

    /// Records the batch in the command metrics.
    fn record_commands(&mut self) {
        let took = self.server.engine.clock().now().nanos_since(self.batch_began);
        self.server.metrics.commands.observe(&mut self.ran, took);
    }

    /// Waits until the replies may be told, and corrects those whose commit failed.
    async fn settle(&mut self) {
        if self.server.engine.barrier(self.highest).await.is_err() || self.has_failed() {
            let told = std::mem::take(&mut self.output);
            let mut start = 0;
            for (end, seq) in std::mem::take(&mut self.replies) {
                match self.server.engine.barrier(seq).await {
                    Ok(()) => self.output.extend_from_slice(&told[start..end]),
                    Err(_) => encode(&OUTCOME_UNKNOWN, self.client.protocol(), &mut self.output),
                }
                start = end;
            }
        }
        self.replies.clear();
        self.highest = Seq::default();
    }

    /// A later commit may have succeeded after an earlier one of the same batch failed.
    fn has_failed(&self) -> bool {
        let engine = &self.server.engine;
        engine.has_ever_failed() && self.replies.iter().any(|(_, seq)| engine.verdict(*seq) != Some(Ok(())))
    }

    /// Sends the output. Gives up when it goes too slowly, or when the connection is to end.
    async fn send(&mut self) -> Result<(), End> {
        self.send_at(&mut Pace::default()).await
    }

    /// Sends the output as a part of what `pace` is info.
    async fn send_at(&mut self, pace: &mut Pace) -> Result<(), End> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(0) => return Err(End::Closed),
                Ok(sent) => {
                    self.output.advance(sent);
                    pace.sent += sent as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = pace.left(Instant::now(), self.limits.output_stall).ok_or(End::Stalled)?;
                    let writable = timeout(left, self.stream.writable());
                    tokio::select! {
                        ready = writable => ready.map_err(|_| End::Stalled)??,
                        () = self.client.info().woken() => if self.client.info().is_killed() {
                            return Err(End::Closed);
                        },
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.output.capacity() > FLUSH_BYTES * 2 {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Waits for more input, sending messages meanwhile.
    async fn read(&mut self) -> Result<(), End> {
        self.client.update_registry(false);
        if self.input.is_empty() && self.input.capacity() > READ_BYTES_MAX * 2 {
            self.input = BytesMut::new();
        }
        loop {
            if self.client.info().is_killed() {
                return Err(End::Closed);
            }
            let has_more = self.send_messages().await?;
            self.input.reserve(self.read_bytes);
            let idle = self.limits.idle_timeout.filter(|_| !self.client.has_subscribed());
            let before = self.input.len();
            let read = {
                let read = self.stream.read_buf(&mut self.input);
                tokio::select! {
                    read = read => Some(read),
                    () = self.client.info().woken() => None,
                    () = yield_now(), if has_more => None,
                    () = sleep(idle) => return Err(End::Idle),
                }
            };
            match read {
                None => {}
                Some(Ok(0)) => return Err(End::Closed),
                Some(Ok(_)) => {
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

    /// Sends the messages of one turn. Returns whether there are more, for which others are to have
    /// their turn first.
    async fn send_messages(&mut self) -> Result<bool, End> {
        let mut turn = Turn::default();
        let has_more = loop {
            match self.client.next_message(&mut turn) {
                Incoming::Message(message) => encode(&message, self.client.protocol(), &mut self.output),
                Incoming::Nothing => break false,
                Incoming::Unfinished => break true,
            }
            if self.output.len() >= FLUSH_BYTES {
                self.send().await?;
            }
        };
        self.send().await?;
        Ok(has_more)
    }

    /// Waits for the verdict on a parked request. Leaves the queue the moment the socket closes.
    async fn wait(&mut self, mut parked: Blocked, is_answered: bool) -> Result<(), End> {
        let mut has_more = false;
        let (reply, seq) = loop {
            let is_full = self.input.len() >= self.limits.scan.request_bytes_max;
            tokio::select! {
                verdict = Client::verdict(&mut parked) => break verdict,
                read = hears_on(&self.stream, &mut self.input, is_full) => read?,
                () = self.client.info().woken() => {
                    if self.client.info().is_killed() {
                        return Err(End::Closed);
                    }
                    has_more = self.send_messages().await?;
                }
                () = yield_now(), if has_more => has_more = self.send_messages().await?,
            }
        };
        let granted = parked.granted();
        if is_answered {
            self.answer(&reply, seq);
        }
        self.settle().await;
        let sent = if is_gone(&self.stream) { Err(End::Closed) } else { self.send().await };
        if let (Err(_), Some(token)) = (&sent, granted) {
            parked.give_back(token);
        }
        sent
    }
}

/// How fast a client takes its output: so that a byte now and then does not keep a reply in memory for ever.
#[derive(Default)]
struct Pace {
    /// When the client first had to be waited for.
    since: Option<Instant>,
    /// Bytes that it has taken.
    sent: u64,
}

/// Bytes that earn a client another `--output-stall-ms`.
const STALL_BYTES: u64 = 1 << 20;

impl Pace {
    /// How long the client may still be waited for. `None`: no longer.
    fn left(&mut self, now: Instant, stall: Duration) -> Option<Duration> {
        let waited = now.saturating_duration_since(*self.since.get_or_insert(now));
        let earned = stall.mul_f64(self.sent as f64 / STALL_BYTES as f64);
        // Nothing at all for so long is too long, whatever went before.
        (stall + earned).checked_sub(waited).filter(|left| !left.is_zero()).map(|left| left.min(stall))
    }
}

/// Completes with a future's output, and with whether other tasks could run before that.
async fn noting_waits<F: Future>(future: F) -> (F::Output, bool) {
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

/// Whether the other side has closed the connection, as the system knows at this moment: what the runtime knows of it may be older.
fn is_gone(stream: &TcpStream) -> bool {
    #[cfg(target_os = "linux")]
    const GONE: PollFlags = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    const GONE: PollFlags = PollFlags::empty();
    let mut looked_at = [PollFd::new(stream, GONE)];
    // What cannot be looked at fails when the reply is sent.
    poll(&mut looked_at, Some(&Timespec::default())).is_ok() && !looked_at[0].revents().is_empty()
}

/// Reads what is there; fails if the other side is gone.
fn hears(stream: &TcpStream, input: &mut BytesMut) -> Result<(), End> {
    input.reserve(READ_BYTES_MIN);
    match stream.try_read_buf(input) {
        Ok(0) => Err(End::Closed),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Completes when something was read; fails when the other side is gone.
async fn hears_on(stream: &TcpStream, input: &mut BytesMut, is_full: bool) -> Result<(), End> {
    if is_full {
        tokio::time::sleep(FULL_INPUT_CHECK).await;
        let ready = stream.ready(Interest::READABLE).await?;
        return if ready.is_read_closed() { Err(End::Closed) } else { Ok(()) };
    }
    stream.readable().await?;
    hears(stream, input)
}

const _: () = assert!(READ_BYTES_MIN <= READ_BYTES_MAX && READ_BYTES_MAX <= FLUSH_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_now_and_then_is_not_enough() {
        let (mut pace, stall, start) = (Pace::default(), Duration::from_secs(30), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.left(start, stall), Some(stall));
        pace.sent += 1;
        assert!(pace.left(after(29), stall).is_some_and(|left| left < Duration::from_millis(1001)));
        pace.sent += 1;
        assert_eq!(pace.left(after(31), stall), None);
        // A slow client that goes on taking its reply has the time it needs.
        pace.sent += STALL_BYTES;
        assert!(pace.left(after(31), stall).is_some_and(|left| left < Duration::from_secs(30)));
        pace.sent += 100 * STALL_BYTES;
        assert_eq!(pace.left(after(31), stall), Some(stall));
    }

    #[tokio::test]
    async fn who_has_gone_is_noticed_before_the_runtime_hears_of_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut input = BytesMut::new();
        assert!(hears(&stream, &mut input).is_ok() && !is_gone(&stream));
        std::io::Write::write_all(&mut &client, b"PING\r\n").unwrap();
        assert!(!is_gone(&stream), "it only talks");
        drop(client);
        assert!(is_gone(&stream), "although there is something to read first");
    }
}
