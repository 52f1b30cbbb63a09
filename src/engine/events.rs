//! The bus of events: what happened to keys, for pub/sub, event streams and client-side caches.
//!
//! Guarantees: the events of one key come in the order in which they happened, each after it is
//! durable. An event of a kind that has no listeners is not made; without any listener, a change
//! costs one load. The queue is bounded in bytes; if events do not fit, the listeners learn that they
//! have missed some. Not here: listeners and channels, and which changes make which events.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::Engine;
use crate::domain::{FencingToken, KeyspaceEvents, LockName, Timestamp};
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

/// Something that happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To a lease of it.
    Lease(LeaseEvent),
    /// As a keyspace notification of Redis.
    Notification {
        /// The key.
        name: LockName,
        /// What happened, in Redis' word.
        event: &'static str,
    },
    /// What a client knows of the key is out of date.
    Invalidation {
        /// The key; `None`: all keys.
        name: Option<LockName>,
        /// The client behind the change; 0: none.
        client: u64,
        /// Larger than those of all earlier invalidations.
        number: u64,
    },
}

/// What listeners want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// [`Event::Lease`].
    Leases,
    /// [`Event::Invalidation`].
    Invalidations,
}

/// Something that happened to a lease. Never names the owner: that is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseEvent {
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

/// What the listeners learn next.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// These events, oldest first.
    Events(Vec<Event>),
    /// This number of events was dropped since the last ones. All listeners may have missed some.
    Lost(u64),
}

/// Bytes of events that wait to be passed on. They are passed on faster than locks change; only a
/// commit that takes long makes them wait.
pub(super) const QUEUE_BYTES_MAX: usize = 16 << 20;

#[derive(Default)]
pub(super) struct Events {
    /// See [`Interests`].
    interests: AtomicU64,
    last: AtomicU64,
    last_invalidation: AtomicU64,
    queue: Mutex<Queue>,
    arrived: Notify,
}

/// The interests of all listeners: the classes of notifications in the low bits, then the number of
/// listeners for each [`Interest`].
#[derive(Clone, Copy)]
pub(super) struct Interests(u64);

const LISTENERS_BITS: u32 = 24;

impl Interest {
    /// The place of its number of listeners.
    fn shift(self) -> u32 {
        match self {
            Interest::Leases => u16::BITS,
            Interest::Invalidations => u16::BITS + LISTENERS_BITS,
        }
    }
}

impl Interests {
    pub(super) fn are_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn include(self, interest: Interest) -> bool {
        self.0 >> interest.shift() & ((1 << LISTENERS_BITS) - 1) != 0
    }

    /// The classes of notifications.
    pub(super) fn notifications(self) -> KeyspaceEvents {
        KeyspaceEvents::from_bits(self.0 as u16)
    }
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
        let key = match self {
            Event::Lease(LeaseEvent { name, .. }) | Event::Notification { name, .. } => name.key().len(),
            Event::Invalidation { name, .. } => name.as_ref().map_or(0, |name| name.key().len()),
        };
        size_of::<(Seq, Event)>() + key
    }
}

impl Events {
    #[inline]
    pub(super) fn interests(&self) -> Interests {
        Interests(self.interests.load(Ordering::Acquire))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    #[cfg(test)]
    pub(super) fn bytes_queued(&self) -> usize {
        self.queue().bytes
    }

    pub(super) fn push(&self, seq: Seq, mut event: Event) {
        let mut queue = self.queue();
        match &mut event {
            Event::Lease(LeaseEvent { number, .. }) => {
                *number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
            }
            Event::Invalidation { number, .. } => {
                *number = self.last_invalidation.fetch_add(1, Ordering::AcqRel) + 1;
            }
            Event::Notification { .. } => {}
        }
        queue.push(seq, event);
        drop(queue);
        self.arrived.notify_one();
    }
}

impl Engine {
    /// Adds or removes a listener.
    pub fn listen(&self, interest: Interest, is_added: bool) {
        let (interests, one) = (&self.core.events.interests, 1 << interest.shift());
        if is_added {
            interests.fetch_add(one, Ordering::AcqRel);
        } else {
            interests.fetch_sub(one, Ordering::AcqRel);
        }
    }

    /// Selects the keyspace notifications that are made. Those without a channel to go to are not.
    pub fn notify_of(&self, events: KeyspaceEvents) {
        let has_channel = events.intersects(KeyspaceEvents::CHANNELS);
        let classes = if has_channel { u64::from(events.bits()) } else { 0 };
        let interests = &self.core.events.interests;
        interests.fetch_or(classes, Ordering::AcqRel);
        interests.fetch_and(classes | !u64::from(u16::MAX), Ordering::AcqRel);
    }

    /// The keyspace notifications that are made, and where they go.
    pub fn notifications(&self) -> KeyspaceEvents {
        self.core.events.interests().notifications()
    }

    /// The number of the latest event of a lease. A lock that is read afterwards, under its guard,
    /// includes all of its events up to this one.
    pub fn last_event(&self) -> u64 {
        self.core.events.last.load(Ordering::Acquire)
    }

    /// The number of the latest invalidation. A client that reads a key afterwards knows the changes
    /// behind all invalidations up to this one.
    pub fn last_invalidation(&self) -> u64 {
        self.core.events.last_invalidation.load(Ordering::Acquire)
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
            let is_durable = self.durable(highest).await.is_ok() && !self.has_ever_failed();
            let mut durable = Vec::with_capacity(taken.len());
            for (seq, event) in taken {
                // What a failed commit took back did not happen.
                if is_durable || self.durable(seq).await.is_ok() {
                    durable.push(event);
                }
            }
            if !durable.is_empty() {
                return Heard::Events(durable);
            }
        }
    }
}
