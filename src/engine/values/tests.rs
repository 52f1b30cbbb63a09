//! Values on real backends, under a manual clock.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::domain::{LockName, Owner, SessionId, Timestamp, Ttl};
use crate::engine::{
    Acquired, Draft, Durability, Engine, EngineConfig, KeyKind, Renamed, Scan, Txn, Unavailable, Watch,
};
use crate::entropy::Entropy;
use crate::journal::{Faults, FaultyBackend, JournalError, MemoryBackend, SqliteBackend};
use crate::lock::{LeaseExtra, Mode, Op, Outcome, Refusal, Request, SetCondition};
use crate::value::{Edit, Kind, Value};

fn config() -> EngineConfig {
    EngineConfig {
        durability: Durability::Always,
        locks_max: 1000,
        sessions_max: 100,
        waiters_per_lock_max: 1000,
        values_bytes_max: 1 << 30,
        value_elements_max: 1 << 24,
        leases_per_account_max: 2,
        token_floor: 0,
        boot: Some("boot".to_owned()),
        entropy: Entropy::system(),
    }
}

pub(super) fn memory(clock: &Clock) -> Arc<Engine> {
    Engine::start(Box::new(MemoryBackend::default()), clock.clone(), config()).unwrap()
}

/// With this limit of all values together.
pub(super) fn memory_of(values_bytes_max: u64) -> Arc<Engine> {
    let config = EngineConfig { values_bytes_max, ..config() };
    Engine::start(Box::new(MemoryBackend::default()), Clock::manual(), config).unwrap()
}

pub(super) fn on_disk(path: &Path, clock: &Clock) -> Arc<Engine> {
    let backend = SqliteBackend::open(path).unwrap();
    Engine::start(Box::new(backend), clock.clone(), config()).unwrap()
}

pub(super) fn name(key: &str) -> LockName {
    LockName::new(0, key.as_bytes()).unwrap()
}

fn ttl(millis: u64) -> Option<Ttl> {
    Ttl::from_millis(millis).ok()
}

fn request(owner: &str) -> Request {
    Request::exclusive(Owner::new(owner.as_bytes()).unwrap(), ttl(1000))
}

fn acquire(owner: &str) -> Op {
    Op::Acquire { request: request(owner), wait: None }
}

fn set(owner: &str, condition: SetCondition, keep_ttl: bool) -> Op {
    Op::Set { request: request(owner), condition, keep_ttl }
}

#[test]
fn a_value_that_is_kept_stays_as_it_was_read() {
    let engine = memory(&Clock::manual());
    let txn = engine.txn();
    let push = |item: &'static [u8]| {
        txn.value(&name("k"), Kind::List, |edit| edit.list().map(|mut list| list.push_back(item))).unwrap();
    };
    push(b"a");
    let kept = txn.read_shared_value(&name("k"), Kind::List, |value| value.map(Arc::clone)).unwrap().unwrap();
    push(b"b");
    assert_eq!(txn.read_value(&name("k"), Kind::List, |value| value.map(Value::len)), Ok(Some(2)));
    txn.submit(&name("k"), &DELETE).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(txn.read_shared_value(&name("k"), Kind::List, |value| value.is_none()), Ok(true));
    assert_eq!(txn.read_shared_value(&name("k"), Kind::Set, |value| value.is_none()), Ok(true));
}

const DELETE: Op = Op::Delete { if_owner: None };

/// Sets fields of a hash; their values are their names.
fn put(txn: &Txn<'_>, key: &str, fields: &[&str]) -> Result<(), Unavailable> {
    txn.value(&name(key), Kind::Hash, |edit| {
        let mut hash = edit.hash().unwrap();
        for field in fields {
            hash.insert(field.as_bytes(), field.as_bytes());
        }
    })
}

fn remove(txn: &Txn<'_>, key: &str, field: &str) -> Result<Option<bool>, Unavailable> {
    txn.existing_value(&name(key), Kind::Hash, |edit| edit.hash().unwrap().remove(field.as_bytes()))
}

