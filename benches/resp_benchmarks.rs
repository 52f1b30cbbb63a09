//! The server as clients see it: through the `redis` crate over loopback, durable by default.
//!
//! Where the client library is the limit, a raw-socket twin (`raw/…`) shows the server alone.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use redis::{Connection, RedisError, cmd, pipe};
use support::{COMPARE_AND_DELETE, Idiom, Peer, encode, key, owner};

fn connect(peer: &Peer) -> Connection {
    redis::Client::open(format!("redis://{}/", peer.addr)).unwrap().get_connection().unwrap()
}

fn lock(connection: &mut Connection, key: &str, owner: &str) -> Option<i64> {
    cmd("LOCK").arg(key).arg(owner).arg("PX").arg(30_000).query(connection).unwrap()
}

fn unlock(connection: &mut Connection, key: &str, owner: &str) -> i64 {
    cmd("UNLOCK").arg(key).arg(owner).query(connection).unwrap()
}

/// One request at a time on one connection.
fn single(c: &mut Criterion) {
    let peer = Peer::octostore(&[]);
    let mut connection = connect(&peer);
    let (key, owner) = (key(0), owner(0));
    let mut group = c.benchmark_group("resp");
    group.bench_function("lock", |b| {
        b.iter_custom(|iterations| {
            let mut timed = Duration::ZERO;
            for _ in 0..iterations {
                let started = Instant::now();
                lock(&mut connection, &key, &owner).unwrap();
                timed += started.elapsed();
                unlock(&mut connection, &key, &owner);
            }
            timed
        });
    });
    group.bench_function("unlock", |b| {
        b.iter_custom(|iterations| {
            let mut timed = Duration::ZERO;
            for _ in 0..iterations {
                lock(&mut connection, &key, &owner).unwrap();
                let started = Instant::now();
                assert_eq!(unlock(&mut connection, &key, &owner), 1);
                timed += started.elapsed();
            }
            timed
        });
    });
    group.bench_function("cycle", |b| {
        b.iter(|| {
            lock(&mut connection, &key, &owner).unwrap();
            unlock(&mut connection, &key, &owner)
        });
    });
    let token = lock(&mut connection, &key, &owner).unwrap();
    group.bench_function("fence", |b| {
        b.iter(|| {
            let holds: i64 = cmd("FENCE").arg(&key).arg(token).query(&mut connection).unwrap();
            assert_eq!(holds, 1);
        });
    });
    group.bench_function("refused", |b| {
        b.iter(|| assert_eq!(lock(&mut connection, &key, "another"), None));
    });
    group.finish();
}

/// Many requests at once on one connection; a cycle is a LOCK in one pipeline and its UNLOCK in the next.
fn pipelines(c: &mut Criterion) {
    let peer = Peer::octostore(&[]);
    let mut connection = connect(&peer);
    let mut group = c.benchmark_group("pipeline");
    for depth in [16u64, 128, 1024] {
        group.throughput(Throughput::Elements(depth));
        let (mut locks, mut unlocks) = (pipe(), pipe());
        let (mut raw_locks, mut raw_unlocks) = (Vec::new(), Vec::new());
        for n in 0..depth {
            locks.cmd("LOCK").arg(key(n)).arg(owner(n)).arg("PX").arg(30_000);
            unlocks.cmd("UNLOCK").arg(key(n)).arg(owner(n));
            raw_locks.extend(encode(&["LOCK", &key(n), &owner(n), "PX", "30000"]));
            raw_unlocks.extend(encode(&["UNLOCK", &key(n), &owner(n)]));
        }
        group.bench_function(BenchmarkId::new("cycle", depth), |b| {
            b.iter(|| {
                let tokens: Vec<i64> = locks.query(&mut connection).unwrap();
                let released: Vec<i64> = unlocks.query(&mut connection).unwrap();
                assert_eq!((tokens.len(), released.iter().sum::<i64>()), (depth as usize, depth as i64));
            });
        });
        let mut line = peer.connect();
        group.bench_function(BenchmarkId::new("raw/cycle", depth), |b| {
            b.iter(|| {
                line.send(&raw_locks);
                line.replies(depth as usize);
                line.send(&raw_unlocks);
                assert_eq!(line.replies(depth as usize), ":1\r\n");
            });
        });
    }
    group.finish();
}

