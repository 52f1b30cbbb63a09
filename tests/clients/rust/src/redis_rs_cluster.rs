//! The redis crate with the shards of a cluster, as a client of Redis Cluster.

use std::collections::HashSet;

use redis::AsyncCommands;
use redis::cluster::ClusterClient;

use crate::support::{key, urls};

const KEYS: usize = 30;

#[tokio::test]
async fn keys_of_all_shards_are_served() {
    let client = ClusterClient::new(urls()).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    let prefix = key();
    for number in 0..KEYS {
        let name = format!("{prefix}:{number}");
        let mut set = redis::cmd("SET");
        set.arg(&name).arg("me").arg("NX").arg("PX").arg(60_000);
        assert_eq!(set.query_async::<Option<String>>(&mut connection).await.unwrap().as_deref(), Some("OK"));
        assert_eq!(set.query_async::<Option<String>>(&mut connection).await.unwrap(), None);
        assert_eq!(connection.get::<_, String>(&name).await.unwrap(), "me");
    }
}

#[tokio::test]
async fn locks_have_tokens() {
    let client = ClusterClient::new(urls()).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    let name = key();
    let mut tokens = HashSet::new();
    for _ in 0..3 {
        let mut lock = redis::cmd("LOCK");
        tokens.insert(
            lock.arg(&name)
                .arg("me")
                .arg("PX")
                .arg(60_000)
                .query_async::<u64>(&mut connection)
                .await
                .unwrap(),
        );
        let released: u64 =
            redis::cmd("UNLOCK").arg(&name).arg("me").query_async(&mut connection).await.unwrap();
        assert_eq!(released, 1);
    }
    assert_eq!(tokens.len(), 3);
}

#[test]
fn the_blocking_client_runs_scripts() {
    let client = ClusterClient::new(urls()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let script = redis::Script::new("return redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', 60000)");
    for number in 0..KEYS {
        let name = format!("{}:{number}", key());
        let mut set = script.key(&name);
        let set: Option<String> = set.arg("me").invoke(&mut connection).unwrap();
        assert_eq!(set.as_deref(), Some("OK"));
    }
}
