//! A client at the limits of what it may ask for does not stop or bloat the others.
//!
//! Guarantees: every command and subcommand, every HTTP route of the published description and every
//! kind of lock event runs with its worst arguments, on a table of very many locks and on a server with
//! one worker thread, while a probe on a connection of its own is served in between. What has no entry
//! in the tables below fails the test. What a client can make the server keep is bounded in bytes. Not
//! here: what the requests answer; a refusal is as good as an answer.
//!
//! `TURNS=word cargo test turns -- --nocapture` runs only the cases with this word in their name and
//! prints all figures. The ignored test has the full size.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use octostore::command::commands_and_subcommands;
use octostore::engine::EventKind;

use crate::support::client::encode;
use crate::support::process::Process;

/// How much there is.
#[derive(Clone, Copy)]
struct Scale {
    /// The server's threads that serve requests.
    threads: usize,
    /// Locks in the table.
    locks: usize,
    /// Requests that wait for one lock, each on a connection.
    waiters: usize,
    /// Owners that hold one lock, and sessions that end together.
    holders: usize,
    /// Words of one request.
    words: usize,
    /// Subscribers and watchers of one lock.
    listeners: usize,
}

/// What an unoptimised build can do within seconds.
const SMALL: Scale =
    Scale { threads: 1, locks: 200_000, waiters: 1000, holders: 3000, words: 9000, listeners: 200 };
/// Where the table does not matter.
const TINY: Scale = Scale { locks: 2000, ..SMALL };
/// The size at which the faults of this kind were found.
const FULL: Scale =
    Scale { threads: 1, locks: 500_000, waiters: 6000, holders: 20_000, words: 16_000, listeners: 2000 };

/// The longest wait of the probe. The server serves it within a few milliseconds where a request yields
/// as it should, and after hundreds of milliseconds to minutes where one does not; the rest is room for a busy machine.
const WAIT_MAX: Duration = Duration::from_millis(400);
/// A wait that no busy machine explains, so that another attempt is of no use.
const STOPPED: Duration = Duration::from_secs(1);
/// Attempts of one case. What stops the server does so each time; a busy machine does not.
const ATTEMPTS: usize = 3;
/// What a case may add to the server's memory at its peak: some megabytes for each of up to 20 clients.
const BYTES_MAX: u64 = 128 << 20;
/// How long a case sends, if it is not done before. One request is enough to stop the server, and the
/// probe's wait counts to its end, however long that is.
const WINDOW: Duration = Duration::from_millis(100);
/// The same for a transaction, which the server reads in full before it runs it.
const MULTI_WINDOW: Duration = Duration::from_millis(250);
/// How often it is looked whether a case is over. The processors are the server's.
const TICK: Duration = Duration::from_millis(2);
/// Bytes that one connection sends in a case.
const PIPELINE_BYTES_MAX: usize = 4 << 20;
/// Requests that one connection sends in a case.
const PIPELINE_MAX: usize = 2000;
/// Bytes that fit into a MULTI (`--multi-bytes-max`), and what each command costs beside its own.
const MULTI_BYTES: usize = 1 << 20;
const QUEUED_BYTES: usize = 64;

const PASSWORD: &str = "password-of-tests";
const TOKEN: &str = "token-of-alice";
const ADMIN_KEY: &str = "key-of-admin";
const MARK: &str = "the-end-of-a-case";

