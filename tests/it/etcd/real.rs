//! One leader on a real etcd that is killed, stopped and cut off while clients lock and release.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use octostore::clock::Clock;
use octostore::domain::{LockName, Owner, Ttl};
use octostore::engine::Engine;
use octostore::entropy::Entropy;
use octostore::journal::etcd::{EtcdBackend, EtcdTransport, Transport, Txn, Write};
use octostore::journal::{JournalError, StoreAddress};
use octostore::lock::{Op, Outcome, Request};

use super::answer;
use crate::linearizability::{self, Answered, Asked, Call};
use crate::support::engine_config;
use crate::support::etcd::{Etcd, store_at};
use crate::support::random::Random;
use crate::support::relay::{Relay, Side};
use crate::support::until;

const KEYS: [&str; 3] = ["a", "b", "c"];
const CLIENTS: u8 = 4;
/// Calls between two faults.
const CALLS: u64 = 60;
const TTL_MS: u64 = 600_000;

/// Makes a new leader in a store. Returns its epoch.
fn elect(address: &StoreAddress) -> i64 {
    let mut transport = EtcdTransport::start(address).expect("a thread");
    let key = address.key("leader");
    let gone = Write::Delete(key.clone(), format!("{key}\0"));
    let mut write = |write| {
        let txn = Txn { writes: vec![write], ..Txn::default() };
        transport.txn(txn).expect("an etcd that answers").revision
    };
    write(gone);
    write(Write::Put(key, b"{}".to_vec()))
}

fn lead(address: &StoreAddress) -> Arc<Engine> {
    let backend = EtcdBackend::open(address, elect(address)).expect("a store");
    Engine::start(Box::new(backend), Clock::system(), engine_config("boot", Entropy::system()))
        .expect("a leader")
}

/// What all clients share.
struct World {
    engine: Arc<Engine>,
    calls: Mutex<Vec<(usize, Call)>>,
    order: AtomicU64,
    clock: Clock,
    is_over: AtomicBool,
}

impl World {
    fn next(&self) -> (u64, u64) {
        (self.order.fetch_add(1, Ordering::SeqCst), self.clock.now().as_nanos() / 1_000_000)
    }

    fn answered(&self) -> u64 {
        let calls = self.calls.lock().expect("no panic under it");
        calls.iter().filter(|(_, call)| call.answered.is_some()).count() as u64
    }

    /// Locks, releases and reads until it is over.
    fn serve_client(&self, owner: u8) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut random = Random::new(u64::from(owner));
        while !self.is_over.load(Ordering::SeqCst) {
            let key = random.below(KEYS.len() as u64) as usize;
            let name = LockName::new(0, KEYS[key].as_bytes()).expect("a name");
            let holder = Owner::new(&[owner]).expect("an owner");
            let ((began, began_ms), txn) = (self.next(), self.engine.txn());
            let (asked, op) = match random.below(5) {
                0..2 => {
                    let request = Request::exclusive(holder, Ttl::from_millis(TTL_MS).ok());
                    (Asked::Lock { owner, ttl: TTL_MS }, Some(Op::Acquire { request, wait: None }))
                }
                2..4 => {
                    (Asked::Unlock { owner, token: None }, Some(Op::Release { owner: holder, token: None }))
                }
                _ => (Asked::Fence, None),
            };
            let ran = match &op {
                Some(op) => txn.submit(&name, op).map(answer),
                None => txn
                    .read(&name, |slot, _| slot.newest().map_or(0, |lease| lease.token.get()))
                    .map(Answered::Token),
            };
            let seq = txn.finish();
            let is_revealed = runtime.block_on(self.engine.barrier(seq)).is_ok();
            let answered = ran.ok().filter(|_| is_revealed);
            if answered.is_none() {
                // Once the state is loaded again, what is unknown has happened, or never will.
                until(|| self.engine.journal_down().is_none());
            }
            let (ended, ended_ms) = self.next();
            let call = Call { asked, began, ended, began_ms, ended_ms, answered };
            self.calls.lock().expect("no panic under it").push((key, call));
        }
    }
}

