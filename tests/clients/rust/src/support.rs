//! What the tests of all libraries share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

pub fn urls() -> Vec<String> {
    urls_in("SERVERS")
}

/// Where the servers of a cluster are nothing but sentinels.
pub fn sentinel_urls() -> Vec<String> {
    urls_in("SENTINELS")
}

fn urls_in(variable: &str) -> Vec<String> {
    let urls = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} has URLs"));
    urls.split(',').map(str::to_owned).collect()
}

pub fn client() -> redis::Client {
    redis::Client::open(urls()[0].as_str()).expect("a URL")
}

pub async fn connect() -> redis::aio::MultiplexedConnection {
    client().get_multiplexed_async_connection().await.expect("a connection")
}

/// A name that no other test uses.
pub fn key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Polls until the condition holds.
pub async fn eventually<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let poll = async {
        while !condition().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), poll).await.expect("the condition never held");
}

/// Panics when two are in it at the same time, and counts the visits.
#[derive(Default)]
pub struct CriticalSection {
    inside: AtomicU32,
    visits: AtomicU32,
}

impl CriticalSection {
    pub async fn visit(&self) {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock at the same time");
        let visits = self.visits.load(Ordering::SeqCst);
        sleep(Duration::from_millis(1)).await;
        self.visits.store(visits + 1, Ordering::SeqCst);
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn visits(&self) -> u32 {
        self.visits.load(Ordering::SeqCst)
    }
}
