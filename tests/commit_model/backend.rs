//! The backend of the model. A record is a number; what is stored is a set of them.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use octostore::domain::Timestamp;

use crate::journal::commit::{Durability, Journal, Recover, Stopwatch};
use crate::journal::{Attempt, Backend, BackendTraits, JournalError, Loaded, Record};

/// How the backend behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    pub(crate) traits: BackendTraits,
    /// The first commit fails.
    pub(crate) fails_once: bool,
    /// The first attempt finds the storage locked.
    pub(crate) is_locked_once: bool,
    /// Every commit is slow, so that the next one is left to the commit thread.
    pub(crate) is_slow: bool,
    /// Numbers that belong to one group, as a set.
    pub(crate) group: u64,
}

impl Behaviour {
    pub(crate) const PLAIN: Behaviour = Behaviour {
        traits: BackendTraits::LOCAL,
        fails_once: false,
        is_locked_once: false,
        is_slow: false,
        group: 0,
    };
}

/// The numbers that are stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored(Arc<AtomicU64>);

impl Stored {
    /// Whether a number is stored. Relaxed: what makes the store visible must be the barrier.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << number) != 0
    }
}

/// The record of a number.
pub(crate) fn record(number: u64) -> Record {
    Record::TokensReserved(i64::try_from(number).expect("a small number"))
}

struct ModelBackend {
    behaviour: Behaviour,
    stored: Stored,
}

impl Backend for ModelBackend {
    fn traits(&self) -> BackendTraits {
        self.behaviour.traits
    }

    fn load(
        &mut self,
        _boot: Option<&str>,
        _now: Timestamp,
        _each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        unreachable!("the model loads nothing")
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        if std::mem::take(&mut self.behaviour.fails_once) {
            return Err(JournalError::Full);
        }
        let numbers = batch.iter().fold(0, |numbers, record| match record {
            Record::TokensReserved(number) => numbers | 1 << number,
            other => unreachable!("{other:?}"),
        });
        let group = self.behaviour.group;
        assert!(numbers & group == 0 || numbers & group == group, "a group was split: {numbers:b}");
        let before = self.stored.0.load(Ordering::Relaxed);
        assert_eq!(before & numbers, 0, "a record was committed twice");
        self.stored.0.store(before | numbers, Ordering::Relaxed);
        Ok(())
    }

    fn try_commit(&mut self, batch: &[Record]) -> Result<Attempt, JournalError> {
        if std::mem::take(&mut self.behaviour.is_locked_once) {
            return Ok(Attempt::WouldBlock);
        }
        self.commit(batch).map(|()| Attempt::Committed)
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        Ok(false)
    }
}

struct Nothing;

impl Recover for Nothing {
    fn suspend(&mut self) {}

    fn rebuild(&mut self, _backend: &mut dyn Backend, _epoch: u64) -> Result<(), JournalError> {
        Ok(())
    }
}

/// A commit begins and ends at these times: each reading advances the watch.
struct Steps {
    step: u64,
    readings: std::sync::atomic::AtomicU64,
}

impl Stopwatch for Steps {
    fn nanos(&self) -> u64 {
        self.readings.fetch_add(self.step, Ordering::Relaxed)
    }

    fn committed(&self, _nanos: u64, _records: usize) {}
}

/// A journal on a backend that behaves like this, and what that stores.
pub(crate) fn start(behaviour: Behaviour) -> (Arc<Journal>, Stored) {
    let stored = Stored(Arc::new(AtomicU64::new(0)));
    let backend = ModelBackend { behaviour, stored: stored.clone() };
    let step = if behaviour.is_slow { u64::from(u32::MAX) } else { 0 };
    let stopwatch = Arc::new(Steps { step, readings: std::sync::atomic::AtomicU64::new(0) });
    let journal = Journal::start(Box::new(backend), Durability::Always, Box::new(Nothing), stopwatch);
    (Arc::new(journal.expect("a thread")), stored)
}
