//! Tests of group commit.

use std::sync::mpsc::Receiver;

use super::*;
use crate::domain::{SessionId, Timestamp};
use crate::journal::faulty::{Faults, FaultyBackend};
use crate::journal::{MemoryBackend, SessionRecord};

/// The epoch of a rebuild, and the sessions it found.
type Rebuilt = (u64, Vec<u128>);

fn is_pending(future: &mut Barrier<'_>) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
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

/// A journal on a faulty memory, whose rebuilds report the epoch and what was durable.
fn start(durability: Durability) -> (Journal, Arc<Faults>, Receiver<Rebuilt>) {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let (report, rebuilt) = std::sync::mpsc::channel();
    let rebuild: Rebuild = Box::new(move |backend, epoch| {
        let found = sessions(backend)?;
        report.send((epoch, found)).unwrap();
        Ok(())
    });
    let journal = Journal::start(Box::new(backend), durability, rebuild, faults.stopwatch()).unwrap();
    (journal, faults, rebuilt)
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

#[test]
fn a_barrier_waits_for_the_commit_and_not_longer() {
    let (journal, faults, _) = start(Durability::Always);
    assert_eq!(journal.barrier(Seq(0)).wait(), Ok(()), "nothing to wait for");
    faults.hold_commits();
    let seq = journal.append(0, [session(1)]).unwrap();
    let mut barrier = journal.barrier(seq);
    assert!(is_pending(&mut barrier));
    faults.release_commits();
    assert_eq!(barrier.wait(), Ok(()));
}

#[test]
fn what_arrives_during_a_commit_is_one_batch() {
    let (journal, faults, _) = start(Durability::Always);
    faults.hold_commits();
    let first = journal.append(0, [session(0)]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| journal.barrier(first).wait().unwrap());
        faults.wait_until_held();
        let last = (1..=50).map(|n| journal.append(0, [session(n)]).unwrap()).last().unwrap();
        let barrier = journal.barrier(last);
        faults.release_commits();
        barrier.wait().unwrap();
    });
    assert_eq!(faults.batch_sizes(), [1, 50]);
}

#[test]
fn all_that_a_thread_has_to_do_comes_before_its_commit() {
    let (journal, faults, _) = start(Durability::Always);
    commit_before_park();
    let mut first = journal.barrier(journal.append(0, [session(1)]).unwrap());
    assert!(is_pending(&mut first));
    let mut second = journal.barrier(journal.append(0, [session(2)]).unwrap());
    assert!(is_pending(&mut second));
    commit_before_park();
    assert_eq!((first.wait(), second.wait()), (Ok(()), Ok(())));
    assert_eq!((faults.batch_sizes(), faults.committed_by()), (vec![2], vec![std::thread::current().id()]));
}

#[test]
fn who_came_too_late_for_a_commit_makes_the_next() {
    let (journal, faults, _) = start(Durability::Always);
    faults.hold_commits();
    let first = journal.append(0, [session(1)]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| journal.barrier(first).wait().unwrap());
        faults.wait_until_held();
        let seq = journal.append(0, [session(2)]).unwrap();
        let mut late = journal.barrier(seq);
        assert!(is_pending(&mut late));
        faults.release_commits();
        assert_eq!(late.wait(), Ok(()));
    });
    assert_eq!(faults.batch_sizes(), [1, 1]);
}

#[test]
fn what_nobody_waits_for_is_committed_all_the_same() {
    let (journal, faults, _) = start(Durability::Always);
    faults.hold_commits();
    journal.append(0, [session(1)]).unwrap();
    faults.wait_until_held();
    faults.release_commits();
    journal.close();
    assert_eq!((faults.batch_sizes(), journal.commits()), (vec![1], (1, 1)));
}

#[test]
fn a_group_is_never_split() {
    let (journal, faults, _) = start(Durability::Always);
    let group = journal.group();
    journal.append(0, [session(1)]).unwrap();
    let seq = journal.append(0, [session(2)]).unwrap();
    drop(group);
    journal.barrier(seq).wait().unwrap();
    assert_eq!(faults.batch_sizes(), [2]);
}

#[test]
fn nothing_of_an_open_group_is_committed_whoever_commits() {
    let (journal, faults, _) = start(Durability::Always);
    let group = journal.group();
    journal.append(0, [session(1)]).unwrap();
    let seq = journal.append(0, [session(2)]).unwrap();
    let mut barrier = journal.barrier(seq);
    assert!(is_pending(&mut barrier) && is_pending(&mut barrier) && is_pending(&mut barrier));
    // As a thread does that began before the group was opened.
    journal.shared.commit_here();
    assert_eq!((faults.batch_sizes(), journal.commits()), (vec![], (0, 0)));
    drop(group);
    barrier.wait().unwrap();
    assert_eq!(faults.batch_sizes(), [2]);
}

