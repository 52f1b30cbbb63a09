//! What one client of a benchmark does: requests about a lock, to octostore or to Redis.
//!
//! Guarantees: a lock is released and renewed only under the client's own token or owner. Not here:
//! when, how often, and how long it takes.

use std::time::Duration;

use crate::cli::client::{Connection, Failure, Reply, integer, text};

/// The TTL of leases. What an interrupted benchmark leaves behind ends by itself.
const TTL_MS: &[u8] = b"30000";
/// The longest wait for a lock that others hold. All of them keep it for one round trip.
const WAIT_MS: &[u8] = b"30000";
/// Between two attempts to take a lock of Redis, which has no queue.
const POLL: Duration = Duration::from_millis(1);
/// The owner that finds out which requests a server knows.
const PROBE: &[u8] = b"probe";

const REDIS_RELEASE: &[u8] =
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
const REDIS_RENEW: &[u8] = b"if redis.call('GET', KEYS[1]) == ARGV[1] then \
      return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";

/// The requests that a server knows.
#[derive(Debug, Clone)]
pub(super) enum Dialect {
    /// LOCK, UNLOCK, RENEW.
    Octostore,
    /// `SET NX PX`, and scripts that compare the owner; by their digests.
    Redis {
        /// Of the script that releases a lock.
        release: Vec<u8>,
        /// Of the script that renews a lease.
        renew: Vec<u8>,
    },
}

impl Dialect {
    /// Finds out which requests a server knows. Takes and releases the lock `key`.
    pub(super) async fn of(connection: &mut Connection, key: &[u8]) -> Result<Dialect, Failure> {
        match connection.call(&[b"LOCK", key, PROBE, b"PX", TTL_MS]).await {
            Ok(_) => {
                connection.call(&[b"UNLOCK", key, PROBE]).await?;
                Ok(Dialect::Octostore)
            }
            Err(Failure::Refused(reason)) if reason.contains("unknown command") => {
                let release = connection.call(&[b"SCRIPT", b"LOAD", REDIS_RELEASE]).await?;
                let renew = connection.call(&[b"SCRIPT", b"LOAD", REDIS_RENEW]).await?;
                let digest = |reply: &Reply| text(reply).into_bytes();
                Ok(Dialect::Redis { release: digest(&release), renew: digest(&renew) })
            }
            Err(failure) => Err(failure),
        }
    }
}

/// A client and the lock that it takes.
pub(super) struct Locker {
    pub(super) connection: Connection,
    pub(super) dialect: Dialect,
    pub(super) key: Vec<u8>,
    pub(super) owner: Vec<u8>,
    /// The fencing token, in decimal digits.
    token: Vec<u8>,
}

impl Locker {
    /// A client that holds nothing yet.
    pub(super) fn new(connection: Connection, dialect: Dialect, key: Vec<u8>, owner: Vec<u8>) -> Locker {
        Locker { connection, dialect, key, owner, token: Vec::new() }
    }

    /// Takes the lock, waiting as long as others hold it.
    pub(super) async fn acquire(&mut self) -> Result<(), Failure> {
        match self.dialect {
            Dialect::Octostore => {
                let request: [&[u8]; 7] = [b"LOCK", &self.key, &self.owner, b"PX", TTL_MS, b"WAIT", WAIT_MS];
                let token = self.connection.call(&request).await?;
                let token = integer(Some(&token)).ok_or_else(|| held(&self.key))?;
                self.token = token.to_string().into_bytes();
            }
            Dialect::Redis { .. } => {
                let request: [&[u8]; 6] = [b"SET", &self.key, &self.owner, b"NX", b"PX", TTL_MS];
                while self.connection.call(&request).await? == Reply::Nil {
                    tokio::time::sleep(POLL).await;
                }
            }
        }
        Ok(())
    }

    /// Releases the lock.
    pub(super) async fn release(&mut self) -> Result<(), Failure> {
        let reply = match &self.dialect {
            Dialect::Octostore => {
                let request: [&[u8]; 5] = [b"UNLOCK", &self.key, &self.owner, b"TOKEN", &self.token];
                self.connection.call(&request).await?
            }
            Dialect::Redis { release, .. } => {
                self.connection.call(&[b"EVALSHA", release, b"1", &self.key, &self.owner]).await?
            }
        };
        if integer(Some(&reply)) == Some(1) { Ok(()) } else { Err(lost(&self.key)) }
    }

    /// Renews the lease.
    pub(super) async fn renew(&mut self) -> Result<(), Failure> {
        let reply = match &self.dialect {
            Dialect::Octostore => {
                let request: [&[u8]; 7] =
                    [b"RENEW", &self.key, &self.owner, b"PX", TTL_MS, b"TOKEN", &self.token];
                self.connection.call(&request).await?
            }
            Dialect::Redis { renew, .. } => {
                let request: [&[u8]; 6] = [b"EVALSHA", renew, b"1", &self.key, &self.owner, TTL_MS];
                self.connection.call(&request).await?
            }
        };
        if integer(Some(&reply)) == Some(1) { Ok(()) } else { Err(lost(&self.key)) }
    }
}

fn held(key: &[u8]) -> Failure {
    Failure::Refused(format!("{} is held by another client", String::from_utf8_lossy(key)))
}

fn lost(key: &[u8]) -> Failure {
    Failure::Refused(format!("{} was not held any more", String::from_utf8_lossy(key)))
}
