//! Which events a change of a key makes.
//!
//! Guarantees: keyspace notifications have the names and the order of Redis. A change to a lock is
//! shown as the one that Redis would make to a string: a grant is `set`, its end `del` or `expired`.
//! Not here: the queue of events, delivery.

use super::apply::changes_value;
use super::events::Events;
use super::{Event, EventKind, Interest, LeaseEvent, Txn};
use crate::domain::{KeyspaceEvents, LockName, Timestamp};
use crate::journal::Seq;
use crate::lock::{Effect, Effects, EndReason, Op, Outcome, Slot};

/// What is behind the changes and reads of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cause {
    /// The name of the keyspace notification for what changes; empty: the one for the kind of change,
    /// such as `set` or `del`.
    pub event: &'static str,
    /// The client; 0: none.
    pub client: u64,
    /// The keys that are looked up and not found are announced.
    pub looks_up: bool,
    /// The change is a part of another one, which is announced.
    pub(super) is_silent: bool,
    /// The key existed before, as a value of another kind.
    pub(super) replaces: bool,
    /// The lease that replaces the value ends when that would have ended.
    pub(super) keeps_ttl: bool,
}

impl Cause {
    /// A client's command.
    pub fn of_client(client: u64, event: &'static str, looks_up: bool) -> Cause {
        Cause { event, client, looks_up, ..Cause::default() }
    }

    /// The notification of a change that is called `usual` unless the command says otherwise.
    pub(super) fn notification(self, class: KeyspaceEvents, usual: &'static str) -> Notification {
        (class, if self.event.is_empty() { usual } else { self.event })
    }
}

/// A notification: its class and its name.
pub(super) type Notification = (KeyspaceEvents, &'static str);

pub(super) const DELETED: Notification = (KeyspaceEvents::GENERIC, "del");
pub(super) const EXPIRED: Notification = (KeyspaceEvents::EXPIRED, "expired");
const SET: Notification = (KeyspaceEvents::STRING, "set");
pub(super) const CREATED: Notification = (KeyspaceEvents::NEW, "new");
const MISSED: Notification = (KeyspaceEvents::KEY_MISS, "keymiss");

/// The change of a deadline.
pub(super) fn renewed_until(deadline: Timestamp) -> Notification {
    let event = if deadline == Timestamp::NEVER { "persist" } else { "expire" };
    (KeyspaceEvents::GENERIC, event)
}

/// A transition of a lock.
pub(super) struct Transition<'t> {
    pub(super) name: &'t LockName,
    pub(super) op: &'t Op,
    pub(super) outcome: &'t Outcome,
    pub(super) effects: &'t Effects,
    /// The lock afterwards.
    pub(super) slot: &'t Slot,
    pub(super) cause: Cause,
}

impl Txn<'_> {
    /// Makes the event of a key that was looked up and not found.
    pub(super) fn announce_miss(&self, name: &LockName) {
        if self.cause().looks_up {
            self.engine().core.events.notify(self.seen().seq(), name, MISSED);
        }
    }
}

impl Events {
    /// Makes the events of a change to a key, which are the notifications `notifications`.
    pub(super) fn key_changed(
        &self,
        seq: Seq,
        name: &LockName,
        client: u64,
        notifications: impl IntoIterator<Item = Notification>,
    ) {
        let interests = self.interests();
        if interests.are_none() {
            return;
        }
        for notification in notifications {
            self.notify(seq, name, notification);
        }
        if interests.include(Interest::Invalidations) {
            self.push(seq, Event::Invalidation { name: Some(name.clone()), client, number: 0 });
        }
    }

    /// Makes a notification, if it is one of those that are selected.
    pub(super) fn notify(&self, seq: Seq, name: &LockName, (class, event): Notification) {
        if self.interests().notifications().contains(class) {
            self.push(seq, Event::Notification { name: name.clone(), event });
        }
    }

    /// Makes the events of a transition.
    #[inline]
    pub(super) fn lock_changed(&self, seq: Seq, transition: &Transition<'_>) {
        if !self.interests().are_none() {
            self.announce(seq, transition);
        }
    }

