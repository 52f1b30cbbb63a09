//! The lock manager on real backends, under a manual clock.

mod bounded_work;
mod events;
mod expiry;
mod failures;
mod limits;
mod recovery;
mod scans;
mod sessions;
mod transactions;
mod waiting;
mod watches;

use std::path::Path;

use super::*;
use crate::domain::{FencingToken, LockName, Owner, Timestamp, Ttl};
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

pub(super) fn memory(clock: &Clock) -> Arc<Engine> {
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

/// The keys that a scan finds when it looks at `entries` entries.
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
