//! Limits on locks, queues and sessions.

use super::*;

#[tokio::test]
async fn at_the_lock_limit_new_locks_are_refused_and_existing_ones_work() {
    let config = EngineConfig { locks_max: 1, ..config() };
    let engine = Engine::start(Box::new(MemoryBackend::default()), Clock::manual(), config).unwrap();
    take(&engine, "k", request("a")).unwrap();
    let more = Op::Acquire { request: request("a"), wait: None };
    assert_eq!(engine.txn().submit(&name("other"), &more), Err(Unavailable::LocksMax));
    assert!(take(&engine, "k", request("a")).is_some(), "asking again is no new lock");
    let renew = Op::Renew { owner: owner("a"), ttl: None, token: None };
    assert!(matches!(engine.txn().submit(&name("k"), &renew).unwrap(), Outcome::Renewed { .. }));
    assert_eq!(release(&engine, "k", "a"), Outcome::Released(1));
    assert!(take(&engine, "other", request("a")).is_some());
}

#[tokio::test]
async fn a_repeated_request_keeps_its_place_in_a_full_queue() {
    let config = EngineConfig { waiters_per_lock_max: 2, ..config() };
    let engine = Engine::start(Box::new(MemoryBackend::default()), Clock::manual(), config).unwrap();
    take(&engine, "k", request("a")).unwrap();
    let (mut first, _second) = (queue(&engine, "k", "b"), queue(&engine, "k", "c"));
    let more = engine.txn().submit_or_wait(&name("k"), request("d"), Timestamp::NEVER);
    assert_eq!(more.err(), Some(Unavailable::WaitersMax));
    let mut again = queue(&engine, "k", "b");
    assert_eq!(first.outcome().await, WaitOutcome::Replaced);
    release(&engine, "k", "a");
    granted(&mut again).await;
}

#[tokio::test]
async fn sessions_and_running_delays_count_toward_limits() {
    let config = EngineConfig { locks_max: 2, sessions_max: 1, ..config() };
    let clock = Clock::manual();
    let engine = Engine::start(Box::new(MemoryBackend::default()), clock.clone(), config).unwrap();
    let id = engine.txn().open_session("s", None, Ttl::from_millis(100).ok()).unwrap();
    assert_eq!(engine.txn().open_session("t", None, None), Err(Unavailable::SessionsMax));
    engine.txn().close_session(id, true).unwrap();
    engine.txn().open_session("t", None, None).unwrap();
    let delayed =
        || request("a").with(LeaseExtra { delay: Ttl::from_millis(5000).ok(), ..LeaseExtra::default() });
    for key in ["a", "b"] {
        take(&engine, key, delayed()).unwrap();
        engine.txn().submit(&name(key), &Op::Force).unwrap();
    }
    let more = Op::Acquire { request: request("a"), wait: None };
    assert_eq!(engine.txn().submit(&name("c"), &more), Err(Unavailable::LocksMax));
    clock.advance_millis(5000);
    engine.expire_due();
    assert!(take(&engine, "c", request("a")).is_some());
    assert_eq!(engine.lock_stats().kept(), 1);
}

#[tokio::test]
async fn a_lock_delay_replaced_by_a_set_stays_gone_and_needs_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = Clock::manual();
    let config = EngineConfig { locks_max: 1, ..config() };
    let start = || {
        let backend = SqliteBackend::open(&path).unwrap();
        Engine::start(Box::new(backend), clock.clone(), config.clone()).unwrap()
    };
    let engine = start();
    let delay = Ttl::from_millis(60_000).ok();
    take(&engine, "k", request("a").with(LeaseExtra { delay, ..LeaseExtra::default() })).unwrap();
    clock.advance_millis(1000);
    engine.expire_due();
    assert_eq!((engine.lock_stats().leases(), engine.lock_stats().kept()), (0, 1));
    assert!(matches!(set(&engine, "k", request("b")), Outcome::Granted { already_held: false, .. }));
    assert!(matches!(set(&engine, "k", request("c")), Outcome::Granted { already_held: false, .. }));
    assert_eq!((engine.lock_stats().leases(), engine.lock_stats().kept()), (1, 1));
    assert_eq!(engine.lock_stats().totals().replaced, 1);
    drop(engine);
    let engine = start();
    assert_eq!((engine.lock_stats().leases(), engine.lock_stats().kept()), (1, 1));
    assert_eq!(release(&engine, "k", "c"), Outcome::Released(1));
    assert!(take(&engine, "k", request("d")).is_some(), "no lock-delay is running");
}
