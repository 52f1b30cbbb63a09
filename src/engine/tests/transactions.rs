//! Transactions: one instant, one commit, and what a reply waits for.

use super::*;

#[tokio::test]
async fn an_exclusive_transaction_happens_at_one_instant() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let id = engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
    take(&engine, "by ttl", request("a")).unwrap();
    take(&engine, "by session", in_session("a", id)).unwrap();
    clock.advance_millis(499);
    let is_held = |txn: &Txn<'_>, key: &str| txn.read(&name(key), |slot, _| slot.newest().is_some()).unwrap();
    let exclusive = engine.exclusive_txn();
    let began = exclusive.now();
    clock.advance_millis(501);
    assert!(is_held(&exclusive, "by ttl") && is_held(&exclusive, "by session"));
    assert_eq!(exclusive.now(), began);
    assert_eq!(exclusive.key_count(0).unwrap(), 2);
    assert_eq!(scanned(&exclusive, &mut Scan::new(0, 0, 10), 10).len(), 2);
    assert_eq!(exclusive.keep_alive(id).unwrap(), began.after(Ttl::from_millis(500).ok()));
    assert!(exclusive.has_session(id));
    drop(exclusive);
    let txn = engine.txn();
    assert!(!is_held(&txn, "by ttl") && !is_held(&txn, "by session"));
}

#[tokio::test]
async fn no_operation_comes_between_those_of_an_exclusive_transaction() {
    let engine = memory(&Clock::manual());
    let other = Arc::clone(&engine);
    let exclusive = engine.exclusive_txn();
    let started = std::thread::spawn(move || take(&other, "k", request("b")));
    let mine = Op::Acquire { request: request("a"), wait: None };
    assert!(matches!(exclusive.submit(&name("k"), &mine).unwrap(), Outcome::Granted { .. }));
    let back = Op::Release { owner: owner("a"), token: None };
    assert_eq!(exclusive.submit(&name("other"), &back).unwrap(), Outcome::NotHeld);
    drop(exclusive);
    assert_eq!(started.join().unwrap(), None, "it came second");
}

/// What a transaction must wait for is the highest of all it has seen, whatever became of it.
#[tokio::test]
async fn a_transaction_waits_for_everything_it_has_seen_refusals_included() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let limits = EngineConfig { locks_max: 2, sessions_max: 1, ..config() };
    let engine = Engine::start(Box::new(backend), Clock::manual(), limits).unwrap();
    let acquire = |who: &str| Op::Acquire { request: request(who), wait: None };
    take(&engine, "durable", request("a")).unwrap();
    engine.barrier(engine.last()).await.unwrap();
    faults.hold_commits();
    take(&engine, "k", request("a")).unwrap();
    let id = engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
    let is_durable = |read: &dyn Fn(&SharedTxn<'_>)| {
        let txn = engine.txn();
        read(&txn);
        engine.durability_of(txn.finish()).is_some()
    };
    let held = |txn: &Txn<'_>, key: &str| txn.exists(&name(key)).unwrap();
    assert!(is_durable(&|txn| assert!(held(txn, "durable"))));
    assert!(!is_durable(&|txn| assert!(held(txn, "k"))));
    assert!(!is_durable(&|txn| assert!(held(txn, "k") && held(txn, "durable"))), "the order does not matter");
    assert!(!is_durable(&|txn| assert!(txn.exclusively(&[], |txn| held(txn, "k")).unwrap())));
    assert!(!is_durable(&|txn| drop(txn.read(&name("k"), |slot, _| slot.holder_count()))));
    assert!(!is_durable(&|txn| assert_eq!(txn.key_count(0), Ok(2))));
    assert!(!is_durable(&|txn| assert_eq!(scanned(txn, &mut Scan::new(0, 0, 10), 10).len(), 2)));
    assert!(!is_durable(&|txn| assert!(txn.session(id).is_ok())));
    let no_room = Err(Unavailable::LocksMax);
    assert!(!is_durable(&|txn| assert_eq!(txn.submit(&name("other"), &acquire("a")), no_room)));
    assert!(!is_durable(&|txn| {
        assert_eq!(txn.open_session("t", None, None), Err(Unavailable::SessionsMax));
    }));
    let unknown = SessionId(7);
    assert!(!is_durable(&|txn| assert_eq!(txn.session(unknown).err(), Some(Unavailable::NoSession))));
    assert!(!is_durable(&|txn| assert_eq!(txn.close_session(unknown, true), Err(Unavailable::NoSession))));
    assert!(!is_durable(&|txn| assert_eq!(txn.keep_alive(unknown), Err(Unavailable::NoSession))));
    assert!(!is_durable(&|txn| assert_eq!(txn.expired_session(unknown), None)));
    assert!(!is_durable(&|txn| assert_eq!(txn.had_expired_session("a", &name("k")), Ok(false))));
    let carried = {
        let txn = engine.txn();
        held(&txn, "k");
        txn.seen()
    };
    assert!(engine.durability_of(engine.resume_txn(carried).finish()).is_none(), "and so does the next turn");
    faults.release_commits();
}
