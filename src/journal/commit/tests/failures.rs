//! Failed commits and recovery.

use super::*;

#[test]
fn a_failed_commit_is_never_ok_and_service_resumes_by_itself() {
    let (journal, faults, recoveries) = start(Durability::Always);
    let durable = journal.append(0, [session(1)]).unwrap();
    journal.barrier(durable).wait().unwrap();
    faults.fail_with(Some(JournalError::Full));
    let lost = journal.append(0, [session(2)]).unwrap();
    assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown));
    assert_eq!(journal.append(0, [session(3)]), Err(JournalError::Full));
    assert_eq!(journal.barrier(durable).wait(), Ok(()), "what was durable stays so");
    faults.fail_with(None);
    assert_eq!(recoveries.rebuilt(), (1, vec![1]));
    assert!(journal.append(0, [session(4)]).is_err(), "the old state is refused");
    assert_eq!(journal.barrier(append_in(&journal, 1, 5)).wait(), Ok(()));
    assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown), "also when asked late");
}

#[test]
fn a_commit_that_panics_fails_on_any_thread() {
    let (journal, faults, recoveries) = start(Durability::Always);
    faults.panic_once();
    let lost = journal.append(0, [session(1)]).unwrap();
    assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown));
    assert_eq!(recoveries.rebuilt(), (1, vec![]));
    faults.panic_once();
    let lost = append_in(&journal, 1, 2);
    // No barrier waits for it: the commit thread commits it.
    assert_eq!(recoveries.rebuilt(), (2, vec![]));
    assert_eq!(journal.durability_of(lost), Some(Err(OutcomeUnknown)));
    assert_eq!(journal.barrier(append_in(&journal, 2, 3)).wait(), Ok(()));
}

#[test]
fn a_replaced_backend_is_detected_while_nothing_is_committed() {
    let (journal, faults, recoveries) = start(Durability::Always);
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
    assert!(recoveries.0.try_iter().all(|call| call == Recovery::Suspended));
    faults.fail_verification_with(None);
    assert_eq!(recoveries.rebuilt(), (1, vec![1]));
    assert_eq!(journal.barrier(append_in(&journal, 1, 3)).wait(), Ok(()));
}

#[test]
fn an_error_that_no_retry_can_help_closes_the_journal_for_good() {
    let corrupt = JournalError::Corrupt { what: "a page".into() };
    for error in [JournalError::Fenced, corrupt] {
        let (journal, faults, recoveries) = start(Durability::Always);
        faults.fail_with(Some(error.clone()));
        let lost = journal.append(0, [session(1)]).unwrap();
        assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown));
        faults.fail_with(None);
        // Each of these would be an attempt to rebuild, which would succeed now.
        for _ in 0..3 {
            assert_eq!(recoveries.0.recv(), Ok(Recovery::Suspended));
        }
        assert_eq!(journal.append(0, [session(2)]), Err(error.clone()));
        assert_eq!(journal.append(1, [session(2)]), Err(error.clone()));
        assert_eq!(journal.down(), Some(error));
        journal.close();
        assert!(recoveries.0.try_iter().all(|call| call == Recovery::Suspended));
        assert!(faults.batch_sizes().is_empty());
    }
}

#[test]
fn a_retry_that_fails_for_good_is_the_last() {
    let (journal, faults, recoveries) = start(Durability::Always);
    faults.fail_with(Some(JournalError::Full));
    let lost = journal.append(0, [session(1)]).unwrap();
    assert_eq!(journal.barrier(lost).wait(), Err(OutcomeUnknown));
    faults.fail_with(Some(JournalError::Fenced));
    while journal.down() != Some(JournalError::Fenced) {
        std::thread::yield_now();
    }
    faults.fail_with(None);
    while recoveries.0.try_recv().is_ok() {}
    assert_eq!(recoveries.0.recv(), Ok(Recovery::Suspended));
    assert_eq!(recoveries.0.recv(), Ok(Recovery::Suspended));
    assert_eq!(journal.down(), Some(JournalError::Fenced));
}

#[test]
fn maintenance_and_verification_close_the_journal_if_no_retry_can_help() {
    let corrupt = JournalError::Corrupt { what: "a page".into() };
    for error in [JournalError::Fenced, corrupt] {
        let (journal, faults, _) = start(Durability::Always);
        faults.fail_maintenance_with(Some(JournalError::Full));
        faults.wait_until_maintained();
        assert_eq!(journal.down(), None, "maintenance that may work later is not needed now");
        faults.fail_maintenance_with(Some(error.clone()));
        journal.append(0, [session(1)]).unwrap();
        while journal.down().as_ref() != Some(&error) {
            std::thread::yield_now();
        }

        let (journal, faults, _) = start(Durability::Always);
        faults.fail_verification_with(Some(error.clone()));
        while journal.down().as_ref() != Some(&error) {
            std::thread::yield_now();
        }
    }
}
