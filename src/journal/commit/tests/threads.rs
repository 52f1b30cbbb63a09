//! Which thread commits.

use super::*;
use crate::journal::commit::committer::{
    AFTER_STALL_NANOS_MAX, COMMITS_AFTER_SLOW_MAX, SLOW_COMMIT_NANOS, STALL_NANOS, STALL_TIMES,
};
use crate::journal::commit::hook::is_hooked;
use crate::journal::commit::queue::{LARGE_COMMIT_BYTES_MIN, LARGE_COMMIT_RECORDS_MIN};

#[test]
fn a_hooked_thread_makes_small_commits_and_the_commit_thread_all_others() {
    let (journal, faults, _) = start(Durability::Always);
    let append = |id| journal.append(0, [session(id)]).unwrap();
    let committed_by = || faults.committed_by().last().copied();
    let thread = commit_thread(&journal);
    assert_eq!(journal.barrier(append(0)).wait(), Ok(()));
    assert_eq!(committed_by(), Some(std::thread::current().id()));
    let last = (1..=LARGE_COMMIT_RECORDS_MIN as u128).map(append).last().unwrap();
    assert_eq!(journal.barrier(last).wait(), Ok(()));
    assert_eq!(committed_by(), Some(thread));
    let mut barrier = journal.barrier(append(1000));
    assert!(!is_hooked());
    while is_pending(&mut barrier) {
        std::thread::yield_now();
    }
    assert_eq!(committed_by(), Some(thread));
}

#[test]
fn the_commit_thread_makes_a_commit_of_few_large_records() {
    let (journal, faults, _) = start(Durability::Always);
    let thread = commit_thread(&journal);
    let Record::Session(small) = session(1) else { unreachable!("a session") };
    let large = SessionRecord { name: "n".repeat(LARGE_COMMIT_BYTES_MIN), ..small };
    let seq = journal.append(0, [Record::Session(large)]).unwrap();
    assert_eq!(journal.barrier(seq).wait(), Ok(()));
    assert_eq!(faults.committed_by().last(), Some(&thread));
}

#[test]
fn after_a_large_commit_a_barrier_yields_once_and_asks_the_commit_thread() {
    let (journal, faults, _) = start(Durability::Always);
    let append = |id| journal.append(0, [session(id)]).unwrap();
    let thread = commit_thread(&journal);
    let last = (1..=LARGE_COMMIT_RECORDS_MIN as u128).map(append).last().unwrap();
    assert_eq!(journal.barrier(last).wait(), Ok(()));
    // Held, so that the commit thread cannot find the records by itself.
    let writer = journal.committer.writer.lock();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut first = journal.barrier(append(1000));
    assert!(poll_with(&mut first, &waker).is_pending());
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it yields to the ready tasks");
    let mut second = journal.barrier(append(1001));
    assert!(is_pending(&mut second));
    assert!(poll_with(&mut first, &waker).is_pending());
    assert!(journal.committer.queue.lock().is_urgent, "then it requests a commit");
    drop(writer);
    assert_eq!((first.wait(), second.wait()), (Ok(()), Ok(())));
    assert_eq!((faults.batch_sizes().last(), faults.committed_by().last()), (Some(&2), Some(&thread)));
    assert_eq!(journal.barrier(append(1002)).wait(), Ok(()));
    assert_eq!(faults.committed_by().last(), Some(&std::thread::current().id()));
}

#[test]
fn small_commits_among_large_ones_are_left_to_the_commit_thread() {
    let (journal, faults, _) = start(NEVER_BY_ITSELF);
    let mut ids = 0..;
    let mut commit = |records| {
        let batch: Vec<_> = ids.by_ref().take(records).map(session).collect();
        assert_eq!(journal.synced(journal.append(0, batch).unwrap()).wait(), Ok(()));
        faults.committed_by().last() == Some(&std::thread::current().id())
    };
    assert!(!commit(3 * LARGE_COMMIT_RECORDS_MIN));
    assert!(!commit(1), "one and a half times as many are remembered");
    assert!(!commit(1), "this one decides only about those after it");
    assert!(commit(1));
}

/// Each call commits a record, and returns whether the calling thread made the commit.
fn commits_of_one(journal: &Journal, faults: &Faults) -> impl FnMut() -> bool {
    let mut ids = 0..;
    move || {
        let seq = journal.append(0, [session(ids.next().unwrap())]).unwrap();
        assert_eq!(journal.barrier(seq).wait(), Ok(()));
        faults.committed_by().last() == Some(&std::thread::current().id())
    }
}

#[test]
fn after_a_slow_commit_the_commit_thread_commits_until_as_many_were_fast_as_it_took_time() {
    let (journal, faults, _) = start(Durability::Always);
    let mut committed_here = commits_of_one(&journal, &faults);
    faults.set_commit_nanos(SLOW_COMMIT_NANOS);
    assert!(committed_here() && committed_here(), "that is fast");
    for (time, commits) in [(1, 1), (3, 3), (20, COMMITS_AFTER_SLOW_MAX)] {
        faults.set_commit_nanos(time * SLOW_COMMIT_NANOS + 1);
        assert!(committed_here(), "the first slow one");
        assert!(!committed_here(), "one more is slow");
        faults.set_commit_nanos(SLOW_COMMIT_NANOS + 1);
        assert!(!committed_here(), "one that is less slow shortens nothing");
        faults.set_commit_nanos(1);
        for n in 0..commits {
            assert!(!committed_here(), "{time}, {n}");
        }
        assert!(committed_here(), "{time}");
    }
}

#[test]
fn storage_that_stalls_again_and_again_takes_a_hundredth_of_a_callers_time() {
    let (journal, faults, _) = start(Durability::Always);
    let mut committed_here = commits_of_one(&journal, &faults);
    faults.set_commit_nanos(STALL_NANOS - 1);
    assert!(committed_here(), "not a stall");
    faults.set_commit_nanos(1);
    assert_eq!((0..20).filter(|_| !committed_here()).count(), COMMITS_AFTER_SLOW_MAX as usize);
    for stall in [STALL_NANOS, 4 * STALL_NANOS, u64::MAX >> 8] {
        faults.set_commit_nanos(stall);
        assert!(committed_here(), "the stall");
        let away = (stall.min(AFTER_STALL_NANOS_MAX) * STALL_TIMES).min(AFTER_STALL_NANOS_MAX);
        // Those that end in that time, the one that ends it, and those that follow a slow one.
        faults.set_commit_nanos(STALL_NANOS - 1);
        let ends = away.div_ceil(STALL_NANOS - 1);
        assert!((0..ends).all(|_| !committed_here()), "{stall}");
        faults.set_commit_nanos(1);
        assert!((0..COMMITS_AFTER_SLOW_MAX).all(|_| !committed_here()), "{stall}");
        assert!(committed_here(), "{stall}");
    }
}

#[test]
fn storage_that_stalls_blocks_a_thread_only_once() {
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
fn a_caller_does_not_wait_for_locked_storage() {
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
fn a_batch_for_locked_storage_is_committed_at_the_end_or_fails_with_the_rest() {
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
        assert_eq!(
            (journal.durability_of(first), journal.durability_of(last)),
            (Some(expected), Some(expected))
        );
    }
}