    #[cold]
    fn announce(&self, seq: Seq, transition: &Transition<'_>) {
        let Transition { name, op, outcome, effects, slot, cause } = *transition;
        if self.interests().include(Interest::Leases) {
            for event in effects.iter().filter_map(|effect| event_of(name, effect, effects, slot)) {
                self.push(seq, Event::Lease(event));
            }
        }
        if cause.is_silent || !changes_value(op, outcome, effects) {
            return;
        }
        // What ends by itself, no client has changed.
        let has_expired = |effect: &Effect| matches!(effect, Effect::Ended { how: EndReason::Expired, .. });
        let client = if effects.iter().any(has_expired) { 0 } else { cause.client };
        self.key_changed(seq, name, client, notifications_of(transition));
    }
}

fn notifications_of(transition: &Transition<'_>) -> Vec<Notification> {
    let Transition { op, outcome, effects, slot, cause, .. } = *transition;
    let (mut holders, mut is_replaced) = (slot.holder_count(), cause.replaces);
    for effect in effects.iter() {
        match effect {
            Effect::Granted { .. } => holders = holders.saturating_sub(1),
            Effect::Ended { .. } => holders += 1,
            _ => {}
        }
    }
    let set_name = cause.notification(KeyspaceEvents::STRING, "set");
    let (set, set_event) = match (op, outcome) {
        (Op::Set { request, keep_ttl, .. }, Outcome::Granted { token, already_held }) => {
            let keeps_ttl = *keep_ttl || cause.keeps_ttl;
            let moves_deadline = set_name.1 == "set" && !keeps_ttl && request.ttl.is_some();
            (Some((*token, *already_held)), (set_name, moves_deadline))
        }
        _ => (None, (SET, false)),
    };
    let mut all = Vec::new();
    let grant = |all: &mut Vec<Notification>, (event, moves_deadline): (Notification, bool)| {
        all.push(event);
        all.extend(moves_deadline.then_some((KeyspaceEvents::GENERIC, "expire")));
    };
    for effect in effects.iter() {
        match effect {
            Effect::Granted { token, .. } => {
                if holders == 0 && !is_replaced {
                    all.push(CREATED);
                }
                holders += 1;
                let ends = effects.granted(*token, slot).is_some_and(|it| it.deadline != Timestamp::NEVER);
                let is_set = set.is_some_and(|(set, _)| set == *token);
                grant(&mut all, if is_set { set_event } else { (SET, ends) });
            }
            // The SET of the holder itself is announced below.
            Effect::Renewed { .. } if set.is_some() => {}
            Effect::Renewed { deadline, .. } => all.push(renewed_until(*deadline)),
            Effect::Ended { how, .. } => {
                holders = holders.saturating_sub(1);
                match how {
                    EndReason::Replaced => is_replaced = true,
                    _ if holders > 0 => {}
                    EndReason::Expired => all.push(EXPIRED),
                    EndReason::Released | EndReason::Forced | EndReason::Session { .. } => all.push(DELETED),
                }
            }
            _ => {}
        }
    }
    if let Some((_, true)) = set {
        grant(&mut all, set_event);
    }
    all
}

fn event_of(name: &LockName, effect: &Effect, all: &Effects, slot: &Slot) -> Option<LeaseEvent> {
    let (kind, token, deadline) = match effect {
        Effect::Granted { token, .. } => (EventKind::Acquired, *token, all.granted(*token, slot)?.deadline),
        Effect::Renewed { token, deadline, .. } => (EventKind::Renewed, *token, *deadline),
        Effect::Ended { lease, how } => {
            let kind = match how {
                EndReason::Released | EndReason::Session { .. } => EventKind::Released,
                EndReason::Expired => EventKind::Expired,
                EndReason::Forced => EventKind::Forced,
                EndReason::Replaced => EventKind::Replaced,
            };
            (kind, lease.token, lease.deadline)
        }
        _ => return None,
    };
    Some(LeaseEvent { number: 0, name: name.clone(), kind, token, deadline })
}