/// The worst arguments of each command. `;` separates requests; [`World::expand`] knows the words with `$`.
const WORST: &[(&str, &[&str])] = &[
    (
        "lock",
        &[
            "LOCK limited holder0 LIMIT 1000000",
            "LOCK limited other$n LIMIT 1000000 PX 50",
            "LOCK shared other$n SHARED PX 50",
            "LOCK queued other WAIT 1",
            "LOCK $key $owner META $kilo MAXHOLD 86400000 DELAY 1 SESSION $session",
            "LOCK gone$n me PX 1 DELAY 1 CONN",
        ],
    ),
    ("unlock", &["UNLOCK limited other", "UNLOCK shared other", "UNLOCK queued other TOKEN 1"]),
    ("renew", &["RENEW limited holder1 EX 86400", "RENEW shared holder1", "RENEW queued me EX 86400"]),
    ("fence", &["FENCE limited 1", "FENCE shared", "FENCE queued"]),
    ("lockinfo", &["LOCKINFO queued", "LOCKINFO limited", "LOCKINFO shared"]),
    (
        "locks",
        &[
            "LOCKS 0 MATCH $glob COUNT 1000",
            "LOCKS 0 MATCH $glob COUNT 1000000000",
            "LOCKS 0 COUNT 1000000000",
        ],
    ),
    ("forceunlock", &["FORCEUNLOCK $crowded", "FORCEUNLOCK lock:00000000000"]),
    ("session", &["SESSION HELP", "SESSION $kilo"]),
    ("session|open", &["SESSION OPEN PX 50 NAME $kilo"]),
    ("session|keepalive", &["SESSION KEEPALIVE $session"]),
    ("session|close", &["SESSION CLOSE $loaded"]),
    ("session|info", &["SESSION INFO $session"]),
    (
        "set",
        &[
            "SET $crowded other",
            "SET limited other NX GET",
            "SET $key $owner KEEPTTL GET",
            "SET lock:00000000001 $n",
        ],
    ),
    ("setnx", &["SETNX shared other"]),
    ("get", &["GET limited", "GET queued"]),
    ("del", &["DEL $held", "DEL $crowded"]),
    ("unlink", &["UNLINK $held", "UNLINK $crowded"]),
    ("delex", &["DELEX limited", "DELEX limited IFEQ $owner"]),
    ("delifeq", &["DELIFEQ limited $owner"]),
    ("exists", &["EXISTS $many"]),
    ("type", &["TYPE limited"]),
    ("ttl", &["TTL limited", "TTL shared"]),
    ("pttl", &["PTTL limited"]),
    ("expire", &["EXPIRE limited 86400", "EXPIRE shared 86400 NX"]),
    ("pexpire", &["PEXPIRE limited 86400000 GT"]),
    ("persist", &["PERSIST limited; EXPIRE limited 86400"]),
    (
        "scan",
        &[
            "SCAN 0 MATCH $glob COUNT 1000",
            "SCAN 0 MATCH $glob COUNT 1000000000 TYPE string",
            "SCAN 0 COUNT 1000000000 TYPE lock",
        ],
    ),
    ("keys", &["KEYS *", "KEYS $glob", "KEYS none", "SELECT 15; KEYS *; SELECT 0"]),
    ("dbsize", &["DBSIZE"]),
    ("multi", &["MULTI"]),
    ("exec", &["EXEC", "WATCH $many; MULTI; EXEC"]),
    ("discard", &["DISCARD", "WATCH $many; MULTI; DISCARD"]),
    ("watch", &["WATCH $many", "WATCH lock:$n"]),
    ("unwatch", &["WATCH $many; UNWATCH"]),
    ("subscribe", &["SUBSCRIBE $channels", "SUBSCRIBE $mega$n"]),
    ("psubscribe", &["PSUBSCRIBE $patterns", "PSUBSCRIBE $mega$n*"]),
    ("unsubscribe", &["SUBSCRIBE $channels; UNSUBSCRIBE", "UNSUBSCRIBE $channels"]),
    ("punsubscribe", &["PSUBSCRIBE $patterns; PUNSUBSCRIBE", "PUNSUBSCRIBE $patterns"]),
    ("publish", &["PUBLISH $key $mega", "PSUBSCRIBE $patterns; PUBLISH $key text"]),
    ("hello", &["HELLO 3", "HELLO 2 SETNAME $owner", "HELLO 3 AUTH default wrong"]),
    ("auth", &["AUTH wrong", "AUTH default $mega"]),
    ("ping", &["PING $mega"]),
    ("echo", &["ECHO $mega"]),
    ("select", &["SELECT 15; SELECT 0"]),
    ("reset", &["WATCH $many; SUBSCRIBE $channels; RESET; $auth; HELLO 3"]),
    ("quit", &["QUIT"]),
    ("client", &["CLIENT HELP", "CLIENT $mega"]),
    ("client|id", &["CLIENT ID"]),
    ("client|setname", &["CLIENT SETNAME $owner"]),
    ("client|getname", &["CLIENT GETNAME"]),
    ("client|setinfo", &["CLIENT SETINFO LIB-NAME $owner"]),
    ("client|info", &["CLIENT INFO"]),
    ("client|list", &["CLIENT LIST", "CLIENT LIST ID $numbers", "CLIENT LIST TYPE pubsub"]),
    ("client|kill", &["CLIENT KILL ADDR 1.2.3.4:5", "CLIENT KILL MAXAGE 1000000", "CLIENT KILL TYPE pubsub"]),
    ("client|no-evict", &["CLIENT NO-EVICT ON"]),
    ("client|no-touch", &["CLIENT NO-TOUCH ON"]),
    ("client|reply", &["CLIENT REPLY OFF; KEYS *; CLIENT REPLY ON", "CLIENT REPLY SKIP; KEYS *"]),
    ("command", &["COMMAND", "COMMAND HELP", "COMMAND $mega"]),
    ("command|count", &["COMMAND COUNT"]),
    ("command|info", &["COMMAND INFO", "COMMAND INFO $lock_words"]),
    ("command|docs", &["COMMAND DOCS", "COMMAND DOCS $lock_words"]),
    ("command|list", &["COMMAND LIST", "COMMAND LIST FILTERBY PATTERN $glob"]),
    ("command|getkeys", &["COMMAND GETKEYS DEL $lock_words"]),
    ("command|getkeysandflags", &["COMMAND GETKEYSANDFLAGS DEL $lock_words"]),
    ("config", &["CONFIG HELP", "CONFIG $mega"]),
    ("config|get", &["CONFIG GET *", "CONFIG GET $patterns", "CONFIG GET $mega"]),
    ("info", &["INFO", "INFO everything", "INFO $lock_words"]),
    ("time", &["TIME"]),
    ("wait", &["WAIT 0 0"]),
];

