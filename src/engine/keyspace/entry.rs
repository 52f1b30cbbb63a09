//! One lock as the table keeps it.
//!
//! Promise: a lock like most (held by one, with nothing extra, while nobody waits) takes two small allocations, and a third once
//! it is renewed; whoever works on it sees an ordinary [`Slot`]. Absent: rules, look-up, guards.

use std::sync::Arc;

use crate::domain::{FencingToken, LockName, Owner, Timestamp, Ttl};
use crate::engine::expiry::Tick;
use crate::lock::{Lease, Mode, Origin, Slot, TooManyEnded};

/// One lock that is not free.
pub(in crate::engine) enum Entry {
    Plain(Plain),
    Renewed(Box<(Plain, RenewalState)>),
    Full(Box<Full>),
}

/// Most of [`Slot::plain_lease`]: all, if it has a TTL and was not renewed.
pub(in crate::engine) struct Plain {
    /// The name, then the owner.
    text: Box<[u8]>,
    name_bytes: u16,
    is_unacknowledged: bool,
    token: FencingToken,
    deadline: Timestamp,
    ttl: Option<Ttl>,
    origin: Option<Arc<Origin>>,
}

/// The rest of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct RenewalState {
    granted_at: Timestamp,
    effective_ttl: Option<Ttl>,
    renewals: u32,
    armed: Option<Tick>,
}

pub(in crate::engine) struct Full {
    name: LockName,
    slot: Slot,
    /// Where the lock stands in the expiry index.
    armed: Option<Tick>,
    /// Another lock whose name has the same hash.
    next: Option<Box<Entry>>,
}

// A lock held costs this, its name and owner, 17 bytes of the table over its load, and 8 of the expiry index over that of a tree.
const _: () = assert!(size_of::<Entry>() <= 48);

impl Entry {
    /// A lock that is not free.
    pub(in crate::engine) fn new(name: &LockName, slot: Slot, armed: Option<Tick>) -> Entry {
        match slot.plain_lease() {
            Some(lease) => Entry::of_plain(name, lease, armed),
            None => Entry::Full(Box::new(Full { name: name.clone(), slot, armed, next: None })),
        }
    }

    fn of_plain(name: &LockName, lease: &Lease, armed: Option<Tick>) -> Entry {
        let (name, owner) = (name.as_bytes(), lease.owner.as_bytes());
        let plain = Plain {
            text: [name, owner].concat().into_boxed_slice(),
            name_bytes: name.len() as u16,
            is_unacknowledged: lease.is_unacknowledged,
            token: lease.token,
            deadline: lease.deadline,
            ttl: lease.ttl,
            origin: lease.origin.clone(),
        };
        let later = RenewalState::of(lease, armed);
        match plain.told() == later {
            true => Entry::Plain(plain),
            false => Entry::Renewed(Box::new((plain, later))),
        }
    }

    pub(in crate::engine) fn is_of(&self, name: &LockName) -> bool {
        match self {
            Entry::Plain(plain) => plain.name() == name.as_bytes(),
            Entry::Renewed(renewed) => renewed.0.name() == name.as_bytes(),
            Entry::Full(full) => full.name == *name,
        }
    }

    pub(in crate::engine) fn name(&self) -> LockName {
        match self {
            Entry::Plain(plain) => plain.lock_name(),
            Entry::Renewed(renewed) => renewed.0.lock_name(),
            Entry::Full(full) => full.name.clone(),
        }
    }

    /// Its name as bytes, the database first.
    pub(in crate::engine) fn name_bytes(&self) -> &[u8] {
        match self {
            Entry::Plain(plain) => plain.name(),
            Entry::Renewed(renewed) => renewed.0.name(),
            Entry::Full(full) => full.name.as_bytes(),
        }
    }

    /// Whether there is a lease, over or not.
    pub(in crate::engine) fn has_holder(&self) -> bool {
        match self {
            Entry::Plain(_) | Entry::Renewed(_) => true,
            Entry::Full(full) => full.slot.newest().is_some(),
        }
    }

    /// How the newest of its holders holds it at `now`, of those that `is_live` is true of. `None`: it is not
    /// held, or of another database. Looks at no more than `max` of them.
    pub(in crate::engine) fn held_as(
        &self,
        database: u8,
        now: Timestamp,
        is_live: &dyn Fn(&Lease) -> bool,
        max: usize,
    ) -> Result<Option<Mode>, TooManyEnded> {
        if self.name_bytes().first() != Some(&database) {
            return Ok(None);
        }
        Ok(match self {
            // These have no session.
            Entry::Plain(plain) => (plain.deadline > now).then_some(Mode::Exclusive),
            Entry::Renewed(renewed) => (renewed.0.deadline > now).then_some(Mode::Exclusive),
            Entry::Full(full) => full.slot.newest_live(is_live, max)?.map(|lease| lease.mode),
        })
    }

