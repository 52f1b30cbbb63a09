//! The shards of a store: how many there are, and who leads those of the others.
//!
//! The key `shards` says into how many parts a store is divided; the keys of shard `i` begin with
//! `shards/<i>/`. It is written once, so that no two servers divide the keys differently.
//!
//! Guarantees: a store is used with one number of shards for ever. Not here: who leads the own shard.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::observer::{Observer, Seen};
use super::store::Store;
use crate::domain::{Shard, ShardId, Shards};
use crate::journal::{JournalError, StoreAddress};

/// Pause between two attempts to reach the store of another shard.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The value of the key `shards`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Division {
    /// The number of shards; 0: the store is not divided.
    count: u16,
}

/// Divides a store into this number of shards, 0 for a store that is not divided, if that has not
/// been done yet.
///
/// # Errors
///
/// If it is divided otherwise, or cannot be reached.
pub async fn divide(store: &StoreAddress, count: u16) -> Result<(), JournalError> {
    let key = store.key("shards");
    let value = serde_json::json!(Division { count }).to_string();
    let txn = Txn::new()
        .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key.as_str(), value, None)])
        .or_else([TxnOp::get(key.as_str(), None)]);
    let link = Store::connect(store).await?;
    let response = link.request(|mut client| async move { client.txn(txn).await }).await;
    let response = response.map_err(|what| JournalError::Unreachable { what })?;
    if response.succeeded() {
        return Ok(());
    }
    let responses = response.op_responses();
    let found = responses.first().and_then(|response| match response {
        TxnOpResponse::Get(response) => {
            serde_json::from_slice::<Division>(response.kvs().first()?.value()).ok()
        }
        _ => None,
    });
    let has = match found {
        Some(found) if found.count == count => return Ok(()),
        Some(Division { count: 0 }) => "is not divided into shards: leave out --shard".to_owned(),
        Some(Division { count }) => format!("is divided into {count} shards: give --shard I/{count}"),
        None => format!("has a value at {key} that is not octostore's"),
    };
    Err(JournalError::Store { what: format!("{store} {has}") })
}

/// Keeps what `shards` has of some shards up to date, until the future is dropped.
pub async fn follow_shards(shards: Arc<Shards>, others: Vec<(ShardId, StoreAddress)>) {
    let mut followed = JoinSet::new();
    for (shard, store) in others {
        followed.spawn(follow(Arc::clone(&shards), shard, store));
    }
    // The tasks end with this future.
    pending().await
}

/// Follows a shard whose store may not be reachable yet.
async fn follow(shards: Arc<Shards>, shard: ShardId, store: StoreAddress) {
    let observer = loop {
        match Store::connect(&store).await {
            Ok(store) => break Observer::new(Arc::new(store)),
            Err(error) => tracing::debug!(%store, %error, "cannot reach the store of shard {shard}"),
        }
        sleep(STORE_PAUSE).await;
    };
    tokio::join!(observer.observe(), publish(&shards, shard, observer.seen()));
}

/// Shows what is seen of a shard.
async fn publish(shards: &Shards, shard: ShardId, mut seen: watch::Receiver<Seen>) {
    loop {
        let Seen { leader, nodes, .. } = seen.borrow_and_update().clone();
        shards.replace(shard, Shard { leader, nodes });
        if seen.changed().await.is_err() {
            return;
        }
    }
}
