//! The scenarios. The commit thread is one of the threads in each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use loom::thread;

use crate::backend::{Behaviour, Stored, record, start};
use crate::journal::commit::{Barrier, Journal, Seq, commit_before_park};
use crate::journal::{BackendTraits, JournalError};

/// Runs a scenario through all interleavings with at most `preemptions` switches of a thread that
/// could go on.
fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    model.check(scenario);
}

fn append(journal: &Journal, number: u64) -> Seq {
    journal.append(0, [record(number)]).expect("a journal that works")
}

/// A thread of a runtime, which calls the hook before it parks: appends `number` and awaits it.
fn commits_one(journal: &Journal, stored: &Stored, number: u64) {
    assert_eq!(journal.barrier(append(journal, number)).wait(), Ok(()));
    assert!(stored.has(number), "a barrier resolved before {number} was stored");
}

/// Like [`commits_one`], on a thread without the hook.
fn commits_one_without_hook(journal: &Journal, stored: &Stored, number: u64) {
    assert_eq!(loom::future::block_on(journal.barrier(append(journal, number))), Ok(()));
    assert!(stored.has(number), "a barrier resolved before {number} was stored");
}

/// Polls a barrier as a task that is then dropped.
fn poll_once(barrier: &mut Barrier<'_>) {
    let _ = Pin::new(barrier).poll(&mut Context::from_waker(Waker::noop()));
}

/// Runs `one` on another thread and `other` on this one, and closes the journal.
fn together(
    behaviour: Behaviour,
    one: impl FnOnce(&Journal, &Stored) + Send + 'static,
    other: impl FnOnce(&Journal, &Stored),
) {
    let (journal, stored) = start(behaviour);
    let (its_journal, its_stored) = (Arc::clone(&journal), stored.clone());
    let thread = thread::spawn(move || one(&its_journal, &its_stored));
    other(&journal, &stored);
    thread.join().expect("no panic");
    journal.close();
}

#[test]
fn two_callers_commit_for_themselves_and_each_other() {
    explore(3, || {
        together(
            Behaviour::PLAIN,
            |journal, stored| commits_one(journal, stored, 1),
            |journal, stored| commits_one(journal, stored, 2),
        );
    });
}

#[test]
fn callers_that_are_alone_on_their_threads_commit_at_once() {
    /// A thread that parked twice with nothing to do in between.
    fn commits_one_at_once(journal: &Journal, stored: &Stored, number: u64) {
        commit_before_park();
        commit_before_park();
        commits_one(journal, stored, number);
    }

    explore(2, || {
        together(
            Behaviour::PLAIN,
            |journal, stored| commits_one_at_once(journal, stored, 1),
            |journal, stored| commits_one_at_once(journal, stored, 2),
        );
    });
}

#[test]
fn a_thread_without_the_hook_is_served_by_the_others() {
    explore(2, || {
        together(
            Behaviour::PLAIN,
            |journal, stored| commits_one_without_hook(journal, stored, 1),
            |journal, stored| commits_one(journal, stored, 2),
        );
    });
}

#[test]
fn the_commit_thread_serves_all_when_callers_may_not_commit() {
    let traits = BackendTraits { commit_on_caller: false, ..BackendTraits::LOCAL };
    explore(3, move || {
        together(
            Behaviour { traits, ..Behaviour::PLAIN },
            |journal, stored| commits_one(journal, stored, 1),
            |journal, stored| commits_one(journal, stored, 2),
        );
    });
}

#[test]
fn what_was_read_is_revealed_after_a_commit_even_of_nothing() {
    for fails_once in [false, true] {
        let traits =
            BackendTraits { commit_on_caller: false, reads_need_commit: true, ..BackendTraits::LOCAL };
        let read = |journal: &Journal| journal.revealed(Seq::LOADED).wait();
        explore(2, move || {
            together(
                Behaviour { traits, fails_once, ..Behaviour::PLAIN },
                move |journal, _| assert!(read(journal).is_ok() || fails_once),
                move |journal, _| assert!(read(journal).is_ok() || fails_once),
            );
        });
    }
}

