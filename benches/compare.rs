//! octostore against its peers, in turns, as ratios.
//!
//! `cargo bench --bench compare` runs everything; `-- cycle`, `-- contention` and so on only what has this in its name.
//! `BENCH_SECONDS` (1) is the length of one turn, `BENCH_ROUNDS` (5) the number of turns of each side. Peers that are not
//! installed are skipped, and it says so.
//!
//! `BENCH_AGAINST=path/to/octostore cargo bench --bench compare -- build` compares with another build of octostore: the way to
//! see what a change does on a machine that is not quiet. `BENCH_OCTOSTORE_014=path/to/octostore` is the peer over HTTP
//! (`cargo install octostore --version 0.14.4 --locked --root DIR` puts it into `DIR/bin`).
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::contention::{Contention, contend};
use support::http::HttpClient;
use support::{
    HTTP_TOKEN, Idiom, Load, PROGRAM, Peer, cycles, cycles_with, encode, key, median, owner, seconds,
};

fn main() {
    support::serve_ones_if_asked();
    support::raise_file_limit();
    let filter: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_wanted = |name: &str| filter.is_empty() || filter.iter().any(|word| name.contains(word.as_str()));
    println!("{:<58} {:>12} {:>12} {:>7} {:>7}", "", "octostore", "peer", "ratio", "wanted");
    for (name, flags, peer, connections, pipeline, wanted) in CYCLES {
        if is_wanted(name) {
            compare_cycles(name, flags, *peer, *connections, *pipeline, *wanted);
        }
    }
    for row in PROTECTED {
        if is_wanted(row.name) {
            compare_protected(row);
        }
    }
    for row in SAME_REQUESTS {
        if is_wanted(row.name) {
            compare_same_requests(row);
        }
    }
    let others: &[(&str, fn())] = &[
        ("HTTP acquire and release", http),
        ("contention on one key", contention),
        ("contention on one key, another build", contention_of_builds),
        ("memory per held lock", memory_per_lock),
        ("memory per element", memory_per_element),
        ("durable cycle during backups", during_backups),
        ("recovery of 1 million leases", recovery),
        ("expiry of 1 million leases within a second", expiry_storm),
    ];
    for (name, run) in others {
        if is_wanted(name) {
            run();
        }
    }
}

#[derive(Clone, Copy)]
enum Against {
    RedisAlways,
    RedisNone,
    Ones,
    /// If there is one.
    OtherBuild,
}

const DURABLE: &[&str] = &[];
const MEMORY: &[&str] = &["--durability", "memory"];

type Comparison = (&'static str, &'static [&'static str], Against, u64, u64, f64);

const CYCLES: &[Comparison] = &[
    ("durable cycle, c=50 P=1, Redis always", DURABLE, Against::RedisAlways, 50, 1, 1.3),
    ("durable cycle, c=50 P=16, Redis always", DURABLE, Against::RedisAlways, 50, 16, 2.5),
    ("durable cycle, c=50 P=16, Redis no persistence", DURABLE, Against::RedisNone, 50, 16, 1.1),
    ("durable cycle, c=1 P=1, Redis always", DURABLE, Against::RedisAlways, 1, 1, 1.1),
    ("memory cycle, c=50 P=1, Redis no persistence", MEMORY, Against::RedisNone, 50, 1, 1.1),
    ("memory cycle, c=50 P=16, Redis no persistence", MEMORY, Against::RedisNone, 50, 16, 2.0),
    ("memory cycle, c=50 P=1, `:1` to everything", MEMORY, Against::Ones, 50, 1, 0.75),
    ("memory cycle, c=50 P=16, `:1` to everything", MEMORY, Against::Ones, 50, 16, 0.75),
    ("durable cycle, c=1 P=1, another build", DURABLE, Against::OtherBuild, 1, 1, 1.0),
    ("durable cycle, c=50 P=1, another build", DURABLE, Against::OtherBuild, 50, 1, 1.0),
    ("durable cycle, c=50 P=16, another build", DURABLE, Against::OtherBuild, 50, 16, 1.0),
    ("memory cycle, c=50 P=1, another build", MEMORY, Against::OtherBuild, 50, 1, 1.0),
    ("memory cycle, c=50 P=16, another build", MEMORY, Against::OtherBuild, 50, 16, 1.0),
];

/// 50 clients that are users, or have TLS, against octostore without either.
struct Protected {
    name: &'static str,
    flags: &'static [&'static str],
    start: fn(&[&str]) -> Peer,
    pipeline: u64,
    wanted: f64,
}

const PROTECTED: &[Protected] = &[
    protected("durable cycle of a user, c=50 P=1, no users", DURABLE, Peer::octostore_with_users, 1, 0.97),
    protected("memory cycle of a user, c=50 P=1, no users", MEMORY, Peer::octostore_with_users, 1, 0.97),
    protected("memory cycle of a user, c=50 P=16, no users", MEMORY, Peer::octostore_with_users, 16, 0.97),
    protected("durable cycle with TLS, c=50 P=1, plain text", DURABLE, Peer::octostore_with_tls, 1, 0.65),
    protected("memory cycle with TLS, c=50 P=1, plain text", MEMORY, Peer::octostore_with_tls, 1, 0.65),
];

const fn protected(
    name: &'static str,
    flags: &'static [&'static str],
    start: fn(&[&str]) -> Peer,
    pipeline: u64,
    wanted: f64,
) -> Protected {
    Protected { name, flags, start, pipeline, wanted }
}

