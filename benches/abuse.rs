//! What a well-behaved client sees while another abuses the server, and what that costs in memory.
//!
//! `cargo bench --bench abuse` runs everything; `-- patterns`, `-- AUTH` and so on only what has this
//! in its name. It prints a markdown table. `BENCH_SERVER` is the path of the server, by default the
//! one of this build. With `BENCH_AGAINST`, the path of another build, both take turns, and each
//! cell has both figures. `BENCH_SECONDS` (3) is how long each abuse is watched.
//!
//! The probe sends one request at a time: PING, and LOCK and UNLOCK of a key of its own; only PING where
//! the disk is what stalls. It means to send one each millisecond, so a wait of n milliseconds counts as
//! n requests that waited n, n − 1, … milliseconds: a server that stands still has no good percentiles.
//! "p99 before" is what it sees on the same server before the abuse.
//!
//! Guarantees: each server has ports and a folder of its own and ends with its abuse. Not here: whether
//! the abuse is refused; `tests/it/turns.rs` asserts bounds.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection};
use support::{HTTP_TOKEN, Line, access, encode, seconds};

fn main() {
    support::raise_file_limit();
    let filter: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let now = std::env::var("BENCH_SERVER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_octostore").to_owned());
    let before = std::env::var("BENCH_AGAINST").ok();
    println!(
        "| while … | p50 µs | p99 µs | p99 before | max ms | MB at first | MB at most | MB at the end | p99, max × |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for abuse in ABUSES {
        if !filter.is_empty() && !filter.iter().any(|word| abuse.name.contains(word.as_str())) {
            continue;
        }
        let programs = before.iter().chain([&now]);
        let figures: Option<Vec<Figures>> = programs.map(|program| abuse.measure(program)).collect();
        match figures {
            Some(figures) => println!("| {} | {} |", abuse.name, cells(&figures)),
            None => println!("| {} | skipped: there is no C compiler | | | | | | | |", abuse.name),
        }
    }
}

/// What one server came to.
struct Figures {
    /// Before the abuse.
    p99_before_us: u64,
    waits_us: Vec<u64>,
    resident: [u64; 3],
}

impl Figures {
    fn percentile_us(&self, percent: usize) -> u64 {
        percentile(&self.waits_us, percent)
    }
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// The figures of one server, or of two with the ratio between them.
fn cells(all: &[Figures]) -> String {
    let each = |text: &dyn Fn(&Figures) -> String| all.iter().map(text).collect::<Vec<_>>().join(" → ");
    let mut cells = vec![
        each(&|one| one.percentile_us(50).to_string()),
        each(&|one| one.percentile_us(99).to_string()),
        each(&|one| one.p99_before_us.to_string()),
        each(&|one| format!("{:.1}", one.percentile_us(100) as f64 / 1e3)),
    ];
    for n in 0..3 {
        cells.push(each(&|one| (one.resident[n] >> 20).to_string()));
    }
    cells.push(match all {
        [before, now] => [99, 100]
            .map(|percent| {
                let ratio = before.percentile_us(percent) as f64 / now.percentile_us(percent).max(1) as f64;
                format!("{ratio:.1}")
            })
            .join(", "),
        _ => String::new(),
    });
    cells.join(" | ")
}

/// A way to be a bad neighbour.
struct Abuse {
    name: &'static str,
    flags: &'static [&'static str],
    has_tls: bool,
    disk: Disk,
    /// Fills the server, and returns what is to be done while the probe runs.
    prepare: fn(&Server) -> Vec<Task>,
}

/// Where the server keeps its locks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// In memory.
    None,
    /// In a database; only PING is to be answered at once.
    Real,
    /// The same, with syncs that stall when they are told to.
    Stalling,
}

type Task = Box<dyn FnOnce(&Server) + Send>;

const fn abuse(name: &'static str, prepare: fn(&Server) -> Vec<Task>) -> Abuse {
    Abuse { name, flags: &[], has_tls: false, disk: Disk::None, prepare }
}

