//! One key as the table keeps it.
//!
//! Guarantees: a common lock (one exclusive holder, no extras, no queue) takes two small
//! allocations, and a third once it is renewed. Work on an entry sees an ordinary [`Content`],
//! however it is stored.
//! Not here: rules, look-up, guards.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::content::{Content, KeyKind, KeyedValue};
use crate::domain::{FencingToken, LockName, Owner, Timestamp, Ttl};
use crate::engine::expiry::Tick;
use crate::lock::{Lease, Mode, Origin, Slot, TooManyEnded};

/// One key that is not vacant.
pub(in crate::engine) enum Entry {
    Plain(Plain),
    Renewed(Box<(Plain, RenewalState)>),
    Full(Box<Full>),
    Value(ValueEntry),
}

/// Most of [`Slot::plain_lease`]: all, if it has a TTL and was not renewed.
pub(in crate::engine) struct Plain {
    /// The name, then the owner.
    text: Box<[u8]>,
    name_bytes: u16,
    is_unacknowledged: bool,
    token: FencingToken,
    deadline: Timestamp,
    ttl_ms: Option<NonZeroU32>,
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

/// A lock of any form.
pub(in crate::engine) struct Full {
    name: LockName,
    /// [`Content::Lock`], except while it is worked on.
    content: Content,
    /// Where the lock stands in the expiry index.
    armed: Option<Tick>,
    /// Another key whose name has the same hash.
    next: Option<Box<Entry>>,
}

/// A value.
pub(in crate::engine) struct ValueEntry {
    /// `None` only while it is worked on.
    keyed: Option<Box<KeyedValue>>,
    /// Where the value stands in the expiry index.
    armed: Option<Tick>,
    /// Another key whose name has the same hash.
    next: Option<Box<Entry>>,
}

/// Longest owner of a [`Plain`], in bytes.
const COMPACT_OWNER_BYTES_MAX: usize = 1024;

// A lock held costs this, its name and owner, 17 bytes of the table over its load, and 8 of the
// expiry index over that of a tree.
const _: () = assert!(size_of::<Entry>() <= 48);

impl Entry {
    /// A key that is not vacant, and the rest of its chain.
    pub(in crate::engine) fn new(
        name: &LockName,
        content: Content,
        armed: Option<Tick>,
        next: Option<Box<Entry>>,
    ) -> Entry {
        match content {
            Content::Value(keyed) => Entry::Value(ValueEntry { keyed: Some(keyed), armed, next }),
            Content::Lock(slot) => match compact_lease(&slot) {
                Some((lease, ttl_ms)) if next.is_none() => Entry::of_plain(name, lease, ttl_ms, armed),
                _ => Entry::Full(Box::new(Full {
                    name: name.clone(),
                    content: Content::Lock(slot),
                    armed,
                    next,
                })),
            },
        }
    }

    fn of_plain(name: &LockName, lease: &Lease, ttl_ms: Option<NonZeroU32>, armed: Option<Tick>) -> Entry {
        let (name, owner) = (name.as_bytes(), lease.owner.as_bytes());
        let mut text = Vec::with_capacity(name.len() + owner.len());
        text.extend_from_slice(name);
        text.extend_from_slice(owner);
        let plain = Plain {
            text: text.into_boxed_slice(),
            name_bytes: name.len() as u16,
            is_unacknowledged: lease.is_unacknowledged,
            token: lease.token,
            deadline: lease.deadline,
            ttl_ms,
            origin: lease.origin.clone(),
        };
        let later = RenewalState::of(lease, armed);
        match plain.told() == later {
            true => Entry::Plain(plain),
            false => Entry::Renewed(Box::new((plain, later))),
        }
    }

    pub(in crate::engine) fn is_of(&self, name: &LockName) -> bool {
        self.name_bytes() == name.as_bytes()
    }

    pub(in crate::engine) fn name(&self) -> LockName {
        match self {
            Entry::Plain(plain) => plain.lock_name(),
            Entry::Renewed(renewed) => renewed.0.lock_name(),
            Entry::Full(full) => full.name.clone(),
            Entry::Value(entry) => entry.keyed().name.clone(),
        }
    }

    /// Its name as bytes, the database first.
    pub(in crate::engine) fn name_bytes(&self) -> &[u8] {
        match self {
            Entry::Plain(plain) => plain.name(),
            Entry::Renewed(renewed) => renewed.0.name(),
            Entry::Full(full) => full.name.as_bytes(),
            Entry::Value(entry) => entry.keyed().name.as_bytes(),
        }
    }

