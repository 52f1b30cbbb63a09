//! What leaders and standbys answer, and servers before they are either.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use octostore::journal::StoreAddress;
use octostore::journal::etcd::{EtcdTransport, Transport, Txn, Write};

use super::Caller;
use super::nodes::{Nodes, start_node};
use crate::support::client::Client;
use crate::support::etcd::Etcd;
use crate::support::http::{Answer, exchange};
use crate::support::port::free_port;
use crate::support::process::Process;
use crate::support::until;

fn get(node: &Process, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    exchange(node.http.expect("an address"), request.as_bytes()).expect("an answer")
}

#[test]
fn every_server_serves_clients_and_names_the_leader() {
    let Some(nodes) = Nodes::start() else { return };
    let (leader, standby) = (nodes.leader(), nodes.standby());
    let port = nodes.advertised_port(leader).to_string();
    let mut client = nodes.connect(standby);
    assert_eq!(client.line("CLIENT SETNAME worker"), "+OK");
    assert!(client.line("ROLE").starts_with("*5\n  \"slave\"\n  \"127.0.0.1\"\n"));
    let info = client.line("INFO replication");
    assert!(info.contains("role:slave") && info.contains(&format!("master_port:{port}")), "{info}");
    let named = client.line("SENTINEL GET-MASTER-ADDR-BY-NAME octostore");
    assert_eq!(named, format!("*2\n  \"127.0.0.1\"\n  \"{port}\""));
    assert_eq!(client.line("SENTINEL SENTINELS octostore").matches("\"runid\"").count(), 2);
    assert_eq!(client.line("SENTINEL REPLICAS octostore").matches("\"slave\"").count(), 4);
    // From here on, the leader serves this connection, which keeps its name and address.
    assert_eq!(client.line("LOCK k me EX 600"), ":1");
    let own = client.stream().local_addr().expect("an address");
    let shown = client.line("CLIENT INFO");
    assert!(shown.contains(&format!(" addr={own} ")) && shown.contains(" name=worker "), "{shown}");
    assert!(client.line("LOCKINFO k").contains(&own.to_string()));
    assert!(client.line("ROLE").starts_with("*3\n  \"master\"\n"));
    assert_eq!(nodes.connect(leader).line("FENCE k"), ":1");
    for number in 0..3 {
        let node = nodes.node(number);
        // Once it knows that it is registered.
        until(|| get(node, "/health").status == 200);
        assert_eq!(get(node, "/health/leader").status, if number == leader { 200 } else { 503 });
        let lock = get(node, "/locks/k").json();
        assert_eq!(lock["fencing_token"], 1, "passed on to the leader");
        let cluster = get(node, "/server").json()["cluster"].clone();
        let shown = cluster["nodes"].as_array().expect("nodes").iter();
        let leaders: Vec<_> = shown.filter(|node| node["role"] == "leader").collect();
        assert_eq!(cluster["nodes"].as_array().map(Vec::len), Some(3));
        assert_eq!(leaders[0]["redis"], format!("127.0.0.1:{port}"));
        assert_eq!((leaders.len(), &leaders[0]["is_own"]), (1, &true.into()));
        let metrics = get(node, "/metrics").body;
        let has = |line: &str| metrics.lines().any(|found| found == line);
        assert!(has(&format!("octostore_leader {}", u8::from(number == leader))), "{metrics}");
        assert!(has("octostore_cluster_servers 3") && has("octostore_cluster_has_leader 1"), "{metrics}");
        assert_eq!(metrics.contains("octostore_store_log_batches "), number == leader, "{metrics}");
    }
}