fn fields_of(value: Option<&Value>) -> Vec<String> {
    let Some(Value::Hash(hash)) = value else { return Vec::new() };
    hash.iter().map(|(field, _)| String::from_utf8_lossy(field).into_owned()).collect()
}

/// The fields of a hash, in order; none if it does not exist.
fn fields(txn: &Txn<'_>, key: &str) -> Result<Vec<String>, Unavailable> {
    txn.read_value(&name(key), Kind::Hash, fields_of)
}

fn token(txn: &Txn<'_>, key: &str) -> Option<i64> {
    txn.read_key(&name(key), |content, _| content.token().map(|token| token.get())).unwrap()
}

fn kind(txn: &Txn<'_>, key: &str) -> Option<KeyKind> {
    txn.kind_of(&name(key)).unwrap()
}

fn millis_left(txn: &Txn<'_>, key: &str) -> Option<u64> {
    txn.read_key(&name(key), |content, now| content.deadline().and_then(|at| at.millis_left(now))).unwrap()
}

/// Waits until a failed commit has been rolled back and writing works again.
fn wait_until_up(engine: &Engine) {
    while engine.journal_down().is_some() {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_value_survives_a_restart_with_its_token_its_order_and_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = Clock::manual();
    let engine = on_disk(&path, &clock);
    let txn = engine.txn();
    put(&txn, "h", &["c", "a", "b"]).unwrap();
    put(&txn, "h", &["d"]).unwrap();
    assert_eq!(remove(&txn, "h", "a"), Ok(Some(true)));
    txn.submit(&name("h"), &Op::SetTtl { ttl: ttl(5000) }).unwrap();
    put(&txn, "gone", &["x"]).unwrap();
    assert_eq!(remove(&txn, "gone", "x"), Ok(Some(true)));
    let before = token(&txn, "h");
    let bytes = engine.value_stats().bytes();
    engine.barrier(txn.finish()).await.unwrap();
    drop(engine);
    clock.advance_millis(1000);
    let engine = on_disk(&path, &clock);
    let txn = engine.txn();
    assert_eq!(fields(&txn, "h").unwrap(), ["c", "b", "d"]);
    assert_eq!((token(&txn, "h"), millis_left(&txn, "h")), (before, Some(4000)));
    assert_eq!((txn.key_count(0), engine.value_stats().values()), (Ok(1), 1));
    assert_eq!(engine.value_stats().bytes(), bytes);
    put(&txn, "next", &["x"]).unwrap();
    assert!(token(&txn, "next") > before, "tokens go on");
    clock.advance_millis(4000);
    while engine.expire_due() <= clock.now() {}
    assert_eq!((engine.value_stats().values(), engine.value_stats().expiries.read()), (1, 1));
}

#[tokio::test]
async fn a_failed_commit_rolls_values_back() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let clock = Clock::manual();
    let engine = Engine::start(Box::new(backend), clock.clone(), config()).unwrap();
    put(&engine.txn(), "kept", &["a", "b"]).unwrap();
    put(&engine.txn(), "replaced", &["a"]).unwrap();
    let kept = token(&engine.txn(), "kept");
    engine.barrier(engine.last()).await.unwrap();
    let bytes = engine.value_stats().bytes();
    faults.fail_with(Some(JournalError::Full));
    faults.hold_commits();
    let txn = engine.txn();
    put(&txn, "kept", &["c"]).unwrap();
    remove(&txn, "kept", "a").unwrap();
    put(&txn, "ghost", &["x"]).unwrap();
    txn.submit(&name("replaced"), &set("o", SetCondition::Always, false)).unwrap();
    faults.release_commits();
    assert!(engine.barrier(txn.finish()).await.is_err());
    assert!(matches!(fields(&engine.txn(), "kept"), Err(Unavailable::Journal(_)) | Ok(_)));
    faults.fail_with(None);
    wait_until_up(&engine);
    let txn = engine.txn();
    assert_eq!(fields(&txn, "kept").unwrap(), ["a", "b"]);
    assert_eq!(fields(&txn, "replaced").unwrap(), ["a"]);
    assert_eq!((token(&txn, "kept"), kind(&txn, "ghost")), (kept, None));
    assert_eq!((txn.key_count(0), engine.value_stats().bytes()), (Ok(2), bytes));
}

