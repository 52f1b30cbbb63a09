//! Requests about locks that are held: renewals and releases.
//!
//! Guarantees: one renewal at a time, none longer than its limit. Only a reply confirms a renewal.
//! A connection without an answer is replaced. Not here: when to renew.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cli::client::{Connection, Failure, Target, answer_within, integer};
use crate::domain::Timestamp;

/// A lock that is held.
#[derive(Debug, Clone)]
pub(super) struct Lock {
    pub(super) key: Vec<u8>,
    pub(super) token: i64,
}

/// What became of an attempt to renew.
#[derive(Debug)]
pub(super) enum Renewal {
    /// The server has renewed every lock.
    Confirmed,
    /// The server says that this lock is not held any more.
    Lost(Vec<u8>),
    /// No reply, or an error, for at least one lock.
    Unconfirmed(String),
}

/// What became of a release.
#[derive(Debug)]
pub(super) enum Release {
    /// Every lock was held until now.
    Released,
    /// This lock was not held any more.
    WasLost(Vec<u8>),
    /// No reply, or an error, for at least one lock.
    Unconfirmed(String),
}

/// A connection that is made when it is needed.
struct Link {
    target: Arc<Target>,
    connection: Option<Connection>,
}

impl Link {
    async fn call_all(&mut self, timeout: Duration, requests: &[Vec<Vec<u8>>]) -> Result<Vec<i64>, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect(timeout).await?,
        };
        let replies = connection.call_all(requests).await?;
        // Every reply was read, so the connection can be used again.
        self.connection = Some(connection);
        replies.into_iter().map(|reply| reply.map(|reply| integer(Some(&reply)).unwrap_or(0))).collect()
    }

    async fn call_all_within(
        &mut self,
        timeout: Duration,
        requests: &[Vec<Vec<u8>>],
    ) -> Result<Vec<i64>, Failure> {
        answer_within(timeout, self.call_all(timeout, requests)).await
    }
}

/// Renews and releases the locks of an owner.
pub(super) struct Renewer {
    owner: Vec<u8>,
    ttl_ms: Vec<u8>,
    timeout: Duration,
    target: Arc<Target>,
    link: Option<Link>,
    /// The attempt that is under way, and when it began.
    attempt: Option<(Timestamp, JoinHandle<(Link, Renewal)>)>,
}

impl Renewer {
    /// For leases of `ttl`; each request may take `timeout`.
    pub(super) fn new(
        target: &Arc<Target>,
        connection: Connection,
        owner: &[u8],
        ttl: Duration,
        timeout: Duration,
    ) -> Renewer {
        Renewer {
            owner: owner.to_vec(),
            ttl_ms: ttl.as_millis().to_string().into_bytes(),
            timeout,
            target: Arc::clone(target),
            link: Some(Link { target: Arc::clone(target), connection: Some(connection) }),
            attempt: None,
        }
    }

    fn link(&mut self) -> Link {
        let new = || Link { target: Arc::clone(&self.target), connection: None };
        self.link.take().unwrap_or_else(new)
    }

    /// Begins to renew these locks. `now` is the time from which the leases will count.
    pub(super) fn begin(&mut self, locks: &[Lock], now: Timestamp) {
        let requests: Vec<Vec<Vec<u8>>> = locks
            .iter()
            .map(|lock| {
                let token = lock.token.to_string().into_bytes();
                let words: [&[u8]; 7] =
                    [b"RENEW", &lock.key, &self.owner, b"PX", &self.ttl_ms, b"TOKEN", &token];
                words.map(<[u8]>::to_vec).to_vec()
            })
            .collect();
        let (mut link, timeout, locks) = (self.link(), self.timeout, locks.to_vec());
        let attempt = async move {
            let renewal = match link.call_all_within(timeout, &requests).await {
                Ok(held) => match held.iter().position(|held| *held != 1) {
                    Some(lost) => Renewal::Lost(locks[lost].key.clone()),
                    None => Renewal::Confirmed,
                },
                Err(failure) => Renewal::Unconfirmed(failure.to_string()),
            };
            (link, renewal)
        };
        self.attempt = Some((now, tokio::spawn(attempt)));
    }

    /// The result of the attempt and when it began; never completes without one.
    pub(super) async fn done(&mut self) -> (Timestamp, Renewal) {
        let Some((began, attempt)) = &mut self.attempt else { return std::future::pending().await };
        let (began, result) = (*began, attempt.await);
        self.attempt = None;
        match result {
            Ok((link, renewal)) => {
                self.link = Some(link);
                (began, renewal)
            }
            Err(error) => (began, Renewal::Unconfirmed(error.to_string())),
        }
    }

    /// Releases these locks, as far as the server can be reached. Gives up an attempt to renew.
    pub(super) async fn release(&mut self, locks: &[Lock]) -> Release {
        if let Some((_, attempt)) = self.attempt.take() {
            attempt.abort();
        }
        let requests: Vec<Vec<Vec<u8>>> = locks
            .iter()
            .map(|lock| {
                let token = lock.token.to_string().into_bytes();
                let words: [&[u8]; 5] = [b"UNLOCK", &lock.key, &self.owner, b"TOKEN", &token];
                words.map(<[u8]>::to_vec).to_vec()
            })
            .collect();
        let (mut link, timeout) = (self.link(), self.timeout);
        let release = match link.call_all_within(timeout, &requests).await {
            Ok(released) => match released.iter().position(|released| *released != 1) {
                Some(lost) => Release::WasLost(locks[lost].key.clone()),
                None => Release::Released,
            },
            Err(failure) => Release::Unconfirmed(failure.to_string()),
        };
        self.link = Some(link);
        release
    }

    /// Withdraws a request whose outcome is unknown: releases the lock if it was granted.
    pub(super) async fn withdraw(&mut self, key: &[u8]) {
        let mut link = self.link();
        let request = [&b"UNLOCK"[..], key, &self.owner].map(<[u8]>::to_vec).to_vec();
        // The connection of the request may close only during the first round trip. If these fail,
        // the lease ends by itself.
        for _ in 0..2 {
            let _ = link.call_all_within(self.timeout, std::slice::from_ref(&request)).await;
        }
        self.link = Some(link);
    }
}