#[test]
fn sentinel_clients_hear_of_a_new_leader() {
    let Some(mut nodes) = Nodes::start() else { return };
    let (old, standby) = (nodes.leader(), nodes.standby());
    let old_port = nodes.advertised_port(old);
    let mut client = nodes.connect(standby);
    client.line("SUBSCRIBE +switch-master");
    nodes.kill(old);
    let new_port = nodes.advertised_port(nodes.leader());
    let message = client.reply();
    let payload = format!("\"octostore 127.0.0.1 {old_port} 127.0.0.1 {new_port}\"");
    assert_eq!(message, format!("*3\n  \"message\"\n  \"+switch-master\"\n  {payload}"));
}

#[test]
fn without_a_leader_no_request_waits() {
    let Some(etcd) = Etcd::start() else { return };
    // A leader that nothing is known of.
    let store = etcd.store("locks");
    let address = StoreAddress::parse(&store).expect("an address");
    let mut transport = EtcdTransport::start(&address).expect("a thread");
    let writes = vec![Write::Put(address.key("leader"), b"{\"node\":\"gone\"}".to_vec())];
    transport.txn(Txn { writes, ..Txn::default() }).expect("an etcd that answers");
    let node = start_node(&store, &["--leader-silent-ms".to_owned(), "60000".to_owned()]);
    let mut client = Client::connect(node.addr);
    assert_eq!(client.line("PING"), "+PONG");
    for request in ["GET k", "LOCK k me EX 1 WAIT 10", "SENTINEL MASTERS", "INFO", "MULTI"] {
        assert_eq!(client.line(request), "-LOADING no leader yet, try again", "{request}");
    }
    // Once it is registered.
    until(|| get(&node, "/health").status == 200);
    for path in ["/health/leader", "/locks/k", "/keys"] {
        let answer = get(&node, path);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{path}");
    }
    // A person sees the page, which says the rest.
    for path in ["/", "/page/style.css", "/page/app.js", "/docs", "/openapi.yaml"] {
        assert_eq!(get(&node, path).status, 200, "{path}");
    }
}

#[test]
fn a_client_cannot_pass_itself_off_as_a_server() {
    let Some(nodes) = Nodes::start() else { return };
    let header = octostore::cluster::Header {
        node: "0".repeat(40),
        addresses: Some(("192.0.2.1:1".parse().expect("it"), "192.0.2.2:1".parse().expect("it"))),
        client: Vec::new(),
    };
    let mut client = nodes.connect(nodes.leader());
    client.send_bytes(&header.encode(&[0; 32]));
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_server_that_does_not_reach_etcd_refuses_clients_and_says_why_until_it_does() {
    let Some(mut etcd) = Etcd::start() else { return };
    etcd.kill(0);
    let (log, port) = (tempfile::NamedTempFile::new().expect("a file"), free_port());
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
    command.args(["--store", &etcd.store("locks"), "--listen", &addr.to_string(), "--http", "off"]);
    command.env_clear().stdout(Stdio::null()).stderr(log.reopen().expect("a file"));
    let _server = EndOnDrop(command.spawn().expect("octostore starts"));
    let text = || std::fs::read_to_string(log.path()).expect("text");
    until(|| text().matches("cannot reach the store; trying again").count() > 1);
    assert!(Caller::connect(addr).is_none(), "a client would wait");
    etcd.restart(0);
    let lock = || Caller::connect(addr)?.call(&["LOCK", "k", "me", "EX", "600"]);
    until(|| lock().as_deref() == Some(":1"));
}

/// A process that is killed when dropped.
struct EndOnDrop(Child);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tokens_of_a_store_are_above_the_token_floor() {
    let Some(etcd) = Etcd::start() else { return };
    for (flags, owner, token) in
        [(&[][..], "first", ":1"), (&["--token-floor", "5000000"], "second", ":5000001")]
    {
        let flags: Vec<String> = flags.iter().map(|flag: &&str| (*flag).to_owned()).collect();
        let node = start_node(&etcd.store("locks"), &flags);
        until(|| get(&node, "/health/leader").status == 200);
        assert_eq!(Client::connect(node.addr).line(&format!("LOCK {owner} me EX 600")), token);
        assert_eq!(node.terminate().0, Some(0));
    }
}
