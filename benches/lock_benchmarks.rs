//! Locks in process, on the default durable store: what a grant costs before any socket.
//!
//! Every grant and release waits until it is synced, unless the name says otherwise. Set-up is not timed.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use octostore::clock::{self, Clock};
use octostore::config::Config;
use octostore::domain::{FencingToken, LockName, Owner, Timestamp, Ttl};
use octostore::engine::{Acquired, Engine, EngineConfig, WaitOutcome};
use octostore::entropy::Entropy;
use octostore::journal::{Backend, Durability, MemoryBackend, Record, Seq, SqliteBackend, StoredLease};
use octostore::lock::{Lease, Op, Outcome, Request};
use octostore::server::Server;
use support::http::HttpClient;

struct Store {
    engine: Arc<Engine>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Store {
    fn new(durability: Durability) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let backend: Box<dyn Backend> = match durability {
            Durability::Memory => Box::new(MemoryBackend::default()),
            _ => Box::new(SqliteBackend::open(&dir.path().join("octostore.db")).unwrap()),
        };
        let config = EngineConfig {
            durability,
            locks_max: 10_000_000,
            sessions_max: 100_000,
            waiters_per_lock_max: 100_000,
            values_bytes_max: 1 << 30,
            value_elements_max: 1 << 24,
            leases_per_account_max: 100,
            token_floor: 0,
            boot: clock::boot_id(),
            entropy: Entropy::system(),
        };
        let engine = Engine::start(backend, Clock::system(), config).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Store { engine, runtime, _dir: dir }
    }

    fn durable() -> Store {
        Store::new(Durability::Always)
    }

    fn submit(&self, name: &LockName, op: &Op) -> (Outcome, Seq) {
        let txn = self.engine.txn();
        let outcome = txn.submit(name, op).unwrap();
        (outcome, txn.finish())
    }

    fn wait_until_durable(&self, seq: Seq) {
        self.runtime.block_on(self.engine.barrier(seq)).unwrap();
    }

    /// One operation as a connection runs it: to the end of its barrier.
    fn run(&self, name: &LockName, op: &Op) -> Outcome {
        let (outcome, seq) = self.submit(name, op);
        self.wait_until_durable(seq);
        outcome
    }

    /// The same operation on many locks, one barrier for all.
    fn run_all(&self, names: &[LockName], op: &Op) {
        let last = names.iter().map(|name| self.submit(name, op).1).max().unwrap();
        self.wait_until_durable(last);
    }
}

fn name(n: usize) -> LockName {
    LockName::new(0, format!("lock:{n:011}").as_bytes()).unwrap()
}

fn request(owner: &str) -> Request {
    let owner = Owner::new(owner.as_bytes()).unwrap();
    Request::exclusive(owner, Some(Ttl::from_millis(30_000).unwrap()))
}

fn acquire() -> Op {
    Op::Acquire { request: request("bench-owner-0123456789"), wait: None }
}

fn release() -> Op {
    Op::Release { owner: request("bench-owner-0123456789").owner, token: None }
}

/// Times one half of cycles, some names at a time so that few are held at once.
fn timed_half(store: &Store, iterations: u64, is_acquire_timed: bool) -> Duration {
    const AT_ONCE: u64 = 256;
    let names: Vec<LockName> = (0..AT_ONCE as usize).map(name).collect();
    let (acquire, release) = (acquire(), release());
    let mut timed = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let names = &names[..now as usize];
        let one_by_one = |op: &Op| {
            let started = Instant::now();
            for name in names {
                black_box(store.run(name, op));
            }
            started.elapsed()
        };
        if is_acquire_timed {
            timed += one_by_one(&acquire);
            store.run_all(names, &release);
        } else {
            store.run_all(names, &acquire);
            timed += one_by_one(&release);
        }
        left -= now;
    }
    timed
}

fn single(c: &mut Criterion) {
    let store = Store::durable();
    c.bench_function("acquire_lock", |b| b.iter_custom(|n| timed_half(&store, n, true)));
    c.bench_function("release_lock", |b| b.iter_custom(|n| timed_half(&store, n, false)));
    let (name, acquire, release) = (name(0), acquire(), release());
    c.bench_function("acquire_release_cycle", |b| {
        b.iter(|| {
            store.run(&name, &acquire);
            store.run(&name, &release)
        });
    });
}