#[test]
fn a_value_ends_to_the_millisecond_for_every_reader() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let put_for = |key: &str| {
        put(&engine.txn(), key, &["a"]).unwrap();
        let set_ttl = Op::SetTtl { ttl: ttl(1000) };
        let outcome = engine.txn().submit(&name(key), &set_ttl).unwrap();
        assert_eq!(outcome, Outcome::Renewed { deadline: clock.now().after(ttl(1000)) });
    };
    let keys = ["read", "read_key", "edit", "exists", "del", "lock", "remove", "swept", "persisted"];
    keys.iter().for_each(|key| put_for(key));
    engine.txn().submit(&name("persisted"), &Op::SetTtl { ttl: None }).unwrap();
    clock.advance_millis(999);
    let txn = engine.txn();
    assert!(keys.iter().all(|key| txn.exists(&name(key)).unwrap()));
    assert_eq!(millis_left(&txn, "read"), Some(1));
    engine.expire_due();
    assert_eq!(engine.value_stats().values(), keys.len() as u64);
    clock.advance_millis(1);
    let mut found = Vec::new();
    txn.scan(&mut Scan::new(0, 0, 100), 100, |key| found.push(key.key().to_vec())).unwrap();
    assert_eq!(found, [b"persisted"]);
    assert_eq!(fields(&txn, "read").unwrap(), [""; 0]);
    assert_eq!(kind(&txn, "read_key"), None);
    let before = token(&txn, "persisted");
    put(&txn, "edit", &["b"]).unwrap();
    assert_eq!(fields(&txn, "edit").unwrap(), ["b"]);
    assert!(token(&txn, "edit") > before, "it is another value");
    assert_eq!(millis_left(&txn, "edit"), None);
    assert!(!txn.exists(&name("exists")).unwrap());
    assert_eq!(txn.submit(&name("del"), &DELETE), Ok(Outcome::NotHeld));
    assert!(matches!(txn.submit(&name("lock"), &acquire("o")), Ok(Outcome::Granted { .. })));
    assert_eq!(remove(&txn, "remove", "a"), Ok(None));
    while engine.expire_due() <= clock.now() {}
    assert_eq!((txn.key_count(0), engine.value_stats().values()), (Ok(3), 2));
    assert_eq!(engine.deadlines(), 1, "that of the lock");
}

#[test]
fn a_lock_and_a_value_whose_names_share_a_hash_stay_apart() {
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
    for (lock, value) in [(&one, &other), (&other, &one)] {
        for is_value_first in [true, false] {
            let txn = engine.txn();
            if is_value_first {
                put(&txn, value, &["a"]).unwrap();
            }
            assert!(matches!(txn.submit(&name(lock), &acquire("o")), Ok(Outcome::Granted { .. })));
            put(&txn, value, &["a"]).unwrap();
            txn.submit(&name(value), &Op::SetTtl { ttl: ttl(1500) }).unwrap();
            assert_eq!(kind(&txn, lock), Some(KeyKind::Lock(Mode::Exclusive)));
            assert_eq!((kind(&txn, value), txn.key_count(0)), (Some(KeyKind::Value(Kind::Hash)), Ok(2)));
            clock.advance_millis(1000);
            while engine.expire_due() <= clock.now() {}
            assert_eq!((kind(&txn, lock), fields(&txn, value)), (None, Ok(vec!["a".to_owned()])));
            // Either takes the other's kind beside its twin, and both leave nothing.
            txn.submit(&name(value), &set("o", SetCondition::Always, true)).unwrap();
            assert_eq!(millis_left(&txn, value), Some(500));
            put(&txn, lock, &["a"]).unwrap();
            assert_eq!(kind(&txn, value), Some(KeyKind::Lock(Mode::Exclusive)));
            assert_eq!(fields(&txn, lock).unwrap(), ["a"]);
            assert_eq!(txn.submit(&name(lock), &DELETE), Ok(Outcome::Released(1)));
            clock.advance_millis(500);
            while engine.expire_due() <= clock.now() {}
            assert_eq!((txn.key_count(0), engine.deadlines()), (Ok(0), 0));
        }
    }
}

