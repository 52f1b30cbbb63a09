//! A backend that fails, delays or loses batches on command, for tests of everything above the journal.
//!
//! Promise: without a command it does what the backend inside does.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use super::{Attempt, Backend, JournalError, Loaded, Record, Stopwatch};
use crate::domain::Timestamp;

/// The commands, shared with the test.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    error: Option<JournalError>,
    lose: bool,
    panic: bool,
    hold: bool,
    held: bool,
    lock: bool,
    verification_error: Option<JournalError>,
    nanos: u64,
    nanos_per_commit: u64,
    batch_sizes: Vec<usize>,
    committed_by: Vec<ThreadId>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, mut condition: impl FnMut(&State) -> bool) {
        let state = self.state();
        drop(
            self.changed.wait_while(state, |state| condition(state)).unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Every call fails with this error, until `None`.
    pub fn fail_with(&self, error: Option<JournalError>) {
        self.state().error = error;
    }

    /// Commits answer `Ok` and keep nothing: a disk that lies about its cache.
    pub fn lose_commits(&self, lose: bool) {
        self.state().lose = lose;
    }

    /// The next commit panics.
    pub fn panic_once(&self) {
        self.state().panic = true;
    }

    /// Commits block until [`Faults::release_commits`].
    pub fn hold_commits(&self) {
        self.state().hold = true;
    }

    /// Lets commits through.
    pub fn release_commits(&self) {
        self.state().hold = false;
        self.changed.notify_all();
    }

    /// Blocks until a commit is being held.
    pub fn wait_until_held(&self) {
        self.wait_while(|state| !state.held);
    }

    /// Another process has the storage locked: commits wait until `false`, or would block.
    pub fn lock_storage(&self, lock: bool) {
        self.state().lock = lock;
        self.changed.notify_all();
    }

    /// What the backend verifies fails with this error, and so does every load.
    pub fn fail_verification_with(&self, error: Option<JournalError>) {
        self.state().verification_error = error;
    }

    /// So long commits take from now on, by [`Faults::stopwatch`].
    pub fn set_commit_nanos(&self, nanos: u64) {
        self.state().nanos_per_commit = nanos;
    }

    /// Time that only commits make pass.
    pub fn stopwatch(self: &Arc<Self>) -> Stopwatch {
        let faults = Arc::clone(self);
        Box::new(move || faults.state().nanos)
    }

    /// How many records each successful commit had.
    pub fn batch_sizes(&self) -> Vec<usize> {
        self.state().batch_sizes.clone()
    }

    /// The thread on which each successful commit was made.
    pub fn committed_by(&self) -> Vec<ThreadId> {
        self.state().committed_by.clone()
    }
}

/// A backend under the command of [`Faults`].
#[derive(Debug)]
pub struct FaultyBackend<B> {
    inner: B,
    faults: Arc<Faults>,
}

impl<B: Backend> FaultyBackend<B> {
    /// Wraps `inner`.
    pub fn new(inner: B, faults: Arc<Faults>) -> FaultyBackend<B> {
        FaultyBackend { inner, faults }
    }

    fn check(&self) -> Result<(), JournalError> {
        self.faults.state().error.clone().map_or(Ok(()), Err)
    }
}

impl<B: Backend> Backend for FaultyBackend<B> {
    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        self.check()?;
        self.verify()?;
        self.inner.load(boot, now, each)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        self.faults.state().held = true;
        self.faults.changed.notify_all();
        self.faults.wait_while(|state| state.hold || state.lock);
        {
            let mut state = self.faults.state();
            state.held = false;
            state.nanos += state.nanos_per_commit;
        }
        self.check()?;
        let panics = std::mem::take(&mut self.faults.state().panic);
        assert!(!panics, "as it was told");
        let records = batch.len();
        if !self.faults.state().lose {
            self.inner.commit(batch)?;
        }
        let mut state = self.faults.state();
        state.batch_sizes.push(records);
        state.committed_by.push(std::thread::current().id());
        Ok(())
    }

    fn try_commit(&mut self, batch: &[Record]) -> Result<Attempt, JournalError> {
        if self.faults.state().lock {
            return Ok(Attempt::WouldBlock);
        }
        self.commit(batch).map(|()| Attempt::Committed)
    }

    fn verify(&mut self) -> Result<(), JournalError> {
        self.faults.state().verification_error.clone().map_or(Ok(()), Err)
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        self.check()?;
        self.inner.maintain()
    }
}
