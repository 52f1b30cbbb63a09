//! How the replies of a batch leave: they wait until they are durable, and are sent in one write.
//!
//! Guarantees: a reply whose commit failed is replaced by an error; a server that another may have
//! replaced sends nothing. Not here: what executes the requests.

use bytes::BytesMut;

use super::{Connection, End, FLUSH_BYTES};
use crate::command::OUTCOME_UNKNOWN;
use crate::journal::Seq;
use crate::reply::Reply;
use crate::resp::codec::{Encoder, encode};

impl Connection {
    /// Sends a large reply in parts once it is durable, yielding in between.
    pub(super) async fn answer_in_parts(&mut self, reply: Reply, seq: Seq) -> Result<(), End> {
        let reply = match self.server.engine.barrier(seq).await {
            Ok(()) => reply,
            Err(_) => OUTCOME_UNKNOWN,
        };
        self.record_commands();
        let mut encoder = Encoder::new(reply, self.client.protocol());
        self.stream.begin_output();
        while encoder.encode(&mut self.output, FLUSH_BYTES) {
            self.send_output().await?;
            self.yield_turn().await?;
        }
        self.send_output().await
    }

    pub(super) fn answer(&mut self, reply: &Reply, seq: Seq) {
        encode(reply, self.client.protocol(), &mut self.output);
        self.replies.push((self.output.len(), seq));
        self.highest = self.highest.max(seq);
    }

    /// Waits until the replies are durable, then sends them.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        self.await_durable().await;
        self.record_commands();
        if self.server.engine.is_fenced() {
            // Another server may have answered already.
            return Err(End::Closed);
        }
        self.send().await
    }

    /// Records the batch in the command metrics.
    pub(super) fn record_commands(&mut self) {
        self.batch_ended = self.server.engine.clock().now();
        let took = self.batch_ended.nanos_since(self.batch_began);
        self.server.metrics.commands.observe(&mut self.ran, took);
    }

    /// Waits until the replies are durable, and replaces those whose commit failed.
    pub(super) async fn await_durable(&mut self) {
        if self.server.engine.barrier(self.highest).await.is_err() || self.has_failed() {
            let replies = std::mem::take(&mut self.output);
            let mut start = 0;
            for (end, seq) in std::mem::take(&mut self.replies) {
                match self.server.engine.barrier(seq).await {
                    Ok(()) => self.output.extend_from_slice(&replies[start..end]),
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
        engine.has_ever_failed()
            && self.replies.iter().any(|(_, seq)| engine.durability_of(*seq) != Some(Ok(())))
    }

    /// Sends the output as one unit. Gives up when the client takes it too slowly, or is killed.
    pub(super) async fn send(&mut self) -> Result<(), End> {
        self.stream.begin_output();
        self.send_output().await
    }

    /// Sends the output as part of the unit that has begun.
    pub(super) async fn send_output(&mut self) -> Result<(), End> {
        let bytes = self.output.len();
        let result = self.send_all().await;
        self.server.metrics.redis.sent.add((bytes - self.output.len()) as u64);
        if result.is_ok() && self.output.capacity() > FLUSH_BYTES * 2 {
            self.output = BytesMut::new();
        }
        result
    }

    async fn send_all(&mut self) -> Result<(), End> {
        while !self.stream.try_send(&mut self.output)? {
            tokio::select! {
                ready = self.stream.writable() => ready?,
                () = self.client.info().woken() => if self.client.info().is_killed() {
                    return Err(End::Closed);
                },
            }
        }
        Ok(())
    }
}