    /// Whether there is a lease or a value, over or not.
    pub(in crate::engine) fn exists(&self) -> bool {
        match self {
            Entry::Plain(_) | Entry::Renewed(_) | Entry::Value(_) => true,
            Entry::Full(full) => full.content.exists(),
        }
    }

    /// The value; `None` for a lock.
    pub(in crate::engine) fn value(&self) -> Option<&KeyedValue> {
        match self {
            Entry::Value(entry) => Some(entry.keyed()),
            Entry::Plain(_) | Entry::Renewed(_) | Entry::Full(_) => None,
        }
    }

    /// The type of the key at `now`. A lock has that of the newest of the leases for which
    /// `is_live` is true, of which it looks at no more than `max`. `None`: the key does not exist,
    /// or is in another database.
    pub(in crate::engine) fn kind(
        &self,
        database: u8,
        now: Timestamp,
        is_live: &dyn Fn(&Lease) -> bool,
        max: usize,
    ) -> Result<Option<KeyKind>, TooManyEnded> {
        if self.name_bytes().first() != Some(&database) {
            return Ok(None);
        }
        Ok(match self {
            // These have no session.
            Entry::Plain(plain) => (plain.deadline > now).then_some(KeyKind::Lock(Mode::Exclusive)),
            Entry::Renewed(renewed) => (renewed.0.deadline > now).then_some(KeyKind::Lock(Mode::Exclusive)),
            Entry::Full(full) => {
                full.slot().newest_live(is_live, max)?.map(|lease| KeyKind::Lock(lease.mode))
            }
            Entry::Value(entry) => {
                let keyed = entry.keyed();
                (keyed.deadline > now).then(|| KeyKind::Value(keyed.value.kind()))
            }
        })
    }

    /// When the first thing of the key ends by itself.
    pub(in crate::engine) fn next_deadline(&self) -> Timestamp {
        match self {
            Entry::Plain(plain) => plain.deadline,
            Entry::Renewed(renewed) => renewed.0.deadline,
            Entry::Full(full) => full.content.next_deadline(),
            Entry::Value(entry) => entry.keyed().deadline,
        }
    }

    /// The key whose name has the same hash.
    pub(in crate::engine) fn next(&self) -> Option<&Entry> {
        match self {
            Entry::Plain(_) | Entry::Renewed(_) => None,
            Entry::Full(full) => full.next.as_deref(),
            Entry::Value(entry) => entry.next.as_deref(),
        }
    }

    /// Cuts the chain here.
    pub(in crate::engine) fn take_next(&mut self) -> Option<Box<Entry>> {
        match self {
            Entry::Plain(_) | Entry::Renewed(_) => None,
            Entry::Full(full) => full.next.take(),
            Entry::Value(entry) => entry.next.take(),
        }
    }

    /// The key whose name has the same hash, to be changed.
    pub(in crate::engine) fn next_mut(&mut self) -> &mut Option<Box<Entry>> {
        if let Some((plain, later)) = self.plain() {
            let (name, content) = (plain.lock_name(), Content::Lock(plain.slot(later)));
            *self = Entry::Full(Box::new(Full { name, content, armed: later.armed, next: None }));
        }
        match self {
            Entry::Full(full) => &mut full.next,
            Entry::Value(entry) => &mut entry.next,
            Entry::Plain(_) | Entry::Renewed(_) => unreachable!("made full above"),
        }
    }

    /// Reads the lock; `None` if it is a value.
    pub(in crate::engine) fn read_lock<R>(&self, read: impl FnOnce(&LockName, &Slot) -> R) -> Option<R> {
        match self {
            Entry::Plain(plain) => Some(read(&plain.lock_name(), &plain.slot(plain.told()))),
            Entry::Renewed(renewed) => Some(read(&renewed.0.lock_name(), &renewed.0.slot(renewed.1))),
            Entry::Full(full) => Some(read(&full.name, full.slot())),
            Entry::Value(_) => None,
        }
    }

    /// Works on the key, which has this name. `false`: it is vacant now, and the entry is to go;
    /// only its chain is valid.
    pub(in crate::engine) fn work<R>(
        &mut self,
        name: &LockName,
        work: impl FnOnce(&mut Content, &mut Option<Tick>) -> R,
    ) -> (R, bool) {
        let Some((plain, later)) = self.plain() else { return self.work_on_uncommon(name, work) };
        let (mut content, mut armed) = (Content::Lock(plain.slot(later)), later.armed);
        let result = work(&mut content, &mut armed);
        let lease = match &content {
            Content::Lock(slot) => compact_lease(slot),
            Content::Value(_) => None,
        };
        match lease {
            // Most operations only read a lock that stays as it is.
            Some((lease, ttl_ms)) if lease.token == plain.token && lease.deadline == plain.deadline => {
                if RenewalState::of(lease, armed) != later
                    || lease.is_unacknowledged != plain.is_unacknowledged
                {
                    *self = Entry::of_plain(name, lease, ttl_ms, armed);
                }
            }
            _ if content.is_vacant() => return (result, false),
            _ => *self = Entry::new(name, content, armed, None),
        }
        (result, true)
    }

