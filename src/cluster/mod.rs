//! Servers that serve the same locks from one store: who leads, and how the others pass requests
//! on.
//!
//! | file | idea |
//! |---|---|
//! | `election` | how one server takes part in elections: the keys that it writes in etcd |
//! | `observer` | what is in etcd about the servers |
//! | `shards` | the division of a store into shards |
//! | `store` | their connection to it |
//! | `watchdog` | replaces a leader that does not answer |
//! | `proxy_header` | the header of a connection between servers |
//! | `proxy` | a client's connection, passed on to the leader |
//!
//! Guarantees: nothing here decides whether a leader may answer; the guards of its commits do. Not
//! here: what a leader serves, what a standby answers itself.

mod election;
mod observer;
mod proxy;
mod proxy_header;
mod shards;
mod store;
mod watchdog;

pub use election::Election;
pub use observer::Seen;
pub use proxy::{Knock, answer_pings, forward, receive};
pub use proxy_header::Header;
pub use shards::{divide, follow_shards};
pub use store::Store;
pub use watchdog::watch_leader;
