//! Restarts: what is found again, and what is refused.

use super::*;

#[tokio::test]
async fn a_lock_survives_a_restart_with_owner_token_and_remaining_time() {
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

#[test]
fn a_boot_clock_that_goes_back_extends_no_lease() {
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
        Record::Granted(StoredLease { name: name("k"), lease })
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