/// Requests whose replies are large: sent by clients that read none of them.
const UNREAD: &[&str] = &[
    "LOCKINFO queued",
    "LOCKINFO limited",
    "KEYS *",
    "CLIENT LIST",
    "COMMAND DOCS",
    "INFO everything",
    "ECHO $mega",
];

/// What a user sends to a route: the path with its parameters, and a body.
const ROUTES: &[(&str, &[(&str, &str)])] = &[
    (
        "post /locks/{name}/acquire",
        &[
            ("/locks/web/$n/acquire", r#"{"ttl_seconds":1,"lock_delay_seconds":1,"metadata":"$kilo"}"#),
            ("/locks/web/acquire", r#"{"ttl_seconds":60}"#),
            ("/locks/web/acquire", "$brackets"),
            ("/locks/web/acquire", r#"{"metadata":"$mega"}"#),
            ("/locks/limited/acquire", "{}"),
        ],
    ),
    (
        "post /locks/{name}/renew",
        &[("/locks/limited/renew", r#"{"lease_id":"$uuid"}"#), ("/locks/web/renew", "$brackets")],
    ),
    (
        "post /locks/{name}/release",
        &[("/locks/limited/release", r#"{"lease_id":"$uuid"}"#), ("/locks/web/release", "$brackets")],
    ),
    ("get /locks/{name}/watch", &[("/locks/limited/watch", ""), ("/locks/web/$n/watch", "")]),
    ("get /locks/{name}", &[("/locks/limited", ""), ("/locks/queued", ""), ("/locks/shared", "")]),
    ("get /locks", &[("/locks", ""), ("/locks?prefix=lock%3A000000", ""), ("/locks?prefix=none", "")]),
    ("post /sessions", &[("/sessions", r#"{"ttl_seconds":10}"#), ("/sessions", "$brackets")]),
    ("post /sessions/{id}/keepalive", &[("/sessions/$uuid/keepalive", "{}")]),
    ("get /sessions/{id}", &[("/sessions/$uuid", "")]),
    ("delete /sessions/{id}", &[("/sessions/$uuid", "")]),
    ("get /health", &[("/health", "")]),
    ("get /status", &[("/status", "")]),
    ("get /metrics", &[("/metrics", "")]),
    ("get /admin/status", &[("/admin/status", "")]),
    ("get /admin/metrics/timeseries", &[("/admin/metrics/timeseries?minutes=10080", "")]),
    ("get /openapi.yaml", &[("/openapi.yaml", "")]),
    ("get /docs", &[("/docs", "")]),
    ("get /", &[("/", "")]),
];

/// All kinds of lock events, each with what makes one. A kind that is missing does not compile.
fn events() -> Vec<(EventKind, &'static str)> {
    let after = |kind: Option<EventKind>| match kind {
        None => Some((EventKind::Acquired, "LOCK $event me; UNLOCK $event me")),
        Some(EventKind::Acquired) => Some((EventKind::Renewed, "LOCK $event me EX 60; RENEW $event me")),
        Some(EventKind::Renewed) => Some((EventKind::Released, "LOCK $event me; DEL $event")),
        Some(EventKind::Released) => Some((EventKind::Expired, "LOCK $event:$n me PX 1")),
        Some(EventKind::Expired) => Some((EventKind::Forced, "LOCK $event me; FORCEUNLOCK $event")),
        Some(EventKind::Forced) => Some((EventKind::Replaced, "SET $event $n")),
        Some(EventKind::Replaced) => None,
    };
    let mut all: Vec<(EventKind, &'static str)> = Vec::new();
    while let Some(next) = after(all.last().map(|(kind, _)| *kind)) {
        all.push(next);
    }
    all
}

/// Who listens while events happen.
#[derive(Debug, Clone, Copy)]
enum Listeners {
    /// One connection with as many patterns as it may have, each slow to match.
    SlowPatterns,
    /// Many connections with one pattern that matches everything.
    AnyPattern,
    /// Many connections on the lock's own channel.
    Channel,
    /// Many readers of the lock's stream over HTTP.
    Watchers,
}

/// What one connection does in a case.
struct Sender {
    addr: SocketAddr,
    bytes: Vec<u8>,
    /// What its replies end with; empty: only the end of the connection.
    ends_with: Vec<u8>,
    reads: bool,
}

/// What happens in one attempt of a case.
#[derive(Default)]
struct Abuse {
    senders: Vec<Sender>,
    /// Connections that last as long as the attempt.
    kept: Vec<TcpStream>,
    /// Connections that close when it begins.
    closing: Vec<TcpStream>,
    /// How long it is watched, whenever the senders are done.
    at_least: Duration,
    /// How long the senders have, if that is more than [`WINDOW`].
    at_most: Duration,
}

/// A server with everything in it that takes long to go through.
struct World {
    server: Process,
    scale: Scale,
    control: Line,
    /// Makes names unique.
    last: usize,
    session: String,
    _waiters: Vec<TcpStream>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(scale: Scale) -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let tokens = dir.path().join("tokens");
        std::fs::write(&tokens, format!("alice:{TOKEN}\n")).expect("a file");
        std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("a file");
        // What the server logs goes into a pipe that nothing drains.
        let threads = scale.threads.to_string();
        let flags = [
            ["--durability", "memory"],
            ["--threads", &threads],
            ["--log", "warn"],
            ["--connections-max", "9000"],
            ["--requirepass", PASSWORD],
            ["--http-tokens", tokens.to_str().expect("text")],
            ["--http-admin-key", ADMIN_KEY],
            ["--http-locks-per-user-max", "10000"],
        ];
        let server = Process::start(&dir.path().join("unused.db"), flags.as_flattened());
        let control = Line::connect(server.addr);
        let mut world = World {
            server,
            scale,
            control,
            last: 0,
            session: String::new(),
            _waiters: Vec::new(),
            _dir: dir,
        };
        world.fill();
        world
    }

    fn fill(&mut self) {
        self.session = self.control.text(&["SESSION", "OPEN", "EX", "86400"]);
        let Scale { locks, holders, waiters, .. } = self.scale;
        let session = self.session.clone();
        self.control.each(locks / 2, |n| format!("LOCK lock:{n:011} me EX 86400"));
        self.control.each(locks / 2, |n| format!("LOCK mine:{n:011} me SESSION {session}"));
        self.control.each(3000, |n| format!("LOCK {}{n:06} me EX 86400", "a".repeat(1000)));
        self.control.each(holders, |n| format!("LOCK shared holder{n} SHARED EX 86400"));
        self.control.each(holders, |n| format!("LOCK limited holder{n} LIMIT 1000000 EX 86400"));
        self.control.each(1, |_| "LOCK queued me EX 86400".to_owned());
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
    fn open(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.server.addr).expect("a connection");
        stream.write_all(&[auth().as_slice(), bytes].concat()).expect("a server that reads");
        stream
    }

    fn next(&mut self) -> usize {
        self.last += 1;
        self.last
    }

    /// The requests of a line. Some words stand for what is large, slow or has to be made first.
    fn expand(&mut self, line: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for request in line.split("; ") {
            let words: Vec<String> = request.split(' ').flat_map(|word| self.words(word)).collect();
            bytes.extend(encode(&words.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        bytes
    }

    fn words(&mut self, word: &str) -> Vec<String> {
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
            other if other.contains('$') => {
                other.replace("$mega", &"m".repeat(1_000_000)).replace("$n", &n.to_string())
            }
            other => other.to_owned(),
        };
        vec![one]
    }

    /// As many times as one connection may send it, alone or in one MULTI.
    fn pipeline(&mut self, line: &str, is_multi: bool, bytes_max: usize) -> Sender {
        let first = self.expand(line);
        let (bytes_max, each) = match is_multi {
            true => (MULTI_BYTES, first.len() + QUEUED_BYTES * line.split("; ").count()),
            false => (bytes_max, first.len()),
        };
        // What has to be made anew is made once; unique names are made each time.
        let is_costly = ["$crowded", "$loaded", "$held"].iter().any(|word| line.contains(word));
        let times = if is_multi { bytes_max / each } else { (bytes_max / each).clamp(1, PIPELINE_MAX) };
        let mut bytes = [auth(), encode(&["HELLO", "3"])].concat();
        if is_multi {
            bytes.extend(encode(&["MULTI"]));
        }
        bytes.extend_from_slice(&first);
        for _ in 1..times {
            if !is_costly && (line.contains("$n") || line.contains("$patterns") || line.contains("$mega")) {
                bytes.extend(self.expand(line));
            } else {
                bytes.extend_from_slice(&first);
            }
        }
        if is_multi {
            bytes.extend(encode(&["EXEC"]));
        }
        bytes.extend(encode(&["ECHO", MARK]));
        Sender { addr: self.server.addr, bytes, ends_with: format!("{MARK}\r\n").into(), reads: true }
    }

    /// A route's requests, as often as one connection may send them, with credentials or without.
    fn http(&mut self, method: &str, path: &str, body: &str, is_user: bool) -> Sender {
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
    fn listen(&mut self, listeners: Listeners) -> (Vec<TcpStream>, String) {
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
                    // In RESP2, a subscriber's PING is answered as a message. The server may refuse some
                    // patterns, or cut off a subscriber that has more events than it may keep.
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
                    let mut line = Line(stream);
                    line.until(b"data:");
                    line.0
                });
                (watchers.collect(), name)
            }
        }
    }

    /// Routes of the published description, as `method path`.
    fn routes(&self) -> Vec<String> {
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

    fn resident(&self, which: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

/// Patterns that fit into one request, different for each n, and slow to match with a key of `a`.
fn slow_patterns(n: usize) -> impl Iterator<Item = String> {
    (0..1800).map(move |k| format!("*{}*{n}:{k}", "a".repeat(1000)))
}

fn auth() -> Vec<u8> {
    encode(&["AUTH", PASSWORD])
}

/// A blocking connection that has given the password.
struct Line(TcpStream);

impl Line {
    fn connect(addr: SocketAddr) -> Line {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
        stream.write_all(&auth()).expect("a server that reads");
        let mut line = Line(stream);
        line.until(b"+OK\r\n");
        line
    }

    /// Reads until this was read, and returns everything.
    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        self.try_until(end).expect("a reply")
    }

    fn try_until(&mut self, end: &[u8]) -> std::io::Result<Vec<u8>> {
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
    fn each(&mut self, count: usize, line: impl Fn(usize) -> String) {
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
    fn text(&mut self, words: &[&str]) -> String {
        self.0.write_all(&[encode(words), encode(&["ECHO", MARK])].concat()).expect("a server that reads");
        let replies = String::from_utf8(self.until(format!("{MARK}\r\n").as_bytes())).expect("text");
        let (_, text) = replies.split_once("\r\n").expect("a bulk reply");
        let (text, _) = text.rsplit_once("\r\n$").expect("another");
        text.to_owned()
    }
}

/// A well-behaved client, and how long it waited.
struct Probe {
    shared: Arc<ProbeShared>,
    thread: Option<JoinHandle<()>>,
}

struct ProbeShared {
    base: Instant,
    is_over: AtomicBool,
    /// When the request that is under way was sent (`MAX`: there is none), and the longest wait, both
    /// in microseconds.
    sent: AtomicU64,
    longest: AtomicU64,
    rounds: AtomicU64,
}

impl ProbeShared {
    fn micros(&self) -> u64 {
        self.base.elapsed().as_micros() as u64
    }
}

/// How long threads were ready to run and had no processor: a busy machine's fault, not the server's.
struct ProcessorWaits {
    server: Vec<std::fs::File>,
    own: Option<std::fs::File>,
}

impl ProcessorWaits {
    /// Of all threads of a process, and of this one. Where the system does not count it, there is none.
    fn of(process: u32) -> ProcessorWaits {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let open = |path: std::path::PathBuf| std::fs::File::open(path.join("schedstat")).ok();
        let server = tasks.filter_map(|task| open(task.path())).collect();
        ProcessorWaits { server, own: open("/proc/thread-self".into()) }
    }

    fn read(&self) -> (Vec<u64>, u64) {
        let nanos = |file: &std::fs::File| {
            let mut text = [0; 64];
            let length = std::os::unix::fs::FileExt::read_at(file, &mut text, 0).unwrap_or(0);
            let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
            text.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
        };
        (self.server.iter().map(nanos).collect(), self.own.as_ref().map_or(0, nanos))
    }

    /// Microseconds since an earlier reading: those of the thread that waited most, and this one's.
    fn since(&self, (server, own): &(Vec<u64>, u64)) -> u64 {
        let (server_now, own_now) = self.read();
        let most = server_now.iter().zip(server).map(|(now, before)| now.saturating_sub(*before)).max();
        (most.unwrap_or(0) + own_now.saturating_sub(*own)) / 1000
    }
}

impl Probe {
    fn start(addr: SocketAddr, process: u32) -> Probe {
        let shared = Arc::new(ProbeShared {
            base: Instant::now(),
            is_over: AtomicBool::new(false),
            sent: AtomicU64::new(u64::MAX),
            longest: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
        });
        let mut line = Line::connect(addr);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let shared = of_thread;
            let requests: [(&[&str], &[u8]); 3] = [
                (&["PING"], b"+PONG\r\n"),
                (&["LOCK", "probe", "me", "EX", "60"], b"\r\n"),
                (&["UNLOCK", "probe", "me"], b"\r\n"),
            ];
            let requests = requests.map(|(words, end)| (encode(words), end));
            let processor = ProcessorWaits::of(process);
            while !shared.is_over.load(Ordering::Acquire) {
                for (request, end) in &requests {
                    let before = processor.read();
                    let sent = shared.micros();
                    shared.sent.store(sent, Ordering::Release);
                    if line.0.write_all(request).is_err() {
                        return;
                    }
                    let mut reply = [0; 64];
                    match line.0.read(&mut reply) {
                        Ok(length @ 1..) => {
                            assert!(reply[..length].ends_with(end), "{:?}", reply.escape_ascii())
                        }
                        _ => return,
                    }
                    let waited = (shared.micros() - sent).saturating_sub(processor.since(&before));
                    shared.longest.fetch_max(waited, Ordering::AcqRel);
                    shared.sent.store(u64::MAX, Ordering::Release);
                }
                shared.rounds.fetch_add(1, Ordering::AcqRel);
            }
        });
        Probe { shared, thread: Some(thread) }
    }

    /// The longest wait since it was started, that of the request under way included.
    fn longest(&self) -> Duration {
        let under_way = self.shared.micros().saturating_sub(self.shared.sent.load(Ordering::Acquire));
        Duration::from_micros(self.shared.longest.load(Ordering::Acquire).max(under_way))
    }

    /// Lets it finish a round that began after this was called, unless the server has stopped.
    fn finish(&self) {
        let rounds = self.shared.rounds.load(Ordering::Acquire);
        let began = Instant::now();
        while self.shared.rounds.load(Ordering::Acquire) < rounds + 2 && began.elapsed() < 2 * STOPPED {
            std::thread::park_timeout(TICK);
        }
    }

    fn stop(mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a probe that is answered");
        }
    }
}

/// Sends and reads until all is answered or the time is over.
fn send(sender: &Sender, until: Instant) {
    let Ok(stream) = TcpStream::connect(sender.addr) else { return };
    stream.set_read_timeout(Some(TICK)).expect("a socket option");
    stream.set_write_timeout(Some(WINDOW)).expect("a socket option");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The server may close the connection, or not read on.
            let _ = (&stream).write_all(&sender.bytes);
        });
        let mut some = vec![0; 256 << 10];
        let mut tail = Vec::new();
        while Instant::now() < until {
            if !sender.reads {
                std::thread::park_timeout(TICK);
                continue;
            }
            match (&stream).read(&mut some) {
                Ok(0) => break,
                Ok(length) => {
                    let end = &some[length.saturating_sub(sender.ends_with.len())..length];
                    tail.extend_from_slice(end);
                    tail.drain(..tail.len().saturating_sub(sender.ends_with.len()));
                    if !tail.is_empty() && tail == sender.ends_with {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        // Ends the writer, too.
        let _ = stream.shutdown(Shutdown::Both);
    });
}

/// Runs cases, and collects what went wrong in them.
struct Runner {
    world: World,
    only: Option<String>,
    faults: Vec<String>,
}

impl Runner {
    /// Runs cases on a server of this size; fails if one of them was wrong.
    fn check(scale: Scale, cases: impl FnOnce(&mut Runner)) {
        // The probes of two servers would disturb each other.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        raise_file_limit();
        let only = std::env::var("TURNS").ok();
        let mut runner = Runner { world: World::new(scale), only, faults: Vec::new() };
        cases(&mut runner);
        let faults = runner.faults;
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// The probe must be served while this happens.
    fn serves(&mut self, name: &str, prepare: impl Fn(&mut World) -> Abuse) {
        if !self.is_wanted(name) {
            return;
        }
        let mut wait = Duration::MAX;
        for _ in 0..ATTEMPTS {
            let (waited, _) = self.attempt(&prepare);
            wait = wait.min(waited);
            if wait <= WAIT_MAX || waited >= STOPPED {
                break;
            }
        }
        println!("{:>8.1} ms  {name}", wait.as_secs_f64() * 1e3);
        if wait > WAIT_MAX {
            self.faults.push(format!("{name}: the probe waited {} ms", wait.as_millis()));
        }
    }

    /// The server must not grow by more than [`BYTES_MAX`] while this happens. Each case has a new
    /// server, because memory that an earlier case has freed would hide what this one takes.
    fn bounds(&mut self, name: &str, prepare: impl Fn(&mut World) -> Abuse) {
        if !self.is_wanted(name) {
            return;
        }
        self.world = World::new(self.world.scale);
        let (_, grown) = self.attempt(&prepare);
        println!("{:>8} MB  {name}", grown >> 20);
        if grown > BYTES_MAX {
            self.faults.push(format!("{name}: the server's memory grew by {} MB", grown >> 20));
        }
    }

    fn attempt(&mut self, prepare: impl Fn(&mut World) -> Abuse) -> (Duration, u64) {
        let abuse = prepare(&mut self.world);
        let before = self.world.resident("VmRSS");
        // Makes the peak begin anew; where that is not allowed, it is the peak since the start.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.world.server.id()), "5");
        let probe = Probe::start(self.world.server.addr, self.world.server.id());
        let began = Instant::now();
        drop(abuse.closing);
        std::thread::scope(|scope| {
            for sender in &abuse.senders {
                scope.spawn(|| send(sender, began + WINDOW.max(abuse.at_least).max(abuse.at_most)));
            }
        });
        while began.elapsed() < abuse.at_least {
            std::thread::park_timeout(TICK);
        }
        probe.finish();
        let waited = probe.longest();
        let grown = self.world.resident("VmHWM").saturating_sub(before);
        drop(abuse.kept);
        if waited >= STOPPED {
            // It may be busy for minutes.
            self.world = World::new(self.world.scale);
            // Its connection was closed together with the server.
            drop(probe);
        } else {
            probe.stop();
        }
        (waited, grown)
    }
}

fn commands(runner: &mut Runner, is_multi: bool) {
    for command in commands_and_subcommands() {
        let worst = WORST.iter().find(|(name, _)| *name == command.name);
        let Some((_, lines)) = worst else {
            runner.faults.push(format!("{}: no worst arguments are known", command.name));
            continue;
        };
        for line in *lines {
            let name = format!("{line}{}", if is_multi { " in MULTI" } else { "" });
            runner.serves(&name, |world| Abuse {
                senders: vec![world.pipeline(line, is_multi, PIPELINE_BYTES_MAX)],
                at_most: if is_multi { MULTI_WINDOW } else { WINDOW },
                ..Abuse::default()
            });
        }
    }
}

fn unread_replies(runner: &mut Runner) {
    for line in UNREAD {
        runner.serves(&format!("{line} by 20 clients that read nothing"), |world| unread(world, line));
    }
}

fn unread(world: &mut World, line: &str) -> Abuse {
    let mut sender = || Sender { reads: false, ..world.pipeline(line, false, PIPELINE_BYTES_MAX) };
    Abuse { senders: (0..20).map(|_| sender()).collect(), ..Abuse::default() }
}

fn routes(runner: &mut Runner) {
    let routes = runner.world.routes();
    assert!(routes.len() >= 15, "the routes are described: {routes:?}");
    for route in routes {
        let Some((_, requests)) = ROUTES.iter().find(|(name, _)| *name == route) else {
            runner.faults.push(format!("{route}: no worst requests are known"));
            continue;
        };
        let method = route.split(' ').next().unwrap_or_default();
        for (path, body) in *requests {
            for is_user in [true, false] {
                let shown: String = body.chars().take(40).collect();
                let name = format!("{method} {path} {shown}{}", if is_user { "" } else { " without token" });
                runner.serves(&name, |world| Abuse {
                    senders: (0..2).map(|_| world.http(method, path, body, is_user)).collect(),
                    ..Abuse::default()
                });
            }
        }
    }
}

fn lock_events(runner: &mut Runner) {
    for listeners in [Listeners::SlowPatterns, Listeners::AnyPattern, Listeners::Channel, Listeners::Watchers]
    {
        for (kind, line) in events() {
            let name = format!("{} ({line}) to {listeners:?}", kind.as_str());
            runner.serves(&name, |world| {
                let (kept, event) = world.listen(listeners);
                let line = line.replace("$event", &event);
                let senders = (0..3).map(|_| world.pipeline(&line, false, PIPELINE_BYTES_MAX)).collect();
                Abuse { senders, kept, at_least: WINDOW, ..Abuse::default() }
            });
        }
    }
}

/// Sessions and connections that share one lock and end together.
fn ends_of_many(runner: &mut Runner) {
    const TTL_MS: u64 = 1500;
    for mode in ["SHARED", "LIMIT 1000000"] {
        runner.serves(&format!("the end of sessions that share one lock ({mode})"), |world| {
            let (name, count) = (format!("ending{}", world.next()), world.scale.holders);
            let mut bytes = auth();
            (0..count).for_each(|_| bytes.extend(encode(&["SESSION", "OPEN", "PX", &TTL_MS.to_string()])));
            bytes.extend(encode(&["ECHO", MARK]));
            let mut line = Line(TcpStream::connect(world.server.addr).expect("a connection"));
            line.0.write_all(&bytes).expect("a server that reads");
            let replies = String::from_utf8(line.until(format!("{MARK}\r\n").as_bytes())).expect("text");
            let sessions: Vec<&str> = replies.lines().filter(|line| line.len() == 32).collect();
            assert_eq!(sessions.len(), count, "sessions are open");
            line.each(count, |n| format!("LOCK {name} holder{n} {mode} SESSION {}", sessions[n]));
            Abuse { at_least: Duration::from_millis(TTL_MS + 200), ..Abuse::default() }
        });
        runner.serves(&format!("the end of connections that share one lock ({mode})"), |world| {
            let (name, count) = (format!("closing{}", world.next()), world.scale.waiters);
            let lock = |n| format!("LOCK {name} o{n} {mode} CONN\r\n");
            let closing = (0..count).map(|n| world.open(lock(n).as_bytes())).collect();
            Abuse { closing, at_least: WINDOW, ..Abuse::default() }
        });
    }
}

/// What the server logs at a stranger's request goes into a pipe that nothing drains.
fn wrong_passwords(runner: &mut Runner) {
    runner.serves("AUTH wrong from two strangers", |world| {
        let wrong = encode(&["AUTH", "wrong"]).repeat(PIPELINE_MAX);
        let bytes = [wrong, auth(), encode(&["ECHO", MARK])].concat();
        let (addr, ends_with) = (world.server.addr, format!("{MARK}\r\n").into_bytes());
        let sender = || Sender { addr, bytes: bytes.clone(), ends_with: ends_with.clone(), reads: true };
        Abuse { senders: (0..2).map(|_| sender()).collect(), ..Abuse::default() }
    });
}

fn kept_bytes(runner: &mut Runner) {
    const MUCH: usize = 150 << 20;
    let at_most = Duration::from_secs(2);
    for (line, bytes) in [
        ("SUBSCRIBE $mega$n", MUCH),
        ("PSUBSCRIBE $patterns", 10 << 20),
        ("SUBSCRIBE $channels", MUCH / 10),
        ("WATCH $many", MUCH / 10),
        ("PING $mega", MUCH),
        ("CLIENT SETNAME $owner", MUCH / 10),
        ("COMMAND DOCS $lock_words", 1 << 20),
    ] {
        runner.bounds(&format!("{line}, again and again"), |world| Abuse {
            senders: vec![world.pipeline(line, false, bytes)],
            at_most,
            ..Abuse::default()
        });
    }
    for line in UNREAD {
        runner.bounds(&format!("{line} by 20 clients that read nothing"), |world| unread(world, line));
    }
    for (kind, line) in events() {
        runner.bounds(&format!("{} ({line}) to slow patterns", kind.as_str()), |world| {
            let (kept, event) = world.listen(Listeners::SlowPatterns);
            // Those patterns are part of the server's memory before.
            let line = line.replace("$event", &event);
            let senders = (0..3).map(|_| world.pipeline(&line, false, MUCH)).collect();
            Abuse { senders, kept, at_most, ..Abuse::default() }
        });
    }
    runner.bounds("HTTP bodies that do not end, without token", |world| {
        let addr = world.server.http.expect("HTTP");
        let head = "POST /locks/web/acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 2000000\r\n\r\n";
        let bytes = [head.as_bytes(), &vec![b' '; 1_900_000]].concat();
        let sender = || Sender { addr, bytes: bytes.clone(), ends_with: Vec::new(), reads: true };
        Abuse { senders: (0..150).map(|_| sender()).collect(), at_most, ..Abuse::default() }
    });
}

/// Asks the system for as many open files as it allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the test says what is missing when it connects.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Every case in which the probe must be served, on one server.
fn all_cases(runner: &mut Runner) {
    commands(runner, false);
    commands(runner, true);
    unread_replies(runner);
    routes(runner);
    lock_events(runner);
    ends_of_many(runner);
}

/// One test, because filling the table takes longer than most cases; failures name their case.
#[test]
fn no_command_route_event_or_disconnect_delays_other_clients() {
    Runner::check(SMALL, all_cases);
}

#[test]
fn wrong_passwords_delay_no_other_client_while_stderr_is_not_read() {
    Runner::check(TINY, wrong_passwords);
}

#[test]
fn memory_that_clients_can_make_the_server_keep_is_bounded() {
    // On one thread, whoever makes events waits for those who deliver them.
    Runner::check(Scale { threads: 3, ..TINY }, kept_bytes);
}

#[test]
#[ignore = "takes minutes"]
fn no_request_delays_other_clients_at_full_size() {
    Runner::check(FULL, all_cases);
}
