//! Queues: order, waiters that leave, grants that are not received.

use super::*;

#[tokio::test]
async fn five_hundred_waiters_are_served_in_order() {
    let engine = memory(&Clock::manual());
    take(&engine, "k", request("first")).unwrap();
    let mut waiters: Vec<_> = (0..500).map(|n| (n, queue(&engine, "k", &format!("w{n}")))).collect();
    release(&engine, "k", "first");
    let mut last = 0;
    for (n, waiter) in &mut waiters {
        let token = granted(waiter).await;
        assert!(token > last);
        last = token;
        assert_eq!(release(&engine, "k", &format!("w{n}")), Outcome::Released(1));
    }
    assert_eq!((engine.lock_stats().leases(), engine.deadlines()), (0, 0));
}

/// Work linear in the queue for each step would take minutes here.
#[tokio::test]
async fn a_hundred_thousand_waiters_take_time_linear_in_their_number() {
    const WAITERS: usize = 100_000;
    let clock = Clock::manual();
    let limits = EngineConfig { waiters_per_lock_max: WAITERS, ..config() };
    let engine = Engine::start(Box::new(MemoryBackend::default()), clock, limits).unwrap();
    take(&engine, "k", request("first")).unwrap();
    let mut waiters: Vec<_> = (0..WAITERS).map(|n| Some(queue(&engine, "k", &format!("w{n}")))).collect();
    assert_eq!(engine.lock_stats().waiting(), WAITERS as u64);
    // Two of three go away, from the back.
    for n in (0..WAITERS).rev().filter(|n| n % 3 != 0) {
        waiters[n] = None;
    }
    let mut before = String::from("first");
    for (n, waiter) in waiters.iter_mut().enumerate().filter_map(|(n, waiter)| Some((n, waiter.as_mut()?))) {
        assert_eq!(release(&engine, "k", &before), Outcome::Released(1));
        granted(waiter).await;
        before = format!("w{n}");
    }
    assert_eq!((engine.lock_stats().waiting(), engine.lock_stats().leases()), (0, 1));
}

#[tokio::test]
async fn a_waiter_that_left_is_skipped_and_an_unreceived_grant_passes_on() {
    let engine = memory(&Clock::manual());
    take(&engine, "k", request("a")).unwrap();
    let gone = queue(&engine, "k", "gone");
    let unseen = queue(&engine, "k", "unseen");
    let mut next = queue(&engine, "k", "next");
    drop(gone);
    release(&engine, "k", "a");
    // "unseen" has the grant and goes away before it looked.
    drop(unseen);
    granted(&mut next).await;
    assert_eq!(release(&engine, "k", "next"), Outcome::Released(1));
}

#[tokio::test]
async fn an_acknowledged_grant_is_not_reverted() {
    let engine = memory(&Clock::manual());
    take(&engine, "k", request("a")).unwrap();
    let unseen = queue(&engine, "k", "b");
    release(&engine, "k", "a");
    // The connection of "b" is gone, and "b" asks again over another one.
    let token = take(&engine, "k", request("b")).unwrap();
    drop(unseen);
    assert_eq!(take(&engine, "k", request("c")), None, "it is still held");
    assert_eq!(take(&engine, "k", request("b")), Some(token));
}