#[test]
fn the_commit_thread_takes_over_after_a_slow_commit() {
    explore(2, || {
        together(
            Behaviour { is_slow: true, ..Behaviour::PLAIN },
            |journal, stored| commits_one(journal, stored, 1),
            |journal, stored| {
                commits_one(journal, stored, 2);
                commits_one(journal, stored, 3);
            },
        );
    });
}

#[test]
fn a_group_is_committed_as_a_whole_and_delays_nothing_for_ever() {
    explore(2, || {
        together(
            Behaviour { group: 0b110, ..Behaviour::PLAIN },
            |journal, stored| {
                let group = journal.commit_group();
                append(journal, 1);
                let seq = append(journal, 2);
                drop(group);
                assert_eq!(journal.barrier(seq).wait(), Ok(()));
                assert!(stored.has(1) && stored.has(2));
            },
            |journal, stored| commits_one(journal, stored, 3),
        );
    });
}

#[test]
fn a_batch_that_is_cut_is_committed_to_its_end() {
    let batch_bytes_max = Some(record(0).size_bytes());
    for commit_on_caller in [true, false] {
        let traits = BackendTraits { commit_on_caller, batch_bytes_max, reads_need_commit: false };
        explore(2, move || {
            together(
                Behaviour { traits, ..Behaviour::PLAIN },
                |journal, stored| commits_one(journal, stored, 1),
                |journal, stored| {
                    append(journal, 2);
                    commits_one(journal, stored, 3);
                    assert!(stored.has(2), "a prefix is durable");
                },
            );
        });
    }
}

#[test]
fn a_locked_storage_delays_but_loses_nothing() {
    explore(2, || {
        together(
            Behaviour { is_locked_once: true, ..Behaviour::PLAIN },
            |journal, stored| commits_one(journal, stored, 1),
            |journal, stored| commits_one(journal, stored, 2),
        );
    });
}

#[test]
fn a_failed_commit_is_never_ok_and_the_next_epoch_commits() {
    /// Commits one record, in the epoch that there is, unless the journal is down.
    fn commits_or_fails(journal: &Journal, stored: &Stored, number: u64) {
        let appended = match journal.append(0, [record(number)]) {
            Err(error) if error == JournalError::rebuilt() => journal.append(1, [record(number)]),
            result => result,
        };
        match appended {
            Ok(seq) => assert_eq!(journal.barrier(seq).wait().is_ok(), stored.has(number)),
            Err(error) => assert_eq!((error, stored.has(number)), (JournalError::Full, false)),
        }
    }

    explore(3, || {
        together(
            Behaviour { fails_once: true, ..Behaviour::PLAIN },
            |journal, stored| commits_or_fails(journal, stored, 1),
            |journal, stored| {
                commits_or_fails(journal, stored, 2);
                commits_or_fails(journal, stored, 3);
            },
        );
    });
}

#[test]
fn a_dropped_barrier_takes_no_other_with_it() {
    for commit_on_caller in [true, false] {
        let traits = BackendTraits { commit_on_caller, ..BackendTraits::LOCAL };
        explore(3, move || {
            together(
                Behaviour { traits, ..Behaviour::PLAIN },
                |journal, _| {
                    let mut dropped = journal.barrier(append(journal, 1));
                    poll_once(&mut dropped);
                    drop(dropped);
                    // The runtime parks the thread.
                    commit_before_park();
                },
                |journal, stored| commits_one(journal, stored, 2),
            );
        });
    }
}

#[test]
fn closing_commits_what_is_enqueued_or_under_way() {
    for is_locked_once in [false, true] {
        explore(3, move || {
            let (journal, stored) = start(Behaviour { is_locked_once, ..Behaviour::PLAIN });
            let seq = append(&journal, 1);
            let (its_journal, its_stored) = (Arc::clone(&journal), stored.clone());
            let waiting = thread::spawn(move || {
                assert_eq!(its_journal.barrier(seq).wait(), Ok(()));
                assert!(its_stored.has(1));
            });
            journal.close();
            assert!(stored.has(1));
            waiting.join().expect("no panic");
        });
    }
}
