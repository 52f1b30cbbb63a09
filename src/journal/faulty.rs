//! A backend that fails, delays or loses batches on command, for tests of everything above the
//! journal.
//!
//! Guarantees: without a command it does what the inner backend does. Not here: randomness.

use std::sync::Arc;
use std::thread::ThreadId;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{Attempt, Backend, BackendTraits, JournalError, Loaded, Record, Stopwatch};
use crate::domain::Timestamp;

/// Commands to a [`FaultyBackend`], shared with the test.
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
    maintenance_error: Option<JournalError>,
    was_maintained: bool,
    nanos: u64,
    nanos_per_commit: u64,
    batch_sizes: Vec<usize>,
    committed_by: Vec<ThreadId>,
    traits: Option<BackendTraits>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) {
        self.changed.wait_while(&mut self.state(), |state| condition(state));
    }

    /// Every call fails with this error, until it is set to `None`.
    pub fn fail_with(&self, error: Option<JournalError>) {
        self.state().error = error;
    }

    /// Commits return `Ok` and store nothing, like a disk that lies about its cache.
    pub fn lose_commits(&self, lose: bool) {
        self.state().lose = lose;
    }

    /// The next commit panics.
    pub fn panic_once(&self) {
        self.state().panic = true;
    }

    /// The backend claims these traits instead of those of the inner backend.
    pub fn set_traits(&self, traits: BackendTraits) {
        self.state().traits = Some(traits);
    }

    /// Commits block until [`Faults::release_commits`].
    pub fn hold_commits(&self) {
        self.state().hold = true;
    }

    /// Ends what [`Faults::hold_commits`] began.
    pub fn release_commits(&self) {
        self.state().hold = false;
        self.changed.notify_all();
    }

    /// Blocks until a commit has begun and is held.
    pub fn wait_until_held(&self) {
        self.wait_while(|state| !state.held);
    }

    /// Sets whether another process has the storage locked. While it has, commits wait, and
    /// attempts would block.
    pub fn lock_storage(&self, lock: bool) {
        self.state().lock = lock;
        self.changed.notify_all();
    }

    /// Verifications and loads fail with this error, until it is set to `None`.
    pub fn fail_verification_with(&self, error: Option<JournalError>) {
        self.state().verification_error = error;
    }

    /// Maintenance fails with this error, until it is set to `None`.
    pub fn fail_maintenance_with(&self, error: Option<JournalError>) {
        self.state().maintenance_error = error;
    }

    /// Blocks until maintenance has been attempted.
    pub fn wait_until_maintained(&self) {
        self.wait_while(|state| !state.was_maintained);
    }

    /// Sets the duration of each commit on [`Faults::stopwatch`].
    pub fn set_commit_nanos(&self, nanos: u64) {
        self.state().nanos_per_commit = nanos;
    }

    /// A stopwatch that only commits advance.
    pub fn stopwatch(self: &Arc<Self>) -> Arc<dyn Stopwatch> {
        Arc::new(CommitClock(Arc::clone(self)))
    }

    /// The number of records in each successful commit.
    pub fn batch_sizes(&self) -> Vec<usize> {
        self.state().batch_sizes.clone()
    }

    /// The thread that made each successful commit.
    pub fn committed_by(&self) -> Vec<ThreadId> {
        self.state().committed_by.clone()
    }
}

struct CommitClock(Arc<Faults>);

impl Stopwatch for CommitClock {
    fn nanos(&self) -> u64 {
        self.0.state().nanos
    }

    fn committed(&self, _nanos: u64, _records: usize) {}
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
    fn traits(&self) -> BackendTraits {
        self.faults.state().traits.unwrap_or_else(|| self.inner.traits())
    }

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
        assert!(!panics, "a panic was commanded");
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
        let error = {
            let mut state = self.faults.state();
            state.was_maintained = true;
            self.faults.changed.notify_all();
            state.maintenance_error.clone()
        };
        error.map_or_else(|| self.inner.maintain(), Err)
    }
}
