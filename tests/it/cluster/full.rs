//! An etcd whose database is full.

use serde_json::json;

use super::call_etcd;
use super::nodes::start_node;
use crate::support::client::Client;
use crate::support::etcd::Etcd;
use crate::support::http::exchange;
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::until;

const QUOTA_BYTES: u64 = 16 << 20;
const VALUE_BYTES: usize = 200 << 10;

/// The size of the database, as the leader knows it.
fn database_bytes(node: &Process) -> u64 {
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let metrics = exchange(node.http.expect("an address"), request).expect("an answer").body;
    let mut lines = metrics.lines().filter_map(|line| line.strip_prefix("octostore_store_database_bytes "));
    lines.next().and_then(|bytes| bytes.parse().ok()).expect("a number")
}

/// Lets etcd forget old revisions, give back their room, and accept writes again.
fn make_room(port: u16) {
    let status = call_etcd(port, "maintenance/status", &json!({}));
    call_etcd(port, "kv/compaction", &json!({"revision": status["header"]["revision"], "physical": true}));
    call_etcd(port, "maintenance/defragment", &json!({}));
    let member = &status["header"]["member_id"];
    let alarm = json!({"action": "DEACTIVATE", "memberID": member, "alarm": "NOSPACE"});
    call_etcd(port, "maintenance/alarm", &alarm);
}

#[test]
fn while_etcd_is_full_no_request_succeeds_and_nothing_is_lost() {
    let quota = |_| vec![format!("--quota-backend-bytes={QUOTA_BYTES}")];
    let Some(etcd) = Etcd::start_with(1, quota) else { return };
    let node = start_node(&etcd.store("locks"), &[]);
    let call = |words: &[&str]| Client::connect(node.addr).call(words);
    until(|| call(&["LOCK", "k", "me", "EX", "600"]) == ":1");
    let mut random = Random::new(1);
    let mut refused = None;
    for _ in 0..1000 {
        // Another value each time, which is not compressed to nothing.
        let text: String = (0..VALUE_BYTES / 16).map(|_| format!("{:016x}", random.next())).collect();
        refused = Some(call(&["SET", "large", &text])).filter(|reply| reply != "+OK");
        if refused.is_some() {
            break;
        }
    }
    assert!(refused.as_ref().is_some_and(|reply| reply.starts_with("-UNKNOWN")), "{refused:?}");
    assert!(database_bytes(&node) > QUOTA_BYTES / 10 * 8, "{}", database_bytes(&node));
    for request in [&["LOCK", "other", "me", "EX", "600"][..], &["UNLOCK", "k", "me"], &["FENCE", "k"]] {
        let reply = call(request);
        assert!(reply.starts_with("-UNKNOWN") || reply.starts_with("-MISCONF"), "{request:?}: {reply}");
    }
    make_room(etcd.ports()[0]);
    until(|| call(&["FENCE", "k"]) == ":1");
    assert_eq!(call(&["UNLOCK", "k", "me"]), ":1");
}
