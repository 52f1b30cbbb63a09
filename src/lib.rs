//! octostore: a durable lock server that speaks the Redis protocol.
//!
//! A pure state machine for one lock ([`lock`]) decides, and everything else carries out its
//! decisions: [`engine`] runs it under the guard of one table entry, [`journal`] makes the changes
//! durable, [`command`] with [`resp`], and [`http`], are the adapters, [`server`] composes them.
//!
//! `ARCHITECTURE.md` has the map, the path of a request, the invariants, and what is deliberately
//! absent. `CONTRIBUTING.md` says how to change it.

pub mod auth;
pub mod cli;
pub mod clock;
#[cfg(feature = "etcd")]
pub mod cluster;
pub mod command;
pub mod config;
pub mod domain;
pub mod engine;
pub mod entropy;
mod glob;
pub mod http;
pub mod journal;
pub mod lock;
pub mod metrics;
pub mod net;
pub mod reply;
pub mod resp;
pub mod server;
pub mod value;
