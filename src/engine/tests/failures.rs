//! Failed commits.

use super::*;

#[tokio::test]
async fn the_session_of_a_connection_closed_during_a_failure_ends_after_it() {
    for is_down_first in [true, false] {
        let faults = Arc::new(Faults::default());
        let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
        let engine = Engine::start(Box::new(backend), Clock::manual(), config()).unwrap();
        let id = engine.txn().open_session("", None, None).unwrap();
        let leased = Op::Acquire {
            request: request("a").with(LeaseExtra { session: Some(id), ..LeaseExtra::default() }),
            wait: None,
        };
        engine.txn().submit(&name("k"), &leased).unwrap();
        engine.barrier(engine.last()).await.unwrap();
        faults.fail_with(Some(JournalError::Full));
        if is_down_first {
            // The end is refused.
            let lost = Op::Acquire { request: request("a"), wait: None };
            engine.txn().submit(&name("lost"), &lost).unwrap();
            assert_eq!(engine.barrier(engine.last()).await, Err(OutcomeUnknown));
            engine.connection_is_gone(id);
        } else {
            // The end is taken back.
            engine.connection_is_gone(id);
            assert_eq!(engine.barrier(engine.last()).await, Err(OutcomeUnknown));
        }
        faults.fail_with(None);
        while engine.check_up().is_err() {
            std::thread::yield_now();
        }
        engine.expire_due();
        assert!(!engine.txn().has_session(id), "down first: {is_down_first}");
        assert!(take(&engine, "k", request("b")).is_some());
    }
}

#[tokio::test]
async fn a_failed_commit_is_rolled_back_and_service_resumes() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let engine = Engine::start(Box::new(backend), Clock::manual(), config()).unwrap();
    let acquire = |who: &str| Op::Acquire { request: request(who), wait: None };
    engine.txn().submit(&name("kept"), &acquire("a")).unwrap();
    engine.barrier(engine.last()).await.unwrap();
    let mut waiter = queue(&engine, "kept", "w");
    faults.fail_with(Some(JournalError::Full));
    let txn = engine.txn();
    let outcome = txn.submit(&name("lost"), &acquire("a")).unwrap();
    let Outcome::Granted { token: lost_token, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(engine.barrier(txn.finish()).await, Err(OutcomeUnknown));
    assert_eq!(engine.txn().submit(&name("x"), &acquire("a")), Err(JournalError::Full.into()));
    faults.fail_with(None);
    assert_eq!(waiter.outcome().await, WaitOutcome::Unavailable);
    while engine.check_up().is_err() {
        std::thread::yield_now();
    }
    assert_eq!(take(&engine, "kept", request("b")), None, "held locks stay held");
    let again = take(&engine, "lost", request("b")).expect("what was not durable is gone");
    assert!(again > lost_token.get(), "and its token is never issued again");
    assert_eq!(engine.lock_stats().leases(), 2);
}

#[tokio::test]
async fn a_later_commit_does_not_vouch_for_what_was_seen_before_a_rebuild() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let engine = Engine::start(Box::new(backend), Clock::manual(), config()).unwrap();
    let id = engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
    engine.barrier(engine.last()).await.unwrap();
    faults.fail_with(Some(JournalError::Full));
    engine.txn().close_session(id, true).unwrap();
    let txn = engine.txn();
    assert_eq!(txn.keep_alive(id), Err(Unavailable::NoSession), "not revealed yet");
    assert_eq!(engine.barrier(engine.last()).await, Err(OutcomeUnknown));
    faults.fail_with(None);
    while engine.check_up().is_err() {
        std::thread::yield_now();
    }
    engine.txn().open_session("t", None, Ttl::from_millis(500).ok()).unwrap();
    let later = engine.last();
    engine.barrier(later).await.unwrap();
    assert!(engine.txn().has_session(id), "the session is there after all");
    assert!(matches!(txn.keep_alive(id), Err(Unavailable::Journal(_))), "one transaction sees one state");
    assert!(matches!(txn.exclusively(&[], |txn| txn.has_session(id)), Err(Unavailable::Journal(_))));
    assert_eq!(engine.barrier(txn.finish()).await, Err(OutcomeUnknown));
}

#[tokio::test]
async fn a_timeout_waits_for_the_durability_of_the_lease_it_waited_for() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let clock = Clock::manual();
    let engine = Engine::start(Box::new(backend), clock.clone(), config()).unwrap();
    faults.hold_commits();
    take(&engine, "k", request("a")).unwrap();
    let until = clock.now().after(Ttl::from_millis(500).ok());
    let Acquired::Blocked(mut waiter) = engine.txn().submit_or_wait(&name("k"), request("b"), until).unwrap()
    else {
        panic!("not queued")
    };
    clock.advance_millis(500);
    engine.expire_due();
    let WaitOutcome::TimedOut(seq) = waiter.outcome().await else { panic!("not timed out") };
    faults.fail_with(Some(JournalError::Full));
    faults.release_commits();
    assert_eq!(engine.barrier(seq).await, Err(OutcomeUnknown), "the grant was taken back");
    faults.fail_with(None);
}