#[test]
fn a_watch_breaks_when_a_value_changes_and_when_nothing_changes_it_does_not() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let (key, set_ttl) = (name("h"), Op::SetTtl { ttl: ttl(10) });
    let is_broken_by = |change: &dyn Fn(&Txn<'_>)| {
        let txn = engine.txn();
        let mut watch = Watch::new(&engine);
        watch.add(&txn, &key).unwrap();
        change(&txn);
        watch.is_broken(&txn).unwrap()
    };
    assert!(is_broken_by(&|txn| put(txn, "h", &["a", "b"]).unwrap()), "creation");
    assert!(is_broken_by(&|txn| put(txn, "h", &["c"]).unwrap()), "an element");
    assert!(is_broken_by(&|txn| assert_eq!(remove(txn, "h", "c"), Ok(Some(true)))), "a removal");
    assert!(!is_broken_by(&|txn| assert_eq!(remove(txn, "h", "absent"), Ok(Some(false)))));
    assert!(!is_broken_by(&|txn| put(txn, "h", &[]).unwrap()));
    assert!(!is_broken_by(&|txn| drop(fields(txn, "h").unwrap())));
    assert!(!is_broken_by(&|txn| drop(txn.submit(&key, &acquire("o")))), "WRONGTYPE");
    assert!(!is_broken_by(&|txn| put(txn, "other", &["a"]).unwrap()));
    assert!(is_broken_by(&|txn| assert!(txn.submit(&key, &set_ttl).is_ok())), "a TTL");
    assert!(is_broken_by(&|_| clock.advance_millis(10)), "expiry");
    put(&engine.txn(), "h", &["a"]).unwrap();
    assert!(is_broken_by(&|txn| assert!(txn.submit(&key, &DELETE).is_ok())), "DEL");
    put(&engine.txn(), "from", &["a"]).unwrap();
    assert!(is_broken_by(&|_| {
        engine.exclusive_txn().rename(&name("from"), &key, true).unwrap();
    }));
    assert!(is_broken_by(&|_| {
        engine.exclusive_txn().rename(&key, &name("to"), true).unwrap();
    }));
}

#[test]
fn commands_for_one_type_are_refused_for_another_and_change_nothing() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let txn = engine.txn();
    put(&txn, "h", &["a"]).unwrap();
    txn.submit(&name("held"), &acquire("o")).unwrap();
    let wrong = Err(Unavailable::WrongType);
    let owner = Owner::new(b"o").unwrap();
    for op in [
        acquire("o"),
        Op::Release { owner: owner.clone(), token: None },
        Op::Renew { owner: owner.clone(), ttl: None, token: None },
        Op::Force,
        Op::Delete { if_owner: Some(owner.clone()) },
        set("p", SetCondition::IfOwner(owner), false),
    ] {
        assert_eq!(txn.submit(&name("h"), &op), wrong, "{op:?}");
    }
    assert_eq!(txn.read(&name("h"), |_, _| ()).map(|()| Outcome::Done), wrong);
    let waiting = txn_wait(&engine, "h");
    assert_eq!(waiting.err(), Some(Unavailable::WrongType));
    let refused = Outcome::Refused(Refusal::Condition);
    assert_eq!(txn.submit(&name("h"), &set("p", SetCondition::IfFree, false)), Ok(refused));
    assert_eq!(fields(&txn, "h").unwrap(), ["a"]);
    for key in ["h", "held"] {
        let name = name(key);
        let before = token(&txn, key);
        assert_eq!(txn.value(&name, Kind::Set, |_| ()), Err(Unavailable::WrongType));
        assert_eq!(txn.existing_value(&name, Kind::List, |_| ()), Err(Unavailable::WrongType));
        assert_eq!(txn.read_value(&name, Kind::SortedSet, |_| ()), Err(Unavailable::WrongType));
        assert_eq!(token(&txn, key), before);
    }
}

