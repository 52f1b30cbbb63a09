//! Sessions: keepalive, their end, and what ends with them.

use super::*;

#[tokio::test]
async fn a_session_ends_with_all_its_locks_at_its_deadline_and_is_never_revived() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let id = engine.txn().open_session("worker", None, Ttl::from_millis(500).ok()).unwrap();
    let with_session = |who: &str| in_session(who, id);
    for key in ["a", "b", "c"] {
        take(&engine, key, with_session("s")).unwrap();
    }
    clock.advance_millis(400);
    engine.txn().keep_alive(id).unwrap();
    clock.advance_millis(499);
    assert_eq!(engine.txn().session(id).unwrap().1, 3);
    assert_eq!(take(&engine, "a", request("x")), None);
    clock.advance_millis(1);
    // Not swept yet: the first reader finds the lock free.
    assert!(take(&engine, "a", request("x")).is_some());
    assert_eq!(engine.txn().keep_alive(id), Err(Unavailable::NoSession));
    let refused = engine.txn().submit(&name("b"), &Op::Acquire { request: with_session("s"), wait: None });
    assert_eq!(refused, Err(Unavailable::NoSession));
    engine.expire_due();
    assert_eq!(engine.lock_stats().leases(), 1);
}

#[tokio::test]
async fn a_keepalive_survives_a_restart_and_an_expired_session_leaves_its_delays() {
    let dir = tempfile::tempdir().unwrap();
    let (path, clock) = (dir.path().join("db"), Clock::manual());
    let engine = on_disk(&path, &clock);
    let id = engine.txn().open_session("job", None, Ttl::from_millis(500).ok()).unwrap();
    let delay = Ttl::from_millis(300).ok();
    take(
        &engine,
        "k",
        Request { ttl: None, ..request("a") }.with(LeaseExtra {
            session: Some(id),
            delay,
            ..LeaseExtra::default()
        }),
    )
    .unwrap();
    clock.advance_millis(400);
    engine.txn().keep_alive(id).unwrap();
    drop(engine);
    clock.advance_millis(400);
    let engine = on_disk(&path, &clock);
    assert!(engine.txn().session(id).is_ok(), "kept until 900 ms");
    clock.advance_millis(100);
    assert_eq!(engine.txn().session(id).err(), Some(Unavailable::NoSession));
    drop(engine);
    let engine = on_disk(&path, &clock);
    assert_eq!(take(&engine, "k", request("b")), None, "the lock rests");
    clock.advance_millis(300);
    assert!(take(&engine, "k", request("b")).is_some());
}

/// Keeps what every commit had in it.
struct Recorded(MemoryBackend, Arc<std::sync::Mutex<Vec<Vec<Record>>>>);

impl Backend for Recorded {
    fn traits(&self) -> crate::journal::BackendTraits {
        self.0.traits()
    }
    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<crate::journal::Loaded, JournalError> {
        self.0.load(boot, now, each)
    }
    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        self.1.lock().unwrap().push(batch.to_vec());
        self.0.commit(batch)
    }
    fn maintain(&mut self) -> Result<bool, JournalError> {
        self.0.maintain()
    }
}

#[tokio::test]
async fn a_session_ends_with_all_its_locks_wherever_the_process_crashes() {
    const LOCKS: usize = 600;
    for is_closed in [true, false] {
        let (clock, commits) = (Clock::manual(), Arc::new(std::sync::Mutex::default()));
        let backend = Recorded(MemoryBackend::default(), Arc::clone(&commits));
        let engine = Engine::start(Box::new(backend), clock.clone(), config()).unwrap();
        let id = engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
        for n in 0..LOCKS {
            take(&engine, &format!("k{n}"), in_session("a", id)).unwrap();
        }
        engine.barrier(engine.last()).await.unwrap();
        if is_closed {
            assert_eq!(engine.txn().close_session(id, true).unwrap(), LOCKS as u32);
        } else {
            clock.advance_millis(500);
            assert!(take(&engine, "k7", request("b")).is_some());
        }
        while engine.expire_due() <= clock.now() {
            engine.barrier(engine.last()).await.unwrap();
        }
        assert_eq!(engine.lock_stats().leases(), u64::from(!is_closed));
        engine.barrier(engine.last()).await.unwrap();
        let records: Vec<Record> = std::mem::take(&mut *commits.lock().unwrap()).concat();
        let end = records.iter().position(|record| *record == Record::SessionEnded(id)).unwrap();
        let first = records.iter().position(|record| matches!(record, Record::Ended(_))).unwrap();
        assert!(end < first, "the end of the session goes before those of its leases");
        for cut in [end, end + 1, first + 1, (first + records.len()) / 2, records.len()] {
            let mut backend = MemoryBackend::default();
            backend.load(Some("boot"), Timestamp::default(), &mut |_| {}).unwrap();
            backend.commit(&records[..cut]).unwrap();
            let found = Engine::start(Box::new(backend), clock.clone(), config()).unwrap();
            let is_over = cut > end || !is_closed;
            let held = (0..LOCKS).filter(|n| {
                let is_held = found.txn().exists(&name(&format!("k{n}"))).unwrap();
                is_held && (is_closed || *n != 7)
            });
            assert_eq!(held.count(), if is_over { 0 } else { LOCKS }, "cut at {cut} of {}", records.len());
        }
    }
}

