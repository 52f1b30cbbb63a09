//! Commit groups.

use super::*;

#[test]
fn a_group_is_one_commit() {
    let (journal, faults, _) = start(Durability::Always);
    let group = journal.commit_group();
    journal.append(0, [session(1)]).unwrap();
    let seq = journal.append(0, [session(2)]).unwrap();
    drop(group);
    journal.barrier(seq).wait().unwrap();
    assert_eq!(faults.batch_sizes(), [2]);
}

#[test]
fn no_thread_commits_an_open_group() {
    let (journal, faults, _) = start(Durability::Always);
    let group = journal.commit_group();
    journal.append(0, [session(1)]).unwrap();
    let seq = journal.append(0, [session(2)]).unwrap();
    let mut barrier = journal.barrier(seq);
    assert!(is_pending(&mut barrier) && is_pending(&mut barrier) && is_pending(&mut barrier));
    // Like a thread that began before the group was opened.
    journal.committer.commit_on_caller();
    assert_eq!((faults.batch_sizes(), journal.commits()), (vec![], (0, 0)));
    drop(group);
    barrier.wait().unwrap();
    assert_eq!(faults.batch_sizes(), [2]);
}

#[test]
fn closing_waits_for_the_open_group() {
    let (journal, faults, _) = start(Durability::Always);
    let group = journal.commit_group();
    let seq = journal.append(0, [session(1)]).unwrap();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| journal.close());
        while !journal.committer.queue.lock().is_closing {
            std::thread::yield_now();
        }
        let _ = journal.append(0, [session(2)]).unwrap();
        drop(group);
        closing.join().unwrap();
    });
    assert_eq!((journal.barrier(seq).wait(), faults.batch_sizes()), (Ok(()), vec![2]));
}

#[test]
fn a_barrier_of_an_open_group_is_not_woken_in_vain() {
    let (journal, _, _) = start(Durability::Always);
    let group = journal.commit_group();
    let seq = journal.append(0, [session(1)]).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut barrier = journal.barrier(seq);
    for _ in 0..2 {
        assert!(poll_with(&mut barrier, &waker).is_pending());
        commit_before_park();
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }
    drop(group);
    assert_eq!(barrier.wait(), Ok(()));
}

#[test]
fn the_backlog_has_the_size_of_the_records_that_no_commit_has_taken() {
    let (journal, _faults, _) = start(Durability::Always);
    let group = journal.commit_group();
    journal.append(0, [session(1), session(2)]).unwrap();
    let seq = journal.append(0, [session(3)]).unwrap();
    assert_eq!(journal.backlog_bytes(), 3 * session(1).size_bytes());
    drop(group);
    journal.barrier(seq).wait().unwrap();
    assert_eq!(journal.backlog_bytes(), 0);
}

#[test]
fn the_end_of_a_group_leaves_its_records_to_their_barrier() {
    let (journal, _faults, _) = start(Durability::Always);
    let group = journal.commit_group();
    let seq = journal.append(0, [session(1)]).unwrap();
    drop(group);
    assert!(!journal.committer.queue.lock().is_urgent, "nothing wants the commit yet");
    journal.barrier(seq).wait().unwrap();
}
