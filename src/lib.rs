//! octostore: a durable lock server that speaks the Redis protocol.
//!
//! One idea holds it together: a pure lease state machine ([`lock`]) decides, and everything else
//! carries its decisions out.
//!
//! | module | what lives there | what is absent |
//! |---|---|---|
//! | [`journal`] | records, backends (SQLite, memory), what recovery reads back | who holds what, clocks, async |
//! | [`lock`] | leases, the FIFO queue, the transition function | IO, clocks, threads, other modules |

pub mod journal;
pub mod lock;