/// Against the port for Redis clients over TLS.
const fn abuse_of_tls(name: &'static str, prepare: fn(&Server) -> Vec<Task>) -> Abuse {
    Abuse { has_tls: true, ..abuse(name, prepare) }
}

const PASSWORD: &[&str] = &["--requirepass", SECRET];
const SECRET: &str = "the-password-of-benches";
const LOCKS: u64 = 500_000;

const ABUSES: &[Abuse] = &[
    abuse("nothing happens", |_| Vec::new()),
    abuse("32 pipelined RENEWs of a 1020-byte key reach 10 000 slow patterns", slow_patterns),
    abuse("600 × SUBSCRIBE of 1 MB names", long_channels),
    abuse("PSUBSCRIBE of 10 000 patterns of 1 kB", long_patterns),
    Abuse {
        flags: &["--threads", "3"],
        ..abuse("three writers feed a slow subscriber of patterns, three threads", three_writers)
    },
    abuse("three writers change a lock that 2000 idle subscribers follow", crowd),
    Abuse { flags: PASSWORD, ..abuse("two connections send wrong AUTHs, the log is read", wrong_passwords) },
    Abuse {
        flags: PASSWORD,
        ..abuse("two connections send wrong AUTHs, nothing drains the log", wrong_passwords)
    },
    Abuse {
        flags: PASSWORD,
        ..abuse("10 connections send 10 000 wrong AUTHs a second", paced_wrong_passwords)
    },
    abuse_of_tls("10 000 connections send the beginning of a TLS handshake", half_open_handshakes),
    abuse_of_tls("1000 connections send TLS handshakes byte by byte", slow_handshakes),
    abuse_of_tls("four clients make TLS handshakes", handshakes),
    abuse_of_tls("four clients send what is no TLS", garbage),
    abuse_of_tls("two clients replace the keys of their TLS session", key_updates),
    abuse("EXEC with 20 KEYS over 500 000 locks", |server| {
        take(server, LOCKS);
        let keys = encode(&["KEYS", "none*"]).repeat(20);
        again(vec![[encode(&["MULTI"]), keys, encode(&["EXEC"])].concat()])
    }),
    abuse("KEYS * over 500 000 locks", |server| {
        take(server, LOCKS);
        again(vec![encode(&["KEYS", "*"])])
    }),
    abuse("SCAN COUNT 1000 with a pathological pattern over 1 kB keys", |server| {
        let key = |n: u64| format!("{}{n:06}", "a".repeat(1000));
        all(&mut server.connect(), 20_000, |n| encode(&["LOCK", &key(n), "me", "EX", "3600"]));
        again(vec![encode(&["SCAN", "0", "MATCH", &format!("*{}b", "a".repeat(500)), "COUNT", "1000"])])
    }),
    abuse("WATCH of 9999 keys", |_| {
        let keys: Vec<String> = (0..9999).map(support::key).collect();
        let words: Vec<&str> = std::iter::once("WATCH").chain(keys.iter().map(String::as_str)).collect();
        again(vec![[encode(&words), encode(&["UNWATCH"])].concat()])
    }),
    abuse("LOCKINFO of 6000 waiters by 20 clients that do not read", unread_waiters),
    abuse("20 000 sessions that share one lock end together", ending_sessions),
    abuse("a session of 400 000 locks closes", closing_session),
    abuse("LOCK with LIMIT by 20 000 owners, and UNLOCK", limited),
    abuse("400 HTTP connections hold bodies of 2 MB before authentication", bodies),
    Abuse { disk: Disk::Real, ..abuse("commits, one client", one_writer) },
    Abuse {
        disk: Disk::Stalling,
        ..abuse("commits, one client, and one sync stalls for 2 s", |server| {
            let mut tasks = one_writer(server);
            tasks.push(Box::new(|server| std::fs::write(server.stall_file(), "").unwrap()));
            tasks
        })
    },
    Abuse {
        disk: Disk::Real,
        ..abuse("commits, one client, and another process holds SQLite's write lock for 2 s", |server| {
            let mut tasks = one_writer(server);
            tasks.push(Box::new(|server| {
                let database = rusqlite::Connection::open(server.data()).unwrap();
                // The server's commits leave room between them.
                database.busy_timeout(Duration::from_secs(5)).unwrap();
                database.execute_batch("BEGIN IMMEDIATE").unwrap();
                server.wait(Duration::from_secs(2));
                database.execute_batch("ROLLBACK").unwrap();
            }));
            tasks
        })
    },
];