    fn work_on_uncommon<R>(
        &mut self,
        name: &LockName,
        work: impl FnOnce(&mut Content, &mut Option<Tick>) -> R,
    ) -> (R, bool) {
        match self {
            Entry::Full(full) => {
                let result = work(&mut full.content, &mut full.armed);
                let is_to_change = match &full.content {
                    Content::Lock(slot) => full.next.is_none() && compact_lease(slot).is_some(),
                    Content::Value(_) => true,
                };
                if is_to_change {
                    let (content, next) = (std::mem::take(&mut full.content), full.next.take());
                    *self = Entry::new(name, content, full.armed, next);
                    return (result, true);
                }
                (result, !full.content.is_vacant())
            }
            Entry::Value(entry) => {
                let mut content = entry.keyed.take().map_or_else(Content::default, Content::Value);
                let result = work(&mut content, &mut entry.armed);
                match content {
                    Content::Value(keyed) => entry.keyed = Some(keyed),
                    Content::Lock(slot) if slot.is_vacant() => return (result, false),
                    Content::Lock(slot) => {
                        let (armed, next) = (entry.armed, entry.next.take());
                        *self = Entry::new(name, Content::Lock(slot), armed, next);
                    }
                }
                (result, true)
            }
            Entry::Plain(_) | Entry::Renewed(_) => unreachable!("looked at before"),
        }
    }

    fn plain(&self) -> Option<(&Plain, RenewalState)> {
        match self {
            Entry::Plain(plain) => Some((plain, plain.told())),
            Entry::Renewed(renewed) => Some((&renewed.0, renewed.1)),
            Entry::Full(_) | Entry::Value(_) => None,
        }
    }
}

impl Full {
    fn slot(&self) -> &Slot {
        match &self.content {
            Content::Lock(slot) => slot,
            Content::Value(_) => unreachable!("a value has an entry of its own kind"),
        }
    }
}

impl ValueEntry {
    fn keyed(&self) -> &KeyedValue {
        self.keyed.as_deref().unwrap_or_else(|| unreachable!("taken out only while it is worked on"))
    }
}

/// The lease and its TTL in milliseconds if a [`Plain`] can hold all there is of the lock. An
/// operation on such a lock copies the owner, so a long one is kept elsewhere.
fn compact_lease(slot: &Slot) -> Option<(&Lease, Option<NonZeroU32>)> {
    let lease = slot.plain_lease().filter(|lease| lease.owner.as_bytes().len() <= COMPACT_OWNER_BYTES_MAX)?;
    let Some(ttl) = lease.ttl else { return Some((lease, None)) };
    u32::try_from(ttl.as_millis()).ok().and_then(NonZeroU32::new).map(|ttl_ms| (lease, Some(ttl_ms)))
}

impl Plain {
    fn name(&self) -> &[u8] {
        &self.text[..usize::from(self.name_bytes)]
    }

    fn lock_name(&self) -> LockName {
        let name = self.name();
        LockName::new(name[0], &name[1..]).unwrap_or_else(|_| unreachable!("it was a name before"))
    }

    fn ttl(&self) -> Option<Ttl> {
        let ttl =
            |ms: NonZeroU32| Ttl::from_millis(ms.get().into()).unwrap_or_else(|_| unreachable!("not 0"));
        self.ttl_ms.map(ttl)
    }

    /// What follows from the deadline and the TTL of a lease that was not renewed.
    fn told(&self) -> RenewalState {
        let ttl = self.ttl();
        RenewalState {
            granted_at: self.deadline.before(ttl),
            effective_ttl: ttl,
            renewals: 0,
            armed: Tick::of(self.deadline),
        }
    }

    fn slot(&self, later: RenewalState) -> Slot {
        let owner = Owner::new(&self.text[usize::from(self.name_bytes)..]);
        Slot::of_plain_lease(Lease {
            owner: owner.unwrap_or_else(|_| unreachable!("it was an owner before")),
            token: self.token,
            mode: Mode::Exclusive,
            ttl: self.ttl(),
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