/// Not durable: the state machine, the table and the counter, without storage.
fn fencing_token_generation(c: &mut Criterion) {
    let store = Store::new(Durability::Memory);
    let (name, acquire, release) = (name(0), acquire(), release());
    let mut last = 0;
    c.bench_function("fencing_token_generation", |b| {
        b.iter(|| {
            let (Outcome::Granted { token, .. }, _) = store.submit(&name, &acquire) else { panic!("held") };
            assert!(token.get() > last);
            last = token.get();
            store.submit(&name, &release)
        });
    });
}

fn lease(token: i64) -> Record {
    let request = request("bench-owner-0123456789");
    let lease = Lease::grant(&request, FencingToken::new(token).unwrap(), Timestamp::from_nanos(1));
    Record::Granted(StoredLease { name: name(token as usize), lease })
}

/// One commit of so many grants and the end of as many earlier ones.
fn sqlite_persistence(c: &mut Criterion) {
    let mut group = c.benchmark_group("sqlite_persistence");
    for records in [1, 16, 256] {
        let dir = tempfile::tempdir().unwrap();
        let mut backend = SqliteBackend::open(&dir.path().join("octostore.db")).unwrap();
        backend.load(Some("boot"), Timestamp::default(), &mut |_| {}).unwrap();
        let mut next = 1;
        group.throughput(Throughput::Elements(2 * records));
        group.bench_function(BenchmarkId::from_parameter(2 * records), |b| {
            b.iter_batched(
                || {
                    let first = next;
                    next += records as i64;
                    let ended = |token: i64| Record::Ended(FencingToken::new(token).unwrap());
                    let ends = (first - records as i64..first).filter(|token| *token > 0).map(ended);
                    ends.chain((first..next).map(lease)).collect::<Vec<_>>()
                },
                |batch| backend.commit(&batch).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
}

/// Threads that take turns with one lock, waiting in line.
fn contention(c: &mut Criterion) {
    for threads in [2u64, 10] {
        let store = Store::durable();
        c.bench_function(&format!("contention_{threads}_threads"), |b| {
            b.iter_custom(|iterations| {
                let started = Instant::now();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let turns = iterations / threads + u64::from(thread < iterations % threads);
                        let store = &store;
                        scope.spawn(move || take_turns(store, &format!("thread-{thread}"), turns));
                    }
                });
                started.elapsed()
            });
        });
    }
}

fn take_turns(store: &Store, owner: &str, turns: u64) {
    let (name, request) = (name(0), request(owner));
    let release = Op::Release { owner: request.owner.clone(), token: None };
    for _ in 0..turns {
        let txn = store.engine.txn();
        match txn.submit_or_wait(&name, request.clone(), Timestamp::NEVER).unwrap() {
            Acquired::Now(_) => store.wait_until_durable(txn.finish()),
            Acquired::Blocked(mut parked) => {
                let WaitOutcome::Granted(_, seq) = store.runtime.block_on(parked.outcome()) else {
                    panic!("not granted")
                };
                store.wait_until_durable(seq);
            }
        }
        store.run(&name, &release);
    }
}

/// Taken all, then given back all; one barrier for each direction.
fn many_different_locks(c: &mut Criterion) {
    let mut group = c.benchmark_group("many_different_locks");
    for locks in [1_000, 10_000, 100_000] {
        let store = Store::durable();
        let names: Vec<LockName> = (0..locks).map(name).collect();
        let (acquire, release) = (acquire(), release());
        group.throughput(Throughput::Elements(locks as u64));
        group.bench_function(BenchmarkId::from_parameter(locks), |b| {
            b.iter(|| {
                store.run_all(&names, &acquire);
                store.run_all(&names, &release);
            });
        });
    }
}

/// Through the HTTP adapter over loopback: one client, and 50 at once, each with a lock of its own.
fn http_acquire_release(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db").to_str().unwrap().to_owned();
    let config =
        Config::with(&["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", &data]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(&config)).unwrap();
    let addr = server.http_address().unwrap();
    runtime.spawn(server.run(std::future::pending()));
    let mut group = c.benchmark_group("http_acquire_release");
    for clients in [1u64, 50] {
        let mut connected: Vec<_> = (0..clients).map(|_| HttpClient::connect(addr, None)).collect();
        group.bench_function(BenchmarkId::from_parameter(clients), |b| {
            b.iter_custom(|cycles| {
                let started = Instant::now();
                std::thread::scope(|scope| {
                    for (n, client) in connected.iter_mut().enumerate() {
                        let own = cycles / clients + u64::from((n as u64) < cycles % clients);
                        scope.spawn(move || (0..own).for_each(|_| client.cycle(&format!("lock-{n}"))));
                    }
                });
                started.elapsed()
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = single, fencing_token_generation, sqlite_persistence, contention, many_different_locks,
        http_acquire_release
}
criterion_main!(benches);
