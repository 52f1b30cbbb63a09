//! The program among faults: paused, behind a network that loses replies, on a disk that takes no
//! more, on damaged files.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::client::{Client, encode};
use crate::support::process::{Process, signal};
use crate::support::random::{Random, setting};
use crate::support::until;

fn number(reply: &str) -> i64 {
    reply.strip_prefix(':').and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no number: {reply}"))
}

#[allow(clippy::disallowed_methods)]
fn let_pass(time: Duration) {
    let started = std::time::Instant::now();
    until(|| started.elapsed() >= time);
}

#[test]
fn a_holder_paused_past_its_ttl_learns_that_its_lease_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("octostore.db"), &[]);
    let (mut paused, mut next) = (server.connect(), server.connect());
    let old = number(&paused.line("LOCK k paused PX 50"));
    let new = number(&next.line("LOCK k next PX 60000 WAIT 60000"));
    assert!(new > old);
    assert_eq!(paused.line("UNLOCK k paused"), ":0");
    assert_eq!(paused.line(&format!("UNLOCK k paused TOKEN {old}")), ":0");
    assert_eq!(paused.line("RENEW k paused"), ":0");
    assert_eq!(paused.line(&format!("FENCE k {old}")), ":0");
    assert_eq!(next.line(&format!("FENCE k {new}")), ":1");
}

/// Stops all threads of a server, and returns once they stand.
#[cfg(target_os = "linux")]
fn stop(server: &Process) {
    signal(server, "-STOP");
    until(|| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).expect("its threads");
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
        })
    });
}

/// libfaketime, where it is installed.
#[cfg(target_os = "linux")]
fn libfaketime() -> Option<std::path::PathBuf> {
    let found = |folder: std::fs::DirEntry| {
        Some(folder.path().join("faketime/libfaketime.so.1")).filter(|path| path.exists())
    };
    std::fs::read_dir("/usr/lib").ok()?.flatten().find_map(found)
}

/// A year forth, and two back, as an operator might set it, or NTP.
#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_wall_clock_steps_ends_its_leases_on_time() {
    const YEAR: i64 = 365 * 24 * 3600;
    let Some(library) = libfaketime() else { return println!("skipped: libfaketime is not installed") };
    let dir = tempfile::tempdir().unwrap();
    let ahead = dir.path().join("ahead");
    let set = |seconds: i64| std::fs::write(&ahead, format!("{seconds:+}")).unwrap();
    set(0);
    let server = Process::start_with(
        &dir.path().join("octostore.db"),
        &[
            ("LD_PRELOAD", library.as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", ahead.as_os_str()),
            ("FAKETIME_NO_CACHE", "1".as_ref()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
        ],
    );
    let mut client = server.connect();
    let mut wall = || {
        client.send(&["TIME"]);
        let reply = client.reply();
        reply.split('"').nth(1).and_then(|seconds| seconds.parse::<i64>().ok()).expect("seconds")
    };
    let began = wall();
    let mut other = server.connect();
    let token = other.line("LOCK k me EX 600");
    for (seconds, key) in [(YEAR, "forth"), (-YEAR, "back")] {
        set(seconds);
        assert!((wall() - began - seconds).abs() < 60, "the clock has stepped by {seconds}");
        assert_eq!(other.line("LOCK k you"), "(nil)");
        assert_eq!(other.line("FENCE k"), token);
        assert!((1..=600_000).contains(&number(&other.line("PTTL k"))));
        // And one that is to end does.
        other.line(&format!("LOCK {key} me PX 20"));
        assert!(number(&other.line(&format!("LOCK {key} you WAIT 60000"))) > 0);
    }
}

/// Waits until the kernel has delivered `bytes` unread bytes, or the end of the stream if there are
/// none, to the server's socket of this client. Delivery over loopback may lag behind `send` and
/// `close` when the machine is busy.
#[cfg(target_os = "linux")]
fn until_delivered(server: SocketAddr, client: SocketAddr, bytes: usize) {
    const CLOSE_WAIT: &str = "08";
    let (local, remote) = (format!(":{:04X}", server.port()), format!(":{:04X}", client.port()));
    until(|| {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the table of sockets");
        table.lines().skip(1).any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if !fields[1].ends_with(&local) || !fields[2].ends_with(&remote) {
                return false;
            }
            let unread = fields[4].split_once(':').and_then(|(_, rx)| usize::from_str_radix(rx, 16).ok());
            if bytes == 0 { fields[3] == CLOSE_WAIT } else { unread >= Some(bytes) }
        })
    });
}

