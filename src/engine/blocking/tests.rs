//! Blocked pops under a manual clock, and a race of pushers, poppers and failing commits.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::{Blocked, PopAction, PopRequest, Popped, PoppedElements, Popping, WaitOutcome};
use crate::clock::Clock;
use crate::domain::{LockName, Timestamp, Ttl};
use crate::engine::{Durability, Engine, EngineConfig, Expiry, Txn, Unavailable};
use crate::entropy::Entropy;
use crate::journal::{Faults, FaultyBackend, JournalError, MemoryBackend, Seq};
use crate::lock::{Op, Request, SetCondition};
use crate::value::{End, Kind, Score, Value};

fn config() -> EngineConfig {
    EngineConfig {
        durability: Durability::Always,
        locks_max: 1000,
        sessions_max: 100,
        waiters_per_lock_max: 20_000,
        values_bytes_max: 1 << 30,
        value_elements_max: 1 << 24,
        leases_per_account_max: 2,
        token_floor: 0,
        boot: Some("boot".to_owned()),
        entropy: Entropy::system(),
    }
}

fn start(clock: &Clock) -> (Arc<Engine>, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    (Engine::start(Box::new(backend), clock.clone(), config()).unwrap(), faults)
}

fn name(key: &str) -> LockName {
    LockName::new(0, key.as_bytes()).unwrap()
}

fn push(txn: &Txn<'_>, key: &str, items: &[&str]) -> Result<(), Unavailable> {
    txn.value(&name(key), Kind::List, |edit| {
        let mut list = edit.list().unwrap();
        items.iter().for_each(|item| list.push_back(item.as_bytes()));
    })
}

fn list(engine: &Arc<Engine>, key: &str) -> Vec<String> {
    let items = engine.txn().read_value(&name(key), Kind::List, |value| match value {
        Some(Value::List(list)) => list.range(0..list.len()).map(text).collect(),
        _ => Vec::new(),
    });
    items.unwrap()
}

fn text(item: &[u8]) -> String {
    String::from_utf8_lossy(item).into_owned()
}

fn items(popped: &Popped) -> Vec<String> {
    match &popped.elements {
        PoppedElements::Items(items) => items.iter().map(|item| text(item)).collect(),
        PoppedElements::Members(members) => members.iter().map(|(member, _)| text(member)).collect(),
    }
}

fn request(keys: &[&str], action: PopAction) -> PopRequest {
    PopRequest::new(keys.iter().map(|key| name(key)).collect(), action)
}

const FIRST: PopAction = PopAction::Items { from: End::Front, count: 1 };
const LAST: PopAction = PopAction::Items { from: End::Back, count: 1 };

fn to(destination: &str) -> PopAction {
    PopAction::Move { from: End::Front, destination: name(destination), to: End::Back }
}

fn block(engine: &Arc<Engine>, request: PopRequest, until: Timestamp) -> Blocked {
    match engine.txn().pop_or_wait(request, until).unwrap() {
        Popping::Blocked(blocked) => blocked,
        Popping::Done(popped) => panic!("{popped:?}"),
    }
}

fn wait(engine: &Arc<Engine>, keys: &[&str], action: PopAction) -> Blocked {
    block(engine, request(keys, action), Timestamp::NEVER)
}

