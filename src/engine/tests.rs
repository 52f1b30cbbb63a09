//! The lock manager on real backends, under a manual clock.

use std::path::Path;

use super::*;
use crate::domain::{FencingToken, LockName, Owner, Ttl};
use crate::entropy::Entropy;
use crate::journal::{Faults, FaultyBackend, MemoryBackend, Record, SqliteBackend, StoredLease};
use crate::lock::{Lease, LeaseExtra, Mode, Op, Outcome, Request, SetCondition};

fn config() -> EngineConfig {
    let boot = Some("boot".to_owned());
    EngineConfig {
        durability: Durability::Always,
        locks_max: 1_000_000,
        sessions_max: 100,
        waiters_per_lock_max: 1000,
        values_bytes_max: 1 << 30,
        value_elements_max: 1 << 24,
        leases_per_account_max: 2,
        token_floor: 0,
        boot,
        entropy: Entropy::system(),
    }
}

fn memory(clock: &Clock) -> Arc<Engine> {
    Engine::start(Box::new(MemoryBackend::default()), clock.clone(), config()).unwrap()
}

fn on_disk(path: &Path, clock: &Clock) -> Arc<Engine> {
    let backend = SqliteBackend::open(path).unwrap();
    Engine::start(Box::new(backend), clock.clone(), config()).unwrap()
}

fn name(key: &str) -> LockName {
    LockName::new(0, key.as_bytes()).unwrap()
}

fn owner(text: &str) -> Owner {
    Owner::new(text.as_bytes()).unwrap()
}

fn request(who: &str) -> Request {
    Request::exclusive(owner(who), Ttl::from_millis(1000).ok())
}

/// Without a TTL of its own.
fn in_session(who: &str, session: SessionId) -> Request {
    let extra = LeaseExtra { session: Some(session), ..LeaseExtra::default() };
    Request { ttl: None, ..request(who) }.with(extra)
}

/// Takes a lock without waiting; the token, if it was granted.
fn take(engine: &Arc<Engine>, key: &str, request: Request) -> Option<i64> {
    let op = Op::Acquire { request, wait: None };
    loop {
        match engine.txn().submit(&name(key), &op) {
            Err(Unavailable::Unsettled) => {}
            Ok(Outcome::Granted { token, .. }) => return Some(token.get()),
            other => return other.map(|_| None).unwrap(),
        }
    }
}

/// Puts a value whatever is there.
fn set(engine: &Arc<Engine>, key: &str, request: Request) -> Outcome {
    let op = Op::Set { request, condition: SetCondition::Always, keep_ttl: false };
    engine.txn().submit(&name(key), &op).unwrap()
}

fn release(engine: &Arc<Engine>, key: &str, who: &str) -> Outcome {
    engine.txn().submit(&name(key), &Op::Release { owner: owner(who), token: None }).unwrap()
}

fn queue(engine: &Arc<Engine>, key: &str, who: &str) -> Blocked {
    let until = engine.core.clock.now().after(Some(Ttl::from_millis(60_000).unwrap()));
    match engine.txn().submit_or_wait(&name(key), request(who), until).unwrap() {
        Acquired::Blocked(parked) => parked,
        Acquired::Now(outcome) => panic!("not queued: {outcome:?}"),
    }
}

/// The keys that a scan finds when it looks at so many entries.
fn scanned(txn: &Txn<'_>, scan: &mut Scan, entries: usize) -> Vec<String> {
    let mut keys = Vec::new();
    txn.scan(scan, entries, |held| keys.push(String::from_utf8_lossy(held.key()).into_owned())).unwrap();
    keys
}

async fn granted(parked: &mut Blocked) -> i64 {
    match parked.outcome().await {
        WaitOutcome::Granted(token, _) => token.get(),
        other => panic!("not granted: {other:?}"),
    }
}

