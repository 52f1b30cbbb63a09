//! What a well-behaved client sees while others load the server in every way they can think of.
//!
//! `cargo bench --bench patterns` runs everything; `-- idle`, `-- waiters` and so on only what has this in its name. Four
//! connections take and give back locks of their own on a durable server, one request at a time; printed are the p50 and
//! p99 of their requests, the requests of the others, and the server's resident memory at its highest. `BENCH_SECONDS` (3)
//! is the length of each.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod support;

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use octostore::config::Config;
use octostore::domain::{LockName, Owner, Ttl};
use octostore::engine::{Acquired, Engine, WaitOutcome};
use octostore::lock::{Op, Outcome, Request};
use octostore::server::Server;
use support::{Idiom, Line, Load, Peer, cycles, encode, key, owner, seconds};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// As the server has it: one of them is in this program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    serve_waiters_if_asked();
    support::raise_file_limit();
    let filter: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    println!(
        "{:<56} {:>8} {:>8} {:>12} {:>9}",
        "while others …", "p50 µs", "p99 µs", "others per s", "peak MB"
    );
    for (name, run) in PATTERNS {
        if filter.is_empty() || filter.iter().any(|word| name.contains(word.as_str())) {
            observe(name, Peer::octostore(FLAGS), *run);
        }
    }
    let name = "are 100 000 waiters for one key, inside the server";
    if filter.is_empty() || filter.iter().any(|word| name.contains(word.as_str())) {
        observe(name, Peer::server(waiters_inside(), tempfile::tempdir().unwrap(), FLAGS), turns);
    }
}

const FLAGS: &[&str] = &["--output-stall-ms", "1000"];

type Pattern = fn(&Others) -> JoinSet<()>;

const PATTERNS: &[(&str, Pattern)] = &[
    ("do nothing", |_| JoinSet::new()),
    ("take locks at a steady 2 000 per s", steady),
    ("come in bursts of 2 000, ten times a second", bursts),
    ("read: 95 % FENCE, 5 % cycles, 50 connections", read_mostly),
    ("take turns on one hot key, 50 connections", hot_key),
    ("take many keys, 50 connections, pipelines of 16", many_keys),
    ("are 10 000 idle connections", idle),
    ("pipeline a million commands and read no reply", unread),
    ("send half a request and fall silent, 1 000 connections", halves),
    ("subscribe to everything and stop reading, 100 connections", silent_subscribers),
    ("are 10 000 waiters for one key, of which some vanish", waiters),
];

/// Where the others work, and how much they did.
struct Others {
    addr: std::net::SocketAddr,
    done: Arc<AtomicU64>,
    are_ready: Arc<AtomicBool>,
}

fn observe(name: &str, server: Peer, pattern: Pattern) {
    let time = seconds(3.0);
    let others = Others { addr: server.addr, done: Arc::default(), are_ready: Arc::default() };
    let runtime = Runtime::new().unwrap();
    let mut tasks = {
        let _in_runtime = runtime.enter();
        pattern(&others)
    };
    while !tasks.is_empty() && !others.are_ready.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let peak = Arc::new(AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let (before, started) = (others.done.load(Ordering::Relaxed), Instant::now());
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                peak.fetch_max(server.resident(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let outcome = cycles(server.addr, &Idiom::Native, Load { connections: 4, pipeline: 1, time });
        is_over.store(true, Ordering::Relaxed);
        outcome
    });
    let per_s = (others.done.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64();
    println!(
        "{name:<56} {:>8} {:>8} {per_s:>12.0} {:>9.1}",
        outcome.percentile_us(50),
        outcome.percentile_us(99),
        peak.load(Ordering::Relaxed) as f64 / 1e6
    );
    tasks.abort_all();
    runtime.block_on(async { while tasks.join_next().await.is_some() {} });
}

async fn connect(addr: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends requests and reads so many lines of replies.
async fn ask(stream: &mut TcpStream, requests: &[u8], replies: usize) {
    stream.write_all(requests).await.unwrap();
    let (mut input, mut missing) = (vec![0; 16 << 10], replies);
    while missing > 0 {
        let read = stream.read(&mut input).await.unwrap();
        assert!(read > 0, "the server closed a connection");
        missing -= input[..read].iter().filter(|byte| **byte == b'\n').count().min(missing);
    }
}

fn cycle_of(n: u64) -> Vec<u8> {
    [Idiom::Native.take(&key(n), &owner(n)), Idiom::Native.give_back(&key(n), &owner(n))].concat()
}

fn paced(others: &Others, every: Duration, cycles_each: u64) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (addr, done) = (others.addr, Arc::clone(&others.done));
    others.are_ready.store(true, Ordering::Relaxed);
    tasks.spawn(async move {
        let mut stream = connect(addr).await;
        let requests: Vec<u8> = (0..cycles_each).flat_map(cycle_of).collect();
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            ask(&mut stream, &requests, 2 * cycles_each as usize).await;
            done.fetch_add(2 * cycles_each, Ordering::Relaxed);
        }
    });
    tasks
}

fn steady(others: &Others) -> JoinSet<()> {
    paced(others, Duration::from_millis(1), 1)
}

fn bursts(others: &Others) -> JoinSet<()> {
    paced(others, Duration::from_millis(100), 1000)
}

/// Every connection sends its requests again and again.
fn each(others: &Others, connections: u64, requests: impl Fn(u64) -> (Vec<u8>, usize)) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    others.are_ready.store(true, Ordering::Relaxed);
    for n in 0..connections {
        let (addr, done) = (others.addr, Arc::clone(&others.done));
        let (requests, replies) = requests(n);
        tasks.spawn(async move {
            let mut stream = connect(addr).await;
            loop {
                ask(&mut stream, &requests, replies).await;
                done.fetch_add(replies as u64, Ordering::Relaxed);
            }
        });
    }
    tasks
}

