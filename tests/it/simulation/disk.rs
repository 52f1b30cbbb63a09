//! Storage that the simulation controls: it decides the outcome of every commit.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use octostore::domain::Timestamp;
use octostore::journal::{Backend, BackendTraits, JournalError, Loaded, MemoryBackend, Record};

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    /// An error, and nothing is kept.
    Refused,
    /// The disk says that it is kept, and keeps it only until the power fails.
    Lied,
    /// The disk says that it is kept, and keeps all but the elements of values.
    Torn,
}

#[derive(Default)]
struct State {
    kept: MemoryBackend,
    /// Whose commits count: those of a server that was killed do not.
    server: u64,
    batch: Option<Vec<Record>>,
    fate: Option<Fate>,
    forgets_reservations: bool,
}

/// The state that outlives servers.
#[derive(Default)]
pub(crate) struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under it")
    }

    /// Whether a commit waits for its fate.
    pub(crate) fn has_commit(&self) -> bool {
        self.state().batch.is_some()
    }

    /// Decides what becomes of the commit that waits.
    pub(crate) fn decide(&self, fate: Fate) {
        let mut state = self.state();
        let batch = state.batch.take().expect("a commit waits");
        let is_kept = |record: &Record| match fate {
            Fate::Kept => true,
            Fate::Torn => !matches!(record, Record::Element { .. }),
            Fate::Refused | Fate::Lied => false,
        };
        let kept: Vec<Record> = batch.into_iter().filter(is_kept).collect();
        state.kept.commit(&kept).expect("memory");
        state.fate = Some(fate);
        drop(state);
        self.changed.notify_all();
    }

    /// The power fails. Of the commit under way all is kept, or nothing.
    pub(crate) fn kill(&self, keeps_last: bool) {
        let mut state = self.state();
        state.server += 1;
        state.fate = None;
        if let Some(batch) = state.batch.take()
            && keeps_last
        {
            state.kept.commit(&batch).expect("memory");
        }
        drop(state);
        self.changed.notify_all();
    }

    /// From now on reservations of tokens are not found again: tokens seem to go up to the highest
    /// that is held.
    pub(crate) fn forget_reservations(&self) {
        self.state().forgets_reservations = true;
    }

    /// For the next server.
    pub(crate) fn backend(self: &Arc<Self>) -> Box<dyn Backend> {
        Box::new(Attached { disk: Arc::clone(self), server: self.state().server })
    }

    /// How many records a server would find.
    pub(crate) fn records(&self, boot: &str) -> usize {
        let mut count = 0;
        let mut each = |_| count += 1;
        self.state().kept.load(Some(boot), Timestamp::default(), &mut each).expect("memory");
        count
    }
}

struct Attached {
    disk: Arc<Disk>,
    server: u64,
}

fn gone() -> JournalError {
    JournalError::Io { what: "the power is off".into() }
}

impl Backend for Attached {
    fn traits(&self) -> BackendTraits {
        BackendTraits::LOCAL
    }

    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        let mut state = self.disk.state();
        if state.server != self.server {
            return Err(gone());
        }
        let mut highest = 0;
        let mut loaded = state.kept.load(boot, now, &mut |record| {
            match &record {
                Record::Granted(stored) => highest = highest.max(stored.lease.token.get()),
                Record::ValuePut(stored) => highest = highest.max(stored.token.get()),
                _ => {}
            }
            each(record);
        })?;
        if state.forgets_reservations {
            loaded.tokens_reserved = highest;
        }
        Ok(loaded)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        let mut state = self.disk.state();
        if state.server != self.server {
            return Err(gone());
        }
        state.batch = Some(batch.to_vec());
        let server = self.server;
        let waits = |state: &mut State| state.fate.is_none() && state.server == server;
        let mut state = self.disk.changed.wait_while(state, waits).expect("no panic under it");
        match state.fate.take() {
            Some(Fate::Kept | Fate::Lied | Fate::Torn) if state.server == server => Ok(()),
            Some(Fate::Refused) if state.server == server => {
                Err(JournalError::Io { what: "no space left on device".into() })
            }
            _ => Err(gone()),
        }
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        Ok(false)
    }
}
