//! Leases that expire.

use super::*;

#[test]
fn locks_whose_names_share_a_hash_expire_independently() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let mut seen = std::collections::HashMap::new();
    let (one, other) = (0..1_000_000)
        .find_map(|n| {
            let key = format!("k{n}");
            let twin = seen.insert(engine.core.hash.of(&name(&key)), key.clone());
            twin.map(|twin| (twin, key))
        })
        .unwrap();
    assert!(take(&engine, &one, request("me")).is_some());
    assert!(take(&engine, &other, request("me")).is_some());
    assert_eq!(release(&engine, &one, "me"), Outcome::Released(1));
    clock.advance_millis(1000);
    while engine.expire_due() <= clock.now() {}
    assert_eq!((engine.lock_stats().leases(), engine.lock_stats().totals().expiries), (0, 1));
}

#[tokio::test]
async fn expiry_grants_the_next_waiter_and_reports_timeouts() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    take(&engine, "k", request("a")).unwrap();
    let mut next = queue(&engine, "k", "b");
    clock.advance_millis(999);
    assert_eq!(engine.expire_due(), Timestamp::from_nanos(1_000_000_000));
    clock.advance_millis(1);
    engine.expire_due();
    granted(&mut next).await;
    let mut late = queue(&engine, "k", "c");
    engine
        .txn()
        .submit(&name("k"), &Op::Renew { owner: owner("b"), ttl: Ttl::from_millis(90_000).ok(), token: None })
        .unwrap();
    clock.advance_millis(60_000);
    engine.expire_due();
    assert!(matches!(late.outcome().await, WaitOutcome::TimedOut(_)));
}

#[tokio::test]
async fn a_wall_clock_step_changes_nothing() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    take(&engine, "k", request("a")).unwrap();
    for wall in [0, u64::MAX / 2] {
        clock.step_wall_to(wall);
        engine.expire_due();
        assert_eq!(take(&engine, "k", request("b")), None);
    }
    clock.advance_millis(1000);
    assert!(take(&engine, "k", request("b")).is_some());
}

#[tokio::test]
async fn released_locks_leave_nothing_behind() {
    let engine = memory(&Clock::manual());
    for n in 0..20_000 {
        take(&engine, &format!("k{n}"), request("a")).unwrap();
        release(&engine, &format!("k{n}"), "a");
    }
    assert_eq!((engine.lock_stats().leases(), engine.deadlines()), (0, 0));
    assert!(scanned(&engine.txn(), &mut Scan::new(0, 0, 10), 10).is_empty());
}
