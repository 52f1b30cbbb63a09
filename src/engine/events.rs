//! What happened to locks, for those who listen.
//!
//! Guarantees: the events of one lock come in the order in which they happened, each after it is
//! durable. Nothing is kept while there is no listener. The queue is bounded in bytes; if events do
//! not fit, those who listen learn that they have missed some. Not here: who listens, and channels.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use parking_lot::{Mutex, MutexGuard};

use super::Engine;
use crate::domain::{FencingToken, LockName, Timestamp};
use crate::journal::Seq;

/// What happened to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was granted.
    Acquired,
    /// Its deadline was moved.
    Renewed,
    /// Its owner, or the end of its session, gave it back.
    Released,
    /// It reached its deadline.
    Expired,
    /// An operator ended it.
    Forced,
    /// A SET gave the lock to another owner.
    Replaced,
}

impl EventKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Acquired => "acquired",
            EventKind::Renewed => "renewed",
            EventKind::Released => "released",
            EventKind::Expired => "expired",
            EventKind::Forced => "forced",
            EventKind::Replaced => "replaced",
        }
    }
}

/// Something that happened to a lease. Never names the owner: that is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Larger than those of all earlier events of the lock.
    pub number: u64,
    /// The lock.
    pub name: LockName,
    /// What happened.
    pub kind: EventKind,
    /// The lease.
    pub token: FencingToken,
    /// When the lease ends, or was to end.
    pub deadline: Timestamp,
}

/// What those who listen are to learn next.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// These events, the oldest first.
    Events(Vec<Event>),
    /// The number of events dropped since the last ones. The present listeners may have missed
    /// some.
    Lost(u64),
}

/// Bytes of events that wait to be passed on. They are passed on faster than locks change; only a
/// commit that takes long makes them wait.
pub(super) const QUEUE_BYTES_MAX: usize = 16 << 20;

#[derive(Default)]
pub(super) struct Events {
    listeners: AtomicUsize,
    last: AtomicU64,
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<(Seq, Event)>,
    bytes: usize,
    /// Events that were dropped. Until the reader knows that, all others are dropped, too.
    lost: u64,
}

impl Queue {
    fn push(&mut self, seq: Seq, event: Event) {
        if self.lost == 0 {
            self.bytes += event.size();
            self.events.push_back((seq, event));
            if self.bytes <= QUEUE_BYTES_MAX {
                return;
            }
            // Listeners have missed the newest events; the older ones alone would look complete.
            self.lost = self.events.len() as u64;
            self.events = VecDeque::new();
            self.bytes = 0;
        } else {
            self.lost += 1;
        }
    }

    /// Removes the oldest events.
    fn take(&mut self, max: usize) -> Vec<(Seq, Event)> {
        let count = self.events.len().min(max);
        let taken: Vec<_> = self.events.drain(..count).collect();
        self.bytes -= taken.iter().map(|(_, event)| event.size()).sum::<usize>();
        if self.events.is_empty() && self.events.capacity() > SPARE_EVENTS_MAX {
            self.events = VecDeque::new();
        }
        taken
    }
}

/// Events for which an empty queue keeps room.
const SPARE_EVENTS_MAX: usize = 1024;

impl Event {
    /// Bytes that are counted for it in the queue.
    fn size(&self) -> usize {
        size_of::<(Seq, Event)>() + self.name.key().len()
    }
}

impl Events {
    pub(super) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Acquire) > 0
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    #[cfg(test)]
    pub(super) fn bytes_queued(&self) -> usize {
        self.queue().bytes
    }

    pub(super) fn push(&self, seq: Seq, event: Event) {
        let mut queue = self.queue();
        let number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        queue.push(seq, Event { number, ..event });
        drop(queue);
        self.arrived.notify_one();
    }
}

impl Engine {
    /// One more, or one less, wants events.
    pub fn listen(&self, more: bool) {
        if more {
            self.core.events.listeners.fetch_add(1, Ordering::AcqRel);
        } else {
            self.core.events.listeners.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The number of the latest event. A reader that gets it under the guard of a lock has seen the
    /// effects of the lock's events up to this one.
    pub fn last_event(&self) -> u64 {
        self.core.events.last.load(Ordering::Acquire)
    }

    /// Waits for events and returns the oldest ones, at most `max`, once they are durable. For one
    /// task only.
    pub async fn next_events(&self, max: usize) -> Heard {
        let events = &self.core.events;
        loop {
            let taken = {
                let mut queue = events.queue();
                match std::mem::take(&mut queue.lost) {
                    0 => queue.take(max),
                    lost => return Heard::Lost(lost),
                }
            };
            let Some(highest) = taken.iter().map(|(seq, _)| *seq).max() else {
                events.arrived.notified().await;
                continue;
            };
            let is_durable = self.barrier(highest).await.is_ok() && !self.has_ever_failed();
            let mut durable = Vec::with_capacity(taken.len());
            for (seq, event) in taken {
                // What a failed commit took back did not happen.
                if is_durable || self.barrier(seq).await.is_ok() {
                    durable.push(event);
                }
            }
            if !durable.is_empty() {
                return Heard::Events(durable);
            }
        }
    }
}