#[test]
fn a_failed_commit_is_never_an_ok_and_service_resumes_by_itself() {
    let (journal, faults, rebuilt) = start(Durability::Always);
    let durable = journal.append(0, [session(1)]).unwrap();
    journal.barrier(durable).wait().unwrap();
    faults.fail_with(Some(JournalError::Full));
    let lost = journal.append(0, [session(2)]).unwrap();
    assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown));
    assert_eq!(journal.append(0, [session(3)]), Err(JournalError::Full));
    assert_eq!(journal.barrier(durable).wait(), Ok(()), "what was durable stays so");
    faults.fail_with(None);
    assert_eq!(rebuilt.recv(), Ok((1, vec![1])));
    assert!(journal.append(0, [session(4)]).is_err(), "the old state is refused");
    assert_eq!(journal.barrier(append_in(&journal, 1, 5)).wait(), Ok(()));
    assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown), "also when asked late");
}

#[test]
fn a_commit_that_panics_is_a_failed_one_whoever_makes_it() {
    let (journal, faults, rebuilt) = start(Durability::Always);
    faults.panic_once();
    let lost = journal.append(0, [session(1)]).unwrap();
    assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown));
    assert_eq!(rebuilt.recv(), Ok((1, vec![])));
    faults.panic_once();
    let lost = append_in(&journal, 1, 2);
    // Nobody waits for it: the commit thread sees to it.
    assert_eq!(rebuilt.recv(), Ok((2, vec![])));
    assert_eq!(journal.verdict(lost), Some(Err(OutcomeUnknown)));
    assert_eq!(journal.barrier(append_in(&journal, 2, 3)).wait(), Ok(()));
}

#[test]
fn a_journal_that_is_closed_waits_for_the_group_that_is_open() {
    let (journal, faults, _) = start(Durability::Always);
    let group = journal.group();
    let seq = journal.append(0, [session(1)]).unwrap();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| journal.close());
        while !lock(&journal.shared.queue).closing {
            std::thread::yield_now();
        }
        let _ = journal.append(0, [session(2)]).unwrap();
        drop(group);
        closing.join().unwrap();
    });
    assert_eq!((journal.barrier(seq).wait(), faults.batch_sizes()), (Ok(()), vec![2]));
}

#[test]
fn who_waits_for_an_open_group_does_not_spin() {
    let (journal, _, _) = start(Durability::Always);
    let group = journal.group();
    let seq = journal.append(0, [session(1)]).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut barrier = journal.barrier(seq);
    for _ in 0..2 {
        assert!(Pin::new(&mut barrier).poll(&mut Context::from_waker(&waker)).is_pending());
        commit_before_park();
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }
    drop(group);
    assert_eq!(barrier.wait(), Ok(()));
}

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_thread_commits_before_it_parks_unless_much_is_pending_or_nobody_calls_it() {
    let (journal, faults, _) = start(Durability::Always);
    let append = |id| journal.append(0, [session(id)]).unwrap();
    let committed_by = || faults.committed_by().last().copied();
    let thread = lock(&journal.thread).as_ref().unwrap().thread().id();
    assert_eq!(journal.barrier(append(0)).wait(), Ok(()));
    assert_eq!(committed_by(), Some(std::thread::current().id()));
    let last = (1..=LARGE_COMMIT as u128).map(append).last().unwrap();
    assert_eq!(journal.barrier(last).wait(), Ok(()));
    assert_eq!(committed_by(), Some(thread));
    let mut barrier = journal.barrier(append(1000));
    assert!(!IS_HOOKED.get());
    while is_pending(&mut barrier) {
        std::thread::yield_now();
    }
    assert_eq!(committed_by(), Some(thread));
}

#[test]
fn after_a_large_commit_the_next_is_made_by_the_commit_thread_once_other_tasks_had_a_turn() {
    let (journal, faults, _) = start(Durability::Always);
    let append = |id| journal.append(0, [session(id)]).unwrap();
    let thread = lock(&journal.thread).as_ref().unwrap().thread().id();
    let last = (1..=LARGE_COMMIT as u128).map(append).last().unwrap();
    assert_eq!(journal.barrier(last).wait(), Ok(()));
    // Held, so that the commit thread cannot find the records by itself.
    let writer = lock(&journal.shared.writer);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut first = journal.barrier(append(1000));
    assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it goes to the end of the ready tasks");
    let mut second = journal.barrier(append(1001));
    assert!(is_pending(&mut second));
    assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(lock(&journal.shared.queue).is_urgent, "and then asks");
    drop(writer);
    assert_eq!((first.wait(), second.wait()), (Ok(()), Ok(())));
    assert_eq!((faults.batch_sizes().last(), faults.committed_by().last()), (Some(&2), Some(&thread)));
    assert_eq!(journal.barrier(append(1002)).wait(), Ok(()));
    assert_eq!(faults.committed_by().last(), Some(&std::thread::current().id()));
}