/// The outcome, if there is one already.
fn outcome(blocked: &mut Blocked) -> Option<WaitOutcome> {
    match pin!(blocked.outcome()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn got(blocked: &mut Blocked) -> Vec<String> {
    match outcome(blocked) {
        Some(WaitOutcome::Popped(popped, _)) => items(&popped),
        other => panic!("{other:?}"),
    }
}

/// Does all that is due.
fn run_to_completion(engine: &Arc<Engine>) {
    while engine.expire_due() == Timestamp::default() {
        engine.wait_for_commit();
    }
}

/// Waits until a failed commit has been rolled back and writing works again.
fn wait_until_up(engine: &Engine) {
    while engine.journal_down().is_some() {
        std::thread::yield_now();
    }
}

#[test]
fn waits_end_at_their_time_and_leave_nothing_behind() {
    let clock = Clock::manual();
    let (engine, _) = start(&clock);
    let at = |millis| clock.now().after(Ttl::from_millis(millis).ok());
    let mut waiters = [30, 10, 20].map(|millis| block(&engine, request(&["a", "b"], FIRST), at(millis)));
    assert_eq!(engine.blocked_pops(), 3);
    assert_eq!(engine.expire_due(), at(10));
    for (place, left) in [(1, 2), (2, 1), (0, 0)] {
        clock.advance_millis(10);
        engine.expire_due();
        assert!(matches!(outcome(&mut waiters[place]), Some(WaitOutcome::TimedOut(_))));
        assert_eq!(engine.blocked_pops(), left);
    }
    assert_eq!(engine.expire_due(), Timestamp::NEVER);
    assert_eq!((engine.core.pops.len(), engine.core.pops.bytes()), (0, 0));
    drop(wait(&engine, &["a", "a", "b"], FIRST));
    assert_eq!((engine.core.pops.len(), engine.core.pops.bytes()), (0, 0));
}

#[test]
fn an_element_that_was_not_received_goes_back_to_its_end_or_to_the_next() {
    let (engine, _) = start(&Clock::manual());
    let gone = wait(&engine, &["k"], LAST);
    let mut also_gone = wait(&engine, &["k"], PopAction::Items { from: End::Front, count: 2 });
    push(&engine.txn(), "k", &["a", "b", "c", "d"]).unwrap();
    assert_eq!(list(&engine, "k"), ["c"]);
    drop(gone);
    assert_eq!(list(&engine, "k"), ["c", "d"]);
    assert_eq!(got(&mut also_gone), ["a", "b"]);
    also_gone.undo();
    assert_eq!(list(&engine, "k"), ["a", "b", "c", "d"]);
    let mut rest = wait(&engine, &["other"], FIRST);
    push(&engine.txn(), "other", &["x"]).unwrap();
    let mut next = wait(&engine, &["other"], FIRST);
    assert_eq!(got(&mut rest), ["x"]);
    rest.undo();
    assert_eq!(got(&mut next), ["x"], "it does not wait for another push");
}

#[test]
fn elements_return_with_the_deadline_and_without_the_limits_of_their_value() {
    let clock = Clock::manual();
    let (engine, _) = start(&clock);
    let expire = |millis| Op::SetTtl { ttl: Ttl::from_millis(millis).ok() };
    for millis in [50, 100] {
        push(&engine.txn(), "k", &["a"]).unwrap();
        engine.txn().submit(&name("k"), &expire(100)).unwrap();
        let Ok(Popping::Done(popped)) = engine.txn().pop_or_wait(request(&["k"], FIRST), Timestamp::NEVER)
        else {
            panic!("there is an element")
        };
        let seen = engine.txn().seen();
        clock.advance_millis(millis);
        engine.push_back(popped, seen);
        assert_eq!(list(&engine, "k").len(), usize::from(millis == 50));
        let left = engine.txn().read_key(&name("k"), |content, now| content.deadline()?.millis_left(now));
        assert_eq!(left.unwrap(), (millis == 50).then_some(50));
        engine.txn().submit(&name("k"), &Op::Delete { if_owner: None }).unwrap();
    }
    // A member that was added again meanwhile stays as it is.
    let add = |score| {
        let insert = |sorted: &mut crate::value::Edit<'_>| {
            sorted.sorted_set().unwrap().insert(b"m", Score::new(score).unwrap())
        };
        engine.txn().value(&name("z"), Kind::SortedSet, insert).unwrap()
    };
    let mut waiter = wait(&engine, &["z"], PopAction::Members { from: End::Back, count: 5 });
    add(1.0);
    assert_eq!(got(&mut waiter), ["m"]);
    add(2.0);
    waiter.undo();
    let score = engine.txn().read_value(&name("z"), Kind::SortedSet, |value| match value {
        Some(Value::SortedSet(sorted)) => sorted.score(b"m").map(Score::get),
        _ => None,
    });
    assert_eq!(score.unwrap(), Some(2.0));
    // A key of another type keeps what it has.
    let mut waiter = wait(&engine, &["k"], FIRST);
    push(&engine.txn(), "k", &["a"]).unwrap();
    assert_eq!(got(&mut waiter), ["a"]);
    let string = Request::exclusive(crate::domain::Owner::new(b"s").unwrap(), None);
    let set = Op::Set { request: string, condition: SetCondition::Always, keep_ttl: false };
    engine.txn().submit(&name("k"), &set).unwrap();
    waiter.undo();
    run_to_completion(&engine);
    assert!(engine.core.undelivered.0.lock().is_empty());
    assert!(engine.txn().read(&name("k"), |slot, _| slot.newest().is_some()).unwrap());
}

#[test]
fn an_item_that_was_moved_goes_back_unless_it_has_moved_on() {
    let (engine, _) = start(&Clock::manual());
    for takes_it in [false, true] {
        let mut waiter = wait(&engine, &["from"], to("to"));
        push(&engine.txn(), "from", &["a", "b"]).unwrap();
        assert_eq!((list(&engine, "from"), list(&engine, "to")), (vec!["b".into()], vec!["a".into()]));
        assert_eq!(got(&mut waiter), ["a"]);
        if takes_it {
            let taken =
                engine.txn().exclusively(&[], |txn| txn.pop(&request(&["to"], LAST))).unwrap().unwrap();
            assert_eq!(items(&taken.unwrap()), ["a"]);
        }
        waiter.undo();
        assert_eq!(list(&engine, "from").len(), if takes_it { 1 } else { 2 });
        assert_eq!(list(&engine, "to"), [""; 0]);
        engine.txn().submit(&name("from"), &Op::Delete { if_owner: None }).unwrap();
    }
    let mut waiter = wait(&engine, &["k"], to("k"));
    push(&engine.txn(), "k", &["a", "b"]).unwrap();
    assert_eq!((got(&mut waiter), list(&engine, "k")), (vec!["a".into()], vec!["b".into(), "a".into()]));
    waiter.undo();
    assert_eq!(list(&engine, "k"), ["a", "b"]);
}

#[test]
fn a_request_does_not_overtake_those_who_wait() {
    let (engine, _) = start(&Clock::manual());
    let mut first = wait(&engine, &["k"], FIRST);
    let mut second = None;
    engine
        .txn()
        .exclusively(&[], |txn| {
            push(txn, "k", &["a", "b"]).unwrap();
            assert!(outcome(&mut first).is_none(), "nothing is served inside a transaction");
        })
        .unwrap();
    assert_eq!(got(&mut first), ["a"]);
    // As long as there are many to serve, later requests wait behind them.
    let mut many: Vec<Blocked> = (0..1000).map(|_| wait(&engine, &["q", "r"], FIRST)).collect();
    let serving = engine.core.pops.begin_serving().unwrap();
    push(&engine.txn(), "q", &["item"; 1001]).unwrap();
    if let Ok(Popping::Blocked(blocked)) = engine.txn().pop_or_wait(request(&["q"], FIRST), Timestamp::NEVER)
    {
        second = Some(blocked);
    }
    drop(serving);
    // A step serves a part of them.
    engine.serve_pops();
    let served = many.iter_mut().filter_map(outcome).count();
    assert_eq!(served, 64);
    run_to_completion(&engine);
    assert_eq!(served + many[served..].iter_mut().filter_map(outcome).count(), 1000);
    assert_eq!(got(&mut second.unwrap()), ["item"]);
    assert_eq!((list(&engine, "q").len(), engine.blocked_pops()), (0, 0));
}

#[test]
fn queues_are_bounded() {
    let backend = Box::new(MemoryBackend::default());
    let config = EngineConfig { waiters_per_lock_max: 2, ..config() };
    let engine = Engine::start(backend, Clock::manual(), config).unwrap();
    let waiters = [wait(&engine, &["a"], FIRST), wait(&engine, &["a", "b"], to("c"))];
    let refused = engine.txn().pop_or_wait(request(&["b", "a"], FIRST), Timestamp::NEVER);
    assert!(matches!(refused, Err(Unavailable::WaitersMax)));
    drop(waiters);
    assert_eq!(engine.core.pops.bytes(), 0);
    drop(wait(&engine, &["b", "a"], FIRST));
}

#[tokio::test]
async fn a_pop_whose_commit_fails_leaves_the_element_where_it_was() {
    let (engine, faults) = start(&Clock::manual());
    let txn = engine.txn();
    push(&txn, "k", &["a"]).unwrap();
    engine.barrier(txn.finish()).await.unwrap();
    faults.hold_commits();
    let mut waiter = wait(&engine, &["other", "nosuch"], FIRST);
    let mut waits_on = wait(&engine, &["nosuch"], FIRST);
    let txn = engine.txn();
    let Popping::Done(taken) = txn.pop_or_wait(request(&["k"], FIRST), Timestamp::NEVER).unwrap() else {
        panic!("there is an element")
    };
    let seen = txn.seen();
    push(&engine.txn(), "other", &["b"]).unwrap();
    let Some(WaitOutcome::Popped(_, seen_by_waiter)) = outcome(&mut waiter) else { panic!("served") };
    faults.fail_with(Some(JournalError::Full));
    faults.release_commits();
    assert!(engine.barrier(txn.finish()).await.is_err());
    assert!(engine.barrier(seen_by_waiter.seq()).await.is_err());
    // The journal is down: what is put back waits, and is there already when it is up again.
    engine.push_back(taken, seen);
    faults.fail_with(None);
    wait_until_up(&engine);
    drop(waiter);
    engine.expire_due();
    assert_eq!(outcome(&mut waits_on), Some(WaitOutcome::Unavailable));
    assert_eq!((list(&engine, "k"), list(&engine, "other")), (vec!["a".into()], vec![]));
    assert_eq!(engine.blocked_pops(), 0);
}

/// What became of the items in a race.
#[derive(Default)]
struct Account {
    /// Pushed, and durable.
    kept: BTreeSet<String>,
    delivered: Vec<String>,
}

fn push_once(engine: &Arc<Engine>, key: &str, items: &[&str], alone: bool) -> (Result<(), Unavailable>, Seq) {
    let txn = engine.txn();
    let pushed = match alone {
        true => txn.exclusively(&[], |txn| push(txn, key, items)).and_then(|pushed| pushed),
        false => push(&txn, key, items),
    };
    (pushed, txn.finish())
}

fn pop_once(engine: &Arc<Engine>, request: PopRequest) -> (Result<Popping, Unavailable>, Seq) {
    let txn = engine.txn();
    (txn.pop_or_wait(request, Timestamp::NEVER), txn.finish())
}

impl Account {
    fn is_far_behind(&self) -> bool {
        self.kept.len() > self.delivered.len() + 20
    }
}

async fn push_many(engine: Arc<Engine>, pusher: u64, random: Entropy, account: Arc<Mutex<Account>>) {
    for n in 0..150 {
        let key = ["a", "b", "c"][random.number() as usize % 3];
        let items: Vec<String> = (0..1 + random.number() % 3).map(|m| format!("{pusher}-{n}-{m}")).collect();
        let items: Vec<&str> = items.iter().map(String::as_str).collect();
        let alone = random.number().is_multiple_of(4);
        let (pushed, seq) = loop {
            match push_once(&engine, key, &items, alone) {
                // Refused while the gate is closed. Its thread may not run at present.
                (Err(Unavailable::Unsettled | Unavailable::Busy), _) => tokio::task::yield_now().await,
                pushed => break pushed,
            }
        };
        if engine.barrier(seq).await.is_ok() && pushed.is_ok() {
            account.lock().kept.extend(items.iter().map(|item| (*item).to_owned()));
        }
        // The poppers keep up, and some commits succeed.
        while engine.journal_down().is_some() || account.lock().is_far_behind() {
            tokio::task::yield_now().await;
        }
    }
}

async fn pop_many(engine: Arc<Engine>, random: Entropy, over: Arc<AtomicBool>, account: Arc<Mutex<Account>>) {
    while !over.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
        let end = if random.number().is_multiple_of(2) { End::Front } else { End::Back };
        let count = 1 + random.number() as usize % 3;
        let (keys, action) = match random.number() % 5 {
            0 => (&["a"][..], to("b")),
            1 => (&["c", "a"][..], PopAction::Items { from: end, count }),
            2 => (&["b"][..], PopAction::Items { from: end, count }),
            _ => (&["a", "b", "c"][..], PopAction::Items { from: end, count: 1 }),
        };
        let is_move = matches!(action, PopAction::Move { .. });
        let is_delivered = !random.number().is_multiple_of(3);
        let (popping, seq) = pop_once(&engine, request(keys, action));
        let (popped, seq, blocked) = match popping {
            Ok(Popping::Done(popped)) => (popped, seq, None),
            Ok(Popping::Blocked(mut blocked)) => {
                let patience = random.number() % 20;
                let mut found = None;
                for _ in 0..patience {
                    found = outcome(&mut blocked);
                    if found.is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                match found {
                    Some(WaitOutcome::Popped(popped, seen)) => (popped, seen.seq(), Some(blocked)),
                    // Gone, or told that the journal failed.
                    _ => continue,
                }
            }
            Err(_) => continue,
        };
        if engine.barrier(seq).await.is_err() {
            continue;
        }
        match blocked {
            Some(blocked) if !is_delivered => blocked.undo(),
            _ if is_move => {}
            _ => account.lock().delivered.extend(items(&popped)),
        }
    }
}

/// Every durable item is delivered once or still there, no matter which clients disconnect and which
/// commits fail.
#[test]
fn no_item_is_lost_or_delivered_twice() {
    for seed in 0..3 {
        let (engine, faults) = start(&Clock::system());
        let expiry = Expiry::start(&engine).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
        let account = Arc::<Mutex<Account>>::default();
        let over = Arc::new(AtomicBool::new(false));
        let random = |n| Entropy::seeded(seed * 100 + n);
        let poppers: Vec<_> = (0..4)
            .map(|n| runtime.spawn(pop_many(engine.clone(), random(n), over.clone(), account.clone())))
            .collect();
        let pushers: Vec<_> = (10..12)
            .map(|n| runtime.spawn(push_many(engine.clone(), n, random(n), account.clone())))
            .collect();
        runtime.block_on(async {
            for pusher in pushers {
                while !pusher.is_finished() {
                    faults.fail_with(Some(JournalError::Full));
                    while engine.journal_down().is_none() && !pusher.is_finished() {
                        tokio::task::yield_now().await;
                    }
                    faults.fail_with(None);
                    while engine.journal_down().is_some() {
                        tokio::task::yield_now().await;
                    }
                    let commits = engine.commits().0;
                    while engine.commits().0 < commits + 50 && !pusher.is_finished() {
                        tokio::task::yield_now().await;
                    }
                }
                pusher.await.unwrap();
            }
            over.store(true, Ordering::Release);
            for popper in poppers {
                popper.await.unwrap();
            }
        });
        wait_until_up(&engine);
        run_to_completion(&engine);
        drop(expiry);
        let left: Vec<String> = ["a", "b", "c"].iter().flat_map(|key| list(&engine, key)).collect();
        let account = account.lock();
        let all: Vec<&String> = account.delivered.iter().chain(&left).collect();
        let distinct: BTreeSet<&String> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len(), "seed {seed}: an item is there twice");
        let lost: Vec<&String> = account.kept.iter().filter(|item| !distinct.contains(item)).collect();
        assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
        assert_eq!(distinct.len(), account.kept.len(), "seed {seed}: what was not durable is gone");
        assert_eq!(engine.blocked_pops(), 0, "seed {seed}");
        assert!(account.delivered.len() > 20, "seed {seed}: {}", account.delivered.len());
        assert!(engine.has_ever_failed(), "seed {seed}: a commit failed");
    }
}