fn txn_wait(engine: &Arc<Engine>, key: &str) -> Result<Acquired, Unavailable> {
    let until = engine.clock().now().after(ttl(1000));
    engine.txn().submit_or_wait(&name(key), request("w"), until)
}

#[tokio::test]
async fn a_set_over_a_value_is_one_change_and_keeps_the_ttl_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = Clock::manual();
    let engine = on_disk(&path, &clock);
    let txn = engine.txn();
    for (key, condition, keep_ttl) in [
        ("a", SetCondition::Always, false),
        ("b", SetCondition::IfHeld, true),
        ("c", SetCondition::Always, true),
    ] {
        put(&txn, key, &["x"]).unwrap();
        if key != "c" {
            txn.submit(&name(key), &Op::SetTtl { ttl: ttl(5000) }).unwrap();
        }
        let before = token(&txn, key);
        let outcome = txn.submit(&name(key), &set("o", condition, keep_ttl)).unwrap();
        assert!(matches!(outcome, Outcome::Granted { already_held: false, .. }));
        assert!(token(&txn, key) > before);
        assert_eq!(kind(&txn, key), Some(KeyKind::Lock(Mode::Exclusive)));
    }
    let left = ["a", "b", "c"].map(|key| millis_left(&txn, key));
    assert_eq!(left, [Some(1000), Some(5000), None]);
    assert_eq!((txn.key_count(0), engine.value_stats().values()), (Ok(3), 0));
    engine.barrier(txn.finish()).await.unwrap();
    drop(engine);
    let engine = on_disk(&path, &clock);
    let left = ["a", "b", "c"].map(|key| millis_left(&engine.txn(), key));
    assert_eq!(left, [Some(1000), Some(5000), None]);
}

#[test]
fn a_set_that_has_no_room_leaves_the_value_as_it_was() {
    let clock = Clock::manual();
    let config = EngineConfig { locks_max: 1, ..config() };
    let engine = Engine::start(Box::new(MemoryBackend::default()), clock, config).unwrap();
    let txn = engine.txn();
    put(&txn, "h", &["a"]).unwrap();
    txn.submit(&name("held"), &acquire("o")).unwrap();
    let refused = txn.submit(&name("h"), &set("o", SetCondition::Always, false));
    assert_eq!(refused, Err(Unavailable::LocksMax));
    assert_eq!(fields(&txn, "h").unwrap(), ["a"]);
}

#[test]
fn a_value_replaces_a_string_or_a_value_but_no_other_lock() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let txn = engine.txn();
    let replace = |key: &str, fields: &[&str]| {
        let fill = |edit: &mut Edit<'_>| {
            let mut set = edit.set().unwrap();
            for field in fields {
                set.insert(field.as_bytes());
            }
        };
        txn.replace_value(&name(key), &mut Some(Draft::new(Kind::Set, fill).0))
    };
    txn.submit(&name("string"), &acquire("o")).unwrap();
    put(&txn, "h", &["a"]).unwrap();
    txn.submit(&name("h"), &Op::SetTtl { ttl: ttl(5000) }).unwrap();
    for key in ["string", "h", "new"] {
        let before = token(&txn, key);
        replace(key, &["m"]).unwrap();
        assert_eq!(kind(&txn, key), Some(KeyKind::Value(Kind::Set)), "{key}");
        assert!(token(&txn, key) > before);
        assert_eq!(millis_left(&txn, key), None);
        replace(key, &[]).unwrap();
        assert_eq!(kind(&txn, key), None);
    }
    assert_eq!((txn.key_count(0), engine.lock_stats().leases()), (Ok(0), 0));

    let shared = Request { mode: Mode::Shared, ..request("o") };
    txn.submit(&name("shared"), &Op::Acquire { request: shared, wait: None }).unwrap();
    txn.submit(&name("queued"), &acquire("o")).unwrap();
    let waiting = txn_wait(&engine, "queued").unwrap();
    let extra = LeaseExtra { delay: ttl(500), ..LeaseExtra::default() };
    let delayed = Op::Acquire { request: request("o").with(extra), wait: None };
    txn.submit(&name("resting"), &delayed).unwrap();
    txn.submit(&name("resting"), &Op::Force).unwrap();
    for key in ["shared", "queued", "resting"] {
        assert_eq!(replace(key, &["m"]), Err(Unavailable::WrongType), "{key}");
        assert_eq!(put(&txn, key, &["a"]), Err(Unavailable::WrongType), "{key}");
    }
    // A lock that rests has no holder: for a reader there is no key.
    assert_eq!((fields(&txn, "resting"), remove(&txn, "resting", "a")), (Ok(vec![]), Ok(None)));
    clock.advance_millis(500);
    put(&txn, "resting", &["a"]).unwrap();
    drop(waiting);
}

