//! The shards of a cluster, and what is known of their servers.
//!
//! Guarantees: a reader sees one consistent state of each shard. Not here: where a key belongs.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Leader, Node, ShardId, slot_of};

/// What is known of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shard {
    /// Its leader; `None`: there is none at present.
    pub leader: Option<Leader>,
    /// Its servers, in the order of their ids.
    pub nodes: Vec<Node>,
}

impl Shard {
    /// Its leader, if it is known where it is.
    pub fn leading_node(&self) -> Option<&Node> {
        let leader = self.leader.as_ref()?;
        self.nodes.iter().find(|node| node.id == leader.id)
    }

    /// The servers that do not lead.
    pub fn standbys(&self) -> impl Iterator<Item = &Node> {
        let leader = self.leader.as_ref().map(|leader| leader.id.as_str());
        self.nodes.iter().filter(move |node| Some(node.id.as_str()) != leader)
    }
}

/// All shards.
#[derive(Debug)]
pub struct Shards {
    own: ShardId,
    all: RwLock<Vec<Arc<Shard>>>,
}

impl Shards {
    /// The shards seen by a server of `own`, which knows nothing of them yet.
    pub fn new(own: ShardId) -> Shards {
        let all = ShardId::all(own.count()).map(|_| Arc::default()).collect();
        Shards { own, all: RwLock::new(all) }
    }

    /// The shard of this server.
    pub fn own(&self) -> ShardId {
        self.own
    }

    /// The shard of a key.
    pub fn of_key(&self, key: &[u8]) -> ShardId {
        ShardId::of_slot(slot_of(key), self.own.count())
    }

    /// What is known of a shard.
    pub fn read(&self, shard: ShardId) -> Arc<Shard> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(shard.index()).cloned().unwrap_or_default()
    }

    /// Replaces what is known of a shard.
    pub fn replace(&self, shard: ShardId, seen: Shard) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(shard.index()) {
            *known = Arc::new(seen);
        }
    }

    /// All shards, in the order of their slots.
    pub fn all(&self) -> Vec<(ShardId, Arc<Shard>)> {
        ShardId::all(self.own.count()).map(|shard| (shard, self.read(shard))).collect()
    }
}
