//! An ordered set of owners: the holders of a shared or limited lock, or the queue of a lock.
//!
//! Guarantees: first, last, by number, by owner, by session, by nearest deadline and by smallest
//! capacity are each O(log n), so that 100 000 members of one lock cost no more per step than ten.
//! Not here: any rule about who may hold what.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{Owner, SessionId, Timestamp};

/// What a [`IndexedSet`] keeps.
pub(super) trait Member {
    /// Unique in its set, and its order there.
    fn number(&self) -> i64;
    fn owner(&self) -> &Owner;
    fn deadline(&self) -> Timestamp;
    /// The session it ends with. Never changes.
    fn session(&self) -> Option<SessionId>;
    /// How many members it allows, itself included. Never changes.
    fn capacity(&self) -> Option<u32>;
}

#[derive(Debug, Clone)]
pub(super) struct IndexedSet<T> {
    members: BTreeMap<i64, T>,
    by_owner: BTreeMap<Owner, i64>,
    by_deadline: BTreeSet<(Timestamp, i64)>,
    by_session: BTreeSet<(SessionId, i64)>,
    by_capacity: BTreeSet<(u32, i64)>,
}

impl<T> Default for IndexedSet<T> {
    fn default() -> Self {
        IndexedSet {
            members: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            by_session: BTreeSet::new(),
            by_capacity: BTreeSet::new(),
        }
    }
}

impl<T: Member> IndexedSet<T> {
    /// Adds a member. Neither its number nor its owner may be present.
    pub(super) fn insert(&mut self, member: T) {
        let number = member.number();
        if member.deadline() != Timestamp::NEVER {
            self.by_deadline.insert((member.deadline(), number));
        }
        self.by_session.extend(member.session().map(|session| (session, number)));
        self.by_capacity.extend(member.capacity().map(|capacity| (capacity, number)));
        let owner_was = self.by_owner.insert(member.owner().clone(), number);
        let member_was = self.members.insert(number, member);
        debug_assert!(owner_was.is_none() && member_was.is_none());
    }

    pub(super) fn remove(&mut self, number: i64) -> Option<T> {
        let member = self.members.remove(&number)?;
        self.by_owner.remove(member.owner());
        self.by_deadline.remove(&(member.deadline(), number));
        if let Some(session) = member.session() {
            self.by_session.remove(&(session, number));
        }
        if let Some(capacity) = member.capacity() {
            self.by_capacity.remove(&(capacity, number));
        }
        Some(member)
    }

    /// Changes a member in place; only its deadline may change of what [`Member`] tells.
    pub(super) fn update<R>(&mut self, number: i64, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let member = self.members.get_mut(&number)?;
        let before = member.deadline();
        let result = change(member);
        let after = member.deadline();
        if before != after {
            self.by_deadline.remove(&(before, number));
            if after != Timestamp::NEVER {
                self.by_deadline.insert((after, number));
            }
        }
        Some(result)
    }

    pub(super) fn number_of(&self, owner: &Owner) -> Option<i64> {
        self.by_owner.get(owner).copied()
    }

    pub(super) fn get(&self, number: i64) -> Option<&T> {
        self.members.get(&number)
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.members.first_key_value().map(|(_, member)| member)
    }

    pub(super) fn last(&self) -> Option<&T> {
        self.members.last_key_value().map(|(_, member)| member)
    }

    /// A member whose deadline is `now` or earlier, the earliest first.
    pub(super) fn due(&self, now: Timestamp) -> Option<i64> {
        self.by_deadline.first().filter(|(deadline, _)| *deadline <= now).map(|&(_, number)| number)
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        self.by_deadline.first().map_or(Timestamp::NEVER, |&(deadline, _)| deadline)
    }

    /// The numbers of the members that end with a session, in order.
    pub(super) fn of_session(&self, session: SessionId) -> impl Iterator<Item = i64> {
        self.by_session.range((session, i64::MIN)..=(session, i64::MAX)).map(|&(_, number)| number)
    }

    /// The sessions that members end with, each as often as it has members.
    pub(super) fn sessions(&self) -> impl ExactSizeIterator<Item = SessionId> {
        self.by_session.iter().map(|&(session, _)| session)
    }

    /// The smallest capacity of any member.
    pub(super) fn smallest_capacity(&self) -> Option<u32> {
        self.by_capacity.first().map(|&(capacity, _)| capacity)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.members.values()
    }
}
