//! The redis crate, over Sentinel.

use std::time::Duration;

use redis::sentinel::{SentinelClient, SentinelServerType};
use redis::{RedisResult, cmd};

use super::nodes::Nodes;
use crate::support::until;

/// Takes a lock and releases it, at the leader that Sentinel names.
fn cycle(client: &mut SentinelClient) -> RedisResult<()> {
    let mut connection = client.get_connection()?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut call = |words: &[&str]| cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut connection);
    // Only one of them holds it: that of the other client is refused.
    assert_eq!(call(&["SET", "held", "other", "NX", "PX", "60000"])?, redis::Value::Nil);
    call(&["SET", "own", "me", "NX", "PX", "60000"])?;
    call(&["DEL", "own"]).map(drop)
}

#[test]
fn a_client_of_sentinel_follows_leaders_that_are_killed() {
    let Some(mut nodes) = Nodes::start() else { return };
    let sentinels = (0..3).map(|number| format!("redis://127.0.0.1:{}", nodes.advertised_port(number)));
    let sentinels: Vec<String> = sentinels.collect();
    let name = "octostore".to_owned();
    let client = SentinelClient::build(sentinels, name, None, SentinelServerType::Master);
    let mut client = client.expect("a client");
    let mut connection = client.get_connection().expect("a connection");
    let set = cmd("SET").arg(&["held", "me", "NX", "PX", "600000"]).query::<String>(&mut connection);
    assert_eq!(set.as_deref(), Ok("OK"));
    for _ in 0..2 {
        let leader = nodes.leader();
        nodes.kill(leader);
        let client = std::cell::RefCell::new(&mut client);
        until(|| cycle(&mut client.borrow_mut()).is_ok());
        nodes.restart(leader);
    }
}