#[tokio::test]
async fn a_lock_outlives_the_process_with_owner_token_and_remaining_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = Clock::manual();
    let engine = on_disk(&path, &clock);
    let acquire = Op::Acquire { request: request("a"), wait: None };
    let txn = engine.txn();
    let outcome = txn.submit(&name("k"), &acquire).unwrap();
    engine.barrier(txn.finish()).await.unwrap();
    let pseudonym = engine.pseudonyms().short_session(SessionId(1));
    drop(engine);
    clock.advance_millis(400);
    let engine = on_disk(&path, &clock);
    assert_eq!(engine.pseudonyms().short_session(SessionId(1)), pseudonym);
    let (token, holder, left) = engine
        .txn()
        .read(&name("k"), |slot, now| {
            let lease = slot.newest().unwrap();
            (lease.token, lease.owner.clone(), lease.deadline.millis_left(now))
        })
        .unwrap();
    assert_eq!(outcome, Outcome::Granted { token, already_held: false });
    assert_eq!((holder, left), (owner("a"), Some(600)));
    assert_eq!(engine.lock_stats().leases(), 1);
    let later = take(&engine, "other", request("b")).unwrap();
    assert!(later > token.get());
    // Also when nothing is left to derive a token from.
    release(&engine, "k", "a");
    release(&engine, "other", "b");
    drop(engine);
    assert!(take(&on_disk(&path, &clock), "k", request("c")).unwrap() > later);
}

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

