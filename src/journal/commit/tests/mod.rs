//! Tests of group commit, on a faulty backend in memory.

mod barriers;
mod failures;
mod groups;
mod threads;
mod traits;

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::{Barrier, Durability, Journal, OutcomeUnknown, Recover, Seq, commit_before_park, leave_commits};
use crate::domain::{SessionId, Timestamp};
use crate::journal::{
    Backend, BackendTraits, Faults, FaultyBackend, JournalError, MemoryBackend, Record, SessionRecord,
};

/// A call of [`Recover`].
#[derive(Debug, PartialEq, Eq)]
enum Recovery {
    Suspended,
    /// The epoch, and the sessions that were durable.
    Rebuilt(u64, Vec<u128>),
}

struct Reporter(Sender<Recovery>);

impl Recover for Reporter {
    fn suspend(&mut self) {
        // The receiver may be dropped before the journal; ignore the error.
        let _ = self.0.send(Recovery::Suspended);
    }

    fn rebuild(&mut self, backend: &mut dyn Backend, epoch: u64) -> Result<(), JournalError> {
        let found = sessions(backend)?;
        let _ = self.0.send(Recovery::Rebuilt(epoch, found));
        Ok(())
    }
}

struct Recoveries(Receiver<Recovery>);

impl Recoveries {
    /// Waits for a successful rebuild. Returns its epoch and the sessions that it found.
    fn rebuilt(&self) -> (u64, Vec<u128>) {
        loop {
            if let Recovery::Rebuilt(epoch, found) = self.0.recv().unwrap() {
                return (epoch, found);
            }
        }
    }
}

/// The commit thread commits nothing that is not requested.
const NEVER_BY_ITSELF: Durability = Durability::Interval(Duration::from_secs(3600));

fn start(durability: Durability) -> (Journal, Arc<Faults>, Recoveries) {
    start_with(durability, BackendTraits::LOCAL)
}

fn start_with(durability: Durability, traits: BackendTraits) -> (Journal, Arc<Faults>, Recoveries) {
    let faults = Arc::new(Faults::default());
    faults.set_traits(traits);
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let (report, recoveries) = std::sync::mpsc::channel();
    let state = Box::new(Reporter(report));
    let journal = Journal::start(Box::new(backend), durability, state, faults.stopwatch()).unwrap();
    (journal, faults, Recoveries(recoveries))
}

fn session(id: u128) -> Record {
    let (name, deadline) = (String::new(), Timestamp::NEVER);
    Record::Session(SessionRecord { id: SessionId(id), name, account: None, ttl: None, deadline })
}

fn sessions(backend: &mut dyn Backend) -> Result<Vec<u128>, JournalError> {
    let mut found = Vec::new();
    backend.load(Some("b"), Timestamp::default(), &mut |record| {
        if let Record::Session(session) = record {
            found.push(session.id.0);
        }
    })?;
    Ok(found)
}

/// Appends as soon as the state of this epoch is there.
fn append_in(journal: &Journal, epoch: u64, id: u128) -> Seq {
    loop {
        match journal.append(epoch, [session(id)]) {
            Ok(seq) => return seq,
            Err(_) => std::thread::yield_now(),
        }
    }
}

fn commit_thread(journal: &Journal) -> std::thread::ThreadId {
    journal.thread.lock().as_ref().unwrap().thread().id()
}

fn poll_with(barrier: &mut Barrier<'_>, waker: &Waker) -> Poll<Result<(), OutcomeUnknown>> {
    Pin::new(barrier).poll(&mut Context::from_waker(waker))
}

fn is_pending(barrier: &mut Barrier<'_>) -> bool {
    poll_with(barrier, Waker::noop()).is_pending()
}

/// Counts wake-ups.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
