//! Barriers and batches.

use std::cell::Cell;

use super::*;

#[test]
fn a_barrier_resolves_when_its_commit_is_done() {
    let (journal, faults, _) = start(Durability::Always);
    assert_eq!(journal.barrier(Seq::default()).wait(), Ok(()), "nothing to wait for");
    faults.hold_commits();
    let seq = journal.append(0, [session(1)]).unwrap();
    let mut barrier = journal.barrier(seq);
    assert!(is_pending(&mut barrier));
    faults.release_commits();
    assert_eq!(barrier.wait(), Ok(()));
}

#[test]
fn records_appended_during_a_commit_form_one_batch() {
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
fn all_tasks_of_a_thread_share_its_commit() {
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
fn a_task_that_is_alone_on_its_thread_commits_at_once() {
    let (journal, faults, _) = start(NEVER_BY_ITSELF);
    let ids = Cell::new(0);
    let barrier_of_one_more = || {
        ids.set(ids.get() + 1);
        journal.synced(journal.append(0, [session(ids.get())]).unwrap())
    };
    let is_durable_at_once = || {
        let mut barrier = barrier_of_one_more();
        let is_at_once = !is_pending(&mut barrier);
        // The thread parks, and the task is polled again.
        commit_before_park();
        assert_eq!(
            (barrier.wait(), faults.committed_by().pop()),
            (Ok(()), Some(std::thread::current().id()))
        );
        is_at_once
    };
    commit_before_park();
    assert!(!is_durable_at_once(), "nothing is known about the thread yet");
    commit_before_park();
    assert!(is_durable_at_once());
    for _ in 0..2 {
        assert!(!is_pending(&mut journal.barrier(Seq::default())));
    }
    assert!(is_durable_at_once(), "those that did not have to wait do not count");
    let (mut first, mut second) = (barrier_of_one_more(), barrier_of_one_more());
    assert!(!is_pending(&mut first));
    assert!(!is_pending(&mut second), "the same commit");
    let mut third = barrier_of_one_more();
    assert!(is_pending(&mut third), "another was polled since the thread parked");
    commit_before_park();
    assert!(!is_durable_at_once(), "there were two before the thread parked");
    commit_before_park();
    assert!(is_durable_at_once());
    assert_eq!(third.wait(), Ok(()));
}

/// A thread that has had nothing to do between two parks.
fn become_idle() {
    commit_before_park();
    commit_before_park();
}

#[test]
fn a_commit_that_is_made_at_once_may_fail() {
    for panics in [false, true] {
        let (journal, faults, recoveries) = start(NEVER_BY_ITSELF);
        become_idle();
        if panics {
            faults.panic_once();
        } else {
            faults.fail_with(Some(JournalError::Full));
        }
        let mut barrier = journal.synced(journal.append(0, [session(1)]).unwrap());
        assert_eq!(poll_with(&mut barrier, Waker::noop()), Poll::Ready(Err(OutcomeUnknown)));
        faults.fail_with(None);
        assert_eq!(recoveries.rebuilt(), (1, vec![]));
    }
}

#[test]
fn a_task_that_is_alone_waits_for_the_end_of_a_group() {
    let (journal, faults, _) = start(NEVER_BY_ITSELF);
    become_idle();
    let group = journal.commit_group();
    let mut barrier = journal.synced(journal.append(0, [session(1)]).unwrap());
    assert!(is_pending(&mut barrier));
    assert!(faults.batch_sizes().is_empty());
    drop(group);
    assert_eq!((barrier.wait(), faults.batch_sizes()), (Ok(()), vec![1]));
}

#[test]
fn the_commits_of_a_thread_that_leaves_them_do_not_wait_for_it() {
    let (journal, faults, _) = start(Durability::Always);
    commit_before_park();
    let is_durable = |seq| journal.durability_of(seq) == Some(Ok(()));
    for n in 1..=2 {
        let seq = journal.append(0, [session(n)]).unwrap();
        let mut barrier = journal.barrier(seq);
        // It asks for a commit, unless the commit thread was faster.
        let _ = is_pending(&mut barrier);
        if n == 1 {
            leave_commits();
        }
        while !is_durable(seq) {
            std::thread::yield_now();
        }
    }
    assert!(!faults.committed_by().contains(&std::thread::current().id()));
}

#[test]
fn a_record_that_misses_a_commit_is_in_the_next() {
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
fn records_without_a_barrier_are_committed() {
    let (journal, faults, _) = start(Durability::Always);
    faults.hold_commits();
    journal.append(0, [session(1)]).unwrap();
    faults.wait_until_held();
    faults.release_commits();
    journal.close();
    assert_eq!((faults.batch_sizes(), journal.commits()), (vec![1], (1, 1)));
}

#[test]
fn an_interval_answers_at_once_and_commits_on_close() {
    let (journal, faults, _) = start(NEVER_BY_ITSELF);
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
fn a_dropped_barrier_leaves_nothing_behind() {
    let (journal, faults, _) = start(Durability::Always);
    faults.hold_commits();
    let seq = journal.append(0, [session(1)]).unwrap();
    let _group = journal.commit_group();
    let mut barrier = journal.barrier(seq);
    assert!(is_pending(&mut barrier) && is_pending(&mut barrier));
    assert_eq!(journal.committer.barriers.waiting.lock().parked.len(), 1);
    drop(barrier);
    assert!(journal.committer.barriers.waiting.lock().parked.is_empty());
    faults.release_commits();
}

#[test]
fn a_dropped_barrier_leaves_the_commit_to_another() {
    let (journal, _, _) = start(NEVER_BY_ITSELF);
    // Or the commit thread would be asked at once.
    commit_before_park();
    let seq = journal.append(0, [session(1)]).unwrap();
    let (mut first, mut second) = (journal.synced(seq), journal.synced(seq));
    let woken = Arc::new(Woken::default());
    assert!(is_pending(&mut first));
    assert!(poll_with(&mut second, &Waker::from(Arc::clone(&woken))).is_pending());
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    drop(first);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    commit_before_park();
    assert_eq!(second.wait(), Ok(()));
}
