//! The backend of a cluster: the data is in etcd, and the one who leads writes it.
//!
//! Every commit is a transaction with two guards: (a) the key `leader` was created by the revision
//! that is this leader's epoch, so a leader that was replaced writes nothing more; (b) the head of the
//! log was last written by the transaction that this leader saw last, so a transaction whose
//! response was lost is not applied behind a later one. An empty batch is a read with guard (a).
//!
//! After a response is missing, nothing is written before [`EtcdBackend`] has loaded again. Loading
//! first writes the head, so what may still be under way fails on guard (b).
//!
//! | file | idea |
//! |---|---|
//! | `transport` | what is needed of etcd |
//! | `client` | the same over the network |
//! | `layout` | the keys, and the values of the small ones |
//! | `codec` | records as text |
//! | `log` | batches as entries |
//! | `rows` | what the folded part of the log has left |
//! | `fold` | from the log to rows |
//! | `load` | rows and log as a state |
//! | `simulated` | an etcd in memory, for tests |
//! | `backend` | transactions and their guards |
//!
//! Guarantees: `commit` returns after etcd's majority has the batch. This folder and `cluster` alone
//! name etcd-client. Not here: who leads.

mod backend;
mod client;
mod codec;
mod fold;
mod layout;
mod load;
mod log;
mod rows;
mod simulated;
mod transport;

#[cfg(test)]
pub(super) mod tests;

pub use backend::EtcdBackend;
pub use client::{EtcdTransport, check, connect};
pub use simulated::{Fate, LeftOut, SimulatedEtcd};
pub use transport::{Compare, KeyValue, Range, Transport, TransportError, Txn, TxnResult, Write};
