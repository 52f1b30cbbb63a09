//! One lock as the table keeps it.
//!
//! Promise: a lock like most (held by one, with nothing extra, while nobody waits) takes two small allocations; whoever works
//! on it sees an ordinary [`Slot`]. Absent: rules, look-up, guards.

use std::sync::Arc;

use super::deadlines::Tick;
use crate::lock::{FencingToken, Lease, LockName, Mode, Origin, Owner, Slot, Timestamp, Ttl};

/// One lock that is not free.
pub(super) enum Entry {
    Plain(Plain),
    Full(Box<Full>),
}

/// All of [`Slot::plain_lease`].
pub(super) struct Plain {
    /// The name, then the owner.
    text: Box<[u8]>,
    name_bytes: u16,
    renewals: u16,
    /// Where the lock stands in the expiry index, in short; nowhere if it has no deadline.
    armed: u32,
    token: FencingToken,
    deadline: Timestamp,
    granted_at: Timestamp,
    ttl: Option<Ttl>,
    lasts: Option<Ttl>,
    origin: Option<Arc<Origin>>,
}

pub(super) struct Full {
    name: LockName,
    slot: Slot,
    armed: Option<Tick>,
    /// Another lock whose name has the same hash.
    next: Option<Box<Entry>>,
}

// A lock held costs this, its name and owner, 17 bytes of the table over its load, and 8 of the expiry index over that of a tree.
const _: () = assert!(size_of::<Entry>() <= 64);

impl Entry {
    /// A lock that is not free.
    pub(super) fn new(name: &LockName, slot: Slot, armed: Option<Tick>) -> Entry {
        match Plain::of(name, &slot, armed) {
            Some(plain) => Entry::Plain(plain),
            None => Entry::Full(Box::new(Full { name: name.clone(), slot, armed, next: None })),
        }
    }

    pub(super) fn is_of(&self, name: &LockName) -> bool {
        match self {
            Entry::Plain(plain) => plain.name() == name.as_bytes(),
            Entry::Full(full) => full.name == *name,
        }
    }

    pub(super) fn name(&self) -> LockName {
        match self {
            Entry::Plain(plain) => plain.lock_name(),
            Entry::Full(full) => full.name.clone(),
        }
    }

    /// When the first thing of the lock ends by itself.
    pub(super) fn next_deadline(&self) -> Timestamp {
        match self {
            Entry::Plain(plain) => plain.deadline,
            Entry::Full(full) => full.slot.next_deadline(),
        }
    }

    /// The lock whose name has the same hash.
    pub(super) fn next(&self) -> Option<&Entry> {
        match self {
            Entry::Plain(_) => None,
            Entry::Full(full) => full.next.as_deref(),
        }
    }

    /// Cuts the chain here.
    pub(super) fn take_next(&mut self) -> Option<Box<Entry>> {
        match self {
            Entry::Plain(_) => None,
            Entry::Full(full) => full.next.take(),
        }
    }

    /// The lock whose name has the same hash, to be changed.
    pub(super) fn next_mut(&mut self) -> &mut Option<Box<Entry>> {
        if let Entry::Plain(plain) = self {
            let (slot, armed) = plain.take();
            let full = Full { name: plain.lock_name(), slot, armed, next: None };
            *self = Entry::Full(Box::new(full));
        }
        match self {
            Entry::Full(full) => &mut full.next,
            Entry::Plain(_) => unreachable!("made full above"),
        }
    }

    /// Looks at the lock.
    pub(super) fn look<R>(&self, look: impl FnOnce(&LockName, &Slot) -> R) -> R {
        match self {
            Entry::Plain(plain) => {
                let mut slot = Slot::default();
                slot.restore(plain.lease(plain.origin.clone()));
                look(&plain.lock_name(), &slot)
            }
            Entry::Full(full) => look(&full.name, &full.slot),
        }
    }

    /// Works on the lock. `false`: it is free now, and the entry is to go.
    pub(super) fn work<R>(&mut self, work: impl FnOnce(&mut Slot, &mut Option<Tick>) -> R) -> (R, bool) {
        match self {
            Entry::Plain(plain) => {
                let (mut slot, mut armed) = plain.take();
                let result = work(&mut slot, &mut armed);
                let is_kept = !slot.is_vacant();
                if is_kept && !plain.put_back(&slot, armed) {
                    *self = Entry::new(&plain.lock_name(), slot, armed);
                }
                (result, is_kept)
            }
            Entry::Full(full) => {
                let result = work(&mut full.slot, &mut full.armed);
                let is_kept = !full.slot.is_vacant();
                if is_kept
                    && full.next.is_none()
                    && let Some(plain) = Plain::of(&full.name, &full.slot, full.armed)
                {
                    *self = Entry::Plain(plain);
                }
                (result, is_kept)
            }
        }
    }
}

impl Plain {
    fn of(name: &LockName, slot: &Slot, armed: Option<Tick>) -> Option<Plain> {
        let lease = slot.plain_lease()?;
        let armed = short(armed, lease)?;
        let renewals = u16::try_from(lease.renewals).ok()?;
        let (name, owner) = (name.as_bytes(), lease.owner.as_bytes());
        Some(Plain {
            text: [name, owner].concat().into_boxed_slice(),
            name_bytes: name.len() as u16,
            renewals,
            armed,
            token: lease.token,
            deadline: lease.deadline,
            granted_at: lease.granted_at,
            ttl: lease.ttl,
            lasts: lease.lasts,
            origin: lease.origin.clone(),
        })
    }

    fn name(&self) -> &[u8] {
        &self.text[..usize::from(self.name_bytes)]
    }

    fn lock_name(&self) -> LockName {
        let name = self.name();
        LockName::new(name[0], &name[1..]).unwrap_or_else(|_| unreachable!("it was a name before"))
    }

    fn lease(&self, origin: Option<Arc<Origin>>) -> Lease {
        let owner = Owner::new(&self.text[usize::from(self.name_bytes)..]);
        Lease {
            owner: owner.unwrap_or_else(|_| unreachable!("it was an owner before")),
            token: self.token,
            mode: Mode::Exclusive,
            ttl: self.ttl,
            deadline: self.deadline,
            lasts: self.lasts,
            granted_at: self.granted_at,
            renewals: u32::from(self.renewals),
            origin,
            is_unclaimed: false,
            extra: None,
        }
    }

    /// The lock, to work on; to be put back, or else to be replaced.
    fn take(&mut self) -> (Slot, Option<Tick>) {
        let mut slot = Slot::default();
        let origin = self.origin.take();
        slot.restore(self.lease(origin));
        (slot, Tick::from_short(self.armed, self.deadline))
    }

    /// `false` if it is no more what it was, but for its end.
    fn put_back(&mut self, slot: &Slot, armed: Option<Tick>) -> bool {
        let Some(lease) = slot.plain_lease().filter(|lease| lease.token == self.token) else { return false };
        let (Some(armed), Ok(renewals)) = (short(armed, lease), u16::try_from(lease.renewals)) else {
            return false;
        };
        (self.deadline, self.lasts, self.renewals) = (lease.deadline, lease.lasts, renewals);
        (self.armed, self.origin) = (armed, lease.origin.clone());
        true
    }
}

/// The short form of where a lease stands in the expiry index. `None` if it could not be told from that and the deadline.
fn short(armed: Option<Tick>, lease: &Lease) -> Option<u32> {
    let short = armed.map_or(0, Tick::short);
    (Tick::from_short(short, lease.deadline) == armed).then_some(short)
}
