//! What one call does is bounded, however much has ended: counted in leases that are left after it.

use super::*;
use crate::lock::ENDS_PER_STEP;

/// More than a few steps free.
const MANY: usize = 3000;
/// More than what one call of a thread that serves requests frees.
const FREED_MAX: u64 = 3 * ENDS_PER_STEP as u64;

fn shared(who: &str) -> Request {
    Request { mode: Mode::Shared, ..request(who) }
}

fn large(clock: &Clock) -> Arc<Engine> {
    let config = EngineConfig { sessions_max: MANY, leases_per_account_max: MANY as u64, ..config() };
    Engine::start(Box::new(MemoryBackend::default()), clock.clone(), config).unwrap()
}

fn leases(engine: &Engine) -> u64 {
    engine.lock_stats().leases()
}

/// Calls `attempt` until it is not refused for what must be freed first, each time with its share
/// of that. Returns the result and the number of attempts.
fn in_turns<R>(
    engine: &Arc<Engine>,
    mut attempt: impl FnMut() -> Result<R, Unavailable>,
) -> (Result<R, Unavailable>, usize) {
    for attempts in 1.. {
        let before = leases(engine);
        let done = attempt();
        assert!(before.saturating_sub(leases(engine)) <= FREED_MAX, "attempt {attempts} freed too many");
        if !matches!(done, Err(Unavailable::Unsettled)) {
            return (done, attempts);
        }
    }
    unreachable!()
}

#[test]
fn what_has_ended_is_freed_in_turns_before_an_exclusive_transaction() {
    let clock = Clock::manual();
    let engine = large(&clock);
    (0..MANY).for_each(|n| assert!(take(&engine, "shared", shared(&format!("o{n}"))).is_some()));
    (0..MANY).for_each(|n| assert!(take(&engine, &format!("k{n}"), request("a")).is_some()));
    clock.advance_millis(1000);
    let mut names: Vec<LockName> = (0..MANY).map(|n| name(&format!("k{n}"))).collect();
    names.push(name("shared"));
    let mut runs = 0;
    let (done, attempts) = in_turns(&engine, || {
        engine.txn().exclusively(&names, |txn| {
            runs += 1;
            assert_eq!(leases(&engine), 0);
            txn.submit(&name("shared"), &Op::Acquire { request: request("b"), wait: None })
        })
    });
    assert!(matches!(done, Ok(Ok(Outcome::Granted { .. }))), "{done:?}");
    assert!(attempts >= 2 * MANY / FREED_MAX as usize && runs == 1, "{attempts} attempts, {runs} runs");
}

#[test]
fn a_scan_passes_over_the_ended_holders_of_one_lock_in_turns() {
    let clock = Clock::manual();
    let engine = large(&clock);
    take(&engine, "held", Request { ttl: None, ..request("a") }).unwrap();
    for n in 0..MANY {
        let id = engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
        take(&engine, "k", Request { mode: Mode::Shared, ..in_session(&format!("o{n}"), id) }).unwrap();
    }
    clock.advance_millis(500);
    for is_exclusive in [false, true] {
        let (mut scan, mut keys, mut calls) = (Scan::new(0, 0, usize::MAX), Vec::new(), 0);
        let mut look = |txn: &Txn<'_>| loop {
            let scanned = txn
                .scan(&mut scan, 256, |held| keys.push(String::from_utf8_lossy(held.key()).into_owned()))
                .unwrap();
            assert!(scanned.looked + scanned.ended <= 2 * ENDS_PER_STEP, "{scanned:?}");
            calls += 1;
            if scanned.is_done {
                break;
            }
        };
        match is_exclusive {
            true => look(&engine.exclusive_txn()),
            false => look(&engine.txn()),
        }
        assert_eq!(keys, ["held"]);
        assert_eq!(calls > MANY / ENDS_PER_STEP, !is_exclusive, "the first scan has freed them: {calls}");
    }
}