#[test]
fn at_a_limit_nothing_is_added_and_the_rest_goes_on() {
    let clock = Clock::manual();
    let config = EngineConfig { value_elements_max: 2, values_bytes_max: 4000, ..config() };
    let engine = Engine::start(Box::new(MemoryBackend::default()), clock, config).unwrap();
    let txn = engine.txn();
    put(&txn, "h", &["a", "b"]).unwrap();
    assert_eq!(put(&txn, "h", &["c"]), Err(Unavailable::ValueElementsMax));
    assert_eq!(remove(&txn, "h", "a"), Ok(Some(true)));
    put(&txn, "h", &["c"]).unwrap();
    let large = "x".repeat(4000);
    put(&txn, "large", &[&large]).unwrap();
    assert_eq!(put(&txn, "h2", &["a"]), Err(Unavailable::ValuesBytesMax));
    let mut empty = Some(Draft::new(Kind::Set, |_| ()).0);
    assert_eq!(txn.replace_value(&name("h2"), &mut empty), Err(Unavailable::ValuesBytesMax));
    assert_eq!(fields(&txn, "h").unwrap(), ["b", "c"]);
    assert_eq!(txn.submit(&name("large"), &DELETE), Ok(Outcome::Released(1)));
    put(&txn, "h2", &["a"]).unwrap();
    for key in ["h", "h2"] {
        assert_eq!(txn.submit(&name(key), &DELETE), Ok(Outcome::Released(1)));
    }
    assert_eq!((engine.value_stats().values(), engine.value_stats().bytes()), (0, 0));
}

#[tokio::test]
async fn a_renamed_key_keeps_its_content_and_deadline_and_takes_a_new_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = Clock::manual();
    let engine = on_disk(&path, &clock);
    let rename = |from: &str, to: &str, replaces: bool| {
        let txn = engine.txn();
        let names = [name(from), name(to)];
        txn.exclusively(&names, |txn| txn.rename(&names[0], &names[1], replaces)).unwrap()
    };
    let txn = engine.txn();
    put(&txn, "h", &["a", "b"]).unwrap();
    txn.submit(&name("h"), &Op::SetTtl { ttl: ttl(5000) }).unwrap();
    txn.submit(&name("string"), &acquire("o")).unwrap();
    let bytes = engine.value_stats().bytes();
    assert_eq!(rename("absent", "h", true), Ok(Renamed::NoSuchKey));
    assert_eq!(rename("h", "string", false), Ok(Renamed::Exists));
    assert_eq!(rename("h", "h", true), Ok(Renamed::Done));
    let before = token(&txn, "string");
    assert_eq!(rename("h", "string", true), Ok(Renamed::Done));
    assert!(token(&txn, "string") > before);
    assert_eq!((kind(&txn, "h"), engine.lock_stats().leases()), (None, 0));
    txn.submit(&name("s2"), &acquire("o")).unwrap();
    clock.advance_millis(400);
    put(&txn, "victim", &["x"]).unwrap();
    let before = token(&txn, "victim");
    assert_eq!(rename("s2", "victim", true), Ok(Renamed::Done));
    assert!(token(&txn, "victim") > before);
    assert_eq!(millis_left(&txn, "victim"), Some(600));
    let shared = Request { mode: Mode::Shared, ..request("o") };
    txn.submit(&name("shared"), &Op::Acquire { request: shared, wait: None }).unwrap();
    assert_eq!(rename("shared", "x", true), Err(Unavailable::WrongType));
    assert_eq!(rename("string", "shared", true), Err(Unavailable::WrongType));
    put(&txn, "string", &["c"]).unwrap();
    let (fenced, count) = (token(&txn, "string"), txn.key_count(0));
    assert!(engine.value_stats().bytes() > bytes);
    engine.barrier(engine.last()).await.unwrap();
    drop(txn);
    drop(engine);
    let engine = on_disk(&path, &clock);
    let txn = engine.txn();
    assert_eq!(fields(&txn, "string").unwrap(), ["a", "b", "c"]);
    assert_eq!((token(&txn, "string"), millis_left(&txn, "string")), (fenced, Some(4600)));
    assert_eq!((txn.key_count(0), count), (Ok(3), Ok(3)));
}