/// Threads with a connection each. On one key they wait in line; on many each has its own.
fn contention(c: &mut Criterion) {
    let peer = Peer::octostore(&[]);
    let mut group = c.benchmark_group("contention");
    for threads in [2u64, 10, 50] {
        for (shape, is_one) in [("one_key", true), ("many_keys", false)] {
            group.bench_function(BenchmarkId::new(shape, threads), |b| {
                let mut connections: Vec<Connection> = (0..threads).map(|_| connect(&peer)).collect();
                b.iter_custom(|iterations| {
                    let started = Instant::now();
                    std::thread::scope(|scope| {
                        for (n, connection) in (0u64..).zip(&mut connections) {
                            let turns = iterations / threads + u64::from(n < iterations % threads);
                            let (key, owner) = (key(if is_one { 0 } else { n + 1 }), owner(n));
                            scope.spawn(move || {
                                for _ in 0..turns {
                                    let token: Result<Option<i64>, RedisError> = cmd("LOCK")
                                        .arg(&key)
                                        .arg(&owner)
                                        .arg("WAIT")
                                        .arg(60_000)
                                        .query(connection);
                                    assert!(token.unwrap().is_some());
                                    assert_eq!(unlock(connection, &key, &owner), 1);
                                }
                            });
                        }
                    });
                    started.elapsed()
                });
            });
        }
    }
    group.finish();
}

/// Time until ten thousand leases that end at the same moment are gone.
fn expiry_storm(c: &mut Criterion) {
    const LEASES: u64 = 10_000;
    let peer = Peer::octostore(&[]);
    let mut line = peer.connect();
    let mut connection = connect(&peer);
    let mut group = c.benchmark_group("expiry_storm");
    group.throughput(Throughput::Elements(LEASES)).sample_size(10);
    group.bench_function(BenchmarkId::from_parameter(LEASES), |b| {
        b.iter_custom(|iterations| {
            let mut timed = Duration::ZERO;
            for _ in 0..iterations {
                let end = Instant::now() + Duration::from_millis(300);
                let left = || end.saturating_duration_since(Instant::now()).as_millis().max(1) as u64;
                line.take_locks(0, LEASES, |_| left());
                std::thread::sleep(end.saturating_duration_since(Instant::now()));
                while leases(&mut connection) > 0 {}
                timed += end.elapsed();
            }
            timed
        });
    });
    group.finish();
}

/// The expired ones that were not looked at yet included.
fn leases(connection: &mut Connection) -> u64 {
    let info: String = cmd("INFO").arg("locks").query(connection).unwrap();
    info.split("\r\nleases:").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap()
}

/// Cycles of all connections together, raw sockets, one request at a time on each.
fn connections(c: &mut Criterion) {
    support::raise_file_limit();
    let peer = Peer::octostore(&[]);
    let mut group = c.benchmark_group("connections");
    group.sample_size(10);
    for connections in [1, 10, 100, 1000] {
        group.bench_function(BenchmarkId::from_parameter(connections), |b| {
            b.iter_custom(|iterations| {
                let time = Duration::from_millis(300);
                let load = support::Load { connections, pipeline: 1, time };
                let rate = support::cycles(peer.addr, &Idiom::Native, load).cycles_per_s;
                Duration::from_secs_f64(iterations as f64 / rate)
            });
        });
    }
    group.finish();
}

/// One field of a hash, in hashes of several sizes: the cost does not depend on the size.
fn hashes(c: &mut Criterion) {
    let peer = Peer::octostore(&[]);
    let mut connection = connect(&peer);
    let mut group = c.benchmark_group("hash");
    for fields in [10u64, 1_000, 100_000] {
        let hash = format!("hash of {fields}");
        for first in (0..fields).step_by(1_000) {
            let mut fill = cmd("HSET");
            fill.arg(&hash);
            for field in first..fields.min(first + 1_000) {
                fill.arg(key(field)).arg(field);
            }
            fill.exec(&mut connection).unwrap();
        }
        let mut value = 0u64;
        group.bench_function(BenchmarkId::new("hset", fields), |b| {
            b.iter(|| {
                value += 1;
                let field = key(value % fields);
                let added: u64 = cmd("HSET").arg(&hash).arg(field).arg(value).query(&mut connection).unwrap();
                assert_eq!(added, 0);
            });
        });
    }
    group.finish();
}

/// Scripts by their hash: one that does nothing, and the one that compares and deletes.
fn scripts(c: &mut Criterion) {
    let peer = Peer::octostore(&[]);
    let mut connection = connect(&peer);
    let (key, owner) = (key(0), owner(0));
    let mut group = c.benchmark_group("evalsha");
    for (name, script) in [("constant", "return 1"), ("compare_and_delete", COMPARE_AND_DELETE)] {
        let hash: String = cmd("SCRIPT").arg("LOAD").arg(script).query(&mut connection).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut call = cmd("EVALSHA");
                let reply: i64 = call.arg(&hash).arg(1).arg(&key).arg(&owner).query(&mut connection).unwrap();
                reply
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = single, pipelines, hashes, scripts, contention, expiry_storm, connections
}
criterion_main!(benches);
