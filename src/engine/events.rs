//! What happened to locks, for those who listen.
//!
//! Promise: the events of one lock come in the order in which they happened, each after it is durable. Nothing is
//! kept while nobody listens. Absent: who listens, and channels.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::Engine;
use crate::journal::Seq;
use crate::lock::{FencingToken, LockName, Timestamp};

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

#[derive(Default)]
pub(super) struct Events {
    listeners: AtomicUsize,
    last: AtomicU64,
    queue: Mutex<Vec<(Seq, Event)>>,
    arrived: Notify,
}

impl Events {
    pub(super) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Acquire) > 0
    }

    pub(super) fn push(&self, seq: Seq, event: Event) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        queue.push((seq, Event { number, ..event }));
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

    /// The number of the latest event. Whoever reads it while looking at a lock has seen what the lock's events up to this one
    /// tell of.
    pub fn last_event(&self) -> u64 {
        self.core.events.last.load(Ordering::Acquire)
    }

    /// Waits for events and returns them once they are durable, the oldest first. For one task only.
    pub async fn next_events(&self) -> Vec<Event> {
        loop {
            self.core.events.arrived.notified().await;
            let queued =
                std::mem::take(&mut *self.core.events.queue.lock().unwrap_or_else(PoisonError::into_inner));
            let mut events = Vec::with_capacity(queued.len());
            for (seq, event) in queued {
                // What a failed commit took back did not happen.
                if self.barrier(seq).await.is_ok() {
                    events.push(event);
                }
            }
            if !events.is_empty() {
                return events;
            }
        }
    }
}
