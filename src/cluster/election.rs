//! The keys of leader and servers in etcd.
//!
//! `leader` names the server that leads; the revision that created it is the leader's epoch.
//! `nodes/<id>` has the addresses of a server. Both disappear with the lease of their server.
//! `peers/secret` is the key by which servers prove to each other what they are.
//!
//! etcd does not delete and create a key in one transaction. So a leader is replaced in two steps:
//! its key is deleted, if its epoch is still the same, and then any server may create it.
//!
//! Guarantees: a key `leader` is created only where there is none, and deleted only with its epoch.
//! Not here: what a leader does, when one is replaced.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, Error, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::store::{Failed, Store};
use crate::domain::{HostPort, Leader, Node};
use crate::entropy::Entropy;
use crate::journal::{JournalError, StoreAddress};

/// Seconds after which the keys of a server that is gone disappear. For liveness only.
const LEASE_TTL_S: u64 = 4;
/// Time between two renewals of the lease.
const RENEW_INTERVAL: Duration = Duration::from_millis(1000);
/// After this time without an answer from etcd, this server does not act as one that could lead.
const STORE_SILENCE_MAX: Duration = Duration::from_secs(2);
/// Pause after a failed request.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The keys are read again after this time, even if etcd announces no change.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// What is in etcd about the servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The leader.
    pub leader: Option<Leader>,
    /// The servers, in the order of their ids.
    pub nodes: Vec<Node>,
    /// The key by which servers prove what they are.
    pub key: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct NodeValue {
    redis: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sentinel: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct LeaderValue {
    node: String,
}

/// The part of one server in elections.
pub struct Election {
    store: Store,
    own: Node,
    lease: Mutex<Option<i64>>,
    renewed: Mutex<Instant>,
    seen: watch::Sender<Seen>,
    /// That of `seen`: what was read earlier does not replace it.
    revision: Mutex<i64>,
    refresh: Notify,
}

impl Election {
    /// Connects to the store.
    ///
    /// # Errors
    ///
    /// If it cannot be reached, or refuses the password.
    pub async fn connect(address: &StoreAddress, own: Node) -> Result<Arc<Election>, JournalError> {
        Ok(Arc::new(Election {
            store: Store::connect(address).await?,
            own,
            lease: Mutex::new(None),
            renewed: Mutex::new(Instant::now()),
            seen: watch::Sender::new(Seen::default()),
            revision: Mutex::new(0),
            refresh: Notify::new(),
        }))
    }

    /// Keeps this server registered and observes the others, until the future is dropped.
    pub async fn run(&self) {
        tokio::join!(self.stay_registered(), self.observe());
    }

    /// This server.
    pub fn own(&self) -> &Node {
        &self.own
    }

    /// The address of the store, beginning with an etcd server that answers, if one does.
    pub fn store(&self) -> StoreAddress {
        self.store.address()
    }

    /// What is in etcd about the servers, as far as it is known here.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
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
        let mut seen = self.seen();
        let is_known = |seen: &Seen| seen.nodes.iter().any(|known| known.id == node);
        if is_known(&seen.borrow()) {
            return true;
        }
        self.refresh.notify_one();
        matches!(timeout(REFRESH_INTERVAL, seen.wait_for(is_known)).await, Ok(Ok(_)))
    }

    fn leader_key(&self) -> String {
        self.store.key("leader")
    }

    /// Creates the key of the leader for this server, if there is none. Returns the epoch.
    ///
    /// # Errors
    ///
    /// If the outcome is unknown; [`Election::seen`] will show it.
    pub async fn campaign(&self) -> Result<Option<i64>, Failed> {
        let Some(lease) = *self.lease.lock() else { return Ok(None) };
        let key = self.leader_key();
        let value = serde_json::json!(LeaderValue { node: self.own.id.clone() }).to_string();
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), value, Some(PutOptions::new().with_lease(lease)))]);
        let response = self.store.request(|mut client| async move { client.txn(txn).await }).await;
        self.refresh.notify_one();
        let response = response?;
        let revision = response.header().map_or(0, |header| header.revision());
        if !response.succeeded() {
            return Ok(None);
        }
        let leader = Some(Leader { id: self.own.id.clone(), epoch: revision });
        let seen = Seen { leader, ..self.seen.borrow().clone() };
        self.update(revision, seen);
        Ok(Some(revision))
    }

    /// Takes over what was in etcd at a revision.
    fn update(&self, revision: i64, seen: Seen) {
        let mut latest = self.revision.lock();
        if revision >= *latest {
            *latest = revision;
            self.seen.send_if_modified(|before| {
                let is_modified = *before != seen;
                *before = seen;
                is_modified
            });
        }
    }

    /// Deletes the key of the leader, if it is still that of this epoch. Returns whether it was.
    ///
    /// # Errors
    ///
    /// If etcd cannot be reached.
    pub async fn depose(&self, epoch: i64) -> Result<bool, Failed> {
        let key = self.leader_key();
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, epoch)])
            .and_then([TxnOp::delete(key.as_str(), None)]);
        let response = self.store.request(|mut client| async move { client.txn(txn).await }).await;
        self.refresh.notify_one();
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
        self.refresh.notify_one();
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

    /// Observes the servers, until the future is dropped.
    pub async fn observe(&self) {
        loop {
            if let Err(error) = self.observe_once().await {
                tracing::debug!(%error, "cannot observe the servers in the store");
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Reads the keys whenever they may have changed, until a request fails.
    async fn observe_once(&self) -> Result<(), Failed> {
        let server = self.store.server();
        let revision = self.read().await?;
        let from = || WatchOptions::new().with_start_revision(revision + 1);
        let (leader, nodes) = (self.leader_key(), self.store.key("nodes/"));
        let watch = |key, options| {
            self.store.request(|mut client| async move { client.watch(key, Some(options)).await })
        };
        let mut leaders = watch(leader, from()).await?;
        let mut nodes = watch(nodes, from().with_prefix()).await?;
        // The streams of a server that was given up may be silent for long.
        while self.store.server() == server {
            let change = tokio::select! {
                change = leaders.message() => Some(change),
                change = nodes.message() => Some(change),
                () = self.refresh.notified() => None,
                () = sleep(REFRESH_INTERVAL) => None,
            };
            match change.transpose().map_err(|error| error.to_string())? {
                Some(None) => return Err("the stream has ended".to_owned()),
                Some(Some(change)) if change.canceled() => return Err(change.cancel_reason().to_owned()),
                Some(Some(_)) | None => {}
            }
            self.read().await?;
        }
        Ok(())
    }

    /// Reads the keys. Returns the revision at which they were like this.
    async fn read(&self) -> Result<i64, Failed> {
        let secret_key = self.store.key("peers/secret");
        let txn = Txn::new().and_then([
            TxnOp::get(self.leader_key(), None),
            TxnOp::get(self.store.key("nodes/"), Some(GetOptions::new().with_prefix())),
            TxnOp::get(secret_key.as_str(), None),
        ]);
        let response = self.store.request(|mut client| async move { client.txn(txn).await }).await?;
        let revision = response.header().map_or(0, |header| header.revision());
        let mut found = response.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(response) => response.kvs().to_vec(),
            _ => Vec::new(),
        });
        let mut next = || found.next().unwrap_or_default();
        let (leaders, nodes, secrets) = (next(), next(), next());
        let Some(key) = secrets.first().and_then(|secret| secret.value().try_into().ok()) else {
            self.create_secret(&secret_key).await?;
            return Box::pin(self.read()).await;
        };
        let leader = leaders.first().and_then(|leader| {
            let value: LeaderValue = serde_json::from_slice(leader.value()).ok()?;
            Some(Leader { id: value.node, epoch: leader.create_revision() })
        });
        let nodes = nodes.iter().filter_map(|node| {
            let value: NodeValue = serde_json::from_slice(node.value()).ok()?;
            let id = node.key_str().ok()?.rsplit('/').next()?.to_owned();
            let parse = |text: &Option<String>| text.as_deref().and_then(HostPort::parse);
            let (http, sentinel) = (parse(&value.http), parse(&value.sentinel));
            Some(Node { id, redis: HostPort::parse(&value.redis), http, sentinel })
        });
        self.update(revision, Seen { leader, nodes: nodes.collect(), key });
        Ok(revision)
    }

    /// Creates the key by which servers prove what they are, if there is none.
    async fn create_secret(&self, key: &str) -> Result<(), Failed> {
        let mut secret = [0; 32];
        Entropy::system().fill(&mut secret).map_err(|error| error.to_string())?;
        let txn = Txn::new()
            .when([Compare::create_revision(key, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, secret, None)]);
        self.store.request(|mut client| async move { client.txn(txn).await }).await.map(drop)
    }
}