#[test]
fn after_a_slow_commit_only_the_commit_thread_commits_until_several_were_fast() {
    let (journal, faults, _) = start(Durability::Always);
    let mut ids = 0..;
    let mut committed_here = || {
        let seq = journal.append(0, [session(ids.next().unwrap())]).unwrap();
        assert_eq!(journal.barrier(seq).wait(), Ok(()));
        faults.committed_by().last() == Some(&std::thread::current().id())
    };
    faults.set_commit_nanos(SLOW_COMMIT_NANOS);
    assert!(committed_here() && committed_here(), "that is fast");
    faults.set_commit_nanos(SLOW_COMMIT_NANOS + 1);
    assert!(committed_here(), "the first slow one");
    for _ in 0..3 {
        assert!(!committed_here());
    }
    faults.set_commit_nanos(1);
    for _ in 0..FAST_COMMITS_MIN {
        assert!(!committed_here());
    }
    assert!(committed_here());
}

#[test]
fn storage_that_stalls_blocks_a_thread_once_and_not_again() {
    let (journal, faults, _) = start(Durability::Always);
    faults.set_commit_nanos(SLOW_COMMIT_NANOS + 1);
    journal.barrier(journal.append(0, [session(1)]).unwrap()).wait().unwrap();
    faults.hold_commits();
    let mut late = journal.barrier(journal.append(0, [session(2)]).unwrap());
    // Neither blocks, although the commit does.
    assert!(is_pending(&mut late) && is_pending(&mut late));
    faults.wait_until_held();
    let mut later = journal.barrier(journal.append(0, [session(3)]).unwrap());
    assert!(is_pending(&mut later) && is_pending(&mut later));
    faults.release_commits();
    assert_eq!((late.wait(), later.wait()), (Ok(()), Ok(())));
}

#[test]
fn a_thread_that_waits_does_not_wait_for_another_process() {
    let (journal, faults, _) = start(Durability::Always);
    faults.lock_storage(true);
    let mut first = journal.barrier(journal.append(0, [session(1)]).unwrap());
    assert!(is_pending(&mut first) && is_pending(&mut first));
    faults.wait_until_held();
    let mut second = journal.barrier(journal.append(0, [session(2)]).unwrap());
    assert!(is_pending(&mut second) && is_pending(&mut second));
    faults.lock_storage(false);
    assert_eq!((first.wait(), second.wait()), (Ok(()), Ok(())));
    assert_eq!(faults.batch_sizes(), [1, 1], "in their order");
    assert_eq!(journal.commits(), (2, 2));
}

#[test]
fn what_waits_for_another_process_is_committed_before_the_end_or_fails_with_the_rest() {
    for is_failing in [false, true] {
        let (journal, faults, _) = start(Durability::Always);
        faults.lock_storage(true);
        let first = journal.append(0, [session(1)]).unwrap();
        let mut waiting = journal.barrier(first);
        assert!(is_pending(&mut waiting) && is_pending(&mut waiting));
        faults.wait_until_held();
        let last = journal.append(0, [session(2), session(3)]).unwrap();
        faults.fail_with(is_failing.then_some(JournalError::Locked));
        faults.lock_storage(false);
        let expected = if is_failing { Err(OutcomeUnknown) } else { Ok(()) };
        assert_eq!(waiting.wait(), expected);
        journal.close();
        assert_eq!((journal.verdict(first), journal.verdict(last)), (Some(expected), Some(expected)));
    }
}

#[test]
fn a_backend_that_is_not_what_it_was_is_noticed_while_nothing_is_committed() {
    let (journal, faults, rebuilt) = start(Durability::Always);
    let durable = journal.append(0, [session(1)]).unwrap();
    journal.barrier(durable).wait().unwrap();
    let replaced = JournalError::Replaced { what: "the file was removed".into() };
    faults.fail_verification_with(Some(replaced.clone()));
    while journal.down().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(journal.append(0, [session(2)]), Err(replaced.clone()));
    assert_eq!(journal.barrier(durable).wait(), Ok(()));
    assert_eq!(journal.down(), Some(replaced), "it is not taken back into service");
    assert!(rebuilt.try_recv().is_err());
    faults.fail_verification_with(None);
    assert_eq!(rebuilt.recv(), Ok((1, vec![1])));
    assert_eq!(journal.barrier(append_in(&journal, 1, 3)).wait(), Ok(()));
}

#[test]
fn an_interval_answers_at_once_and_commits_on_close() {
    let (journal, faults, _) = start(Durability::Interval(Duration::from_secs(3600)));
    let seq = journal.append(0, [session(1)]).unwrap();
    assert_eq!(journal.barrier(seq).wait(), Ok(()));
    // Or the commit thread would be asked at once.
    commit_before_park();
    assert!(is_pending(&mut journal.synced(seq)));
    journal.close();
    assert_eq!(journal.synced(seq).wait(), Ok(()));
    assert_eq!(faults.batch_sizes(), [1]);
}

#[test]
fn a_barrier_that_is_dropped_leaves_nothing_behind() {
    let (journal, faults, _) = start(Durability::Always);
    faults.hold_commits();
    let seq = journal.append(0, [session(1)]).unwrap();
    let _group = journal.group();
    let mut barrier = journal.barrier(seq);
    assert!(is_pending(&mut barrier) && is_pending(&mut barrier));
    assert_eq!(lock(&journal.shared.barriers).parked.len(), 1);
    drop(barrier);
    assert!(lock(&journal.shared.barriers).parked.is_empty());
    faults.release_commits();
}
