//! What is in etcd about the servers of a cluster: which of them leads, and where they are.
//!
//! `leader` names the server that leads; the revision that created it is the leader's epoch.
//! `nodes/<id>` has the addresses of a server. Both disappear with the lease of their server.
//! `peers/secret` is the key by which servers prove to each other what they are.
//!
//! Guarantees: what was read earlier does not replace what was read later. Not here: who writes
//! the keys, except for the secret.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse, WatchOptions};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::store::{Failed, RETRY_PAUSE, Store};
use crate::domain::{HostPort, Leader, Node};
use crate::entropy::Entropy;

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

/// The value of the key of a server.
#[derive(Serialize, Deserialize)]
pub(super) struct NodeValue {
    pub(super) redis: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sentinel: Option<String>,
}

/// The value of the key of the leader.
#[derive(Serialize, Deserialize)]
pub(super) struct LeaderValue {
    pub(super) node: String,
}

/// Reads the keys whenever they change.
pub(super) struct Observer {
    store: Arc<Store>,
    seen: watch::Sender<Seen>,
    /// That of `seen`: what was read earlier does not replace it.
    revision: Mutex<i64>,
    refresh: Notify,
}

impl Observer {
    /// Knows nothing yet.
    pub(super) fn new(store: Arc<Store>) -> Observer {
        let seen = watch::Sender::new(Seen::default());
        Observer { store, seen, revision: Mutex::new(0), refresh: Notify::new() }
    }

    /// What is in etcd about the servers, as far as it is known here.
    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Makes the keys be read soon.
    pub(super) fn refresh(&self) {
        self.refresh.notify_one();
    }

    /// Whether a server is registered. One that has just started may be known in a moment.
    pub(super) async fn knows(&self, node: &str) -> bool {
        let mut seen = self.seen();
        let is_known = |seen: &Seen| seen.nodes.iter().any(|known| known.id == node);
        if is_known(&seen.borrow()) {
            return true;
        }
        self.refresh();
        matches!(timeout(REFRESH_INTERVAL, seen.wait_for(is_known)).await, Ok(Ok(_)))
    }

    pub(super) fn leader_key(&self) -> String {
        self.store.key("leader")
    }

    /// Shows a leader that was elected at a revision.
    pub(super) fn elected(&self, leader: Leader) {
        let revision = leader.epoch;
        let seen = Seen { leader: Some(leader), ..self.seen.borrow().clone() };
        self.update(revision, seen);
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

    /// Observes the servers, until the future is dropped.
    pub(super) async fn observe(&self) {
        loop {
            if let Err(error) = self.observe_once().await {
                tracing::debug!(%error, "cannot observe the servers in the store");
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Reads the keys whenever they may have changed, until a request fails.
    async fn observe_once(&self) -> Result<(), Failed> {
        let connection = self.store.connection();
        let revision = self.read().await?;
        let from = || WatchOptions::new().with_start_revision(revision + 1);
        let (leader, nodes) = (self.leader_key(), self.store.key("nodes/"));
        let watch = |key, options| {
            self.store.request(|mut client| async move { client.watch(key, Some(options)).await })
        };
        let mut leaders = watch(leader, from()).await?;
        let mut nodes = watch(nodes, from().with_prefix()).await?;
        // The streams of a connection that was given up may be silent for long.
        while self.store.connection() == connection {
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