/// Were anything linear in the queue, this would not end while somebody looks.
#[tokio::test]
async fn a_hundred_thousand_waiters_cost_each_other_nothing() {
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
async fn a_waiter_that_left_delays_nobody_and_a_grant_nobody_saw_passes_on() {
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
async fn a_grant_that_the_owner_learned_of_elsewhere_is_not_given_back() {
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

#[test]
fn a_boot_clock_that_goes_back_makes_no_lease_longer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = Clock::manual();
    clock.advance_millis(1_000_000);
    let engine = on_disk(&path, &clock);
    assert!(take(&engine, "k", request("me")).is_some());
    engine.close();
    drop(engine);
    let clock = Clock::manual();
    let engine = on_disk(&path, &clock);
    assert_eq!(engine.lock_stats().leases(), 1);
    clock.advance_millis(1000);
    assert!(take(&engine, "k", request("other")).is_some(), "a second is all it had");
}

#[test]
fn locks_whose_names_share_a_hash_end_on_time_whatever_happens_to_the_other() {
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
    assert_eq!((engine.lock_stats().leases(), engine.lock_stats().expiries.read()), (0, 1));
}

#[tokio::test]
async fn expiry_wakes_the_next_in_line_and_timeouts_are_told() {
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
    // Nobody swept: the first to look finds the lock free.
    assert!(take(&engine, "a", request("x")).is_some());
    assert_eq!(engine.txn().keep_alive(id), Err(Unavailable::NoSession));
    let refused = engine.txn().submit(&name("b"), &Op::Acquire { request: with_session("s"), wait: None });
    assert_eq!(refused, Err(Unavailable::NoSession));
    engine.expire_due();
    assert_eq!(engine.lock_stats().leases(), 1);
}

#[tokio::test]
async fn a_keepalive_outlives_the_process_and_an_expired_session_leaves_its_delays() {
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
async fn a_session_ends_with_all_its_locks_wherever_the_process_ends() {
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

/// Were the end of a session linear in those it shares a lock with, this would not end while somebody looks.
#[tokio::test]
async fn sessions_that_share_a_lock_end_without_looking_at_each_other() {
    const SESSIONS: usize = 20_000;
    let clock = Clock::manual();
    let limits = EngineConfig { sessions_max: SESSIONS, waiters_per_lock_max: SESSIONS, ..config() };
    let engine = Engine::start(Box::new(MemoryBackend::default()), clock.clone(), limits).unwrap();
    for mode in [Mode::Shared, Mode::limit(SESSIONS as u32).unwrap()] {
        for n in 0..SESSIONS {
            let id = engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
            let shared = Request { mode, ..in_session(&format!("o{n}"), id) };
            assert!(take(&engine, "k", shared).is_some());
        }
        clock.advance_millis(499);
        assert_eq!(take(&engine, "k", request("x")), None);
        clock.advance_millis(1);
        // One turn frees so much, and says so instead of an answer.
        let asked = Op::Acquire { request: request("x"), wait: None };
        let refused = engine.txn().submit(&name("k"), &asked);
        assert_eq!(refused, Err(Unavailable::Unsettled));
        assert!(engine.lock_stats().leases() > SESSIONS as u64 / 2);
        let mut turns = 1;
        while engine.txn().submit(&name("k"), &asked) == Err(Unavailable::Unsettled) {
            turns += 1;
        }
        assert!((SESSIONS / 1000..SESSIONS / 100).contains(&turns), "{turns}");
        assert_eq!((engine.sessions(), engine.lock_stats().leases()), (0, 1));
        assert_eq!(release(&engine, "k", "x"), Outcome::Released(1));
    }
}

#[tokio::test]
async fn what_expires_together_is_freed_in_turns_and_ends_for_all_at_once() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    for n in 0..3000 {
        assert!(take(&engine, "k", Request { mode: Mode::Shared, ..request(&format!("o{n}")) }).is_some());
    }
    clock.advance_millis(1000);
    let look = |txn: &Txn<'_>| txn.read(&name("k"), |slot, _| slot.holder_count());
    assert_eq!(look(&engine.txn()), Err(Unavailable::Unsettled));
    assert_eq!(engine.lock_stats().leases(), 3000 - 2 * 256);
    // Nobody can have a turn between the operations of a transaction.
    assert_eq!(look(&engine.exclusive_txn()).unwrap(), 0);
}

#[tokio::test]
async fn many_who_share_a_lock_are_granted_it_in_turns_and_in_order() {
    const WAITERS: usize = 900;
    let clock = Clock::manual();
    let engine = memory(&clock);
    take(&engine, "k", request("first")).unwrap();
    let until = clock.now().after(Ttl::from_millis(60_000).ok());
    let mut waiters: Vec<Blocked> = (0..WAITERS)
        .map(|n| {
            let shared = Request { mode: Mode::Shared, ..request(&format!("w{n}")) };
            match engine.txn().submit_or_wait(&name("k"), shared, until).unwrap() {
                Acquired::Blocked(parked) => parked,
                Acquired::Now(outcome) => panic!("not queued: {outcome:?}"),
            }
        })
        .collect();
    assert_eq!(release(&engine, "k", "first"), Outcome::Released(1));
    assert_eq!(engine.lock_stats().leases(), crate::lock::PROMOTIONS_PER_STEP as u64);
    // Those who come later do not get before those who wait.
    let late = Request { mode: Mode::Shared, ..request("late") };
    assert_eq!(take(&engine, "k", late), None);
    while engine.expire_due() <= clock.now() {}
    assert_eq!((engine.lock_stats().leases(), engine.lock_stats().waiting()), (WAITERS as u64, 0));
    let mut last = 0;
    for waiter in &mut waiters {
        let token = granted(waiter).await;
        assert!(token > last);
        last = token;
    }
}

#[tokio::test]
async fn a_transaction_happens_at_one_instant() {
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
async fn the_end_of_a_session_holds_nobody_up_however_many_locks_it_has() {
    const LOCKS: u32 = 5_000;
    let clock = Clock::manual();
    let engine = memory(&clock);
    let id = engine.txn().open_session("s", None, None).unwrap();
    for n in 0..LOCKS {
        take(&engine, &format!("k{n}"), in_session("a", id)).unwrap();
    }
    assert_eq!(engine.txn().close_session(id, true).unwrap(), LOCKS);
    // All of it is over for everybody, and only a part of it is freed.
    assert!(engine.lock_stats().leases() > u64::from(LOCKS) / 2, "{}", engine.lock_stats().leases());
    assert!(scanned(&engine.txn(), &mut Scan::new(0, 0, usize::MAX), usize::MAX).is_empty());
    assert!(take(&engine, "k0", request("b")).is_some() && take(&engine, "k4999", request("b")).is_some());
    assert_eq!(engine.txn().session(id).err(), Some(Unavailable::NoSession));
    let mut steps = 0;
    while engine.expire_due() <= clock.now() {
        steps += 1;
    }
    assert!(steps >= LOCKS / 512, "{steps}");
    assert_eq!(engine.lock_stats().leases(), 2);
}

#[tokio::test]
async fn the_session_of_a_connection_that_went_while_storage_failed_ends_when_it_works_again() {
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
async fn no_list_has_the_locks_of_a_session_that_is_over() {
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

#[test]
fn leases_that_no_server_could_have_left_are_refused() {
    let refused = |records: Vec<Record>| {
        let mut backend = MemoryBackend::default();
        backend.commit(&records).unwrap();
        match Engine::start(Box::new(backend), Clock::manual(), config()) {
            Err(JournalError::Corrupt { what }) => what,
            other => panic!("{:?}", other.err()),
        }
    };
    let granted = |request: &Request, token: i64| {
        let lease = Lease::grant(request, FencingToken::new(token).unwrap(), Timestamp::default());
        Record::Granted(Box::new(StoredLease { name: name("k"), lease }))
    };
    let reserved = || Record::TokensReserved(100);
    let two = vec![reserved(), granted(&request("a"), 1), granted(&request("b"), 2)];
    assert!(refused(two).contains("exclude each other"));
    assert!(refused(vec![reserved(), granted(&request("a"), 101)]).contains("none above 100 was issued"));
    let gone = request("a").with(LeaseExtra { session: Some(SessionId(7)), ..LeaseExtra::default() });
    let mut backend = MemoryBackend::default();
    backend.commit(&[reserved(), granted(&gone, 1)]).unwrap();
    let engine = Engine::start(Box::new(backend), Clock::manual(), config()).unwrap();
    assert!(take(&engine, "k", request("b")).is_some(), "the end of its session ended the lease");
}

#[tokio::test]
async fn a_keepalive_beside_the_end_of_its_session_revives_nothing() {
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
async fn released_locks_leave_nothing_behind() {
    let engine = memory(&Clock::manual());
    for n in 0..20_000 {
        take(&engine, &format!("k{n}"), request("a")).unwrap();
        release(&engine, &format!("k{n}"), "a");
    }
    assert_eq!((engine.lock_stats().leases(), engine.deadlines()), (0, 0));
    assert!(scanned(&engine.txn(), &mut Scan::new(0, 0, 10), 10).is_empty());
}

#[tokio::test]
async fn a_scan_returns_all_that_is_held_throughout_whatever_comes_and_goes() {
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
        engine.verdict(seq) == Some(Err(crate::journal::OutcomeUnknown)),
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
async fn a_scan_of_a_small_database_looks_at_so_much_of_a_large_one_a_call() {
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

#[tokio::test]
async fn at_the_limit_nothing_new_is_granted_and_the_rest_goes_on() {
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
async fn who_asks_again_while_queued_keeps_the_place_in_a_full_queue() {
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
async fn the_end_of_a_session_is_not_slept_over() {
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

#[tokio::test]
async fn sessions_and_running_delays_have_a_limit_too() {
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
async fn a_delay_that_a_set_replaced_is_gone_for_good_and_needs_no_room() {
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
    assert_eq!(engine.lock_stats().replaced.read(), 1);
    drop(engine);
    let engine = start();
    assert_eq!((engine.lock_stats().leases(), engine.lock_stats().kept()), (1, 1));
    assert_eq!(release(&engine, "k", "c"), Outcome::Released(1));
    assert!(take(&engine, "k", request("d")).is_some(), "no lock-delay is running");
}

#[tokio::test]
async fn a_failed_commit_is_taken_back_and_service_resumes() {
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
    assert_eq!(engine.txn().submit(&name("x"), &acquire("a")), Err(Unavailable::Journal(JournalError::Full)));
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
    assert!(matches!(txn.exclusively(|txn| txn.has_session(id)), Err(Unavailable::Journal(_))));
    assert_eq!(engine.barrier(txn.finish()).await, Err(OutcomeUnknown));
}

#[tokio::test]
async fn a_waiter_is_told_that_its_time_is_up_once_what_it_waited_for_is_durable() {
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
    assert_eq!(engine.barrier(seq).await, Err(OutcomeUnknown), "nobody held it after all");
    faults.fail_with(None);
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
async fn a_watch_breaks_at_what_changes_a_lease_and_at_nothing_else() {
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

#[tokio::test]
async fn events_are_told_in_order_once_they_are_durable() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let engine = Engine::start(Box::new(backend), Clock::manual(), config()).unwrap();
    take(&engine, "unheard", request("a")).unwrap();
    engine.listen(true);
    let token = take(&engine, "k", request("a")).unwrap();
    engine.txn().submit(&name("k"), &Op::Force).unwrap();
    let Heard::Events(events) = engine.next_events(10).await else { panic!("none is lost") };
    let told: Vec<_> = events.iter().map(|event| (event.kind.as_str(), event.token.get())).collect();
    assert_eq!(told, [("acquired", token), ("forced", token)]);
    let first = take(&engine, "k", request("a")).unwrap();
    set(&engine, "k", request("b"));
    let Heard::Events(events) = engine.next_events(10).await else { panic!("none is lost") };
    let told: Vec<_> = events.iter().map(|event| (event.kind.as_str(), event.token.get())).collect();
    assert_eq!(told, [("acquired", first), ("replaced", first), ("acquired", first + 1)]);
    faults.fail_with(Some(JournalError::Full));
    let acquire = Op::Acquire { request: request("a"), wait: None };
    engine.txn().submit(&name("never"), &acquire).unwrap();
    assert_eq!(engine.barrier(engine.last()).await, Err(OutcomeUnknown));
    faults.fail_with(None);
    while engine.journal_down().is_some() {
        std::thread::yield_now();
    }
    take(&engine, "after", request("a")).unwrap();
    let Heard::Events(events) = engine.next_events(10).await else { panic!("none is lost") };
    assert_eq!(events[0].name, name("after"), "what failed did not happen");
}

#[tokio::test]
async fn the_queue_of_events_is_bounded_and_what_is_lost_is_told() {
    let engine = Engine::start(Box::new(MemoryBackend::default()), Clock::manual(), config()).unwrap();
    engine.listen(true);
    let long = "k".repeat(1000);
    let renew = |count: usize| {
        let op = Op::Acquire { request: request("a"), wait: None };
        for _ in 0..count {
            engine.clock().advance_millis(1);
            engine.txn().submit(&name(&long), &op).unwrap();
        }
    };
    let events = &engine.core.events;
    renew(100);
    assert!(matches!(engine.next_events(64).await, Heard::Events(events) if events.len() == 64));
    assert!(matches!(engine.next_events(64).await, Heard::Events(events) if events.len() == 36));
    assert_eq!(events.bytes_queued(), 0);
    let fitting = super::events::QUEUE_BYTES_MAX / 1200;
    renew(fitting);
    assert!(events.bytes_queued() > super::events::QUEUE_BYTES_MAX / 2, "nothing is lost yet");
    renew(2 * fitting);
    assert!(events.bytes_queued() <= super::events::QUEUE_BYTES_MAX);
    assert_eq!(engine.next_events(64).await, Heard::Lost(3 * fitting as u64));
    renew(1);
    assert!(matches!(engine.next_events(64).await, Heard::Events(events) if events.len() == 1), "it goes on");
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
        engine.verdict(txn.finish()).is_some()
    };
    let held = |txn: &Txn<'_>, key: &str| txn.exists(&name(key)).unwrap();
    assert!(is_durable(&|txn| assert!(held(txn, "durable"))));
    assert!(!is_durable(&|txn| assert!(held(txn, "k"))));
    assert!(!is_durable(&|txn| assert!(held(txn, "k") && held(txn, "durable"))), "the order does not matter");
    assert!(!is_durable(&|txn| assert!(txn.exclusively(|txn| held(txn, "k")).unwrap())));
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
    assert!(engine.verdict(engine.resume_txn(carried).finish()).is_none(), "and so does the next turn");
    faults.release_commits();
}
