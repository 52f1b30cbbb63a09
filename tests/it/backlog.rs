//! Changes that wait for storage do not fill the memory.

use std::sync::Arc;

use octostore::engine::BACKLOG_BYTES_MAX;
use octostore::journal::Faults;

use crate::support::client::{Client, encode};
use crate::support::server::TestServer;
use crate::support::until;

const VALUE_BYTES: usize = 900_000;

fn with_large_value(flags: &[&str]) -> (TestServer, Arc<Faults>, Client) {
    let faults = Arc::new(Faults::default());
    let server = TestServer::on_with(Arc::clone(&faults), flags);
    let mut client = server.connect();
    assert_eq!(client.call(&["SET", "large", &"v".repeat(VALUE_BYTES)]), "+OK");
    (server, faults, client)
}

#[test]
fn a_pipeline_that_rewrites_a_large_value_waits_for_storage() {
    const APPENDS: usize = 100;
    let (server, faults, mut client) = with_large_value(&[]);
    // The commit after a large one is made by the commit thread, so holding it blocks no worker.
    let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let request = ["MSET"].into_iter().chain(many.iter().map(String::as_str));
    assert_eq!(client.call(&request.collect::<Vec<_>>()), "+OK");
    faults.hold_commits();
    client.send_bytes(&encode(&["APPEND", "large", "x"]).repeat(APPENDS));
    until(|| server.engine.backlog_bytes() > 32 << 20);
    let mut other = server.connect();
    for _ in 0..APPENDS {
        assert_eq!(other.line("PING"), "+PONG");
    }
    assert!(server.engine.backlog_bytes() < 36 << 20, "{}", server.engine.backlog_bytes());
    faults.release_commits();
    for n in 1..=APPENDS {
        assert_eq!(client.reply(), format!(":{}", VALUE_BYTES + n));
    }
    assert_eq!(server.engine.backlog_bytes(), 0);
}

#[test]
fn a_transaction_that_rewrites_a_large_value_too_often_is_stopped() {
    let (server, _faults, mut client) = with_large_value(&["--script-ms-max", "60000"]);
    let appends = BACKLOG_BYTES_MAX / VALUE_BYTES + 100;
    let script = format!("for n = 1, {appends} do redis.call('APPEND', KEYS[1], 'x') end");
    let error = client.call(&["EVAL", &script, "1", "large"]);
    assert!(error.starts_with("-OOM changes that wait for storage have reached 256 MiB"), "{error}");
    let length: usize = client.line("STRLEN large")[1..].parse().expect("a length");
    assert!((VALUE_BYTES + 1..VALUE_BYTES + appends).contains(&length), "{length}");
    // Storage has taken everything by now.
    assert_eq!(client.line("APPEND large y"), format!(":{}", length + 1));
    drop(server);
}