fn compare_protected(row: &Protected) {
    let (own, peer) = ((row.start)(row.flags), Peer::octostore(row.flags));
    let load = Load { connections: 50, pipeline: row.pipeline, time: seconds(1.0) };
    let turn = |peer: &Peer| cycles_with(&peer.access, peer.addr, &Idiom::Native, load).cycles_per_s;
    in_turns(row.name, row.wanted, || turn(&own), || turn(&peer));
}

/// The same requests to both sides, from 50 connections.
struct SameRequests {
    name: &'static str,
    flags: &'static [&'static str],
    /// Redis with `appendfsync always`, or without persistence.
    is_durable: bool,
    pipeline: u64,
    wanted: f64,
    idiom: fn(&Peer) -> Idiom,
}

const SAME_REQUESTS: &[SameRequests] = &[
    same("library cycle, c=50 P=1, Redis always", true, 1, 1.0, Idiom::of_redis),
    same("library cycle, c=50 P=16, Redis always", true, 16, 1.2, Idiom::of_redis),
    same("library cycle in memory, c=50 P=16, Redis no persistence", false, 16, 1.0, Idiom::of_redis),
    same("EVALSHA in memory, c=50 P=16, Redis no persistence", false, 16, 1.0, Idiom::script),
    same("SET and GET, c=50 P=16, Redis always", true, 16, 1.0, |_| Idiom::Pair("SET KEY VALUE", "GET KEY")),
    same("HSET, c=50 P=16, Redis always", true, 16, 1.0, |_| {
        Idiom::Pair("HSET KEY f VALUE", "HSET KEY f other")
    }),
    same("ZADD, c=50 P=16, Redis always", true, 16, 1.0, |_| {
        Idiom::Pair("ZADD KEY 1 VALUE", "ZADD KEY 2 VALUE")
    }),
    same("LPUSH and RPOP, c=50 P=16, Redis always", true, 16, 1.0, |_| {
        Idiom::Pair("LPUSH KEY VALUE", "RPOP KEY")
    }),
];

const fn same(
    name: &'static str,
    is_durable: bool,
    pipeline: u64,
    wanted: f64,
    idiom: fn(&Peer) -> Idiom,
) -> SameRequests {
    let flags = if is_durable { DURABLE } else { MEMORY };
    SameRequests { name, flags, is_durable, pipeline, wanted, idiom }
}

fn compare_same_requests(row: &SameRequests) {
    let load = Load { connections: 50, pipeline: row.pipeline, time: seconds(1.0) };
    let turn = |peer: &Peer| warm_cycles(peer, &(row.idiom)(peer), load);
    let redis = || Peer::redis(row.is_durable).ok_or(NO_REDIS);
    compare_servers((row.name, row.wanted), row.flags, turn, redis, turn);
}

fn rounds() -> usize {
    support::number("BENCH_ROUNDS").unwrap_or(5)
}

fn compare_cycles(
    name: &str,
    flags: &[&str],
    against: Against,
    connections: u64,
    pipeline: u64,
    wanted: f64,
) {
    let load = Load { connections, pipeline, time: seconds(1.0) };
    let turn = |peer: &Peer, idiom: &Idiom| warm_cycles(peer, idiom, load);
    let native = |server: &Peer| turn(server, &Idiom::Native);
    let redis = |peer: &Peer| turn(peer, &Idiom::of_redis(peer));
    let row = (name, wanted);
    match against {
        Against::RedisAlways => {
            compare_servers(row, flags, native, || Peer::redis(true).ok_or(NO_REDIS), redis);
        }
        Against::RedisNone => {
            compare_servers(row, flags, native, || Peer::redis(false).ok_or(NO_REDIS), redis);
        }
        Against::Ones => compare_servers(row, flags, native, || Ok(Peer::ones()), native),
        Against::OtherBuild => {
            compare_builds(row, flags, |peer, time| {
                cycles(peer.addr, &Idiom::Native, Load { time, ..load }).cycles_per_s
            });
        }
    }
}

