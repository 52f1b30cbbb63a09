//! What backends demand: commits off the callers' threads, bounded batches.

use super::*;

/// A remote backend whose commits take up to three records without texts.
fn remote() -> BackendTraits {
    let batch_bytes_max = Some(3 * session(0).size_bytes());
    BackendTraits { commit_on_caller: false, batch_bytes_max, reads_need_commit: false }
}

#[test]
fn a_backend_may_forbid_commits_on_callers() {
    let (journal, faults, _) = start_with(Durability::Always, remote());
    for id in 0..3 {
        let mut barrier = journal.barrier(journal.append(0, [session(id)]).unwrap());
        // A runtime's thread, and then one that blocks.
        let _ = is_pending(&mut barrier);
        commit_before_park();
        assert_eq!(barrier.wait(), Ok(()));
    }
    let committed_by = faults.committed_by();
    assert!(committed_by.iter().all(|thread| *thread == commit_thread(&journal)), "{committed_by:?}");
}

/// Appends while a commit is held, and returns the sizes of the commits that follow.
fn batches_of(traits: BackendTraits, append: impl FnOnce(&Journal) -> Seq) -> Vec<usize> {
    let (journal, faults, _) = start_with(Durability::Always, traits);
    faults.hold_commits();
    journal.append(0, [session(0)]).unwrap();
    faults.wait_until_held();
    let last = append(&journal);
    faults.release_commits();
    assert_eq!(journal.barrier(last).wait(), Ok(()));
    journal.close();
    faults.batch_sizes().split_off(1)
}

#[test]
fn a_batch_is_bounded_in_bytes() {
    let one_by_one = |count: u128| {
        move |journal: &Journal| {
            (1..=count).map(|id| journal.append(0, [session(id)]).unwrap()).last().unwrap()
        }
    };
    assert_eq!(batches_of(remote(), one_by_one(3)), [3], "at the limit");
    assert_eq!(batches_of(remote(), one_by_one(4)), [3, 1], "one past it");
    assert_eq!(batches_of(remote(), one_by_one(8)), [3, 3, 2]);
    assert_eq!(batches_of(BackendTraits { batch_bytes_max: None, ..remote() }, one_by_one(8)), [8]);
}

#[test]
fn a_bounded_batch_splits_neither_appends_nor_groups() {
    let append = |journal: &Journal, count: u128| {
        journal.append(0, (0..count).map(session).collect::<Vec<_>>()).unwrap()
    };
    let appends = batches_of(remote(), |journal| {
        append(journal, 2);
        append(journal, 2)
    });
    assert_eq!(appends, [2, 2]);
    let larger_than_a_batch = batches_of(remote(), |journal| {
        append(journal, 1);
        append(journal, 5);
        append(journal, 1)
    });
    assert_eq!(larger_than_a_batch, [1, 5, 1]);
    let groups = batches_of(remote(), |journal| {
        append(journal, 2);
        let group = journal.commit_group();
        append(journal, 1);
        append(journal, 1);
        drop(group);
        append(journal, 1)
    });
    assert_eq!(groups, [2, 3], "the group is one unit");
}

#[test]
fn every_batch_of_a_bounded_backend_fails_with_the_first() {
    let (journal, faults, recoveries) = start_with(Durability::Always, remote());
    faults.hold_commits();
    let first = journal.append(0, [session(0)]).unwrap();
    faults.wait_until_held();
    let last = (1..10).map(|id| journal.append(0, [session(id)]).unwrap()).last().unwrap();
    faults.fail_with(Some(JournalError::Full));
    faults.release_commits();
    assert_eq!(journal.barrier(last).wait(), Err(OutcomeUnknown));
    assert_eq!(journal.durability_of(first), Some(Err(OutcomeUnknown)));
    faults.fail_with(None);
    assert_eq!(recoveries.rebuilt(), (1, vec![]));
    let seq = append_in(&journal, 1, 1);
    assert_eq!(journal.barrier(seq).wait(), Ok(()));
    assert_eq!(faults.batch_sizes(), [1]);
}

fn guarded() -> BackendTraits {
    BackendTraits { reads_need_commit: true, ..remote() }
}

#[test]
fn what_was_read_waits_for_a_commit_that_began_later_and_shares_it() {
    let (journal, faults, _) = start_with(Durability::Always, guarded());
    assert_eq!(journal.revealed(Seq::LOADED).wait(), Ok(()));
    assert_eq!(faults.batch_sizes(), [0], "a commit of nothing");
    faults.hold_commits();
    let mut first = journal.revealed(Seq::LOADED);
    assert!(is_pending(&mut first));
    assert!(is_pending(&mut first));
    faults.wait_until_held();
    // The commit that is held began before these.
    let mut later: Vec<_> = (0..3).map(|_| journal.revealed(Seq::LOADED)).collect();
    let record = journal.append(0, [session(0)]).unwrap();
    later.push(journal.revealed(record));
    faults.release_commits();
    assert_eq!(first.wait(), Ok(()));
    later.into_iter().for_each(|barrier| assert_eq!(barrier.wait(), Ok(())));
    assert_eq!(faults.batch_sizes(), [0, 0, 1]);
    assert_eq!(journal.revealed(Seq::default()).wait(), Ok(()), "nothing was read");
    assert_eq!(faults.batch_sizes(), [0, 0, 1]);
}

#[test]
fn nothing_is_revealed_while_storage_is_down_nor_what_failed_before() {
    let (journal, faults, recoveries) = start_with(Durability::Always, guarded());
    let durable = journal.append(0, [session(0)]).unwrap();
    assert_eq!(journal.revealed(durable).wait(), Ok(()));
    faults.fail_with(Some(JournalError::Full));
    let failed = journal.append(0, [session(1)]).unwrap();
    assert_eq!(journal.revealed(durable).wait(), Err(OutcomeUnknown));
    assert_eq!(journal.revealed(durable).wait(), Err(OutcomeUnknown), "and no barrier waits");
    faults.fail_with(None);
    assert_eq!(recoveries.rebuilt(), (1, vec![0]));
    while journal.down().is_some() {
        std::thread::yield_now();
    }
    assert_eq!(journal.revealed(durable).wait(), Ok(()));
    assert_eq!(journal.revealed(failed).wait(), Err(OutcomeUnknown), "a later commit says nothing about it");
}
