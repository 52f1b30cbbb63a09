//! Servers that have one of several shards.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use octostore::domain::{ShardId, slot_of};

use super::Caller;
use super::nodes::start_node;
use crate::support::client::Client;
use crate::support::etcd::Etcd;
use crate::support::http::exchange;
use crate::support::process::Process;
use crate::support::until;

const SHARDS: u16 = 3;

/// Two servers of the first shard, and one of each other shard.
pub(super) struct Shards {
    /// Ends with the servers.
    etcd: Etcd,
    pub(super) first: Vec<Option<Process>>,
    pub(super) others: Vec<Process>,
}

fn start_shard(store: &str, shard: &str) -> Process {
    start_node(store, &["--shard", shard, "--leader-silent-ms", "700"].map(String::from))
}

impl Shards {
    /// `None`: there is no etcd here.
    pub(super) fn start() -> Option<Shards> {
        let etcd = Etcd::start()?;
        let store = etcd.store("locks");
        let first = ["1/3", "1/3"].map(|shard| Some(start_shard(&store, shard))).into();
        let others = ["2/3", "3/3"].map(|shard| start_shard(&store, shard)).into();
        let shards = Shards { etcd, first, others };
        until(|| shards.addresses().all(|addr| knows(addr, 4)));
        Some(shards)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.first.iter().flatten().chain(&self.others).map(|node| node.addr)
    }

    /// The number of the server that leads the first shard.
    pub(super) fn leader(&self) -> usize {
        let leads = |node: &Process| node.connect().line("ROLE").starts_with("*3\n  \"master\"");
        self.first.iter().position(|node| node.as_ref().is_some_and(leads)).expect("a leader")
    }

    pub(super) fn first(&self, number: usize) -> &Process {
        self.first[number].as_ref().expect("a process")
    }
}

/// Whether a server knows this number of servers, and a leader for every slot.
fn knows(addr: SocketAddr, nodes: usize) -> bool {
    let Some(mut caller) = Caller::connect(addr) else { return false };
    let info = (|| {
        caller.send(&["CLUSTER", "INFO"])?;
        let length: usize = caller.line()?.strip_prefix('$')?.parse().ok()?;
        let mut text = String::new();
        while text.len() < length {
            text += &(caller.line()? + "\r\n");
        }
        Some(text)
    })();
    let lines = ["cluster_state:ok".to_owned(), format!("cluster_known_nodes:{nodes}")];
    info.is_some_and(|info| lines.iter().all(|line| info.contains(line)))
}

/// A key of a shard.
pub(super) fn key_of(shard: u16) -> String {
    key_among(SHARDS, shard)
}

/// A key of a shard, where there are this many.
fn key_among(shards: u16, shard: u16) -> String {
    let keys = (0..).map(|n| format!("key{n}"));
    let mut own = keys.filter(|key| ShardId::of_slot(slot_of(key.as_bytes()), shards).number() == shard);
    own.next().expect("every shard has keys")
}

#[test]
fn every_key_is_served_by_the_leader_of_its_shard() {
    let Some(shards) = Shards::start() else { return };
    let leaders = [shards.first(shards.leader()), &shards.others[0], &shards.others[1]];
    let keys = [1, 2, 3].map(key_of);
    for (node, own) in leaders.iter().zip(&keys) {
        let mut client = node.connect();
        for (leader, key) in leaders.iter().zip(&keys) {
            let reply = client.line(&format!("LOCK {key} me EX 600"));
            let moved = format!("-MOVED {} {}", slot_of(key.as_bytes()), leader.addr);
            assert_eq!(reply, if key == own { ":1".to_owned() } else { moved });
        }
        let slot = slot_of(own.as_bytes());
        assert_eq!(client.line(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), ":1");
        assert_eq!(client.line(&format!("CLUSTER KEYSLOT {own}")), format!(":{slot}"));
        assert_eq!(client.line("CLUSTER SLOTS").matches("\n  *").count(), 3);
        assert_eq!(client.line("CLUSTER SHARDS").matches("\"slots\"").count(), 3);
        let nodes = client.line("CLUSTER NODES");
        assert_eq!((nodes.matches("master").count(), nodes.matches("slave").count()), (3, 1), "{nodes}");
        assert_eq!(nodes.matches("myself").count(), 1, "{nodes}");
    }
}

#[test]
fn requests_use_keys_of_one_slot() {
    let Some(shards) = Shards::start() else { return };
    let mut client = shards.others[0].connect();
    let (own, other) = (key_of(2), key_of(3));
    let second = format!("{{{own}}}.2");
    let moved = format!("-MOVED {} {}", slot_of(other.as_bytes()), shards.others[1].addr);
    let different = "-CROSSSLOT Keys in request don't hash to the same slot";
    let foreign = "-ERR Script attempted to access a non local key in a cluster node";
    let mut check = |request: String, expected: &str| {
        let reply = client.line(&request);
        assert!(reply.starts_with(expected), "{request}: {reply}");
    };
    check(format!("MSET {own} a {second} b"), "+OK");
    check(format!("MSET {own} a {other} b"), different);
    check(format!("EVAL return({{}}) 2 {own} {other}"), different);
    check(format!("EVAL return(redis.call('get',KEYS[1])) 1 {second}"), "\"b\"");
    check(format!("EVAL return(redis.call('get','{other}')) 0"), foreign);
    check(format!("EVAL return(1) 1 {other}"), &moved);
    check("MULTI".into(), "+OK");
    check(format!("GET {own}"), "+QUEUED");
    check(format!("GET {second}"), "+QUEUED");
    check("EXEC".into(), "*2");
    check("MULTI".into(), "+OK");
    check(format!("GET {other}"), &moved);
    check("EXEC".into(), "-EXECABORT");
    check(format!("BLPOP {own} {other} 1"), different);
    check(format!("SUBSCRIBE {other}"), "*3");
    check(format!("UNSUBSCRIBE {other}"), "*3");
    check(format!("SSUBSCRIBE {other}"), &moved);
    check("SELECT 1".into(), "-ERR SELECT is not allowed in cluster mode");
    check("SELECT 0".into(), "+OK");
    check(format!("COPY {own} {second} DB 1"), "-ERR Copying to another database");
    check("READONLY".into(), "+OK");
    check("CLUSTER COUNTKEYSINSLOT 16384".into(), "-ERR Invalid slot");
}

