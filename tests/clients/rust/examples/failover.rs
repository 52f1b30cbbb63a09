//! Takes and releases locks until it is killed, as one of the clients of ../../failover; see there.
//!
//! `failover sentinel|cluster`

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelServerType};
use redis::{Cmd, FromRedisValue, RedisResult};
use tokio::time::sleep;

const TTL_S: u64 = 30;
const PAUSE: Duration = Duration::from_millis(5);
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The shortest and the longest wait of the crate between two attempts.
const RETRY_WAITS_MS: (u64, u64) = (20, 200);

fn words(variable: &str) -> Vec<String> {
    let words = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is set"));
    words.split(',').map(str::to_owned).collect()
}

enum Client {
    Sentinel(SentinelClient, Option<MultiplexedConnection>),
    Cluster(ClusterClient, Option<ClusterConnection>),
}

impl Client {
    fn new(kind: &str) -> RedisResult<Client> {
        Ok(match kind {
            "sentinel" => {
                let master = SentinelServerType::Master;
                let client = SentinelClient::build(words("SENTINELS"), "octostore", None, master)?;
                Client::Sentinel(client, None)
            }
            _ => {
                // By default, the crate waits for minutes after some attempts that failed at once.
                let builder = ClusterClient::builder(words("SERVERS"));
                let client =
                    builder.min_retry_wait(RETRY_WAITS_MS.0).max_retry_wait(RETRY_WAITS_MS.1).build()?;
                Client::Cluster(client, None)
            }
        })
    }

    async fn call<T: FromRedisValue>(&mut self, request: &Cmd) -> RedisResult<T> {
        match self {
            Client::Sentinel(client, connected) => {
                if connected.is_none() {
                    *connected = Some(client.get_async_connection().await?);
                }
                let connection = connected.as_mut().expect("a connection");
                let reply = request.query_async(connection).await;
                if reply.is_err() {
                    // Another server may lead.
                    *connected = None;
                }
                reply
            }
            Client::Cluster(client, connected) => {
                if connected.is_none() {
                    *connected = Some(client.get_async_connection().await?);
                }
                request.query_async(connected.as_mut().expect("a connection")).await
            }
        }
    }

    /// The answer to a request, which is repeated until there is one.
    async fn until_answered<T: FromRedisValue>(&mut self, request: &Cmd) -> T {
        loop {
            match self.call(request).await {
                Ok(answer) => return answer,
                Err(error) => eprintln!("{error}"),
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Notes whether another client is here, too, and whether one with a larger token was.
fn witness(key: &str, token: u64) {
    let folder = std::env::var("WITNESS").expect("a folder");
    let (inside, newest) = (Path::new(&folder).join(key), Path::new(&folder).join(format!("{key}.token")));
    if OpenOptions::new().write(true).create_new(true).open(&inside).is_err() {
        println!("two-holders {key}");
        return;
    }
    if fs::read_to_string(&newest).is_ok_and(|text| text.parse::<u64>().expect("a token") >= token) {
        println!("old-token {key}");
    }
    fs::write(&newest, token.to_string()).expect("a folder that can be written to");
    fs::remove_file(&inside).expect("the file is still there");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let kind = std::env::args().nth(1).expect("sentinel or cluster");
    let (mut client, keys) = (Client::new(&kind).expect("good addresses"), words("KEYS"));
    loop {
        let key = &keys[rand::random_range(0..keys.len())];
        let owner = format!("{:032x}", rand::random::<u128>());
        let mut lock = redis::cmd("LOCK");
        lock.arg(key).arg(&owner).arg("EX").arg(TTL_S);
        // The same owner gets the same grant, if the answer to the first request was lost.
        let Some(token) = client.until_answered::<Option<u64>>(&lock).await else {
            sleep(PAUSE).await;
            continue;
        };
        witness(key, token);
        let mut unlock = redis::cmd("UNLOCK");
        client.until_answered::<u64>(unlock.arg(key).arg(&owner)).await;
        println!("took {key} {token}");
    }
}