    /// When the first thing of the lock ends by itself.
    pub(in crate::engine) fn next_deadline(&self) -> Timestamp {
        match self {
            Entry::Plain(plain) => plain.deadline,
            Entry::Renewed(renewed) => renewed.0.deadline,
            Entry::Full(full) => full.slot.next_deadline(),
        }
    }

    /// The lock whose name has the same hash.
    pub(in crate::engine) fn next(&self) -> Option<&Entry> {
        match self {
            Entry::Plain(_) | Entry::Renewed(_) => None,
            Entry::Full(full) => full.next.as_deref(),
        }
    }

    /// Cuts the chain here.
    pub(in crate::engine) fn take_next(&mut self) -> Option<Box<Entry>> {
        match self {
            Entry::Plain(_) | Entry::Renewed(_) => None,
            Entry::Full(full) => full.next.take(),
        }
    }

    /// The lock whose name has the same hash, to be changed.
    pub(in crate::engine) fn next_mut(&mut self) -> &mut Option<Box<Entry>> {
        if let Some((plain, later)) = self.plain() {
            let (name, slot) = (plain.lock_name(), plain.slot(later));
            *self = Entry::Full(Box::new(Full { name, slot, armed: later.armed, next: None }));
        }
        match self {
            Entry::Full(full) => &mut full.next,
            Entry::Plain(_) | Entry::Renewed(_) => unreachable!("made full above"),
        }
    }

    /// Looks at the lock.
    pub(in crate::engine) fn look<R>(&self, look: impl FnOnce(&LockName, &Slot) -> R) -> R {
        match self {
            Entry::Plain(plain) => look(&plain.lock_name(), &plain.slot(plain.told())),
            Entry::Renewed(renewed) => look(&renewed.0.lock_name(), &renewed.0.slot(renewed.1)),
            Entry::Full(full) => look(&full.name, &full.slot),
        }
    }

    /// Works on the lock. `false`: it is free now, and the entry is to go.
    pub(in crate::engine) fn work<R>(
        &mut self,
        work: impl FnOnce(&mut Slot, &mut Option<Tick>) -> R,
    ) -> (R, bool) {
        let Some((plain, later)) = self.plain() else { return self.work_on_full(work) };
        let (mut slot, mut armed) = (plain.slot(later), later.armed);
        let result = work(&mut slot, &mut armed);
        match slot.plain_lease() {
            // Most who work on a lock that stays as it is only look at it.
            Some(lease) if lease.token == plain.token && lease.deadline == plain.deadline => {
                if RenewalState::of(lease, armed) != later
                    || lease.is_unacknowledged != plain.is_unacknowledged
                {
                    *self = Entry::of_plain(&plain.lock_name(), lease, armed);
                }
            }
            _ if slot.is_vacant() => return (result, false),
            _ => *self = Entry::new(&plain.lock_name(), slot, armed),
        }
        (result, true)
    }

    fn work_on_full<R>(&mut self, work: impl FnOnce(&mut Slot, &mut Option<Tick>) -> R) -> (R, bool) {
        let Entry::Full(full) = self else { unreachable!("looked at before") };
        let result = work(&mut full.slot, &mut full.armed);
        if full.next.is_none()
            && let Some(lease) = full.slot.plain_lease()
        {
            *self = Entry::of_plain(&full.name, lease, full.armed);
            return (result, true);
        }
        (result, !full.slot.is_vacant())
    }

    fn plain(&self) -> Option<(&Plain, RenewalState)> {
        match self {
            Entry::Plain(plain) => Some((plain, plain.told())),
            Entry::Renewed(renewed) => Some((&renewed.0, renewed.1)),
            Entry::Full(_) => None,
        }
    }
}

impl Plain {
    fn name(&self) -> &[u8] {
        &self.text[..usize::from(self.name_bytes)]
    }

    fn lock_name(&self) -> LockName {
        let name = self.name();
        LockName::new(name[0], &name[1..]).unwrap_or_else(|_| unreachable!("it was a name before"))
    }

    /// What is told by the deadline and the TTL of a lease that was not renewed.
    fn told(&self) -> RenewalState {
        let granted_at = self.deadline.before(self.ttl);
        RenewalState { granted_at, effective_ttl: self.ttl, renewals: 0, armed: Tick::of(self.deadline) }
    }

    fn slot(&self, later: RenewalState) -> Slot {
        let owner = Owner::new(&self.text[usize::from(self.name_bytes)..]);
        Slot::of_plain_lease(Lease {
            owner: owner.unwrap_or_else(|_| unreachable!("it was an owner before")),
            token: self.token,
            mode: Mode::Exclusive,
            ttl: self.ttl,
            deadline: self.deadline,
            effective_ttl: later.effective_ttl,
            granted_at: later.granted_at,
            renewals: later.renewals,
            origin: self.origin.clone(),
            is_unacknowledged: self.is_unacknowledged,
            extra: None,
        })
    }
}

impl RenewalState {
    fn of(lease: &Lease, armed: Option<Tick>) -> RenewalState {
        let Lease { granted_at, effective_ttl, renewals, .. } = *lease;
        RenewalState { granted_at, effective_ttl, renewals, armed }
    }
}