#[tokio::test]
async fn lists_omit_the_locks_of_a_session_that_is_over() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    for look in [
        |txn: &Txn<'_>| txn.key_count(0).unwrap(),
        |txn: &Txn<'_>| scanned(txn, &mut Scan::new(0, 0, 10), 10).len() as u64,
    ] {
        let id = engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
        take(&engine, "k", in_session("a", id)).unwrap();
        assert_eq!(look(&engine.txn()), 1);
        clock.advance_millis(500);
        assert_eq!(look(&engine.exclusive_txn()), 0);
    }
}

#[tokio::test]
async fn a_keepalive_concurrent_with_the_end_of_its_session_revives_nothing() {
    let engine = memory(&Clock::manual());
    for _ in 0..300 {
        let id = engine.txn().open_session("worker", None, Ttl::from_millis(500).ok()).unwrap();
        let exclusive = engine.exclusive_txn();
        let other = Arc::clone(&engine);
        let begun = Arc::new(std::sync::Barrier::new(2));
        let seen = Arc::clone(&begun);
        let late = std::thread::spawn(move || {
            seen.wait();
            loop {
                match other.txn().keep_alive(id) {
                    Err(Unavailable::Unsettled) => {}
                    kept => return kept,
                }
            }
        });
        begun.wait();
        std::thread::yield_now();
        exclusive.close_session(id, true).unwrap();
        drop(exclusive);
        assert_eq!(late.join().unwrap(), Err(Unavailable::NoSession));
        assert!(!engine.txn().has_session(id));
    }
}

#[tokio::test]
async fn a_waiter_whose_session_is_over_is_granted_nothing_when_another_session_ends() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let open = || engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
    let (first, second) = (open(), open());
    let mut waiters = Vec::new();
    // Whichever of the two sessions ends first.
    for (key, holds, waits) in [("a", first, second), ("b", second, first)] {
        take(&engine, key, in_session("holder", holds)).unwrap();
        let until = clock.now().after(Ttl::from_millis(60_000).ok());
        let dead = engine.txn().submit_or_wait(&name(key), in_session("dead", waits), until).unwrap();
        let Acquired::Blocked(dead) = dead else { panic!("not queued") };
        waiters.push((key, dead, queue(&engine, key, "alive")));
    }
    clock.advance_millis(500);
    engine.expire_due();
    for (key, mut dead, mut alive) in waiters {
        assert!(matches!(dead.outcome().await, WaitOutcome::SessionEnded(_)));
        granted(&mut alive).await;
        assert_eq!(release(&engine, key, "alive"), Outcome::Released(1));
    }
    assert_eq!((engine.sessions(), engine.lock_stats().waiting()), (0, 0));
}

#[tokio::test]
async fn the_session_of_a_connection_ends_with_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (path, clock) = (dir.path().join("db"), Clock::manual());
    let engine = on_disk(&path, &clock);
    let connection = engine.txn().open_session("", None, None).unwrap();
    let lasting = engine.txn().open_session("job", None, Ttl::from_millis(5000).ok()).unwrap();
    take(
        &engine,
        "conn",
        request("a").with(LeaseExtra { session: Some(connection), ..LeaseExtra::default() }),
    )
    .unwrap();
    take(&engine, "job", request("a").with(LeaseExtra { session: Some(lasting), ..LeaseExtra::default() }))
        .unwrap();
    drop(engine);
    let engine = on_disk(&path, &clock);
    assert!(take(&engine, "conn", request("b")).is_some());
    assert_eq!(take(&engine, "job", request("b")), None);
    assert_eq!(engine.txn().session(connection).err(), Some(Unavailable::NoSession));
    assert_eq!(engine.txn().close_session(lasting, true).unwrap(), 1);
}

#[tokio::test]
async fn the_expiry_thread_wakes_for_the_end_of_a_session() {
    let engine = memory(&Clock::manual());
    let far = std::time::Duration::from_secs(60);
    let alarm = &engine.core.deadlines.alarm;
    alarm.sleeper_is(std::thread::current());
    alarm.set(u64::MAX);
    let (watch, begun) = (Clock::system(), Clock::system().now());
    let id = engine.txn().open_session("s", None, Ttl::from_millis(50).ok()).unwrap();
    std::thread::park_timeout(far);
    engine.txn().keep_alive(id).unwrap();
    std::thread::park_timeout(far);
    assert!(u128::from(watch.now().nanos_since(begun)) < far.as_nanos());
}