impl Abuse {
    /// `None`: what it takes is not installed.
    fn measure(&self, program: &str) -> Option<Figures> {
        let server = Server::start(program, self)?;
        let p99_before_us = percentile(&probe(&server, seconds(3.0) / 3, self.disk == Disk::None), 99);
        let tasks = (self.prepare)(&server);
        let first = server.resident("VmRSS");
        server.forget_peak();
        let time = seconds(3.0);
        let (waits_us, peak, end) = std::thread::scope(|scope| {
            let probe = scope.spawn(|| probe(&server, time, self.disk == Disk::None));
            // Some requests of the probe come first.
            server.wait(time / 20);
            for task in tasks {
                scope.spawn(|| task(&server));
            }
            let waits_us = probe.join().unwrap();
            let resident = ["VmHWM", "VmRSS"].map(|which| server.resident(which));
            // Whoever sends or waits to read ends with it.
            server.kill();
            (waits_us, resident[0], resident[1])
        });
        Some(Figures { p99_before_us, waits_us, resident: [first, peak, end] })
    }
}

/// Waits in microseconds, sorted.
fn probe(server: &Server, time: Duration, takes_locks: bool) -> Vec<u64> {
    let mut stream = server.stream();
    let requests = match takes_locks {
        true => vec![&["PING"][..], &["LOCK", "probe", "me", "PX", "30000"], &["UNLOCK", "probe", "me"]],
        false => vec![&["PING"][..]],
    };
    let requests: Vec<Vec<u8>> = requests.into_iter().map(encode).collect();
    let mut waits = Vec::new();
    let began = Instant::now();
    for request in requests.iter().cycle() {
        let left = time.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        let sent = Instant::now();
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
        stream.write_all(request).unwrap();
        // No answer until the end is a wait, too.
        let answered = stream.read(&mut [0; 64]);
        assert!(!matches!(answered, Ok(0)), "the server closed the probe's connection");
        let mut wait = sent.elapsed().as_micros() as u64;
        waits.push(wait);
        while wait > 2000 {
            wait -= 1000;
            waits.push(wait);
        }
        if answered.is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1).saturating_sub(sent.elapsed()));
    }
    waits.sort_unstable();
    waits
}