/// The release and the waiter's disconnect both reach the server before it reads either.
#[cfg(target_os = "linux")]
#[test]
fn a_waiter_that_disconnects_during_the_release_is_granted_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("octostore.db"), &[]);
    let mut holder = server.connect();
    let address = |client: &Client| client.stream().local_addr().expect("its address");
    let ask = |line: String| server.connect().line(&line);
    for round in 0..40 {
        let key = format!("k{round}");
        holder.call(&["LOCK", &key, "holder", "EX", "86400"]);
        let mut ghost = server.connect();
        ghost.send(&["LOCK", &key, "ghost", "EX", "600", "WAIT", "60000"]);
        until(|| ask(format!("LOCKINFO {key}")).contains("ghost"));
        stop(&server);
        let release = encode(&["UNLOCK", &key, "holder"]);
        let ghost_address = address(&ghost);
        holder.send_bytes(&release);
        drop(ghost);
        until_delivered(server.addr, address(&holder), release.len());
        until_delivered(server.addr, ghost_address, 0);
        signal(&server, "-CONT");
        assert_eq!(holder.reply(), ":1");
        until(|| ask(format!("GET {key}")) == "(nil)");
    }
}

/// A restart brings the whole fleet back at once. Who finds the queue of connections full waits for
/// a second or more.
#[cfg(target_os = "linux")]
#[test]
fn a_burst_of_connections_is_accepted() {
    const CLIENTS: usize = 2_000;
    octostore::server::raise_file_limit(CLIENTS, 1);
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a limit of the system");
    let clients = CLIENTS.min(allowed.trim().parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("octostore.db"), &[]);
    stop(&server);
    let connect = |_| TcpStream::connect_timeout(&server.addr, Duration::from_millis(900));
    let waiting: Vec<_> = (0..clients).map(connect).collect::<Result<_, _>>().expect("connections");
    signal(&server, "-CONT");
    for mut stream in waiting {
        stream.write_all(b"PING\r\n").unwrap();
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+PONG\r\n");
    }
}

/// Requests wait in the sockets while the server stands still and leases run out.
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_was_paused_grants_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("octostore.db"), &[]);
    for _ in 0..5 {
        let (mut holder, mut other) = (server.connect(), server.connect());
        let old = number(&holder.line("LOCK k holder PX 100"));
        stop(&server);
        other.send(&["LOCK", "k", "other", "PX", "60000"]);
        holder.send_bytes(
            &[encode(&["RENEW", "k", "holder"]), encode(&["LOCK", "k", "holder", "PX", "60000"])].concat(),
        );
        let_pass(Duration::from_millis(150));
        signal(&server, "-CONT");
        let granted = other.reply();
        assert_eq!(holder.reply(), ":0", "the lease had ended");
        let again = holder.reply();
        // One of the two has it, under a new token.
        let token = match (granted.as_str(), again.as_str()) {
            (token, "(nil)") | ("(nil)", token) => number(token),
            both => panic!("{both:?}"),
        };
        assert!(token > old);
        assert_eq!(other.line("FENCE k"), format!(":{token}"));
        assert_eq!(other.line("FORCEUNLOCK k"), ":1");
    }
}

/// Passes one request on, waits for the reply, and loses it. Returns the reply.
fn losing_proxy(server: SocketAddr) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    let proxy = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut upstream = TcpStream::connect(server).expect("the server");
        let mut buffer = [0; 4096];
        let length = client.read(&mut buffer).expect("a request");
        upstream.write_all(&buffer[..length]).expect("a server that reads");
        let length = upstream.read(&mut buffer).expect("a reply");
        // A socket that is gone already is shut down, too.
        let _ = client.shutdown(Shutdown::Both);
        buffer[..length].to_vec()
    });
    (addr, proxy)
}

#[test]
fn a_request_whose_reply_was_lost_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("octostore.db"), &[]);
    let mut direct = server.connect();
    let lose = |words: &str| {
        let (addr, proxy) = losing_proxy(server.addr);
        assert_eq!(Client::connect(addr).line(words), "(closed)");
        String::from_utf8(proxy.join().expect("a proxy")).expect("text").trim().to_owned()
    };
    // The same grant again, by its token.
    let token = number(&lose("LOCK k me PX 60000"));
    assert_eq!(number(&direct.line("LOCK k me PX 60000")), token);
    assert_eq!(direct.line("LOCK k other"), "(nil)");
    // Given back, and taken by another: asking again frees nothing of theirs.
    assert_eq!(lose(&format!("UNLOCK k me TOKEN {token}")), ":1");
    let theirs = number(&direct.line("LOCK k other PX 60000"));
    assert_eq!(direct.line(&format!("UNLOCK k me TOKEN {token}")), ":0");
    assert_eq!(direct.line(&format!("FENCE k {theirs}")), ":1");
}

