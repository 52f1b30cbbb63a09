//! The redis crate: SET NX, scripts, transactions and pub/sub, in RESP2 and RESP3.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, ExistenceCheck, ProtocolVersion, Script, SetExpiry, SetOptions};

use crate::support::{CriticalSection, client, connect, eventually, key, urls};

const RELEASE: &str = "if redis.call('get', KEYS[1]) == ARGV[1] \
                       then return redis.call('del', KEYS[1]) else return 0 end";

async fn set(connection: &mut MultiplexedConnection, key: &str, owner: &str, ms: u64) -> bool {
    let options =
        SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::PX(ms));
    let reply: Option<String> = connection.set_options(key, owner, options).await.unwrap();
    reply.is_some()
}

async fn release(connection: &mut MultiplexedConnection, key: &str, owner: &str) -> bool {
    Script::new(RELEASE).key(key).arg(owner).invoke_async(connection).await.unwrap()
}

async fn excludes_and_releases(protocol: ProtocolVersion) {
    let url = format!("{}?protocol={}", urls()[0], protocol_name(protocol));
    let client = redis::Client::open(url).unwrap();
    let mut first = client.get_multiplexed_async_connection().await.unwrap();
    let mut second = client.get_multiplexed_async_connection().await.unwrap();
    let key = key();
    assert!(set(&mut first, &key, "first", 10_000).await);
    assert!(!set(&mut second, &key, "second", 10_000).await);
    assert!(!release(&mut second, &key, "second").await);
    assert!(release(&mut first, &key, "first").await);
    assert!(set(&mut second, &key, "second", 10_000).await);
}

fn protocol_name(protocol: ProtocolVersion) -> &'static str {
    if protocol == ProtocolVersion::RESP3 { "resp3" } else { "resp2" }
}

#[tokio::test]
async fn excludes_and_releases_in_resp2() {
    excludes_and_releases(ProtocolVersion::RESP2).await;
}

#[tokio::test]
async fn excludes_and_releases_in_resp3() {
    excludes_and_releases(ProtocolVersion::RESP3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_contend() {
    let (section, key) = (Arc::new(CriticalSection::default()), key());
    let workers = (0..8).map(|index| {
        let (section, key) = (Arc::clone(&section), key.clone());
        tokio::spawn(async move {
            let connection = connect().await;
            let owner = index.to_string();
            for _ in 0..5 {
                eventually(async || set(&mut connection.clone(), &key, &owner, 30_000).await).await;
                section.visit().await;
                assert!(release(&mut connection.clone(), &key, &owner).await);
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    assert_eq!(section.visits(), 40);
}

#[tokio::test]
async fn expires() {
    let (connection, key) = (connect().await, key());
    assert!(set(&mut connection.clone(), &key, "first", 50).await);
    eventually(async || set(&mut connection.clone(), &key, "second", 10_000).await).await;
    assert!(!release(&mut connection.clone(), &key, "first").await);
}

#[test]
fn a_transaction_extends_what_it_watched() {
    let mut connection = client().get_connection().unwrap();
    let key = key();
    let _: () = redis::Commands::set(&mut connection, &key, "mine").unwrap();
    let (renewed, ttl): (bool, i64) = redis::transaction(&mut connection, &[&key], |connection, pipe| {
        let owner: String = redis::Commands::get(connection, &key)?;
        assert_eq!(owner, "mine");
        pipe.pexpire(&key, 20_000).pttl(&key).query(connection)
    })
    .unwrap();
    assert!(renewed);
    assert!((19_000..=20_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_connection_manager_survives_a_lost_connection() {
    let mut manager = client().get_connection_manager().await.unwrap();
    let (mut other, key) = (connect().await, key());
    let _: () = manager.set(&key, "mine").await.unwrap();
    let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut manager).await.unwrap();
    let _: i64 = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(&mut other).await.unwrap();
    eventually(async || manager.clone().get::<_, String>(&key).await.is_ok_and(|owner| owner == "mine"))
        .await;
}

#[tokio::test]
async fn subscribes() {
    let (key, mut publisher) = (key(), connect().await);
    let (mut sink, mut stream) = client().get_async_pubsub().await.unwrap().split();
    sink.subscribe(&key).await.unwrap();
    assert_eq!(publisher.publish::<_, _, i64>(&key, "released").await.unwrap(), 1);
    let message = tokio::time::timeout(Duration::from_secs(10), futures_util::StreamExt::next(&mut stream));
    let message = message.await.unwrap().unwrap();
    assert_eq!(message.get_payload::<String>().unwrap(), "released");
}