/// A server in a process of its own.
struct Server {
    child: std::sync::Mutex<Child>,
    id: u32,
    redis: SocketAddr,
    http: SocketAddr,
    tls: Option<(SocketAddr, Arc<ClientConfig>)>,
    has_password: bool,
    is_over: Arc<AtomicBool>,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    fn start(program: &str, abuse: &Abuse) -> Option<Server> {
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        std::fs::write(&tokens, format!("bench:{HTTP_TOKEN}\n")).unwrap();
        std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut command = Command::new(program);
        command
            .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--connections-max", "9000"])
            .arg("--http-tokens")
            .arg(&tokens)
            .arg("--data")
            .arg(dir.path().join("octostore.db"))
            .args(abuse.flags)
            // What this program reads is no setting of the server.
            .env_remove("BENCH_SERVER")
            .env_remove("BENCH_AGAINST")
            .stdout(Stdio::piped());
        let tls = abuse.has_tls.then(|| access::certificate(dir.path()));
        if abuse.has_tls {
            command.args(access::tls_flags(dir.path()));
        }
        if abuse.disk == Disk::None {
            command.args(["--durability", "memory"]);
        }
        if abuse.disk == Disk::Stalling {
            command
                .env("LD_PRELOAD", stalling_syncs(dir.path())?)
                .env("STALL_FILE", dir.path().join("stall"));
        }
        let is_drained = !abuse.name.contains("nothing drains");
        command.stderr(if is_drained {
            Stdio::from(std::fs::File::create(dir.path().join("log")).unwrap())
        } else {
            Stdio::piped()
        });
        let mut child = command.spawn().expect("the server starts");
        let (mut redis, mut http, mut encrypted) = (None, None, None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            // The first address, and one with TLS after it.
            let addresses = |side| line.trim().strip_prefix(side);
            let address = |side| addresses(side)?.split(',').next()?.trim().parse::<SocketAddr>().ok();
            encrypted = encrypted.or_else(|| addresses("redis")?.split_once("TLS ")?.1.trim().parse().ok());
            redis = redis.or_else(|| address("redis"));
            http = http.or_else(|| address("http"));
            if redis.is_some() && http.is_some() {
                break;
            }
        }
        Some(Server {
            id: child.id(),
            child: child.into(),
            redis: redis.expect("the server says where it listens"),
            http: http.expect("the server says where it listens"),
            tls: tls.map(|tls| (encrypted.expect("the server says where it listens"), tls)),
            has_password: !abuse.flags.is_empty() && abuse.flags[0] == "--requirepass",
            is_over: Arc::default(),
            dir,
        })
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// A TCP connection to the port with TLS.
    fn tls_stream(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(self.tls.as_ref().unwrap().0)
    }

    /// The client's side of a session that has not begun.
    fn tls_session(&self) -> ClientConnection {
        access::tls_session(&self.tls.as_ref().unwrap().1)
    }

    fn kill(&self) {
        self.is_over.store(true, Ordering::Release);
        let mut child = self.child.lock().unwrap();
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Lets time pass, but not beyond the server's end.
    fn wait(&self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time && !self.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection that has given the password.
    fn stream(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.redis).unwrap();
        stream.set_nodelay(true).unwrap();
        if self.has_password {
            stream.write_all(&encode(&["AUTH", SECRET])).unwrap();
            stream.read_exact(&mut [0; 5]).unwrap();
        }
        stream
    }

    fn connect(&self) -> Line {
        Line::to(self.redis)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("octostore.db")
    }

    fn stall_file(&self) -> PathBuf {
        self.dir.path().join("stall")
    }

    fn resident(&self, which: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// The peak begins anew; where that is not allowed, it is the peak since the start.
    fn forget_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.id), "5");
    }
}