const NO_REDIS: &str = "redis-server is not installed";
const NO_BUILD: &str = "the variable BENCH_AGAINST names none";

/// How long a server that has just started is under load before it is measured.
const WARM_UP: Duration = Duration::from_millis(200);

fn warm_cycles(peer: &Peer, idiom: &Idiom, load: Load) -> f64 {
    cycles(peer.addr, idiom, Load { time: WARM_UP, ..load });
    cycles(peer.addr, idiom, load).cycles_per_s
}

/// Measures octostore and a peer in turns, unless the peer cannot be started. Each turn starts both anew:
/// where a process has its code and data makes it up to a tenth faster or slower for as long as it runs.
fn compare_servers(
    (name, wanted): (&str, f64),
    flags: &[&str],
    own: impl Fn(&Peer) -> f64,
    start: impl Fn() -> Result<Peer, &'static str>,
    other: impl Fn(&Peer) -> f64,
) {
    if let Err(missing) = start() {
        return println!("{name:<58} skipped: {missing}");
    }
    in_turns(name, wanted, || own(&Peer::octostore(flags)), || other(&start().expect("it has started")));
}

/// How long a build is measured without a break. Then its speed is compared with that of the other one
/// in the same tenth of a second, of which a slow moment of the machine takes the same from both. It is
/// too short for the maintenance that an idle server does.
const SLICE: Duration = Duration::from_millis(30);

/// Measures two builds of octostore at `work`, which returns the speed. Each turn starts both anew, from new copies
/// of their files, and measures them slice by slice.
fn compare_builds((name, wanted): (&str, f64), flags: &[&str], work: impl Fn(&Peer, Duration) -> f64) {
    let Some(other) = std::env::var_os("BENCH_AGAINST") else {
        return println!("{name:<58} skipped: {NO_BUILD}");
    };
    let builds = [Path::new(PROGRAM), Path::new(&other)];
    let slices = (seconds(1.0).as_secs_f64() / SLICE.as_secs_f64()).ceil() as usize;
    // The folders stay until the end, so that each copy takes other memory than the one before.
    let mut folders = Vec::new();
    let mut turn = |turn: usize| {
        let sides = builds.map(|build| Peer::copy_of(build, flags));
        for peer in &sides {
            work(peer, WARM_UP);
        }
        let mut speeds = [0.0; 2];
        for slice in 0..slices {
            // Each side goes first in every other slice.
            for side in if (turn + slice).is_multiple_of(2) { [0, 1] } else { [1, 0] } {
                speeds[side] += work(&sides[side], SLICE) / slices as f64;
            }
        }
        folders.extend(sides.map(Peer::kill));
        (speeds[0], speeds[1])
    };
    let turns: Vec<(f64, f64)> = (0..rounds()).map(&mut turn).collect();
    let ratios: Vec<f64> = turns.iter().map(|(own, peer)| own / peer).collect();
    report_turns(name, wanted, turns);
    if ratios.len() > 1 {
        let (mean, error) = mean_and_error(&ratios);
        println!("{:<58} {:>33}", "", format!("mean {mean:.3} ± {error:.3}"));
    }
}

/// The mean, and its standard error.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// Measures both sides in turns, and reports medians: of each side, and of the ratios of neighbours.
fn in_turns(name: &str, wanted: f64, own: impl Fn() -> f64, peer: impl Fn() -> f64) {
    // Each side goes first in every other turn, so that neither gains from its place.
    let turn = |n: usize| match n % 2 {
        0 => (own(), peer()),
        _ => {
            let peer = peer();
            (own(), peer)
        }
    };
    report_turns(name, wanted, (0..rounds()).map(turn).collect());
}

fn report_turns(name: &str, wanted: f64, turns: Vec<(f64, f64)>) {
    let (owns, peers) = turns.iter().copied().unzip();
    let ratios = turns.iter().map(|(own, peer)| own / peer).collect();
    report(name, median(owns), median(peers), median(ratios), wanted);
}

fn report(name: &str, own: f64, peer: f64, ratio: f64, wanted: f64) {
    println!("{name:<58} {own:>12.0} {peer:>12.0} {ratio:>7.2} {wanted:>7.2}");
}

const HTTP_CLIENTS: usize = 50;

