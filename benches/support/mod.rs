//! What the benches share: servers of their own, a load that costs little, and sums.
//!
//! Promise: every server has a port and a folder of its own and ends with the bench. Absent: what is measured.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::unwrap_used)]

pub mod access;
pub mod contention;
pub mod http;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use access::{Access, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The octostore of this build.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_octostore");

/// A server in a process of its own.
pub struct Peer {
    child: Child,
    pub addr: SocketAddr,
    pub dir: tempfile::TempDir,
    pub name: &'static str,
    /// What its clients do first.
    pub access: Access,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// octostore with these flags.
    pub fn octostore(flags: &[&str]) -> Peer {
        Peer::octostore_in(tempfile::tempdir().unwrap(), flags)
    }

    /// octostore on the data of a folder.
    pub fn octostore_in(dir: tempfile::TempDir, flags: &[&str]) -> Peer {
        Peer::server(Command::new(PROGRAM), dir, flags)
    }

    /// A program that takes the flags of octostore, run from a copy of its file. Which pages of memory hold its code makes a
    /// program up to a tenth faster or slower, and they stay the same as long as the file is in the system's cache.
    pub fn copy_of(program: &Path, flags: &[&str]) -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("program");
        std::fs::copy(program, &copy).unwrap();
        Peer::server(Command::new(copy), dir, flags)
    }

