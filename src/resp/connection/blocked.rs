//! What a connection does while a request waits: a LOCK in the queue, a BLPOP, one that was put off.
//!
//! Guarantees: a client that is gone or killed waits for nothing. Input is read up to a limit, and
//! messages are sent meanwhile, unless others wait for this client. Not here: what is waited for;
//! replies that wait for their commit (`durable_replies.rs`).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;

use super::{Connection, End, Place};
use crate::command::Waiting;
use crate::engine::PutOff;
use crate::resp::input::receive;

/// Input that is read from a client whose request waits. The rest stays in the socket.
const INPUT_WHILE_WAITING_MAX: usize = 2 << 20;

impl Connection {
    /// Whether a client whose request waits has sent as much as is read meanwhile.
    fn is_input_full(&self) -> bool {
        self.input.len() >= self.limits.scan.request_bytes_max.min(INPUT_WHILE_WAITING_MAX)
    }

    /// Waits until a request that was put off is to be executed again. Sends nothing meanwhile: what
    /// it is given then must not wait until the client reads.
    pub(super) async fn await_attempt(&mut self, put_off: Box<PutOff>) -> Result<(), End> {
        let server = Arc::clone(&self.server);
        let put_off = self.meanwhile(false, server.engine.next_attempt(put_off)).await?;
        if self.client.info().is_killed() || self.stream.peer_has_closed() {
            return Err(End::Closed);
        }
        self.client.resume_request(put_off);
        Ok(())
    }

    /// Waits for what a request waits for, reading input and perhaps sending messages meanwhile.
    async fn meanwhile<R>(
        &mut self,
        sends_messages: bool,
        awaited: impl Future<Output = R>,
    ) -> Result<R, End> {
        let mut awaited = pin!(awaited);
        let mut has_more = sends_messages && self.client.has_messages();
        loop {
            let is_full = self.is_input_full();
            tokio::select! {
                result = &mut awaited => return Ok(result),
                read = receive(&mut self.stream, &mut self.input, is_full, &self.server.metrics.redis.received) => read?,
                () = self.client.info().woken() => {
                    if self.client.info().is_killed() {
                        return Err(End::Closed);
                    }
                    if sends_messages {
                        has_more = self.send_messages().await?;
                    }
                }
                () = yield_now(), if has_more => has_more = self.send_messages().await?,
            }
        }
    }

    /// Waits until a pause of requests ends.
    pub(super) async fn await_end_of_pause(&mut self) -> Result<(), End> {
        let server = Arc::clone(&self.server);
        let mut pause = server.pauses.follow();
        self.meanwhile(true, async {
            loop {
                let Some(until) = pause.borrow_and_update().map(|pause| pause.until()) else { return };
                let now = server.engine.clock().now();
                if until <= now {
                    return;
                }
                let left = Duration::from_nanos(until.nanos_since(now));
                tokio::select! {
                    _ = pause.changed() => {}
                    () = tokio::time::sleep(left) => {}
                }
            }
        })
        .await
    }

    /// Waits after a wrong password, and reads nothing meanwhile.
    pub(super) async fn delay_guesses(&mut self, time: Duration) -> Result<(), End> {
        tokio::time::sleep(time).await;
        self.client.begin_turn();
        // A client that has sent very many is not read from before they were all tried.
        match self.place.as_ref().map(Place::time_left) {
            Some(Duration::ZERO) => Err(End::Unauthenticated),
            _ => Ok(()),
        }
    }

    /// Waits for the outcome of a blocked request. Leaves the queue when the socket closes.
    pub(super) async fn wait(&mut self, mut waiting: Box<Waiting>, is_answered: bool) -> Result<(), End> {
        let mut has_more = self.client.has_messages();
        let outcome = loop {
            let is_full = self.is_input_full();
            tokio::select! {
                outcome = waiting.reply() => break Some(outcome),
                read = receive(&mut self.stream, &mut self.input, is_full, &self.server.metrics.redis.received) => read?,
                () = self.client.info().woken() => {
                    if self.client.info().is_killed() {
                        return Err(End::Closed);
                    }
                    if self.client.info().is_unblocked() {
                        break None;
                    }
                    has_more = self.send_messages().await?;
                }
                () = yield_now(), if has_more => has_more = self.send_messages().await?,
            }
        };
        let (waiting, (reply, seq)) = match (self.client.info().end_wait(), outcome) {
            (Some(how), _) => (None, waiting.unblock(&self.server.engine, how)),
            (None, Some(outcome)) => (Some(waiting), outcome),
            (None, None) => return Err(End::Closed),
        };
        if is_answered {
            self.answer(&reply, seq);
        }
        self.await_durable().await;
        let sent = if self.stream.peer_has_closed() { Err(End::Closed) } else { self.send().await };
        if let (Err(_), Some(waiting)) = (&sent, waiting) {
            waiting.undo();
        }
        sent
    }
}
