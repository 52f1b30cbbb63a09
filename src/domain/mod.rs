//! Parsed, bounded types that every module shares.
//!
//! Guarantees: a value that exists is within its limits, so code behind the edge does not check
//! again. Keys and owners of usual length are stored inline, long ones are shared: copying one does
//! not allocate.
//! [`Limits`] may be configured below the fixed bounds, never above. Not here: where configuration
//! comes from, text formats of any protocol, clocks, and anything but the standard library.

mod ids;
mod key;
mod keyspace_events;
mod limits;
mod owner;
mod shards;
mod short_bytes;
mod slots;
#[cfg(test)]
mod tests;
mod time;
mod topology;

pub use ids::{FencingToken, SessionId, WaiterId};
pub use key::{BorrowedName, LockName};
pub use keyspace_events::KeyspaceEvents;
pub use limits::{
    DATABASES, Invalid, KEY_BYTES_MAX, LOCK_TTL_MS_MAX, Limits, OWNER_BYTES_MAX, TOKEN_MAX, TTL_MS_MAX,
};
pub use owner::{BorrowedOwner, Owner};
pub use shards::{Shard, Shards};
pub use slots::{SHARDS_MAX, SLOTS, ShardId, slot_of};
pub use time::{Timestamp, Ttl};
pub use topology::{HostPort, Leader, Membership, Node, SharedTopology, Topology};