    /// octostore, to be asked over HTTP with [`HTTP_TOKEN`].
    pub fn octostore_http() -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        std::fs::write(&tokens, format!("bench:{HTTP_TOKEN}\n")).unwrap();
        std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let flags = ["--http", "127.0.0.1:0", "--http-tokens", tokens.to_str().unwrap()];
        Peer::octostore_in(dir, &flags)
    }

    /// OctoStore 0.14, the system whose HTTP format octostore speaks, by its path in the variable BENCH_OCTOSTORE_014: to be
    /// asked with [`HTTP_TOKEN`].
    pub fn octostore_014() -> Option<Peer> {
        let program = std::env::var("BENCH_OCTOSTORE_014").ok()?;
        let dir = tempfile::tempdir().unwrap();
        let addr = free_address();
        let child = Command::new(program)
            .env("BIND_ADDR", addr.to_string())
            .env("DATABASE_URL", dir.path().join("octostore.db"))
            .env("STATIC_TOKENS", format!("bench:{HTTP_TOKEN}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("OctoStore starts");
        Some(Peer { child, addr, dir, name: "OctoStore 0.14", access: Access::default() }.listening())
    }

    /// A program that takes the arguments of octostore and says where it listens, as octostore does.
    pub fn server(mut program: Command, dir: tempfile::TempDir, flags: &[&str]) -> Peer {
        let is_http = flags.contains(&"--http");
        let side = if is_http { "http" } else { "redis" };
        let mut child = program
            .args(["--listen", "127.0.0.1:0", "--log", "error", "--connections-max", "20000"])
            .arg("--data")
            .arg(dir.path().join("octostore.db"))
            .args(flags)
            .args(if is_http { &[][..] } else { &["--http", "off"] })
            .stdout(Stdio::piped())
            .spawn()
            .expect("octostore starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.trim().strip_prefix(side)?.trim().trim_start_matches("TLS ").parse().ok())
            .expect("octostore says where it listens");
        Peer { child, addr, dir, name: "octostore", access: Access::default() }
    }

    /// Redis with `appendfsync always`, or with no persistence at all. `None` if it is not installed.
    pub fn redis(is_durable: bool) -> Option<Peer> {
        let dir = tempfile::tempdir().unwrap();
        let addr = free_address();
        let append = if is_durable { "yes" } else { "no" };
        let child = Command::new("redis-server")
            .args(["--port", &addr.port().to_string(), "--save", "", "--appendonly", append])
            .args(["--appendfsync", "always", "--maxclients", "20000", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let name = if is_durable { "Redis, appendfsync always" } else { "Redis, no persistence" };
        Some(Peer { child, addr, dir, name, access: Access::default() }.listening())
    }

    /// Once it does.
    fn listening(self) -> Peer {
        for _ in 0..500 {
            if TcpStream::connect(self.addr).is_ok() {
                return self;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} does not listen", self.name);
    }

    /// A server that answers `:1` to every line `*3` of a request's start without looking at the rest: what a socket costs.
    pub fn ones() -> Peer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(SERVE_ONES)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Peer { child, addr, dir, name: "`:1` to everything", access: Access::default() }
    }

    /// Ends it as `kill -9` does, and keeps its data.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// Resident bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Resident bytes once the server has done what it puts off.
    pub fn settled_resident(&self) -> u64 {
        let mut resident = self.resident();
        for _ in 0..60 {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.resident();
            if now == resident {
                break;
            }
            resident = now;
        }
        resident
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Line {
        Line::to(self.addr)
    }
}

/// A bearer token for HTTP.
pub const HTTP_TOKEN: &str = "a-token-that-only-benches-know";

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

const SERVE_ONES: &str = "serve-ones";

/// Call first thing in `main`: serves [`Peer::ones`] if this process was started for that.
pub fn serve_ones_if_asked() {
    if std::env::args().nth(1).as_deref() != Some(SERVE_ONES) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut input = vec![0; 64 << 10];
                let mut output = Vec::new();
                while let Ok(read @ 1..) = stream.read(&mut input).await {
                    output.clear();
                    let requests = input[..read].iter().filter(|byte| **byte == b'*').count();
                    (0..requests).for_each(|_| output.extend_from_slice(b":1\r\n"));
                    if stream.write_all(&output).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// A blocking connection for set-up and for few requests.
pub struct Line(BufReader<TcpStream>);

impl Line {
    pub fn to(addr: SocketAddr) -> Line {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        Line(BufReader::with_capacity(1 << 20, stream))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Reads so many replies of one line each; the last one.
    pub fn replies(&mut self, count: usize) -> String {
        let mut line = String::new();
        for _ in 0..count {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            assert!(!line.starts_with('-'), "{line}");
        }
        line
    }

    pub fn ask(&mut self, words: &[&str]) -> String {
        self.send(&encode(words));
        self.replies(1).trim_end().to_owned()
    }

    /// A bulk reply.
    pub fn ask_text(&mut self, words: &[&str]) -> String {
        let head = self.ask(words);
        let length: usize = head[1..].parse().unwrap();
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Takes locks `first..first + count`, a thousand requests at once. `px` gives each one's TTL in milliseconds.
    pub fn take_locks(&mut self, first: u64, count: u64, px: impl Fn(u64) -> u64) {
        let mut taken = first;
        while taken < first + count {
            let some = (first + count - taken).min(1000);
            let mut bytes = Vec::new();
            for n in taken..taken + some {
                let (key, owner, px) = (key(n), owner(n), px(n).to_string());
                bytes.extend_from_slice(&encode(&["LOCK", &key, &owner, "PX", &px]));
            }
            self.send(&bytes);
            self.replies(some as usize);
            taken += some;
        }
    }
}

/// 16 bytes.
pub fn key(n: u64) -> String {
    format!("lock:{n:011}")
}

/// 30 bytes.
pub fn owner(n: u64) -> String {
    format!("owner:{n:024}")
}

pub fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// The documented compare-and-delete of Redis' lock idiom.
pub const COMPARE_AND_DELETE: &str =
    "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end";

/// What clients send in turn: a lock that is taken and given back, or other pairs of requests.
#[derive(Clone)]
pub enum Idiom {
    Native,
    /// SET NX PX, and the script by its hash.
    Redis(String),
    /// The script by its hash, on locks that are free.
    Script(String),
    /// Two requests. KEY and VALUE stand for those of each client.
    Pair(&'static str, &'static str),
}

impl Idiom {
    pub fn of_redis(peer: &Peer) -> Idiom {
        Idiom::Redis(peer.connect().ask_text(&["SCRIPT", "LOAD", COMPARE_AND_DELETE]).trim_end().to_owned())
    }

    /// The script that compares and deletes.
    pub fn script(peer: &Peer) -> Idiom {
        match Idiom::of_redis(peer) {
            Idiom::Redis(hash) => Idiom::Script(hash),
            other => other,
        }
    }

    pub fn take(&self, key: &str, owner: &str) -> Vec<u8> {
        match self {
            Idiom::Native => encode(&["LOCK", key, owner, "PX", "30000"]),
            Idiom::Redis(_) => encode(&["SET", key, owner, "NX", "PX", "30000"]),
            Idiom::Script(hash) => encode(&["EVALSHA", hash, "1", key, owner]),
            Idiom::Pair(first, _) => filled(first, key, owner),
        }
    }

    pub fn give_back(&self, key: &str, owner: &str) -> Vec<u8> {
        match self {
            Idiom::Native => encode(&["UNLOCK", key, owner]),
            Idiom::Redis(hash) | Idiom::Script(hash) => encode(&["EVALSHA", hash, "1", key, owner]),
            Idiom::Pair(_, second) => filled(second, key, owner),
        }
    }
}

fn filled(request: &str, key: &str, value: &str) -> Vec<u8> {
    let words = request.split(' ').map(|word| match word {
        "KEY" => key,
        "VALUE" => value,
        word => word,
    });
    encode(&words.collect::<Vec<_>>())
}

/// How much at once, and for how long.
#[derive(Clone, Copy)]
pub struct Load {
    pub connections: u64,
    pub pipeline: u64,
    pub time: Duration,
}

/// What a load came to.
pub struct Outcome {
    pub cycles_per_s: f64,
    /// Of single batches (one direction), in microseconds, sorted.
    pub latencies_us: Vec<u32>,
}

impl Outcome {
    pub fn percentile_us(&self, percent: usize) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get(last * percent / 100).copied().unwrap_or(0)
    }
}

/// Every connection takes `pipeline` locks of its own, then gives them back, again and again.
pub fn cycles(addr: SocketAddr, idiom: &Idiom, load: Load) -> Outcome {
    cycles_with(&Access::default(), addr, idiom, load)
}

/// [`cycles`] of clients that get in this way. The first cycle of each is not measured: with many clients
/// and little time, it would measure how connections are accepted.
pub fn cycles_with(access: &Access, addr: SocketAddr, idiom: &Idiom, load: Load) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        for connection in 0..load.connections {
            let stream = access.connect(addr).await;
            let (mut take, mut give_back) = (Vec::new(), Vec::new());
            for n in 0..load.pipeline {
                let n = 1_000_000_000 + connection * 1000 + n;
                take.extend(idiom.take(&key(n), &owner(n)));
                give_back.extend(idiom.give_back(&key(n), &owner(n)));
            }
            clients.push((stream, take, give_back));
        }
        let replies = load.pipeline as usize;
        let first: Vec<_> = clients
            .into_iter()
            .map(|(mut stream, take, give_back)| {
                tokio::spawn(async move {
                    cycle_until(&mut stream, &take, &give_back, replies, Instant::now()).await;
                    (stream, take, give_back)
                })
            })
            .collect();
        let mut ready = Vec::new();
        for task in first {
            ready.push(task.await.unwrap());
        }
        let started = Instant::now();
        let end = started + load.time;
        let tasks: Vec<_> = ready
            .into_iter()
            .map(|(mut stream, take, give_back)| {
                tokio::spawn(async move { cycle_until(&mut stream, &take, &give_back, replies, end).await })
            })
            .collect();
        let mut latencies_us = Vec::new();
        for task in tasks {
            latencies_us.extend(task.await.unwrap());
        }
        let cycles = latencies_us.len() as u64 / 2 * load.pipeline;
        let cycles_per_s = cycles as f64 / started.elapsed().as_secs_f64();
        latencies_us.sort_unstable();
        Outcome { cycles_per_s, latencies_us }
    })
}

/// [`client`] on a stream of either kind.
async fn cycle_until(
    stream: &mut Stream,
    take: &[u8],
    give_back: &[u8],
    replies: usize,
    end: Instant,
) -> Vec<u32> {
    match stream {
        Stream::Plain(stream) => client(stream, take, give_back, replies, end).await,
        Stream::Tls(stream) => client(stream, take, give_back, replies, end).await,
    }
}

/// Cycles until `end`, at least one. Returns how long each request took.
async fn client(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    take: &[u8],
    give_back: &[u8],
    replies: usize,
    end: Instant,
) -> Vec<u32> {
    let mut input = vec![0; 64 << 10];
    let mut latencies_us = Vec::new();
    loop {
        for request in [take, give_back] {
            let sent = Instant::now();
            stream.write_all(request).await.unwrap();
            stream.flush().await.unwrap();
            let mut missing = replies;
            // The first byte of the line that is being read.
            let mut begun = None;
            while missing > 0 {
                let read = stream.read(&mut input).await.unwrap();
                assert!(read > 0, "the server closed the connection");
                for line in input[..read].split_inclusive(|byte| *byte == b'\n') {
                    let first = *begun.get_or_insert(line[0]);
                    if line.ends_with(b"\n") {
                        assert!(first != b'-', "{}", line.escape_ascii());
                        // After the length of a value comes the value.
                        missing -= usize::from(first != b'$' || line.starts_with(b"$-"));
                        begun = None;
                    }
                }
            }
            latencies_us.push(sent.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
        }
        if Instant::now() >= end {
            return latencies_us;
        }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes of a database and what is beside it.
pub fn bytes_in(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Asks the system for as many open files as it allows.
pub fn raise_file_limit() {
    octostore::server::raise_file_limit(20_000, 1);
}

/// A number from the environment.
pub fn number<N: std::str::FromStr>(name: &str) -> Option<N> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// How long to measure, from the variable BENCH_SECONDS.
pub fn seconds(default: f64) -> Duration {
    Duration::from_secs_f64(number("BENCH_SECONDS").unwrap_or(default))
}