#[test]
fn a_shard_has_a_new_leader_while_the_others_go_on() {
    let Some(mut shards) = Shards::start() else { return };
    let (key, other) = (key_of(1), key_of(2));
    let (leader, mut elsewhere) = (shards.leader(), shards.others[0].connect());
    let standby = 1 - leader;
    let slot = slot_of(key.as_bytes());
    let to_leader = format!("-MOVED {slot} {}", shards.first(leader).addr);
    assert_eq!(shards.first(standby).connect().line(&format!("GET {key}")), to_leader);
    assert_eq!(elsewhere.line(&format!("GET {key}")), to_leader);
    let mut client: Client = shards.first(leader).connect();
    let mut early: Client = shards.first(standby).connect();
    assert_eq!(early.line("PING"), "+PONG");
    assert_eq!(client.line(&format!("LOCK {key} me EX 600")), ":1");
    shards.first[leader].take().expect("a process").kill();
    assert_eq!(elsewhere.line(&format!("LOCK {other} me EX 600")), ":1", "another shard goes on");
    let successor = shards.first(standby).addr;
    until(|| shards.first(standby).connect().line(&format!("GET {key}")) == "\"me\"");
    assert_eq!(early.line(&format!("GET {key}")), "\"me\"", "a connection from before it led");
    let moved = format!("-MOVED {slot} {successor}");
    until(|| shards.others[0].connect().line(&format!("GET {key}")) == moved);
    assert_eq!(shards.first(standby).connect().line(&format!("FENCE {key}")), ":1");
}

#[test]
fn http_clients_are_sent_to_the_shard_of_a_lock() {
    let Some(shards) = Shards::start() else { return };
    let body = "{}";
    let path = format!("/locks/{}/acquire", key_of(3));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let [here, there] = [0, 1].map(|n| shards.others[n].http.expect("HTTP"));
    let answer = exchange(here, request.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 307, "{}", answer.body);
    let location = answer.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("location"));
    assert_eq!(location.map(|(_, value)| value.as_str()), Some(format!("http://{there}{path}").as_str()));
    assert_eq!(exchange(there, request.as_bytes()).expect("an answer").status, 200);
    // Each server shows the servers of all shards.
    let request = "GET /server HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let cluster = exchange(here, request.as_bytes()).expect("an answer").json()["cluster"].clone();
    let shown = cluster["nodes"].as_array().expect("nodes").iter();
    let shown = shown.map(|node| (node["shard"].as_u64(), node["role"].as_str() == Some("leader")));
    let shown: Vec<_> = shown.collect();
    let led = |shard| shown.iter().filter(|node| **node == (Some(shard), true)).count();
    assert!(shown.len() == 4 && [1, 2, 3].map(led) == [1, 1, 1], "{cluster}");
    let request =
        format!("GET /key?name={} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", key_of(3));
    let status = |addr| exchange(addr, request.as_bytes()).expect("an answer").status;
    assert_eq!((status(here), status(there)), (307, 200));
}

#[test]
fn a_store_is_divided_once() {
    let Some(shards) = Shards::start() else { return };
    let store = shards.etcd.store("locks");
    for (flags, problem) in [
        (&["--shard", "1/2"][..], "is divided into 3 shards: give --shard I/3"),
        (&[], "is divided into 3 shards: give --shard I/3"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
        command.args(["--store", &store, "--listen", "127.0.0.1:0", "--http", "off"]).args(flags);
        let ended = command.env_clear().stdin(Stdio::null()).output().expect("octostore starts");
        let log = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && log.contains(problem), "{log}");
    }
}

#[test]
fn a_shard_with_an_etcd_of_its_own_does_not_depend_on_the_others() {
    let (Some(first), Some(mut second)) = (Etcd::start(), Etcd::start()) else { return };
    let stores = [first.store("locks"), second.store("locks")];
    let start = |shard: &str, store: &str| {
        start_node(store, &["--shard", shard, "--shard-stores", &stores.join(" ")].map(str::to_owned))
    };
    let nodes = [start("1/2", &stores[0]), start("2/2", &stores[1])];
    until(|| nodes.iter().all(|node| knows(node.addr, 2)));
    let (own, other) = (key_among(2, 1), key_among(2, 2));
    let mut client = nodes[0].connect();
    assert_eq!(client.line(&format!("LOCK {own} me EX 600")), ":1");
    let moved = format!("-MOVED {} {}", slot_of(other.as_bytes()), nodes[1].addr);
    assert_eq!(client.line(&format!("LOCK {other} me EX 600")), moved);
    assert_eq!(nodes[1].connect().line(&format!("LOCK {other} me EX 600")), ":1");
    second.kill(0);
    assert_eq!(client.line(&format!("LOCK {own} me EX 600")), ":1");
    assert_eq!(client.line(&format!("UNLOCK {own} me")), ":1");
}
