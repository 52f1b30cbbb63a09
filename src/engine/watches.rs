//! WATCH: which connections want to know that a key has changed.
//!
//! Guarantees: a watch breaks when Redis' would: when a key that it watches is set, even to the
//! same value, changed, renewed or ended, and after a failed commit. Costs one atomic load an
//! operation while there is no watch. Not here: what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::{Engine, Txn, Unavailable};
use crate::domain::LockName;

#[derive(Default)]
pub(super) struct Watches {
    count: AtomicUsize,
    flags: Mutex<Flags>,
}

/// By the lock, then by the address of the flag: a watch finds its own however many others there
/// are.
type Flags = BTreeMap<(LockName, usize), Arc<AtomicBool>>;

impl Watches {
    fn flags(&self) -> MutexGuard<'_, Flags> {
        self.flags.lock()
    }

    pub(super) fn are_any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    pub(super) fn changed(&self, name: &LockName) {
        if self.are_any() {
            self.break_watches(name);
        }
    }

    #[cold]
    fn break_watches(&self, name: &LockName) {
        let flags = self.flags();
        let of_lock = flags.range((name.clone(), 0)..=(name.clone(), usize::MAX));
        of_lock.for_each(|(_, flag)| flag.store(true, Ordering::SeqCst));
    }

    pub(super) fn all_changed(&self) {
        self.flags().values().for_each(|flag| flag.store(true, Ordering::SeqCst));
    }
}

/// A look at some locks that breaks when one of them changes.
pub struct Watch {
    engine: Arc<Engine>,
    is_broken: Arc<AtomicBool>,
    watched: BTreeSet<LockName>,
    bytes: usize,
}

impl Watch {
    /// Watches nothing yet.
    pub fn new(engine: &Arc<Engine>) -> Watch {
        Watch { engine: Arc::clone(engine), is_broken: Arc::default(), watched: BTreeSet::new(), bytes: 0 }
    }

    /// Watches one more lock. What has ended by now is settled first: it is no change.
    pub fn add(&mut self, txn: &Txn<'_>, name: &LockName) -> Result<(), Unavailable> {
        if self.watched.contains(name) {
            return Ok(());
        }
        txn.free_ended(name)?;
        let core = &self.engine.core;
        core.watches.count.fetch_add(1, Ordering::SeqCst);
        core.watches.flags().insert((name.clone(), self.address()), Arc::clone(&self.is_broken));
        self.watched.insert(name.clone());
        self.bytes += name.as_bytes().len();
        Ok(())
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.is_broken).addr()
    }

    /// The locks that it watches.
    pub fn names(&self) -> impl Iterator<Item = &LockName> {
        self.watched.iter()
    }

    /// How many locks it watches.
    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// Whether it watches nothing.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Bytes of their names.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one of them changed. A lease that has ended meanwhile is a change.
    pub fn is_broken(&self, txn: &Txn<'_>) -> Result<bool, Unavailable> {
        for name in &self.watched {
            txn.free_ended(name)?;
        }
        Ok(self.is_broken.load(Ordering::SeqCst))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let watches = &self.engine.core.watches;
        let mut flags = watches.flags();
        let address = self.address();
        for name in &self.watched {
            flags.remove(&(name.clone(), address));
        }
        drop(flags);
        watches.count.fetch_sub(self.watched.len(), Ordering::SeqCst);
    }
}