#[test]
fn what_counts_toward_an_account_and_has_ended_is_freed_in_turns() {
    let clock = Clock::manual();
    let engine = large(&clock);
    let account = || LeaseExtra { account: Some("web".into()), ..LeaseExtra::default() };
    (0..MANY).for_each(|n| assert!(take(&engine, &format!("k{n}"), request("a").with(account())).is_some()));
    let id = engine.txn().open_session("s", None, Ttl::from_millis(500).ok()).unwrap();
    let acquire = Op::Acquire { request: request("b").with(account()), wait: None };
    assert_eq!(engine.txn().submit(&name("other"), &acquire), Err(Unavailable::AccountMax));
    assert_eq!(release(&engine, "k0", "a"), Outcome::Released(1));
    // Its lease ends with the session, before those of the others.
    take(&engine, "k0", in_session("a", id).with(LeaseExtra { session: Some(id), ..account() })).unwrap();
    clock.advance_millis(500);
    let (done, _) = in_turns(&engine, || engine.txn().submit(&name("other"), &acquire));
    assert!(matches!(done, Ok(Outcome::Granted { .. })), "{done:?}");
    assert_eq!(engine.txn().submit(&name("k0"), &acquire), Err(Unavailable::AccountMax));
    clock.advance_millis(500);
    assert!(matches!(engine.txn().submit(&name("k0"), &acquire), Ok(Outcome::Granted { .. })));
    assert!(leases(&engine) > MANY as u64 - FREED_MAX, "a little was freed, which was enough");
}

#[tokio::test]
async fn a_waiter_that_leaves_frees_little_of_what_has_ended_and_the_rest_follows() {
    let clock = Clock::manual();
    let engine = large(&clock);
    (0..MANY).for_each(|n| assert!(take(&engine, "k", shared(&format!("o{n}"))).is_some()));
    let (gone, mut next) = (queue(&engine, "k", "gone"), queue(&engine, "k", "next"));
    clock.advance_millis(1000);
    drop(gone);
    assert!(leases(&engine) >= MANY as u64 - FREED_MAX);
    assert_eq!(engine.lock_stats().waiting(), 2, "its place is given up later");
    while engine.expire_due() <= clock.now() {}
    assert_eq!((leases(&engine), engine.lock_stats().waiting()), (1, 0));
    granted(&mut next).await;
    assert!(!engine.core.cancellations.are_pending());
}

#[tokio::test]
async fn all_leases_of_a_lock_end_at_once_and_are_freed_in_turns() {
    let delay = Ttl::from_millis(300).ok();
    for op in [Op::Force, Op::Delete { if_owner: None }] {
        let clock = Clock::manual();
        let engine = large(&clock);
        let delayed = |n| shared(&format!("o{n}")).with(LeaseExtra { delay, ..LeaseExtra::default() });
        (0..MANY).for_each(|n| assert!(take(&engine, "k", delayed(n)).is_some()));
        let mut waiter = queue(&engine, "k", "w");
        assert_eq!(engine.txn().submit(&name("k"), &op), Ok(Outcome::Released(MANY as u32)));
        assert_eq!(leases(&engine), (MANY - ENDS_PER_STEP) as u64);
        assert!(scanned(&engine.txn(), &mut Scan::new(0, 0, 10), 10).is_empty(), "no list has it");
        clock.advance_millis(100);
        // A holder that asks again has lost it, and comes after those who wait.
        let again = Op::Renew { owner: owner("o0"), ttl: None, token: None };
        let (done, attempts) = in_turns(&engine, || engine.txn().submit(&name("k"), &again));
        assert_eq!(done, Ok(Outcome::NotHeld));
        assert!(attempts >= MANY / FREED_MAX as usize);
        if op == Op::Force {
            assert_eq!(leases(&engine), 0, "the lock rests");
            clock.advance_millis(199);
            assert!(engine.expire_due() > clock.now());
            clock.advance_millis(1);
            engine.expire_due();
        }
        granted(&mut waiter).await;
        assert_eq!(leases(&engine), 1);
    }
}

#[test]
fn what_is_left_of_a_lock_whose_leases_all_ended_is_freed_without_a_request() {
    let clock = Clock::manual();
    let engine = large(&clock);
    (0..MANY).for_each(|n| assert!(take(&engine, "k", shared(&format!("o{n}"))).is_some()));
    assert_eq!(engine.txn().submit(&name("k"), &Op::Force), Ok(Outcome::Released(MANY as u32)));
    while engine.expire_due() <= clock.now() {}
    assert_eq!((leases(&engine), engine.deadlines()), (0, 0));
}

#[test]
fn in_an_exclusive_transaction_all_leases_of_a_lock_are_freed_at_once() {
    let clock = Clock::manual();
    let engine = large(&clock);
    (0..MANY).for_each(|n| assert!(take(&engine, "k", shared(&format!("o{n}"))).is_some()));
    let exclusive = engine.exclusive_txn();
    assert_eq!(exclusive.submit(&name("k"), &Op::Force), Ok(Outcome::Released(MANY as u32)));
    exclusive.free_ended(&name("k")).unwrap();
    assert_eq!(leases(&engine), 0);
}

