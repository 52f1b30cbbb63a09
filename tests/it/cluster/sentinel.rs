//! Servers at the addresses where they are nothing but Sentinels, and the messages about new leaders.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::nodes::{Nodes, Seen, start_node};
use crate::differential::redis::Redis;
use crate::support::client::Client;
use crate::support::etcd::Etcd;
use crate::support::port::free_port;
use crate::support::until;

/// A Sentinel of Redis, whose master is down.
struct RedisSentinel {
    child: Child,
    addr: SocketAddr,
    _dir: tempfile::TempDir,
}

impl RedisSentinel {
    fn start() -> RedisSentinel {
        loop {
            let (dir, port) = (tempfile::tempdir().expect("a folder"), free_port());
            let file = dir.path().join("sentinel.conf");
            std::fs::write(&file, "sentinel monitor octostore 127.0.0.1 1 1\n").expect("a file");
            let mut command = Command::new("redis-server");
            command.arg(&file).args(["--sentinel", "--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.arg("--dir").arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().expect("redis-server");
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let process = format!("process_id:{}\\r", child.id());
            // Another process may have taken the port.
            while child.try_wait().expect("its state").is_none() {
                let listens = TcpStream::connect(addr).is_ok();
                if listens && Client::connect(addr).line("INFO server").contains(&process) {
                    return RedisSentinel { child, addr, _dir: dir };
                }
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for RedisSentinel {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The strings in a reply.
fn strings(reply: &str) -> BTreeSet<String> {
    let quoted = reply.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix('"'));
    quoted.map(str::to_owned).collect()
}

/// The titles of the sections of INFO.
fn sections(info: &str) -> Vec<String> {
    info.split("\\r\\n").filter_map(|line| line.split_once("# ")).map(|(_, title)| title.to_owned()).collect()
}

#[test]
fn a_sentinel_answers_like_that_of_redis() {
    if Redis::is_missing() {
        return;
    }
    let Some(nodes) = Nodes::start() else { return };
    let redis = RedisSentinel::start();
    let (mut theirs, mut ours) = (Client::connect(redis.addr), nodes.connect_to_sentinel(0));
    let mut both = |request: &str| (theirs.line(request), ours.line(request));
    for request in ["ROLE", "GET k", "SET k", "ECHO a", "SELECT 1", "MULTI", "NOSUCH a b", "SENTINEL NOSUCH"]
    {
        let (theirs, ours) = both(request);
        assert_eq!(theirs, ours, "{request}");
    }
    let (theirs, ours) = both("COMMAND LIST");
    let [mut theirs, mut ours] = [theirs, ours].map(|names| {
        let commands = strings(&names).into_iter().filter(|name| !name.contains('|'));
        commands.collect::<BTreeSet<String>>()
    });
    ours.extend(["acl", "publish"].map(str::to_owned));
    theirs.extend(["quit", "reset"].map(str::to_owned));
    assert_eq!(theirs, ours);
    let (theirs, ours) = both("INFO");
    assert_eq!(sections(&theirs), sections(&ours));
    let (theirs, ours) = both("SENTINEL MASTERS");
    let fields = |reply: &str| -> BTreeSet<String> {
        let lines: Vec<&str> = reply.lines().skip(2).collect();
        strings(&lines.iter().step_by(2).copied().collect::<Vec<_>>().join("\n"))
    };
    assert!(fields(&ours).is_subset(&fields(&theirs)), "{ours}");
}

#[test]
fn a_sentinel_has_the_role_and_the_commands_of_one() {
    let Some(nodes) = Nodes::start() else { return };
    let leader = nodes.leader();
    let address = format!("127.0.0.1:{}", nodes.advertised_port(leader));
    for number in 0..3 {
        let mut client = nodes.connect_to_sentinel(number);
        assert_eq!(client.line("ROLE"), "*2\n  \"sentinel\"\n  *1\n    \"octostore\"");
        assert_eq!(client.line("PING"), "+PONG");
        assert_eq!(client.line("COMMAND COUNT"), ":15");
        assert_eq!(client.line("COMMAND INFO get"), "*1\n  (nil)");
        let hello = client.line("HELLO 2");
        assert!(hello.contains("\"sentinel\"") && !hello.contains("\"role\""), "{hello}");
        let info = client.line("INFO");
        let line = format!("master0:name=octostore,status=ok,address={address},slaves=2,sentinels=3");
        assert!(info.contains(&line) && info.contains("redis_mode:sentinel"), "{info}");
        assert!(!info.contains("# Keyspace") && client.line("INFO replication") == "\"\"", "{info}");
        let others = client.line("SENTINEL SENTINELS octostore");
        for other in 0..3 {
            let port = format!("\"{}\"", nodes.sentinel_port(other));
            assert_eq!(others.contains(&port), other != number, "{others}");
        }
        for request in ["GET k", "LOCK k me EX 1", "ECHO a", "SELECT 0", "MULTI", "ACL WHOAMI", "PUBLISH a b"]
        {
            let reply = client.line(request);
            assert!(reply.starts_with("-ERR unknown command"), "{request}: {reply}");
        }
        // What it is elsewhere stays the same.
        let role = nodes.connect(number).line("ROLE");
        assert_eq!(role.starts_with("*3\n  \"master\""), number == leader, "{role}");
        assert!(!nodes.connect(number).line("INFO everything").contains("# Sentinel"));
    }
}

#[test]
fn subscribers_of_a_leader_hear_of_the_next_one_over_the_same_connection() {
    let Some(nodes) = Nodes::start() else { return };
    let (old, standby) = (nodes.leader(), nodes.standby());
    let old_port = nodes.advertised_port(old);
    let mut subscribers = [nodes.connect(old), nodes.connect(old), nodes.connect_to_sentinel(old)];
    subscribers[0].line("SUBSCRIBE +switch-master");
    subscribers[1].line("PSUBSCRIBE +*");
    subscribers[2].line("PSUBSCRIBE *");
    // They want to hear of locks, too, so they must notice that some events did not reach them.
    let mut listener = nodes.connect(old);
    listener.line("SUBSCRIBE __lock__:k +switch-master");
    listener.reply();
    nodes.signal(old, "-STOP");
    let next = || Seen::by(nodes.node(standby).addr).leader_port.filter(|port| *port != old_port);
    until(|| next().is_some());
    let payload = format!("\"octostore 127.0.0.1 {old_port} 127.0.0.1 {}\"", next().expect("a leader"));
    nodes.signal(old, "-CONT");
    let heads = [
        "*3\n  \"message\"".to_owned(),
        "*4\n  \"pmessage\"\n  \"+*\"".to_owned(),
        "*4\n  \"pmessage\"\n  \"*\"".to_owned(),
    ];
    for (subscriber, head) in subscribers.iter_mut().zip(heads) {
        assert_eq!(subscriber.reply(), format!("{head}\n  \"+switch-master\"\n  {payload}"));
        assert!(subscriber.line("PING").contains("pong"), "the connection goes on");
    }
    assert_eq!(listener.rest(), b"");
}

const USERS: &str = "user default on >s3cret ~* &* +@all\n\
                     user watcher on >w resetchannels &+switch-master +role +sentinel +subscribe +psubscribe\n";

#[test]
fn users_and_limits_hold_for_sentinel_clients() {
    let Some(etcd) = Etcd::start() else { return };
    let users = tempfile::NamedTempFile::new().expect("a file");
    users.as_file().write_all(USERS.as_bytes()).expect("a file");
    let path = users.path().to_str().expect("text");
    let flags = ["--sentinel-listen", "127.0.0.1:0", "--users", path, "--auth-timeout-ms", "1000"];
    let node = start_node(&etcd.store("locks"), &flags.map(str::to_owned));
    let connect = || Client::connect(node.sentinel.expect("an address"));
    let mut client = connect();
    for request in ["ROLE", "SENTINEL MASTERS", "SUBSCRIBE +switch-master", "PING"] {
        assert_eq!(client.line(request), "-NOAUTH Authentication required.", "{request}");
    }
    assert!(client.line("AUTH wrong").starts_with("-WRONGPASS"));
    assert_eq!(client.line("AUTH s3cret"), "+OK");
    assert!(client.line("ROLE").starts_with("*2\n  \"sentinel\""));
    let mut watcher = connect();
    assert_eq!(watcher.line("AUTH watcher w"), "+OK");
    assert!(watcher.line("ROLE").starts_with("*2\n  \"sentinel\""));
    for request in ["INFO", "PSUBSCRIBE *", "SUBSCRIBE +sdown"] {
        assert!(watcher.line(request).starts_with("-NOPERM"), "{request}");
    }
    assert!(watcher.line("SUBSCRIBE +switch-master").starts_with("*3\n  \"subscribe\""));
    // Before authentication, requests are small, and the time is limited.
    let mut large = connect();
    let words = vec!["a"; 17].join(" ");
    assert!(large.line(&words).starts_with("-ERR Protocol error: invalid multibulk length"));
    assert_eq!(large.rest(), b"");
    assert_eq!(connect().rest(), b"");
}
