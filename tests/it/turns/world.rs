//! The server under test, filled with everything that takes long to go through.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Scale;
use super::load::Sender;
use super::tables::Listeners;
use crate::support::client::encode;
use crate::support::process::Process;

/// Bytes that one connection sends in a case.
pub(super) const PIPELINE_BYTES_MAX: usize = 4 << 20;
/// Requests that one connection sends in a case.
pub(super) const PIPELINE_MAX: usize = 2000;
/// Bytes that fit into a MULTI (`--multi-bytes-max`), and what each command costs beside its own.
pub(super) const MULTI_BYTES: usize = 1 << 20;
pub(super) const QUEUED_BYTES: usize = 64;

/// Connections that the server accepts (`--connections-max`), and those that stay free for the clients of a
/// case and the probe.
const CONNECTIONS_MAX: usize = 9000;
const CONNECTIONS_FREE: usize = 200;

pub(super) const PASSWORD: &str = "password-of-tests";
pub(super) const TOKEN: &str = "token-of-alice";
pub(super) const ADMIN_KEY: &str = "key-of-admin";
pub(super) const MARK: &str = "the-end-of-a-case";

/// A server with everything in it that takes long to go through.
pub(super) struct World {
    pub(super) server: Process,
    pub(super) scale: Scale,
    pub(super) control: Line,
    /// Makes names unique.
    pub(super) last: usize,
    pub(super) session: String,
    /// The server's memory once it is filled, in bytes.
    pub(super) resident_before: u64,
    pub(super) _waiters: Vec<TcpStream>,
    pub(super) _dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new(scale: Scale) -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let tokens = dir.path().join("tokens");
        std::fs::write(&tokens, format!("alice:{TOKEN}\n")).expect("a file");
        std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("a file");
        // What the server logs goes into a pipe that nothing drains.
        let (threads, connections_max) = (scale.threads.to_string(), CONNECTIONS_MAX.to_string());
        let flags = [
            ["--durability", "memory"],
            ["--threads", &threads],
            ["--log", "warn"],
            ["--connections-max", &connections_max],
            ["--requirepass", PASSWORD],
            ["--http-tokens", tokens.to_str().expect("text")],
            ["--http-admin-key", ADMIN_KEY],
            ["--http-locks-per-user-max", "10000"],
        ];
        let server = Process::start(
            &dir.path().join("unused.db"),
            &[flags.as_flattened(), &["--allow-flush"]].concat(),
        );
        let control = Line::connect(server.addr);
        let mut world = World {
            server,
            scale,
            control,
            last: 0,
            session: String::new(),
            resident_before: 0,
            _waiters: Vec::new(),
            _dir: dir,
        };
        world.fill();
        world.resident_before = world.resident("VmRSS");
        world
    }

    pub(super) fn fill(&mut self) {
        self.session = self.control.text(&["SESSION", "OPEN", "EX", "86400"]);
        let Scale { locks, holders, waiters, .. } = self.scale;
        let session = self.session.clone();
        self.control.each(locks / 2, |n| format!("LOCK lock:{n:011} me EX 86400"));
        self.control.each(locks / 2, |n| format!("LOCK mine:{n:011} me SESSION {session}"));
        self.control.each(3000, |n| format!("LOCK {}{n:06} me EX 86400", "a".repeat(1000)));
        self.control.each(holders, |n| format!("LOCK shared holder{n} SHARED EX 86400"));
        self.control.each(holders, |n| format!("LOCK limited holder{n} LIMIT 1000000 EX 86400"));
        self.control.each(1, |_| "LOCK queued me EX 86400".to_owned());
        self.control.each(holders, |n| format!("HSET large-hash f{n} {n}"));
        self.control.each(holders, |n| format!("SADD large-set m{n}"));
        self.control.each(holders, |n| format!("ZADD large-sorted {n} m{n}"));
        self.control.each(holders, |n| format!("RPUSH large-list i{n}"));
        self._waiters = (0..waiters)
            .map(|n| {
                let wait = format!("LOCK queued {n}{} WAIT 3600000\r\n", "o".repeat(4000));
                self.open(wait.as_bytes())
            })
            .collect();
        let waiting = format!("\nwaiting:{waiters}\r");
        crate::support::until(|| Line::connect(self.server.addr).text(&["INFO", "locks"]).contains(&waiting));
    }

    /// A connection that has given the password and sent this.
    pub(super) fn open(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.server.addr).expect("a connection");
        stream.write_all(&[auth().as_slice(), bytes].concat()).expect("a server that reads");
        stream
    }

    /// How many of `count` connections there is room for.
    pub(super) fn room_for(&self, count: usize) -> usize {
        count.min(CONNECTIONS_MAX - self.scale.waiters - CONNECTIONS_FREE)
    }

    /// Waits until the server has closed the connections of a case.
    pub(super) fn until_closed(&self) {
        let most = self.scale.waiters + CONNECTIONS_FREE / 2;
        crate::support::until(|| {
            let clients = Line::connect(self.server.addr).text(&["INFO", "clients"]);
            let connected = clients.lines().find_map(|line| line.strip_prefix("connected_clients:"));
            connected.and_then(|connected| connected.parse().ok()).is_some_and(|now: usize| now <= most)
        });
    }

    pub(super) fn next(&mut self) -> usize {
        self.last += 1;
        self.last
    }

    /// The requests of a line, repeated. Some words stand for large values, slow patterns, or state
    /// that is made first. `$n` is a different number in each repetition.
    fn expand(&mut self, line: &str, times: usize) -> Vec<u8> {
        if line.contains("$patterns") {
            return (0..times).flat_map(|_| self.expand_once(line)).collect();
        }
        const NUMBER: &[u8] = b"########";
        let template = self.expand_once(&line.replace("$n", "########"));
        let places: Vec<usize> = match line.contains("$n") {
            true => template
                .windows(NUMBER.len())
                .enumerate()
                .filter(|(_, text)| *text == NUMBER)
                .map(|(place, _)| place)
                .collect(),
            false => Vec::new(),
        };
        let mut bytes = template.repeat(times);
        for copy in bytes.chunks_exact_mut(template.len()) {
            let number = format!("{:08}", self.next());
            for place in &places {
                copy[*place..][..NUMBER.len()].copy_from_slice(number.as_bytes());
            }
        }
        bytes
    }

    pub(super) fn expand_once(&mut self, line: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for request in line.split("; ") {
            let words: Vec<String> = request.split(' ').flat_map(|word| self.words(word)).collect();
            bytes.extend(encode(&words.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        bytes
    }

    pub(super) fn words(&mut self, word: &str) -> Vec<String> {
        let Scale { locks, holders, words, .. } = self.scale;
        let n = self.next();
        let one = match word {
            "$auth" => return vec!["AUTH".to_owned(), PASSWORD.to_owned()],
            "$key" => "a".repeat(1024),
            "$owner" => "o".repeat(4096),
            "$kilo" => "m".repeat(1024),
            // Tries every place of a long key, at every place of which most of it matches.
            "$glob" => format!("*{}b", "a".repeat(500)),
            "$session" => self.session.clone(),
            "$many" => return (0..words).map(|n| format!("lock:{n:011}")).collect(),
            // More than a command executes at once.
            "$long" => return (0..100_000).map(|n| format!("long:{n}")).collect(),
            "$long_scores" => return (0..100_000).map(|n| format!("{}", n / 2)).collect(),
            "$held" => {
                self.control.each(words, |n| format!("LOCK held:{n} me"));
                return (0..words).map(|n| format!("held:{n}")).collect();
            }
            "$crowded" => {
                let kind = if n.is_multiple_of(2) { "SHARED" } else { "LIMIT 1000000" };
                self.control.each(holders, |holder| format!("LOCK crowded{n} o{holder} {kind}"));
                format!("crowded{n}")
            }
            "$loaded" => {
                let session = self.control.text(&["SESSION", "OPEN", "EX", "86400"]);
                self.control.each(locks / 4, |lock| format!("LOCK loaded:{lock} me SESSION {session}"));
                session
            }
            "$channels" => return (0..words).map(|n| format!("__lock__:{n}")).collect(),
            "$patterns" => return slow_patterns(n).collect(),
            "$numbers" => return (0..words).map(|n| n.to_string()).collect(),
            "$lock_words" => return vec!["lock".to_owned(); words],
            other => other.replace("$mega", &"m".repeat(1_000_000)),
        };
        vec![one]
    }

    /// As many times as one connection may send it, alone or in one MULTI.
    pub(super) fn pipeline(&mut self, line: &str, is_multi: bool, bytes_max: usize) -> Sender {
        let first = self.expand(line, 1);
        let (bytes_max, each) = match is_multi {
            true => (MULTI_BYTES, first.len() + QUEUED_BYTES * line.split("; ").count()),
            false => (bytes_max, first.len()),
        };
        let times = if is_multi { bytes_max / each } else { (bytes_max / each).clamp(1, PIPELINE_MAX) };
        let mut bytes = [auth(), encode(&["HELLO", "3"])].concat();
        if is_multi {
            bytes.extend(encode(&["MULTI"]));
        }
        bytes.extend_from_slice(&first);
        let others = times.saturating_sub(1);
        // What has to be made first, such as a lock with many holders, is made once.
        if line.contains("$n") || line.contains("$patterns") {
            bytes.extend(self.expand(line, others));
        } else {
            bytes.extend(first.repeat(others));
        }
        if is_multi {
            bytes.extend(encode(&["EXEC"]));
        }
        bytes.extend(encode(&["ECHO", MARK]));
        Sender { addr: self.server.addr, bytes, ends_with: format!("{MARK}\r\n").into(), reads: true }
    }

    /// A route's requests, as often as one connection may send them, with credentials or without.
    pub(super) fn http(&mut self, method: &str, path: &str, body: &str, is_user: bool) -> Sender {
        let addr = self.server.http.expect("HTTP");
        let mut bytes = Vec::new();
        let credentials = match is_user {
            true => format!("authorization: Bearer {TOKEN}\r\nx-admin-key: {ADMIN_KEY}\r\n"),
            false => String::new(),
        };
        let is_watch = path.ends_with("/watch");
        for n in 0..PIPELINE_MAX {
            let fill = |text: &str, n: usize| {
                let large = [("$kilo", "m", 1024), ("$mega", "m", 1_000_000), ("$brackets", "[", 2_000_000)];
                let text = text
                    .replace("$uuid", "0f0f0f0f-0f0f-4f0f-8f0f-0f0f0f0f0f0f")
                    .replace("$n", &n.to_string());
                match large.iter().find(|(name, ..)| text.contains(name)) {
                    Some((name, letter, times)) => text.replace(name, &letter.repeat(*times)),
                    None => text,
                }
            };
            let number = self.next();
            let (path, body) = (fill(path, number), fill(body, number));
            let size = bytes.len() + path.len() + body.len() + 300;
            let is_last = is_watch || n + 1 == PIPELINE_MAX || size + body.len() > PIPELINE_BYTES_MAX;
            let connection = if is_last { "close" } else { "keep-alive" };
            let media = match body.is_empty() {
                true => String::new(),
                false => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
            };
            let method = method.to_ascii_uppercase();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: localhost\r\n\
                 connection: {connection}\r\n{credentials}{media}\r\n"
            );
            bytes.extend(head.into_bytes());
            bytes.extend(body.into_bytes());
            if is_last {
                break;
            }
        }
        Sender { addr, bytes, ends_with: Vec::new(), reads: true }
    }

    /// Connections that listen, and the name of a lock they listen to.
    pub(super) fn listen(&mut self, listeners: Listeners) -> (Vec<TcpStream>, String) {
        let (name, count) = ("watched".to_owned(), self.scale.listeners);
        let many = |world: &mut World, words: &[&str]| {
            (0..count).map(|_| world.open(&encode(words))).collect::<Vec<_>>()
        };
        match listeners {
            Listeners::SlowPatterns => {
                let mut line = Line::connect(self.server.addr);
                for _ in 0..6 {
                    let n = self.next();
                    let patterns: Vec<String> = slow_patterns(n).collect();
                    let mut words = vec!["PSUBSCRIBE"];
                    words.extend(patterns.iter().map(String::as_str));
                    // In RESP2, a subscriber's PING is answered as a message. The server may refuse
                    // some patterns, or cut off a subscriber that has more events than it may keep.
                    let requests = [encode(&words), encode(&["PING", MARK])].concat();
                    if line.0.write_all(&requests).is_err() || line.try_until(MARK.as_bytes()).is_err() {
                        break;
                    }
                }
                (vec![line.0], "a".repeat(1010))
            }
            Listeners::AnyPattern => (many(self, &["PSUBSCRIBE", "*"]), name),
            Listeners::Channel => (many(self, &["SUBSCRIBE", "__lock__:watched"]), name),
            Listeners::Watchers => {
                let addr = self.server.http.expect("HTTP");
                let request = format!(
                    "GET /locks/watched/watch HTTP/1.1\r\nhost: localhost\r\n\
                     authorization: Bearer {TOKEN}\r\n\r\n"
                );
                let watchers = (0..count).map(|_| {
                    let mut stream = TcpStream::connect(addr).expect("a connection");
                    stream.write_all(request.as_bytes()).expect("a server that reads");
                    Line(stream)
                });
                let mut watchers: Vec<Line> = watchers.collect();
                for watcher in &mut watchers {
                    watcher.until(b"data:");
                }
                (watchers.into_iter().map(|line| line.0).collect(), name)
            }
        }
    }

    /// Routes of the published description, as `method path`.
    pub(super) fn routes(&self) -> Vec<String> {
        let mut stream = TcpStream::connect(self.server.http.expect("HTTP")).expect("a connection");
        stream
            .write_all(b"GET /openapi.yaml HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .expect("a server that reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a description");
        let (mut path, mut routes) = (String::new(), Vec::new());
        for line in text.lines() {
            if let Some(found) = line.strip_prefix("  /").and_then(|rest| rest.strip_suffix(':')) {
                path = format!("/{found}");
            }
            let method = line.strip_prefix("    ").and_then(|rest| rest.strip_suffix(':'));
            if let Some(method) = method.filter(|it| ["get", "post", "put", "delete", "patch"].contains(it)) {
                routes.push(format!("{method} {path}"));
            }
        }
        routes
    }

    pub(super) fn resident(&self, which: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

/// Patterns that fit into one request, different for each n, and slow to match with a key of `a`.
pub(super) fn slow_patterns(n: usize) -> impl Iterator<Item = String> {
    (0..1800).map(move |k| format!("*{}*{n}:{k}", "a".repeat(1000)))
}

pub(super) fn auth() -> Vec<u8> {
    encode(&["AUTH", PASSWORD])
}

/// A blocking connection that has given the password.
pub(super) struct Line(pub(super) TcpStream);

impl Line {
    pub(super) fn connect(addr: SocketAddr) -> Line {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
        stream.write_all(&auth()).expect("a server that reads");
        let mut line = Line(stream);
        line.until(b"+OK\r\n");
        line
    }

    /// Reads until this was read, and returns everything.
    pub(super) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        self.try_until(end).expect("a reply")
    }

    pub(super) fn try_until(&mut self, end: &[u8]) -> std::io::Result<Vec<u8>> {
        let (mut read, mut seen) = (Vec::new(), 0);
        let mut some = vec![0; 64 << 10];
        while !read[seen..].windows(end.len()).any(|window| window == end) {
            seen = read.len().saturating_sub(end.len());
            match self.0.read(&mut some)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => read.extend_from_slice(&some[..length]),
            }
        }
        Ok(read)
    }

    /// Sends requests, a thousand at once.
    pub(super) fn each(&mut self, count: usize, line: impl Fn(usize) -> String) {
        for first in (0..count).step_by(1000) {
            let mut lines = String::new();
            for n in first..count.min(first + 1000) {
                let _ = write!(lines, "{}\r\n", line(n));
            }
            let _ = write!(lines, "ECHO {MARK}\r\n");
            self.0.write_all(lines.as_bytes()).expect("a server that reads");
            let replies = self.until(format!("{MARK}\r\n").as_bytes());
            assert_ne!(replies.first(), Some(&b'-'), "{}", replies.escape_ascii());
        }
    }

    /// The text of a bulk reply.
    pub(super) fn text(&mut self, words: &[&str]) -> String {
        self.0.write_all(&[encode(words), encode(&["ECHO", MARK])].concat()).expect("a server that reads");
        let replies = String::from_utf8(self.until(format!("{MARK}\r\n").as_bytes())).expect("text");
        let (_, text) = replies.split_once("\r\n").expect("a bulk reply");
        let (text, _) = text.rsplit_once("\r\n$").expect("another");
        text.to_owned()
    }
}
