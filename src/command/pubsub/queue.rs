//! The messages that a connection has not sent yet.
//!
//! Guarantees: bounded in bytes. A connection whose queue reaches its limit is closed, so that it
//! never misses a message unnoticed. Not here: who gets which message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::command::ClientInfo;
use crate::glob::Glob;

/// Messages in one block of a queue. An empty queue keeps up to one block.
const BLOCK_MESSAGES: usize = 256;

/// A message, shared by all subscribers.
pub(in crate::command) struct Notice {
    pub(in crate::command) channel: Arc<[u8]>,
    pub(in crate::command) payload: Box<[u8]>,
}

/// The subscription through which a subscriber receives a notice.
#[derive(Clone)]
pub(in crate::command) enum Via {
    /// The channel.
    Channel,
    /// The shard channel.
    ShardChannel,
    /// A pattern that matches.
    Pattern(Glob),
    /// Patterns with this common prefix. The subscriber matches them itself.
    Prefix(Arc<[u8]>),
    /// MONITOR. The payload is a line.
    Monitor,
    /// CLIENT TRACKING. The payload is a key; without a channel, all keys are out of date.
    Tracking,
    /// CLIENT TRACKING, for a client whose redirection ended. The payload is the id of its target.
    BrokenRedirection,
}

/// A message and the subscription through which it comes.
#[derive(Clone)]
pub(in crate::command) struct Entry {
    pub(in crate::command) via: Via,
    pub(in crate::command) notice: Arc<Notice>,
}

/// Units of work to take a message from a queue and to write it, without its bytes.
const WORK_PER_MESSAGE: usize = 60;
/// Bytes that are written in about one unit.
const BYTES_PER_UNIT: usize = 4;

/// Units of work to send a notice to one connection.
pub(super) fn work_of(notice: &Notice) -> usize {
    WORK_PER_MESSAGE + (notice.channel.len() + notice.payload.len()) / BYTES_PER_UNIT
}

impl Entry {
    /// Its size, as counted against the limit. What subscribers share counts for each of them.
    fn size(&self) -> usize {
        let via = match &self.via {
            Via::Pattern(glob) => glob.text().len(),
            _ => 0,
        };
        size_of::<Entry>() + size_of::<Notice>() + via + self.notice.channel.len() + self.notice.payload.len()
    }
}

/// The messages that one connection has not sent yet.
pub(in crate::command) struct MessageQueue {
    queue: Mutex<Queue>,
    /// Whether there are any, for a check without the lock.
    has_any: AtomicBool,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    entries: Blocks,
    bytes: usize,
    is_closed: bool,
}

/// Entries in blocks: the queues of thousands of subscribers grow together, and moving what each of
/// them holds would take hundreds of milliseconds.
#[derive(Default)]
struct Blocks(VecDeque<VecDeque<Entry>>);

impl Blocks {
    fn is_empty(&self) -> bool {
        self.0.front().is_none_or(VecDeque::is_empty)
    }

    fn push_back(&mut self, entry: Entry) {
        match self.0.back_mut().filter(|block| block.len() < BLOCK_MESSAGES) {
            Some(block) => block.push_back(entry),
            None => {
                // Most queues are short.
                let room = if self.0.is_empty() { 4 } else { BLOCK_MESSAGES };
                let mut block = VecDeque::with_capacity(room);
                block.push_back(entry);
                self.0.push_back(block);
            }
        }
    }

    fn pop_front(&mut self) -> Option<Entry> {
        let first = self.0.front_mut()?;
        let entry = first.pop_front();
        if first.is_empty() && self.0.len() > 1 {
            self.0.pop_front();
        }
        entry
    }
}

impl MessageQueue {
    pub(in crate::command) fn new(bytes_max: usize) -> MessageQueue {
        MessageQueue { queue: Mutex::default(), has_any: AtomicBool::new(false), bytes_max }
    }

    /// Whether there are messages. A message that is queued concurrently wakes the connection after it
    /// is seen here.
    pub(in crate::command) fn has_any(&self) -> bool {
        self.has_any.load(Ordering::Acquire)
    }

    /// Whether some must be sent soon, before there is no room for more.
    pub(in crate::command) fn has_many(&self) -> bool {
        self.has_any() && self.queue.lock().bytes > self.bytes_max / 4
    }

    /// Drops all messages.
    pub(in crate::command) fn clear(&self) {
        let mut queue = self.queue.lock();
        (queue.entries, queue.bytes) = (Blocks::default(), 0);
        self.has_any.store(false, Ordering::Release);
    }

    /// Removes the oldest message.
    pub(in crate::command) fn take(&self) -> Option<Entry> {
        let mut queue = self.queue.lock();
        let entry = queue.entries.pop_front();
        queue.bytes -= entry.as_ref().map_or(0, Entry::size);
        self.has_any.store(!queue.entries.is_empty(), Ordering::Release);
        entry
    }
}

impl ClientInfo {
    /// Queues a message. Returns `false` if it exceeds the limit, which closes the connection.
    #[must_use]
    pub(in crate::command) fn queue_message(&self, entry: Entry) -> bool {
        let mut queue = self.messages.queue.lock();
        if queue.is_closed {
            // It was cut off before, which is logged once.
            return true;
        }
        queue.bytes += entry.size();
        if queue.bytes > self.messages.bytes_max {
            drop(queue);
            self.cut_off();
            return false;
        }
        let was_empty = queue.entries.is_empty();
        queue.entries.push_back(entry);
        if was_empty {
            self.messages.has_any.store(true, Ordering::Release);
            drop(queue);
            // Not for each message: those who wait for their turn to send would be woken in vain.
            self.wake();
        }
        true
    }

    /// [`ClientInfo::queue_message`], which logs the end of the connection.
    pub(in crate::command) fn send_message(&self, entry: Entry) {
        if !self.queue_message(entry) {
            self.log_cut_off();
        }
    }

    pub(super) fn log_cut_off(&self) {
        tracing::warn!(
            client = %self.addr,
            "subscriber too slow: closing connection (--subscriber-bytes-max)"
        );
    }

    /// Closes the connection, which has missed a message. Its own task frees what is queued: many may
    /// be cut off at once.
    pub(super) fn cut_off(&self) {
        self.messages.queue.lock().is_closed = true;
        self.kill();
    }
}