/// The limit on the size of files stands for a disk that is full: it needs no rights, and goes away
/// as space comes back.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_service_resumes_afterwards() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    const LIMIT: u64 = 9 << 20;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start_on_full_disk(&data);
    let limit = |bytes| {
        let pid = Pid::from_raw(i32::try_from(server.id()).expect("a process id"));
        let limit = Rlimit { current: bytes, maximum: getrlimit(Resource::Fsize).maximum };
        prlimit(pid, Resource::Fsize, limit).expect("a limit on a process of ours");
    };
    limit(Some(LIMIT));
    let mut client = server.connect();
    let meta = "m".repeat(1000);
    let (mut held, mut refusal) = (Vec::new(), String::new());
    for batch in 0..1000 {
        let keys: Vec<String> = (0..100).map(|n| format!("k{batch}-{n}")).collect();
        let lock = |key: &String| encode(&["LOCK", key, "me", "EX", "3600", "META", &meta]);
        client.send_bytes(&keys.iter().flat_map(lock).collect::<Vec<u8>>());
        for key in keys {
            match client.reply() {
                reply if reply.starts_with(':') => held.push((key, reply)),
                reply => refusal = reply,
            }
        }
        if !refusal.is_empty() {
            break;
        }
    }
    assert!(refusal.starts_with("-UNKNOWN") || refusal.starts_with("-MISCONF"), "{refusal}");
    let down = client.line("LOCK other me");
    assert!(down.starts_with("-MISCONF") && down.contains("journal"), "{down}");
    // What is there needs room for itself only once.
    limit(Some(LIMIT + (256 << 10)));
    until(|| server.connect().line("LOCK after me").starts_with(':'));
    let recheck = |client: &mut Client| {
        for (key, token) in &held {
            assert_eq!(client.call(&["FENCE", key]), *token, "{key} was acknowledged");
        }
    };
    recheck(&mut client);
    server.kill();
    recheck(&mut Process::start(&data, &[]).connect());
}

/// Wherever a file is cut or a bit is flipped: the server says what is wrong, or serves what it can
/// read; it does not crash.
#[test]
fn damaged_databases_are_refused_or_served() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    for n in 0..200 {
        client.line(&format!("LOCK k{n} me EX 3600 META some-text"));
    }
    drop(client);
    assert_eq!(server.terminate().0, Some(0));
    let whole = std::fs::read(&data).unwrap();
    let seed = setting("OCTOSTORE_TEST_SEED").unwrap_or(1);
    let mut random = Random::new(seed);
    let mut damaged: Vec<Vec<u8>> = vec![b"not a database, but some other file".repeat(100)];
    damaged.extend((0..6).map(|_| whole[..random.below(whole.len() as u64) as usize].to_vec()));
    for _ in 0..setting("OCTOSTORE_TEST_DAMAGES").unwrap_or(20) {
        let mut copy = whole.clone();
        let at = random.below(copy.len() as u64) as usize;
        copy[at] ^= 1 << random.below(8);
        damaged.push(copy);
    }
    let (mut refusals, mut serves) = (0, 0);
    for (number, bytes) in damaged.iter().enumerate() {
        let path = dir.path().join(format!("damaged{number}.db"));
        std::fs::write(&path, bytes).unwrap();
        match Process::try_start(&path) {
            Ok(server) => {
                let reply = server.connect().line("LOCK new me");
                assert!(
                    reply.starts_with(':') || reply.starts_with("-MISCONF"),
                    "seed {seed}, {number}: {reply}"
                );
                serves += 1;
            }
            Err(why) => {
                let names_it = why.contains(&format!("damaged{number}.db")) && !why.contains("panicked");
                assert!(names_it, "seed {seed}, {number}: {why}");
                refusals += 1;
            }
        }
    }
    println!("{} damaged databases, seed {seed}: {refusals} refused, {serves} served", damaged.len());
    assert!(refusals > 0 && serves > 0, "{refusals} refused, {serves} served");
}
