//! WATCH.

use super::*;

#[tokio::test]
async fn a_watch_breaks_when_a_lock_changes_or_expires() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let watch = |key: &str| {
        let mut watch = Watch::new(&engine);
        watch.add(&engine.txn(), &name(key)).unwrap();
        watch
    };
    let (first, unrelated) = (watch("k"), watch("other"));
    take(&engine, "k", request("a")).unwrap();
    assert!(first.is_broken(&engine.txn()).unwrap());
    let second = watch("k");
    assert_eq!(take(&engine, "k", request("b")), None, "a refusal changes nothing");
    let waiter = queue(&engine, "k", "b");
    drop(waiter);
    assert!(!second.is_broken(&engine.txn()).unwrap(), "nor does who only waits");
    clock.advance_millis(1000);
    assert!(second.is_broken(&engine.exclusive_txn()).unwrap(), "expired, but not swept yet");
    assert!(!unrelated.is_broken(&engine.txn()).unwrap());
}

/// Whether a watch of `k` breaks when `change` runs.
fn breaks<R>(engine: &Arc<Engine>, change: impl FnOnce() -> R) -> bool {
    let mut watch = Watch::new(engine);
    watch.add(&engine.txn(), &name("k")).unwrap();
    change();
    watch.is_broken(&engine.txn()).unwrap()
}

#[tokio::test]
async fn a_watch_breaks_only_when_a_lease_changes() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let delay = Ttl::from_millis(50).ok();
    let delayed = || request("a").with(LeaseExtra { delay, ..LeaseExtra::default() });
    let lock = || take(&engine, "k", delayed());
    let take_over = || take(&engine, "k", request("b"));
    assert!(breaks(&engine, lock));
    assert!(!breaks(&engine, lock), "asking again at the same instant moves no end");
    clock.advance_millis(1);
    assert!(breaks(&engine, lock), "asking again later does");
    assert!(breaks(&engine, || set(&engine, "k", request("a"))), "so does a SET of the same value");
    assert!(!breaks(&engine, || release(&engine, "k", "b")));
    clock.advance_millis(1000);
    engine.expire_due();
    assert!(!breaks(&engine, take_over), "the lock-delay is running");
    assert!(!breaks(&engine, || clock.advance_millis(50)), "its end frees nothing that was held");
    assert!(breaks(&engine, take_over));
    let op = Op::Set { request: request("b"), condition: SetCondition::Always, keep_ttl: true };
    assert!(breaks(&engine, || engine.txn().submit(&name("k"), &op).unwrap()));
}
