//! Requests for keys of another shard.
//!
//! Guarantees: no request touches a lock of another shard. Not here: which keys a shard has.

use super::HttpState;
use super::error::ApiError;
use crate::domain::LockName;

impl HttpState {
    /// Refuses a lock of another shard, and names the server that leads it.
    pub(super) fn check_shard(&self, lock: &LockName) -> Result<(), ApiError> {
        let Some(shards) = &self.membership.shards else { return Ok(()) };
        let shard = shards.of_key(lock.key());
        if shard == shards.own() {
            return Ok(());
        }
        let seen = shards.read(shard);
        let leader = seen.leading_node().and_then(|leader| leader.http.as_ref());
        Err(leader.map_or_else(ApiError::no_leader, |address| ApiError::moved(address.to_string())))
    }
}
