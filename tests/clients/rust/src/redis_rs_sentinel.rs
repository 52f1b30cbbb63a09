//! The redis crate with Sentinel. It takes a server for a sentinel only if the server's `ROLE` says so.

use std::process::Command;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::{Sentinel, SentinelClient, SentinelServerType};
use redis::{AsyncCommands, Commands, ConnectionAddr};
use tokio::time::{sleep, timeout};

use crate::support::{key, sentinel_urls, urls};

const NAME: &str = "octostore";
/// From the loss of the leader to the next grant.
const TIME_MAX: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

fn client() -> SentinelClient {
    SentinelClient::build(sentinel_urls(), NAME, None, SentinelServerType::Master).unwrap()
}

/// A connection to the leader, once there is one.
async fn connect(client: &mut SentinelClient) -> MultiplexedConnection {
    let connecting = async {
        loop {
            match client.get_async_connection().await {
                Ok(connection) => break connection,
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    };
    timeout(TIME_MAX, connecting).await.expect("a leader")
}

#[tokio::test]
async fn leaders_and_standbys_are_found() {
    let mut connection = connect(&mut client()).await;
    let key = key();
    assert!(connection.set_nx::<_, _, bool>(&key, "me").await.unwrap());
    let mut sentinel = Sentinel::build(sentinel_urls()).unwrap();
    let leader = sentinel.async_master_for(NAME, None).await.unwrap();
    assert_eq!(leader.get_connection().unwrap().get::<_, String>(&key).unwrap(), "me");
    let finding = async {
        loop {
            match sentinel.async_get_replica_clients(NAME, None).await {
                Ok(found) if found.len() == urls().len() - 1 => break found,
                _ => sleep(RETRY_PAUSE).await,
            }
        }
    };
    for standby in timeout(TIME_MAX, finding).await.expect("all standbys") {
        let mut connection = standby.get_multiplexed_async_connection().await.unwrap();
        assert_eq!(connection.get::<_, String>(&key).await.unwrap(), "me");
    }
}

#[test]
fn the_blocking_client_locks() {
    let mut client = client();
    let mut connection = client.get_connection().unwrap();
    let key = key();
    let mut lock = redis::cmd("LOCK");
    lock.arg(&key).arg("me").arg("PX").arg(60_000);
    let token: u64 = lock.query(&mut connection).unwrap();
    assert_eq!(lock.query::<u64>(&mut connection).unwrap(), token);
    let mut asked = client.get_sentinel_client().unwrap().get_connection().unwrap();
    let role: (String, Vec<String>) = redis::cmd("ROLE").query(&mut asked).unwrap();
    assert_eq!(role, ("sentinel".to_owned(), vec![NAME.to_owned()]));
    assert!(asked.get::<_, String>(&key).is_err(), "a sentinel has no keys");
}

#[tokio::test]
async fn the_port_of_all_clients_is_no_sentinel() {
    let mut sentinel = Sentinel::build(urls()).unwrap();
    let refused = sentinel.async_master_for(NAME, None).await.unwrap_err();
    assert!(refused.to_string().contains("does not point to a sentinel"), "{refused}");
}

#[tokio::test]
async fn when_the_leader_is_killed_clients_go_on() {
    let (mut client, name) = (client(), key());
    let mut connection = connect(&mut client).await;
    assert!(connection.set_nx::<_, _, bool>(&name, "me").await.unwrap());
    let leader = client.async_get_client().await.unwrap();
    let ConnectionAddr::Tcp(_, port) = leader.get_connection_info().addr() else { panic!("a port") };
    let place = urls().iter().position(|url| url.ends_with(&format!(":{port}"))).unwrap();
    let processes = std::env::var("PROCESSES").unwrap();
    let process = processes.split(',').nth(place).unwrap();
    assert!(Command::new("kill").args(["-KILL", process]).status().unwrap().success());
    let goes_on = async {
        loop {
            let mut connection = connect(&mut client).await;
            match connection.set_nx::<_, _, bool>(key(), "me").await {
                Ok(granted) => break (granted, connection),
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    };
    let (granted, mut connection) = timeout(TIME_MAX, goes_on).await.expect("a grant");
    assert!(granted);
    let value: String = connection.get(&name).await.unwrap();
    assert_eq!(value, "me", "what was acknowledged is still there");
}
