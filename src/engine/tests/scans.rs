//! Scans over the table while it changes.

use super::*;

#[tokio::test]
async fn a_scan_returns_every_lock_that_is_held_throughout() {
    let engine = memory(&Clock::manual());
    for n in 0..1000 {
        take(&engine, &format!("stays{n}"), request("a")).unwrap();
    }
    let (mut cursor, mut seen, mut calls) = (0, std::collections::BTreeSet::new(), 0);
    loop {
        let mut scan = Scan::new(0, cursor, 10);
        let names = scanned(&engine.txn(), &mut scan, 10);
        let next = scan.cursor();
        assert!(names.len() <= 11 && next < 1 << 48);
        seen.extend(names);
        take(&engine, &format!("comes{calls}"), request("a")).unwrap();
        calls += 1;
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(seen.iter().filter(|key| key.starts_with("stays")).count(), 1000);
    assert!(scanned(&engine.txn(), &mut Scan::new(1, 0, 10), 2000).is_empty(), "another database");
}

#[tokio::test]
async fn a_scan_starts_over_when_what_it_saw_was_rolled_back() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let engine = Engine::start(Box::new(backend), Clock::manual(), config()).unwrap();
    for n in 0..100 {
        take(&engine, &format!("stays{n}"), request("a")).unwrap();
    }
    engine.barrier(engine.last()).await.unwrap();
    faults.hold_commits();
    let mut scan = Scan::new(0, 0, usize::MAX);
    assert_eq!(scanned(&engine.txn(), &mut scan, 1).len(), 1);
    (0..100).for_each(|n| assert!(take(&engine, &format!("ghost{n}"), request("a")).is_some()));
    // More of them than of the others are among what is seen now.
    let txn = engine.txn();
    let seen = scanned(&txn, &mut scan, 150);
    assert!(seen.iter().any(|key| key.starts_with("ghost")));
    let stands_on = txn.seen();
    let seq = txn.finish();
    faults.fail_with(Some(JournalError::Full));
    faults.release_commits();
    assert!(engine.barrier(seq).await.is_err(), "it was never durable");
    faults.fail_with(None);
    while engine.check_up().is_err() {
        std::thread::yield_now();
    }
    take(&engine, "later", request("a")).unwrap();
    engine.barrier(engine.last()).await.unwrap();
    assert!(
        engine.durability_of(seq) == Some(Err(crate::journal::OutcomeUnknown)),
        "a later commit changes nothing"
    );
    let mut found = Vec::new();
    let txn = engine.resume_txn(stands_on);
    let scanned = txn
        .scan(&mut scan, usize::MAX, |held| found.push(String::from_utf8_lossy(held.key()).into_owned()))
        .unwrap();
    assert!(scanned.is_restarted && scanned.is_done, "{scanned:?}");
    assert_eq!(found.len(), 101);
    assert!(!found.iter().any(|key| key.starts_with("ghost")));
    assert_eq!(engine.barrier(txn.finish()).await, Ok(()));
}

#[tokio::test]
async fn a_scan_of_a_small_database_visits_a_bounded_part_of_a_large_one_per_call() {
    let engine = memory(&Clock::manual());
    (0..5000).for_each(|n| assert!(take(&engine, &format!("k{n}"), request("a")).is_some()));
    let (mut scan, mut looked, mut calls) = (Scan::new(1, 0, 10), 0, 0);
    loop {
        let scanned = engine.txn().scan(&mut scan, 100, |_| panic!("nothing is held there")).unwrap();
        assert!(scanned.looked <= 101, "{scanned:?}");
        (looked, calls) = (looked + scanned.looked, calls + 1);
        if scanned.is_done {
            break;
        }
    }
    assert_eq!((looked, scan.cursor()), (5000, 0));
    assert!(calls >= 50);
}