fn read_mostly(others: &Others) -> JoinSet<()> {
    // One FENCE at a time for each of these, and 5 % of requests that change something.
    each(others, 50, |n| {
        let mut requests = encode(&["LOCK", &key(n), &owner(n), "PX", "30000"]);
        (0..38).for_each(|_| requests.extend(encode(&["FENCE", &key(n), "1"])));
        requests.extend(encode(&["UNLOCK", &key(n), &owner(n)]));
        (requests, 40)
    })
}

fn hot_key(others: &Others) -> JoinSet<()> {
    each(others, 50, |n| {
        let wait = encode(&["LOCK", "hot", &owner(n), "PX", "30000", "WAIT", "60000"]);
        ([wait, encode(&["UNLOCK", "hot", &owner(n)])].concat(), 2)
    })
}

fn many_keys(others: &Others) -> JoinSet<()> {
    each(others, 50, |n| ((0..8).flat_map(|k| cycle_of(100 + n * 8 + k)).collect(), 16))
}

/// Opens connections, sends something on each, and keeps them.
fn held(others: &Others, connections: u64, first: impl Fn(u64) -> Vec<u8>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let requests: Vec<Vec<u8>> = (0..connections).map(first).collect();
    let (addr, are_ready) = (others.addr, Arc::clone(&others.are_ready));
    tasks.spawn(async move {
        let mut streams = Vec::new();
        for request in requests {
            let mut stream = connect(addr).await;
            stream.write_all(&request).await.unwrap();
            streams.push(stream);
        }
        are_ready.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    });
    tasks
}

fn idle(others: &Others) -> JoinSet<()> {
    held(others, 10_000, |_| encode(&["PING"]))
}

fn halves(others: &Others) -> JoinSet<()> {
    held(others, 1_000, |_| b"*5\r\n$4\r\nLOCK\r\n$1000\r\nhalf a k".to_vec())
}

fn unread(others: &Others) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    others.are_ready.store(true, Ordering::Relaxed);
    let (addr, done) = (others.addr, Arc::clone(&others.done));
    tasks.spawn(async move {
        let mut stream = connect(addr).await;
        let thousand: Vec<u8> = (0..1000).flat_map(|_| encode(&["LOCKINFO", "unread"])).collect();
        for _ in 0..1000 {
            // The server stops to read, and then closes the connection.
            if stream.write_all(&thousand).await.is_err() {
                break;
            }
            done.fetch_add(1000, Ordering::Relaxed);
        }
        std::future::pending::<()>().await;
    });
    tasks
}

fn silent_subscribers(others: &Others) -> JoinSet<()> {
    let mut tasks = held(others, 100, |_| encode(&["PSUBSCRIBE", "*"]));
    let (addr, done) = (others.addr, Arc::clone(&others.done));
    tasks.spawn(async move {
        let mut stream = connect(addr).await;
        let requests: Vec<u8> = (0..16).flat_map(cycle_of).collect();
        loop {
            ask(&mut stream, &requests, 32).await;
            done.fetch_add(32, Ordering::Relaxed);
        }
    });
    tasks
}

