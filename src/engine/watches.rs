//! WATCH: who wants to know that a lock has changed.
//!
//! Promise: a watch breaks when Redis' would: when a lock that it watches is granted, renewed, ended or set, even to the same
//! value, and after a failed commit. Costs one atomic load an operation while nobody watches.
//! Absent: what changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, Engine, Unavailable};
use crate::journal::Seq;
use crate::lock::{LockName, Op};

/// Names, each with the flag of a watch, by the hash of the name, which others may share.
type Watched = HashMap<u64, Vec<(LockName, Arc<AtomicBool>)>>;

#[derive(Default)]
pub(super) struct Watches {
    count: AtomicUsize,
    by_hash: Mutex<Watched>,
}

impl Watches {
    fn by_hash(&self) -> MutexGuard<'_, Watched> {
        self.by_hash.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self, hash: u64, name: &LockName) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(watched) = self.by_hash().get(&hash)
        {
            let watched = watched.iter().filter(|(watched, _)| watched == name);
            watched.for_each(|(_, flag)| flag.store(true, Ordering::SeqCst));
        }
    }

    pub(super) fn all_changed(&self) {
        self.by_hash().values().flatten().for_each(|(_, flag)| flag.store(true, Ordering::SeqCst));
    }
}

/// A look at some locks that breaks when one of them changes.
pub struct Watch {
    engine: Arc<Engine>,
    is_broken: Arc<AtomicBool>,
    watched: Vec<(u64, LockName)>,
}

impl Watch {
    /// Watches nothing yet.
    pub fn new(engine: &Arc<Engine>) -> Watch {
        Watch { engine: Arc::clone(engine), is_broken: Arc::default(), watched: Vec::new() }
    }

    /// Watches one more lock. What has ended by now is settled first: it is no change.
    pub fn add(&mut self, access: &Access<'_>, name: &LockName) -> Result<(), Unavailable> {
        if self.watched.iter().any(|(_, watched)| watched == name) {
            return Ok(());
        }
        access.submit(name, &Op::Settle)?;
        let core = &self.engine.core;
        let hash = core.hash.of(name);
        core.watches.count.fetch_add(1, Ordering::SeqCst);
        core.watches.by_hash().entry(hash).or_default().push((name.clone(), Arc::clone(&self.is_broken)));
        self.watched.push((hash, name.clone()));
        Ok(())
    }

    /// How many locks it watches.
    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// Whether it watches nothing.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Whether one of them changed. A lease that has ended meanwhile is a change.
    pub fn is_broken(&self, access: &Access<'_>) -> Result<(bool, Seq), Unavailable> {
        let mut last = Seq::default();
        for (_, name) in &self.watched {
            last = last.max(access.submit(name, &Op::Settle)?.1);
        }
        Ok((self.is_broken.load(Ordering::SeqCst), last))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let watches = &self.engine.core.watches;
        let mut by_hash = watches.by_hash();
        for (hash, _) in &self.watched {
            if let Some(flags) = by_hash.get_mut(hash) {
                flags.retain(|(_, flag)| !Arc::ptr_eq(flag, &self.is_broken));
                if flags.is_empty() {
                    by_hash.remove(hash);
                }
            }
        }
        watches.count.fetch_sub(self.watched.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_to_another_name_of_the_same_hash_breaks_nothing() {
        let watches = Watches::default();
        let name = |key: &str| LockName::new(0, key.as_bytes()).unwrap();
        let flags = ["a", "b"].map(|key| {
            let flag = Arc::<AtomicBool>::default();
            watches.count.fetch_add(1, Ordering::SeqCst);
            watches.by_hash().entry(7).or_default().push((name(key), Arc::clone(&flag)));
            flag
        });
        let broken = || flags.each_ref().map(|flag| flag.load(Ordering::SeqCst));
        watches.changed(7, &name("c"));
        assert_eq!(broken(), [false, false]);
        watches.changed(7, &name("b"));
        assert_eq!(broken(), [false, true]);
        watches.all_changed();
        assert_eq!(broken(), [true, true]);
    }
}
