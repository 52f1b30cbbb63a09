//! What a well-behaved client sees while others load the server in every way they can think of.
//!
//! `cargo bench --bench patterns` runs everything; `-- idle`, `-- waiters` and so on only what has this in its name. Four
//! connections take and give back locks of their own on a durable server, one request at a time; printed are the p50 and
//! p99 of their requests, the requests of the others, and the server's resident memory at its highest. `BENCH_SECONDS` (3)
//! is the length of each.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Idiom, Load, Peer, cycles, encode, key, owner, seconds};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

fn main() {
    support::serve_ones_if_asked();
    support::raise_file_limit();
    let filter: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    println!(
        "{:<56} {:>8} {:>8} {:>12} {:>9}",
        "while others …", "p50 µs", "p99 µs", "others per s", "peak MB"
    );
    for (name, run) in PATTERNS {
        if filter.is_empty() || filter.iter().any(|word| name.contains(word.as_str())) {
            observe(name, *run);
        }
    }
}

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

fn observe(name: &str, pattern: Pattern) {
    let server = Peer::octostore(&["--output-stall-ms", "1000"]);
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

fn waiters(others: &Others) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (addr, done, are_ready) = (others.addr, Arc::clone(&others.done), Arc::clone(&others.are_ready));
    tasks.spawn(async move {
        let mut streams = Vec::new();
        for n in 0..10_000 {
            let mut stream = connect(addr).await;
            let wait = encode(&["LOCK", "hot", &owner(n), "PX", "600000", "WAIT", "600000"]);
            stream.write_all(&wait).await.unwrap();
            streams.push((n, stream));
        }
        are_ready.store(true, Ordering::Relaxed);
        // Every tenth goes when it is its turn; the others take theirs.
        for (n, mut stream) in streams {
            if n % 10 == 9 {
                continue;
            }
            ask(&mut stream, &[], 1).await;
            ask(&mut stream, &encode(&["UNLOCK", "hot", &owner(n)]), 1).await;
            done.fetch_add(1, Ordering::Relaxed);
        }
        std::future::pending::<()>().await;
    });
    tasks
}
