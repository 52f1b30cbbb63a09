//! octostore: a durable lock server that speaks the Redis protocol.
//!
//! One idea holds it together: a pure lease state machine ([`lock`]) decides, and everything else
//! carries its decisions out.
//!
//! | module | what lives there | what is absent |
//! |---|---|---|
//! | [`clock`] | the only reader of system time, and a manual clock for tests | everything else |
//! | [`engine`] | the lock manager: table, expiry, sessions, waiters, recovery | protocols, storage, the rules of locks |
//! | [`journal`] | records, backends (SQLite, memory), what recovery reads back | who holds what, clocks, async |
//! | [`lock`] | leases, the FIFO queue, the transition function | IO, clocks, threads, other modules |

pub mod clock;
pub mod command;
pub mod config;
pub mod engine;
pub mod journal;
pub mod lock;
pub mod reply;
pub mod resp;
pub mod server;