/// All queue for one key, whoever had it queues again, and every tenth goes away after some seconds and connects anew.
fn waiters(others: &Others) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for n in 0..SOCKET_WAITERS {
        let (addr, done) = (others.addr, Arc::clone(&others.done));
        let wait = encode(&["LOCK", HOT, &owner(n), "PX", "600000", "WAIT", "600000"]);
        let turn = [encode(&["UNLOCK", HOT, &owner(n)]), wait.clone()].concat();
        tasks.spawn(async move {
            loop {
                let mut stream = connect(addr).await;
                stream.write_all(&wait).await.unwrap();
                let take_turns = async {
                    ask(&mut stream, &[], 1).await;
                    loop {
                        done.fetch_add(1, Ordering::Relaxed);
                        // Given back, and granted again.
                        ask(&mut stream, &turn, 2).await;
                    }
                };
                match patience(n) {
                    Some(patience) => drop(tokio::time::timeout(patience, take_turns).await),
                    None => take_turns.await,
                }
            }
        });
    }
    tasks.spawn(until_waiting(others, SOCKET_WAITERS - 1));
    tasks
}

const HOT: &str = "hot";
const SOCKET_WAITERS: u64 = 10_000;
const WAITERS_INSIDE: u64 = 100_000;
/// Set for a process that is to be a server with so many waiters inside.
const SERVE_WAITERS: &str = "BENCH_OCTOSTORE_WAITERS_INSIDE";

/// After how long a waiter goes away, whatever it does, if it does.
fn patience(n: u64) -> Option<Duration> {
    n.is_multiple_of(10).then(|| Duration::from_millis(1000 + n % 5000))
}

/// A part of `INFO locks`.
fn locks_info(line: &mut Line, name: &str) -> u64 {
    let info = line.ask_text(&["INFO", "locks"]);
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().trim().parse().unwrap()
}

/// Reports that all is ready once so many wait.
fn until_waiting(others: &Others, count: u64) -> impl Future<Output = ()> + use<> {
    let (mut line, are_ready) = (Line::to(others.addr), Arc::clone(&others.are_ready));
    async move {
        // Some of those who went away may be on their way back.
        while locks_info(&mut line, "waiting") < count - count / 100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        are_ready.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    }
}

/// This program as a server, with the waiters in its own process: one connection each would be more than most systems allow.
fn waiters_inside() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(SERVE_WAITERS, WAITERS_INSIDE.to_string());
    command
}

fn serve_waiters_if_asked() {
    let Some(count) = support::number::<u64>(SERVE_WAITERS) else { return };
    let config = Config::read(std::env::args_os()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start(&config).await.unwrap();
        for n in 0..count {
            tokio::spawn(waiter_inside(Arc::clone(server.engine()), n));
        }
        // Nobody reads on after the line that is looked for.
        let _ = writeln!(std::io::stdout(), "{}", server.banner());
        server.run(std::future::pending()).await;
    });
}

/// What a connection does for one that sends LOCK with WAIT, then UNLOCK, and so on.
async fn waiter_inside(engine: Arc<Engine>, n: u64) {
    let name = LockName::new(0, HOT.as_bytes()).unwrap();
    let owner = Owner::new(owner(n).as_bytes()).unwrap();
    let ttl = Ttl::from_millis(600_000).ok();
    loop {
        let until = engine.clock().now().after(ttl);
        let (acquired, seq) = {
            let txn = engine.txn();
            let request = Request::exclusive(owner.clone(), ttl);
            let acquired = txn.submit_or_wait(&name, request, until).unwrap();
            (acquired, txn.finish())
        };
        let seq = match acquired {
            Acquired::Now(Outcome::Granted { .. }) => seq,
            Acquired::Now(outcome) => panic!("{outcome:?}"),
            Acquired::Blocked(mut parked) => match parked.outcome().await {
                WaitOutcome::Granted(_, seq) => seq,
                other => panic!("{other:?}"),
            },
        };
        engine.barrier(seq).await.unwrap();
        // What a client sends next comes from the system: whatever else has come gets its turn before.
        tokio::task::yield_now().await;
        let release = Op::Release { owner: owner.clone(), token: None };
        let (outcome, seq) = {
            let txn = engine.txn();
            let outcome = txn.submit(&name, &release).unwrap();
            (outcome, txn.finish())
        };
        assert_eq!(outcome, Outcome::Released(1));
        engine.barrier(seq).await.unwrap();
        tokio::task::yield_now().await;
    }
}

/// Counts the turns that those inside take: each queues again after its own.
fn turns(others: &Others) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(until_waiting(others, WAITERS_INSIDE));
    let (mut line, done) = (Line::to(others.addr), Arc::clone(&others.done));
    tasks.spawn(async move {
        loop {
            done.store(locks_info(&mut line, "total_waits"), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tasks
}