/// Work linear in the sessions for each of them would take minutes here.
#[tokio::test]
async fn sessions_that_share_a_lock_end_in_time_linear_in_their_number() {
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

#[test]
fn a_shared_lock_is_checked_in_turns_for_sessions_that_ended() {
    const SESSIONS: usize = 5000;
    let clock = Clock::manual();
    let limits = EngineConfig { sessions_max: 3 * SESSIONS, ..config() };
    let engine = Engine::start(Box::new(MemoryBackend::default()), clock.clone(), limits).unwrap();
    let shared = |n: usize, id| Request { mode: Mode::Shared, ..in_session(&format!("o{n}"), id) };
    let open = |ttl| engine.txn().open_session("s", None, Ttl::from_millis(ttl).ok()).unwrap();
    let held = |key: &str| engine.txn().read(&name(key), |slot, _| slot.holder_count());
    for n in 0..SESSIONS {
        take(&engine, "crowded", shared(n, open(5000))).unwrap();
        take(&engine, &format!("k{n}"), shared(n, open(500))).unwrap();
    }
    let last = open(500);
    take(&engine, "crowded", shared(SESSIONS, last)).unwrap();
    clock.advance_millis(500);
    // First the sessions end, some in each turn, then the lock is checked for them.
    let (found, attempts) = in_turns(&engine, || held("crowded"));
    assert_eq!(found, Ok(SESSIONS));
    assert!((4..50).contains(&attempts), "{attempts}");
    assert!(engine.lock_stats().leases() > SESSIONS as u64 + SESSIONS as u64 / 2, "the others are not freed");
    // Now there is nothing to check.
    assert_eq!(held("crowded"), Ok(SESSIONS));
    while engine.expire_due() <= clock.now() {}
    assert_eq!(engine.lock_stats().leases(), SESSIONS as u64);
}

#[tokio::test]
async fn sessions_of_many_connections_that_are_gone_end_in_steps() {
    const CONNECTIONS: usize = 1000;
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let limits = EngineConfig { sessions_max: 2 * CONNECTIONS, ..config() };
    let engine = Engine::start(Box::new(backend), Clock::manual(), limits).unwrap();
    let ids: Vec<SessionId> =
        (0..CONNECTIONS).map(|_| engine.txn().open_session("", None, None).unwrap()).collect();
    let kept = engine.txn().open_session("", None, None).unwrap();
    engine.barrier(engine.last()).await.unwrap();
    faults.fail_with(Some(JournalError::Full));
    let lost = Op::Acquire { request: request("a"), wait: None };
    engine.txn().submit(&name("lost"), &lost).unwrap();
    assert_eq!(engine.barrier(engine.last()).await, Err(OutcomeUnknown));
    ids.into_iter().for_each(|id| engine.connection_is_gone(id));
    faults.fail_with(None);
    while engine.check_up().is_err() {
        std::thread::yield_now();
    }
    let mut steps = 0;
    while engine.sessions() > 1 {
        let before = engine.sessions();
        let next = engine.expire_due();
        assert!((1..=256).contains(&(before - engine.sessions())));
        assert!(next == Timestamp::default() || engine.sessions() == 1);
        steps += 1;
    }
    assert_eq!(steps, CONNECTIONS.div_ceil(256));
    assert!(engine.txn().has_session(kept));
}

#[tokio::test]
async fn leases_that_expire_together_are_freed_in_turns() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    for n in 0..3000 {
        assert!(take(&engine, "k", Request { mode: Mode::Shared, ..request(&format!("o{n}")) }).is_some());
    }
    clock.advance_millis(1000);
    let look = |txn: &Txn<'_>| txn.read(&name("k"), |slot, _| slot.holder_count());
    assert_eq!(look(&engine.txn()), Err(Unavailable::Unsettled));
    assert_eq!(engine.lock_stats().leases(), 3000 - 2 * 256);
    // No other request runs between the operations of a transaction.
    assert_eq!(look(&engine.exclusive_txn()).unwrap(), 0);
}

#[tokio::test]
async fn many_shared_waiters_are_granted_in_turns_and_in_order() {
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
async fn a_session_with_many_locks_ends_at_once_and_is_freed_in_turns() {
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
