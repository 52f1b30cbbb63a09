//! How one server takes part in elections: the keys that it writes in etcd.
//!
//! etcd does not delete and create a key in one transaction. So a leader is replaced in two steps:
//! its key is deleted, if its epoch is still the same, and then any server may create it.
//!
//! Guarantees: a key `leader` is created only where there is none, and deleted only with its epoch.
//! Not here: when to campaign and what a leader does (`play` in `server/role.rs`), when a leader is to
//! be replaced (`watchdog`).

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, Error, PutOptions, Txn, TxnOp};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::observer::{LeaderValue, NodeValue, Observer, Seen};
use super::store::{Failed, RETRY_PAUSE, Store};
use crate::domain::{HostPort, Leader, Node};
use crate::journal::StoreAddress;

/// Seconds after which the keys of a server that is gone disappear. For liveness only.
const LEASE_TTL_S: u64 = 4;
/// Time between two renewals of the lease.
const RENEW_INTERVAL: Duration = Duration::from_millis(1000);
/// After this time without an answer from etcd, this server does not act as one that could lead.
const STORE_SILENCE_MAX: Duration = Duration::from_secs(2);

/// One server's part in elections.
pub struct Election {
    store: Arc<Store>,
    observer: Observer,
    own: Node,
    lease: Mutex<Option<i64>>,
    renewed: Mutex<Instant>,
}

impl Election {
    /// Takes part as the server `own`, which is not registered yet.
    pub fn new(store: Store, own: Node) -> Election {
        let store = Arc::new(store);
        let observer = Observer::new(Arc::clone(&store));
        Election { store, observer, own, lease: Mutex::new(None), renewed: Mutex::new(Instant::now()) }
    }

    /// Keeps this server registered and observes the others, until the future is dropped.
    pub async fn run(&self) {
        tokio::join!(self.stay_registered(), self.observer.observe());
    }

    /// The address of the store.
    pub fn store(&self) -> &StoreAddress {
        self.store.address()
    }

    /// What is in etcd about the servers, as far as it is known here.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.observer.seen()
    }

    /// Whether the lease of this server has not ended for certain.
    pub fn is_registered(&self) -> bool {
        self.lease.lock().is_some() && Instant::now() < self.lease_end()
    }

    fn lease_end(&self) -> Instant {
        *self.renewed.lock() + Duration::from_secs(LEASE_TTL_S)
    }

    /// Completes when the lease of this server has ended for certain, and with it the time that it
    /// leads.
    pub async fn expired(&self) {
        while self.is_registered() {
            sleep_until(self.lease_end()).await;
        }
    }

    /// Whether etcd has answered this server a moment ago.
    pub fn reaches_store(&self) -> bool {
        self.store.silence() < STORE_SILENCE_MAX
    }

    /// Whether a server is registered. One that has just started may be known in a moment.
    pub async fn knows(&self, node: &str) -> bool {
        self.observer.knows(node).await
    }

    /// Creates the key of the leader for this server, if there is none. Returns the epoch.
    ///
    /// # Errors
    ///
    /// If the outcome is unknown; [`Election::seen`] will show it.
    pub async fn campaign(&self) -> Result<Option<i64>, Failed> {
        let Some(lease) = *self.lease.lock() else { return Ok(None) };
        let key = self.observer.leader_key();
        let value = serde_json::json!(LeaderValue { node: self.own.id.clone() }).to_string();
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), value, Some(PutOptions::new().with_lease(lease)))]);
        let response = self.store.request(|mut client| async move { client.txn(txn).await }).await;
        self.observer.refresh();
        let response = response?;
        let revision = response.header().map_or(0, |header| header.revision());
        if !response.succeeded() {
            return Ok(None);
        }
        self.observer.elected(Leader { id: self.own.id.clone(), epoch: revision });
        Ok(Some(revision))
    }

    /// Deletes the key of the leader, if it is still that of this epoch. Returns whether it was.
    ///
    /// # Errors
    ///
    /// If etcd cannot be reached.
    pub async fn depose(&self, epoch: i64) -> Result<bool, Failed> {
        let key = self.observer.leader_key();
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, epoch)])
            .and_then([TxnOp::delete(key.as_str(), None)]);
        let response = self.store.request(|mut client| async move { client.txn(txn).await }).await;
        self.observer.refresh();
        Ok(response?.succeeded())
    }

    /// Ends the lease of this server: it leads no more, and is no more there.
    pub async fn leave(&self) {
        let Some(lease) = self.lease.lock().take() else { return };
        let revoke = self.store.request(|mut client| async move { client.lease_revoke(lease).await });
        if let Err(error) = revoke.await {
            tracing::warn!(%error, "cannot leave the cluster; the other servers notice in {LEASE_TTL_S} s");
        }
    }

    async fn stay_registered(&self) {
        let mut has_failed = false;
        loop {
            let error = match self.register().await {
                Ok(lease) => {
                    if std::mem::take(&mut has_failed) {
                        tracing::info!(store = %self.store, "registered in the store again");
                    }
                    self.renew(lease).await
                }
                Err(error) => error,
            };
            *self.lease.lock() = None;
            if !std::mem::replace(&mut has_failed, true) {
                tracing::warn!(store = %self.store, %error, "not registered in the store; trying again");
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Creates a lease, and the key of this server.
    async fn register(&self) -> Result<i64, Failed> {
        let began = Instant::now();
        let ttl = LEASE_TTL_S.cast_signed();
        let grant = self.store.request(|mut client| async move { client.lease_grant(ttl, None).await });
        let lease = grant.await?.id();
        let value = NodeValue {
            redis: self.own.redis.as_ref().map(HostPort::to_string).unwrap_or_default(),
            http: self.own.http.as_ref().map(HostPort::to_string),
            sentinel: self.own.sentinel.as_ref().map(HostPort::to_string),
        };
        let key = self.store.key(&format!("nodes/{}", self.own.id));
        let value = serde_json::json!(value).to_string();
        let options = PutOptions::new().with_lease(lease);
        self.store.request(|mut client| async move { client.put(key, value, Some(options)).await }).await?;
        (*self.lease.lock(), *self.renewed.lock()) = (Some(lease), began);
        self.observer.refresh();
        Ok(lease)
    }

    /// Renews a lease until that fails.
    async fn renew(&self, lease: i64) -> Failed {
        loop {
            let began = Instant::now();
            // The call asks for one renewal and waits for it.
            let renewal = self.store.request(|mut client| async move {
                match client.lease_keep_alive(lease).await {
                    Ok(_) => Ok(true),
                    Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                    Err(error) => Err(error),
                }
            });
            match renewal.await {
                Ok(true) => {
                    *self.renewed.lock() = began;
                    sleep(RENEW_INTERVAL).await;
                }
                Ok(false) => return "the lease has ended".to_owned(),
                Err(error) if !self.is_registered() => return error,
                Err(error) => {
                    tracing::debug!(%error, "cannot renew the lease");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}
