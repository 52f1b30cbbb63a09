//! Subcommands whose server has one of several shards.

use std::net::SocketAddr;

use serde_json::Value;

use super::shards::{Shards, key_of};
use crate::cli::call;
use crate::cli::run::Running;
use crate::support::until;

/// The JSON objects that a subcommand prints, one per line.
fn objects(addr: SocketAddr, arguments: &[&str]) -> Vec<Value> {
    let (code, output, message) = call(addr, &[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{arguments:?} at {addr}: {message}");
    output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_run_holds_locks_of_all_shards_also_when_one_gets_a_new_leader() {
    let Some(mut shards) = Shards::start() else { return };
    let (leader, asked) = (shards.leader(), shards.others[0].addr);
    let keys = [1, 2, 3].map(key_of);
    let flags = [keys[0].as_str(), &keys[1], &keys[2], "--ttl", "9s"];
    let standby = shards.first(1 - leader).addr;
    assert_eq!(call(standby, &[&["run"], &flags[..], &["--", "true"]].concat()).0, 0);
    let running = Running::start(asked, &flags, "sleep 1000");
    assert_eq!(objects(asked, &["locks"]).len(), 3);
    let (code, _, message) = call(standby, &["run", &keys[2], "--try", "--", "true"]);
    assert!(code == 75 && message.contains("is held by another owner"), "{code} {message}");
    shards.first[leader].take().expect("a process").kill();
    let successor = shards.first(1 - leader);
    until(|| successor.connect().line("ROLE").starts_with("*3\n  \"master\""));
    let renewals = |key: &str| {
        let (code, output, _) = call(asked, &["info", key, "--json"]);
        let info: Value = serde_json::from_str(&output).unwrap_or_default();
        (code == 0).then(|| info["holders"][0]["renewals"].as_u64()).flatten()
    };
    until(|| keys.iter().all(|key| renewals(key).is_some_and(|count| count > 0)));
    running.signal("-TERM");
    let (code, messages) = running.wait();
    assert_eq!(code, 128 + 15, "{messages}");
    assert!(objects(asked, &["locks"]).is_empty(), "all are released");
}

#[test]
fn locks_of_all_shards_are_shown_and_forced_through_any_server() {
    let Some(mut shards) = Shards::start() else { return };
    let leaders = [shards.first(shards.leader()), &shards.others[0], &shards.others[1]];
    let keys = [1, 2, 3].map(key_of);
    for (leader, key) in leaders.iter().zip(&keys) {
        assert_eq!(leader.connect().line(&format!("LOCK {key} me EX 600")), ":1");
    }
    let mut sorted = keys.clone();
    sorted.sort();
    for addr in shards.addresses() {
        let found = objects(addr, &["locks"]);
        assert!(found.iter().map(|lock| &lock["key"]).eq(sorted.iter()), "{addr}: {found:?}");
        for key in &keys {
            assert_eq!(objects(addr, &["info", key])[0]["state"], "exclusive", "{key} at {addr}");
        }
    }
    let asked = shards.first(shards.leader()).addr;
    for expected in [0, 1] {
        assert_eq!(call(asked, &["force-unlock", &keys[2]]).0, expected);
    }
    let load = ["bench", "--clients", "6", "--time", "50ms"];
    let (code, _, message) = call(asked, &load);
    assert_eq!(code, 0, "{message}");
    shards.others.pop().expect("a process").kill();
    let (code, output, message) = call(asked, &["locks"]);
    assert!(code == 69 && output.is_empty(), "a part of the list is not shown as all: {code} {message}");
}