/// 50 clients over HTTP, each with a lock of its own, against OctoStore 0.14.
fn http() {
    let name = "HTTP acquire and release, c=50, OctoStore 0.14";
    let Some(peer) = Peer::octostore_014() else {
        return println!("{name:<58} skipped: the variable BENCH_OCTOSTORE_014 names none");
    };
    let own = Peer::octostore_http();
    in_turns(name, 10.0, || http_cycles(&own), || http_cycles(&peer));
}

/// A second of them.
fn http_cycles(peer: &Peer) -> f64 {
    let connect = |_| HttpClient::connect(peer.addr, Some(HTTP_TOKEN));
    let clients: Vec<_> = (0..HTTP_CLIENTS).map(connect).collect();
    let started = Instant::now();
    let end = started + seconds(1.0);
    let cycles: u64 = std::thread::scope(|scope| {
        let run = |(n, mut client): (usize, HttpClient)| {
            scope.spawn(move || {
                let name = format!("lock-{n}");
                let mut cycles = 0;
                while Instant::now() < end {
                    client.cycle(&name);
                    cycles += 1;
                }
                cycles
            })
        };
        let threads: Vec<_> = clients.into_iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    cycles as f64 / started.elapsed().as_secs_f64()
}

/// 50 clients on one key: waiting in line on the server, against asking again every millisecond.
fn contention() {
    let name = "hand-offs, 50 clients on one key, Redis always polled";
    let Some(peer) = Peer::redis(true) else {
        return println!("{name:<58} skipped: redis-server is not installed");
    };
    let its = Idiom::of_redis(&peer);
    let own = Peer::octostore(DURABLE);
    let (mut owns, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        owns.push(contend(own.addr, &Idiom::Native, seconds(1.0)));
        peers.push(contend(peer.addr, &its, seconds(1.0)));
    }
    let of = |all: &[Contention], value: fn(&Contention) -> f64| median(all.iter().map(value).collect());
    let ratio = owns.iter().zip(&peers).map(|(own, peer)| own.per_s / peer.per_s).collect();
    report(name, of(&owns, |c| c.per_s), of(&peers, |c| c.per_s), median(ratio), 2.0);
    let (own, peer) = (of(&owns, |c| c.fairness), of(&peers, |c| c.fairness));
    println!("{:<58} {own:>12.3} {peer:>12.3} {:>7} {:>7}", "  fairness (Jain)", "", "≥ 0.99");
    let (own, peer) = (of(&owns, |c| c.p99_over_mean), of(&peers, |c| c.p99_over_mean));
    println!("{:<58} {own:>12.2} {peer:>12.2} {:>7} {:>7}", "  p99 wait / mean wait", "", "≤ 2");
}

/// The same, of two builds.
fn contention_of_builds() {
    let name = "hand-offs, 50 clients on one key, another build";
    compare_builds((name, 1.0), DURABLE, |peer, time| contend(peer.addr, &Idiom::Native, time).per_s);
}

const MANY: u64 = 1_000_000;

fn resident_per_item(peer: &Peer, fill: impl FnOnce(&Peer)) -> f64 {
    let before = peer.resident();
    fill(peer);
    (peer.settled_resident() - before) as f64 / MANY as f64
}

/// Resident bytes of a held lock: 16-byte key, 30-byte owner, a TTL.
fn memory_per_lock() {
    let own = Peer::octostore(DURABLE);
    let ours = resident_per_item(&own, |peer| peer.connect().take_locks(0, MANY, |_| 3_600_000));
    let name = "resident bytes per held lock";
    let Some(peer) = Peer::redis(false) else {
        return println!("{name:<58} {ours:>12.0} skipped: redis-server is not installed");
    };
    let theirs = resident_per_item(&peer, |peer| {
        let mut line = peer.connect();
        for first in (0..MANY).step_by(1000) {
            let mut bytes = Vec::new();
            for n in first..first + 1000 {
                bytes.extend(encode(&["SET", &key(n), &owner(n), "NX", "PX", "3600000"]));
            }
            line.send(&bytes);
            line.replies(1000);
        }
    });
    report(name, ours, theirs, ours / theirs, 1.0);
}

/// Resident bytes per element, keys included, in small and in large values of each kind.
fn memory_per_element() {
    for (kind, command) in [("hash", "HSET"), ("set", "SADD"), ("sorted set", "ZADD"), ("list", "RPUSH")] {
        for elements in [10, 10_000] {
            let fill = |peer: &Peer| fill_values(peer, command, elements);
            let theirs = Peer::redis(false).map(|peer| resident_per_item(&peer, fill));
            for (durability, flags) in [("durable", DURABLE), ("in memory", MEMORY)] {
                let name = format!("resident bytes per element, {kind} of {elements}, {durability}");
                let ours = resident_per_item(&Peer::octostore(flags), fill);
                match theirs {
                    Some(theirs) => report(&name, ours, theirs, ours / theirs, 2.0),
                    None => println!("{name:<58} {ours:>12.0} skipped: redis-server is not installed"),
                }
            }
        }
    }
}

/// Creates values that have [`MANY`] elements together.
fn fill_values(peer: &Peer, command: &str, elements: u64) {
    /// Elements added before the replies are read.
    const ADDED: u64 = 1000;
    let mut line = peer.connect();
    for batch in (0..MANY).step_by(ADDED as usize) {
        let mut bytes = Vec::new();
        let per_request = elements.min(ADDED);
        for first in (batch..batch + ADDED).step_by(per_request as usize) {
            let mut words = vec![command.to_owned(), key(first / elements)];
            for n in first..first + per_request {
                match command {
                    "HSET" => words.extend([key(n), owner(n)]),
                    "ZADD" => words.extend([n.to_string(), key(n)]),
                    _ => words.push(key(n)),
                }
            }
            bytes.extend(encode(&words.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        line.send(&bytes);
        line.replies((ADDED / per_request) as usize);
    }
}

/// Commits while copies of the database are made, one after the other, against commits without that.
fn during_backups() {
    const LEASES: u64 = 300_000;
    let own = Peer::octostore(DURABLE);
    own.connect().take_locks(0, LEASES, |_| 3_600_000);
    let load = Load { connections: 50, pipeline: 1, time: seconds(1.0) };
    let turn = || cycles(own.addr, &Idiom::Native, load).cycles_per_s;
    let copying = || {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    back_up(&own, &is_over);
                }
            });
            let rate = turn();
            is_over.store(true, Ordering::Release);
            rate
        })
    };
    in_turns("durable cycle during backups, c=50 P=1, without", 0.8, copying, turn);
}