#[tokio::test]
async fn what_is_read_of_a_value_waits_for_its_last_change() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let engine = Engine::start(Box::new(backend), Clock::manual(), config()).unwrap();
    put(&engine.txn(), "durable", &["a"]).unwrap();
    put(&engine.txn(), "from", &["a"]).unwrap();
    engine.barrier(engine.last()).await.unwrap();
    faults.hold_commits();
    put(&engine.txn(), "h", &["a"]).unwrap();
    engine.exclusive_txn().rename(&name("from"), &name("to"), true).unwrap();
    let is_durable = |read: &dyn Fn(&Txn<'_>)| {
        let txn = engine.txn();
        read(&txn);
        engine.durability_of(txn.finish()).is_some()
    };
    assert!(is_durable(&|txn| drop(fields(txn, "durable").unwrap())));
    assert!(!is_durable(&|txn| drop(fields(txn, "h").unwrap())));
    assert!(!is_durable(&|txn| assert!(kind(txn, "h").is_some())));
    assert!(!is_durable(&|txn| assert_eq!(remove(txn, "h", "absent"), Ok(Some(false)))));
    assert!(!is_durable(&|txn| assert_eq!(kind(txn, "from"), None)));
    assert!(!is_durable(&|txn| assert_eq!(fields(txn, "from"), Ok(vec![]))));
    assert!(!is_durable(&|txn| {
        assert_eq!(txn.read_value(&name("h"), Kind::Set, |_| ()), Err(Unavailable::WrongType));
    }));
    assert!(!is_durable(&|txn| assert_eq!(txn.submit(&name("h"), &Op::Force), Err(Unavailable::WrongType))));
    faults.release_commits();
}

#[test]
fn the_end_of_a_session_finds_nothing_of_its_own_in_a_value() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let txn = engine.txn();
    put(&txn, "h", &["a"]).unwrap();
    let end = Op::EndSession { session: SessionId(1), clean: true };
    assert_eq!(txn.submit(&name("h"), &end), Ok(Outcome::Released(0)));
    assert_eq!(fields(&txn, "h").unwrap(), ["a"]);
}

#[test]
fn large_values_are_counted_until_they_end_and_are_dropped_elsewhere() {
    let clock = Clock::manual();
    let engine = memory(&clock);
    let txn = engine.txn();
    let fields: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    for _ in 0..3 {
        put(&txn, "h", &fields).unwrap();
        assert!(engine.value_stats().bytes() > 1000 * 8);
        txn.submit(&name("h"), &DELETE).unwrap();
        assert_eq!((engine.value_stats().bytes(), txn.exists(&name("h"))), (0, Ok(false)));
    }
    assert_eq!(engine.expire_due(), Timestamp::NEVER);
}