/// A library that makes one sync take 2 s each time a file appears. `None` without a C compiler.
fn stalling_syncs(dir: &Path) -> Option<PathBuf> {
    const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void stall(void) {
    const char *file = getenv("STALL_FILE");
    if (file && unlink(file) == 0) sleep(2);
}
int fdatasync(int fd) { stall(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
int fsync(int fd) { stall(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
"#;
    let (source, library) = (dir.join("stall.c"), dir.join("stall.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

/// Connections that each send their requests, read all replies, and begin again.
fn again(requests: Vec<Vec<u8>>) -> Vec<Task> {
    let task = |requests: Vec<u8>| -> Task {
        Box::new(move |server| {
            let mut stream = server.stream();
            while ask(&mut stream, &requests).is_ok() {}
        })
    };
    requests.into_iter().map(task).collect()
}

/// Sends requests, and reads until all are answered. Fails when the server is gone.
fn ask(stream: &mut TcpStream, requests: &[u8]) -> std::io::Result<()> {
    const MARK: &str = "the-end-of-the-replies";
    let mut reader = stream.try_clone()?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = stream.write_all(requests).and_then(|()| stream.write_all(&encode(&["PING", MARK])));
        });
        let (mut input, mut tail) = (vec![0; 256 << 10], Vec::new());
        loop {
            let read = reader.read(&mut input)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            tail.extend_from_slice(&input[read.saturating_sub(64)..read]);
            tail.drain(..tail.len().saturating_sub(64));
            if tail.windows(MARK.len()).any(|window| window == MARK.as_bytes()) {
                return Ok(());
            }
        }
    })
}

fn take(server: &Server, locks: u64) {
    server.connect().take_locks(0, locks, |_| 3_600_000);
}

/// Sends `count` requests, a thousand at once, and expects a line for each.
fn all(line: &mut Line, count: u64, request: impl Fn(u64) -> Vec<u8>) {
    for first in (0..count).step_by(1000) {
        let some = first..count.min(first + 1000);
        let length = some.clone().count();
        line.send(&some.flat_map(&request).collect::<Vec<u8>>());
        line.replies(length);
    }
}

/// A connection that listens to 10 000 patterns, or to as many as it may.
fn listen_to_patterns(server: &Server, pattern: impl Fn(usize) -> String) -> TcpStream {
    let mut stream = server.stream();
    for first in (0..10_000).step_by(1000) {
        let patterns: Vec<String> = (first..first + 1000).map(&pattern).collect();
        let words = std::iter::once("PSUBSCRIBE").chain(patterns.iter().map(String::as_str));
        if ask(&mut stream, &encode(&words.collect::<Vec<_>>())).is_err() {
            break;
        }
    }
    stream
}

/// Ends with the server.
fn reads_all(mut stream: TcpStream) -> Task {
    Box::new(move |_| while matches!(stream.read(&mut [0; 64 << 10]), Ok(1..)) {})
}

fn slow_patterns(server: &Server) -> Vec<Task> {
    let subscriber = listen_to_patterns(server, |n| format!("*{}*{n}", "a".repeat(500)));
    let key = "a".repeat(1020);
    assert!(server.connect().ask(&["LOCK", &key, "me", "EX", "3600"]).starts_with(':'));
    let mut tasks = again(vec![encode(&["RENEW", &key, "me"]).repeat(32)]);
    tasks.push(reads_all(subscriber));
    tasks
}

fn long_channels(_: &Server) -> Vec<Task> {
    vec![Box::new(|server| {
        let mut stream = server.stream();
        for n in 0..600 {
            let channel = format!("{n}{}", "c".repeat(1_000_000));
            if ask(&mut stream, &encode(&["SUBSCRIBE", &channel])).is_err() {
                break;
            }
        }
        server.wait(Duration::MAX);
    })]
}

fn long_patterns(_: &Server) -> Vec<Task> {
    vec![Box::new(|server| {
        let _stream = listen_to_patterns(server, |n| format!("{}{n}*", "p".repeat(1000)));
        server.wait(Duration::MAX);
    })]
}

fn three_writers(server: &Server) -> Vec<Task> {
    let subscriber = listen_to_patterns(server, |n| format!("*{n}*:*{n}*x"));
    let cycle = |writer: u64| {
        let cycle = |n| {
            let (key, owner) = (support::key(n), support::owner(n));
            [encode(&["LOCK", &key, &owner]), encode(&["UNLOCK", &key, &owner])].concat()
        };
        (0..500).flat_map(|n| cycle(writer * 1000 + n)).collect::<Vec<u8>>()
    };
    let mut tasks = again((0..3).map(cycle).collect());
    tasks.push(reads_all(subscriber));
    tasks
}

fn crowd(server: &Server) -> Vec<Task> {
    let subscribe = |_| {
        let mut stream = server.stream();
        stream.write_all(&encode(&["SUBSCRIBE", "__lock__:followed"])).unwrap();
        assert!(stream.read(&mut [0; 256]).unwrap() > 0);
        stream
    };
    let subscribers: Vec<TcpStream> = (0..2000).map(subscribe).collect();
    let cycle = |owner: &str| {
        [encode(&["LOCK", "followed", owner]), encode(&["UNLOCK", "followed", owner])].concat().repeat(500)
    };
    let mut tasks = again(["a", "b", "c"].map(cycle).to_vec());
    tasks.push(Box::new(move |server| {
        server.wait(Duration::MAX);
        drop(subscribers);
    }));
    tasks
}

fn wrong_passwords(_: &Server) -> Vec<Task> {
    let task = || -> Task {
        Box::new(|server| {
            let mut stream = TcpStream::connect(server.redis).unwrap();
            let mut reader = stream.try_clone().unwrap();
            let wrong = encode(&["AUTH", "wrong"]).repeat(1000);
            std::thread::scope(|scope| {
                scope.spawn(move || while matches!(reader.read(&mut [0; 64 << 10]), Ok(1..)) {});
                while stream.write_all(&wrong).is_ok() {}
            });
        })
    };
    vec![task(), task()]
}

/// A hundred every 10 ms, of which each connection sends ten.
fn paced_wrong_passwords(_: &Server) -> Vec<Task> {
    vec![Box::new(|server| {
        let mut streams: Vec<TcpStream> =
            (0..10).map(|_| TcpStream::connect(server.redis).unwrap()).collect();
        let wrong = encode(&["AUTH", "wrong"]).repeat(10);
        let (began, mut rounds) = (Instant::now(), 0);
        while !server.is_over() {
            for stream in &mut streams {
                // The server may close it for want of a password.
                if stream.write_all(&wrong).and_then(|()| stream.read(&mut [0; 4096])).is_err() {
                    *stream = match TcpStream::connect(server.redis) {
                        Ok(stream) => stream,
                        Err(_) => return,
                    };
                }
            }
            rounds += 1;
            server.wait((Duration::from_millis(10) * rounds).saturating_sub(began.elapsed()));
        }
    })]
}

fn half_open_handshakes(_: &Server) -> Vec<Task> {
    vec![Box::new(|server| {
        let half_open = || {
            let mut stream = server.tls_stream()?;
            // The head of a record and of the first message.
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252]).map(|()| stream)
        };
        while !server.is_over() {
            let all = (0..10_000).take_while(|_| !server.is_over());
            let all: Vec<_> = all.filter_map(|_| half_open().ok()).collect();
            server.wait(Duration::from_secs(1));
            drop(all);
        }
    })]
}

/// What a client sends first.
fn client_hello(server: &Server) -> Vec<u8> {
    let mut hello = Vec::new();
    server.tls_session().write_tls(&mut hello).unwrap();
    hello
}

fn slow_handshakes(_: &Server) -> Vec<Task> {
    vec![Box::new(|server| {
        let hello = client_hello(server);
        while !server.is_over() {
            let mut streams: Vec<_> = (0..1000).filter_map(|_| server.tls_stream().ok()).collect();
            for byte in &hello {
                streams.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
                server.wait(Duration::from_millis(10));
                if server.is_over() {
                    return;
                }
            }
        }
    })]
}

fn tasks_of(clients: usize, task: fn(&Server)) -> Vec<Task> {
    (0..clients).map(|_| -> Task { Box::new(task) }).collect()
}

fn handshakes(_: &Server) -> Vec<Task> {
    tasks_of(4, |server| {
        while !server.is_over() {
            let Ok(mut stream) = server.tls_stream() else { return };
            let mut session = server.tls_session();
            while session.is_handshaking() && session.complete_io(&mut stream).is_ok() {}
        }
    })
}

fn garbage(_: &Server) -> Vec<Task> {
    tasks_of(4, |server| {
        let hello = client_hello(server);
        // No TLS at all, a record that is too long, and a handshake followed by noise.
        let inputs = [vec![0x55; 64 << 10], [&[22, 3, 3, 255, 255][..], &[0; 65_535]].concat(), {
            [&hello[..], &[22, 3, 3, 0, 100], &[0xaa; 4096]].concat()
        }];
        while !server.is_over() {
            for input in &inputs {
                let Ok(mut stream) = server.tls_stream() else { return };
                // The server closes it.
                let _ = stream.write_all(input).and_then(|()| stream.read(&mut [0; 4096]));
            }
        }
    })
}

fn key_updates(_: &Server) -> Vec<Task> {
    tasks_of(2, |server| {
        while !server.is_over() {
            let Ok(mut stream) = server.tls_stream() else { return };
            let mut session = server.tls_session();
            while session.is_handshaking() && session.complete_io(&mut stream).is_ok() {}
            // Answers are not read: the server may not keep them all.
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            while session.refresh_traffic_keys().is_ok() && session.write_tls(&mut stream).is_ok() {}
        }
    })
}

fn unread_waiters(server: &Server) -> Vec<Task> {
    assert!(server.connect().ask(&["LOCK", "queued", "me", "EX", "3600"]).starts_with(':'));
    let waiters: Vec<TcpStream> = (0..6000)
        .map(|n| {
            let mut stream = server.stream();
            let owner = format!("{n:04}{}", "o".repeat(4000));
            stream.write_all(&encode(&["LOCK", "queued", &owner, "WAIT", "3600000"])).unwrap();
            stream
        })
        .collect();
    while !server.connect().ask_text(&["INFO", "locks"]).contains("\nwaiting:6000\r") {
        std::thread::sleep(Duration::from_millis(10));
    }
    let reader = || -> Task {
        Box::new(|server| {
            let mut stream = server.stream();
            // The server may stop to read.
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let _ = stream.write_all(&encode(&["LOCKINFO", "queued"]).repeat(100));
            server.wait(Duration::MAX);
        })
    };
    let mut tasks: Vec<Task> = (0..20).map(|_| reader()).collect();
    tasks.push(Box::new(move |server| {
        server.wait(Duration::MAX);
        drop(waiters);
    }));
    tasks
}

fn ending_sessions(server: &Server) -> Vec<Task> {
    const SESSIONS: u64 = 20_000;
    let mut line = server.connect();
    let mut sessions = Vec::new();
    // A bulk reply has two lines, of which the second is the id.
    for _ in 0..SESSIONS / 1000 {
        line.send(&encode(&["SESSION", "OPEN", "PX", "2000"]).repeat(1000));
        sessions.extend((0..1000).map(|_| line.replies(2).trim_end().to_owned()));
    }
    all(&mut line, SESSIONS, |n| {
        encode(&["LOCK", "shared", &support::owner(n), "SHARED", "SESSION", &sessions[n as usize]])
    });
    // They end by themselves, some after the others, all within what it took to open them.
    Vec::new()
}

fn closing_session(server: &Server) -> Vec<Task> {
    let mut line = server.connect();
    line.send(&encode(&["SESSION", "OPEN", "EX", "3600"]));
    let session = line.replies(2).trim_end().to_owned();
    all(&mut line, 400_000, |n| encode(&["LOCK", &support::key(n), &support::owner(n), "SESSION", &session]));
    vec![Box::new(move |_| assert_eq!(line.ask(&["SESSION", "CLOSE", &session]), ":400000"))]
}

fn limited(_: &Server) -> Vec<Task> {
    let each = |request: &dyn Fn(&str) -> Vec<u8>| {
        (0..20_000).flat_map(|n| request(&support::owner(n))).collect::<Vec<u8>>()
    };
    let taken = each(&|owner| encode(&["LOCK", "limited", owner, "LIMIT", "100000"]));
    let given_back = each(&|owner| encode(&["UNLOCK", "limited", owner]));
    again(vec![[taken, given_back].concat()])
}

fn bodies(_: &Server) -> Vec<Task> {
    let task = || -> Task {
        Box::new(|server| {
            let mut stream = TcpStream::connect(server.http).unwrap();
            let head = "POST /locks/web/acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                        content-length: 2000000\r\n\r\n";
            stream.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
            // All but the last bytes; the server may refuse them.
            let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&[b' '; 1_990_000]));
            if sent.is_ok() {
                server.wait(Duration::MAX);
            }
        })
    };
    (0..400).map(|_| task()).collect()
}

fn one_writer(_: &Server) -> Vec<Task> {
    again(vec![[encode(&["LOCK", "written", "me"]), encode(&["UNLOCK", "written", "me"])].concat()])
}