/// Makes a copy, or begins one that `is_over` ends.
fn back_up(peer: &Peer, is_over: &AtomicBool) {
    let mut copying = Command::new(env!("CARGO_BIN_EXE_octostore"))
        .args(["backup", "--data"])
        .args([peer.dir.path().join("octostore.db"), peer.dir.path().join("copy")])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    loop {
        if let Some(status) = copying.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        if is_over.load(Ordering::Acquire) {
            copying.kill().unwrap();
            copying.wait().unwrap();
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// From the start of the process until it listens, after `kill -9` with a million leases.
fn recovery() {
    let name = "ms to recover 1 million leases after kill -9";
    let own = Peer::octostore(DURABLE);
    own.connect().take_locks(0, MANY, |_| 3_600_000);
    let mut dir = own.kill();
    let mut times = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let own = Peer::octostore_in(dir, DURABLE);
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(own.connect().ask(&["DBSIZE"]), format!(":{MANY}"));
        dir = own.kill();
    }
    let (first, own) = (times[0], median(times));
    println!("{name:<58} {own:>12.0} {:>12} {:>7} {:>7}", "", "", "≤ 2000");
    println!("{:<58} {first:>12.0}", "  the first time, with the backlog of the crash");
}

/// p99 of other clients while a million leases end within one second.
fn expiry_storm() {
    let name = "p99 µs of a cycle load while 1 million leases expire";
    let own = Peer::octostore(DURABLE);
    let load = |time| Load { connections: 16, pipeline: 1, time };
    let quiet = cycles(own.addr, &Idiom::Native, load(Duration::from_secs(3))).percentile_us(99);
    let started = Instant::now();
    // Enough to take them all, and then some.
    let storm_at = Duration::from_secs(20);
    own.connect().take_locks(0, MANY, |n| {
        let at = storm_at + Duration::from_micros(n * 1_000_000 / MANY);
        at.saturating_sub(started.elapsed()).as_millis() as u64
    });
    let left = storm_at.saturating_sub(started.elapsed());
    assert!(left > Duration::from_millis(500), "taking them took too long: {:?}", started.elapsed());
    std::thread::sleep(left - Duration::from_millis(200));
    let storm = cycles(own.addr, &Idiom::Native, load(Duration::from_millis(1500))).percentile_us(99);
    let mut line = own.connect();
    while line.ask(&["DBSIZE"]) != ":0" {
        std::thread::sleep(Duration::from_millis(10));
    }
    let over = started.elapsed().saturating_sub(storm_at + Duration::from_secs(1)).as_millis();
    report(name, f64::from(storm), f64::from(quiet), f64::from(storm) / f64::from(quiet), 3.0);
    println!("{:<58} {over:>12}", "  ms until all are swept, after the last has ended");
}