#[test]
fn a_leader_survives_an_etcd_that_is_killed_stopped_and_cut_off() {
    let Some(mut etcd) = Etcd::start() else { return };
    let relay = Relay::to(etcd.ports()[0]);
    let address = format!("etcd://127.0.0.1:{}/locks", relay.port);
    let engine = lead(&StoreAddress::parse(&address).expect("an address"));
    let world = World {
        engine,
        calls: Mutex::default(),
        order: AtomicU64::new(0),
        clock: Clock::system(),
        is_over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for owner in 0..CLIENTS {
            let world = &world;
            scope.spawn(move || world.serve_client(owner));
        }
        let is_down = || world.engine.journal_down().is_some();
        let mut enough = 0;
        let mut progress = || {
            enough = world.answered() + CALLS;
            until(|| world.answered() >= enough);
        };
        for _ in 0..2 {
            progress();
            let failures = world.order.load(Ordering::SeqCst);
            etcd.kill_and_restart();
            // The clients notice, and go on.
            until(|| world.order.load(Ordering::SeqCst) > failures);
            progress();
            etcd.signal(0, "STOP");
            until(is_down);
            etcd.signal(0, "CONT");
            progress();
            relay.cut();
            until(is_down);
            relay.mend();
            progress();
        }
        world.is_over.store(true, Ordering::SeqCst);
    });
    let calls = world.calls.lock().expect("no panic under it");
    for (index, key) in KEYS.iter().enumerate() {
        let of_key = calls.iter().filter(|(key, _)| *key == index).map(|(_, call)| call.clone());
        let of_key: Vec<Call> = of_key.collect();
        linearizability::check(&of_key).unwrap_or_else(|why| panic!("{key}: {why}"));
    }
}

#[test]
fn a_deposed_leader_answers_nothing_and_its_successor_has_everything() {
    let Some(etcd) = Etcd::start() else { return };
    let address = StoreAddress::parse(&etcd.store("locks")).expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let name = LockName::new(0, b"k").expect("a name");
    let lock = |engine: &Arc<Engine>, owner: &[u8]| {
        let request = Request::exclusive(Owner::new(owner).expect("an owner"), Ttl::from_millis(TTL_MS).ok());
        let txn = engine.txn();
        let outcome = txn.submit(&name, &Op::Acquire { request, wait: None });
        (outcome, txn.finish())
    };
    let first = lead(&address);
    let (granted, seq) = lock(&first, b"one");
    assert!(matches!(granted, Ok(Outcome::Granted { .. })), "{granted:?}");
    assert!(runtime.block_on(first.barrier(seq)).is_ok());
    let second = lead(&address);
    // Even a read of what has not changed.
    let txn = first.txn();
    assert_eq!(txn.read(&name, |slot, _| slot.newest().is_some()), Ok(true));
    let seq = txn.finish();
    assert!(runtime.block_on(first.barrier(seq)).is_err());
    runtime.block_on(first.fenced());
    assert_eq!(first.journal_down(), Some(JournalError::Fenced));
    first.close();
    let (refused, seq) = lock(&second, b"two");
    assert!(matches!(refused, Ok(Outcome::Refused(_))), "{refused:?}");
    assert!(runtime.block_on(second.barrier(seq)).is_ok());
}

#[test]
fn a_store_that_cannot_be_used_is_refused_with_the_reason() {
    let Some(etcd) = Etcd::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let address = |prefix: &str| StoreAddress::parse(&etcd.store(prefix)).expect("an address");
    let put = |key: String, value: &str| {
        let mut transport = EtcdTransport::start(&address("any")).expect("a thread");
        let writes = vec![Write::Put(key, value.as_bytes().to_vec())];
        transport.txn(Txn { writes, ..Txn::default() }).expect("an etcd that answers");
    };
    put("/other/key".into(), "x");
    let foreign = EtcdBackend::open(&address("other"), 1).err();
    assert!(
        matches!(&foreign, Some(JournalError::Store { what }) if what.contains("/other/key")),
        "{foreign:?}"
    );
    put("/newer/schema".into(), "{\"octostore\":99,\"secret\":\"\"}");
    let newer = Some(JournalError::Newer { found: 99, known: 1 });
    assert_eq!(EtcdBackend::open(&address("newer"), 1).err(), newer);
    let check = |address: &StoreAddress| runtime.block_on(octostore::journal::etcd::check(address));
    assert_eq!(check(&address("newer")).err(), newer);
    assert_eq!(check(&address("unused")), Ok(()));
    let mut with_password = address("unused");
    with_password.credentials = Some(("me".into(), "hush".into()));
    let refused = check(&with_password).expect_err("etcd has no users");
    assert!(!refused.is_retryable() && !refused.to_string().contains("hush"), "{refused}");
}

#[test]
fn the_first_request_goes_to_an_etcd_server_that_answers() {
    let Some(etcd) = Etcd::start() else { return };
    let relays = [(); 3].map(|()| Relay::to(etcd.ports()[0]));
    // One accepts connections and answers nothing, and one closes them.
    relays[0].hold(Side::Server);
    relays[1].cut();
    let read = Txn { reads: vec!["/key".into()], ..Txn::default() };
    for first in 0..relays.len() {
        let mut ports = [relays[0].port, relays[1].port, relays[2].port];
        ports.rotate_left(first);
        let address = StoreAddress::parse(&store_at(&ports, "locks")).expect("an address");
        let mut transport = EtcdTransport::start(&address).expect("a thread");
        let found = transport.txn(read.clone()).map(|result| result.found);
        assert_eq!(found, Ok(Vec::new()), "the order begins with server {first}");
    }
}
