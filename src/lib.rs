//! octostore: a durable lock server that speaks the Redis protocol.
//!
//! One idea holds it together: a pure lease state machine ([`lock`]) decides, and everything else
//! carries its decisions out.
//!
//! | module | what lives there | what is absent |
//! |---|---|---|
//! | [`domain`] | keys, owners, times, ids and their limits | everything but the standard library |
//! | [`lock`] | leases, the FIFO queue, the transition function | IO, clocks, threads, other modules but `domain` |
//! | [`journal`] | records, group commit, backends (SQLite, memory), what recovery reads back | who holds what, clocks, async runtimes |
//! | [`engine`] | the lock manager: table, expiry, sessions, waiters, recovery | protocols, storage, the rules of locks |
//! | [`command`] | the table of commands, one file per verb | wire formats, sockets, storage, the rules of locks |
//! | [`reply`] | what a command answers, in no protocol | bytes |
//! | [`auth`] | secrets, the current password, users as configured | protocols, files |
//! | [`resp`] | scanning, encoding, connections, the listener | what commands mean |
//! | [`http`] | the HTTP adapter: routes, JSON, event streams, metrics as text | what locks do, RESP, storage |
//! | [`metrics`] | counters and histograms | names, labels, clocks |
//! | [`config`] | flags, variables and file become a checked configuration | defaults that are not in its table |
//! | [`server`] | the composition root: open, recover, bind, serve, drain; the log | everything that could be decided elsewhere |
//! | [`net`] | addresses, the accept loop, streams of bytes | protocols |
//! | [`logging`] | the log's way to stderr: a bounded queue, a line a second for each call site | what is logged |
//! | [`clock`] | the only reader of system time, and a manual clock for tests | everything else |
//!
//! A request goes `resp` → `command` → `engine` → `lock` in one synchronous call under the guard of one lock; what changed
//! goes into the journal's queue under the same guard. The reply waits in the connection's buffer until the journal says
//! that everything it depends on is synced; then all replies of a batch leave in one write.
//!
//! What holds everywhere:
//!
//! * No reply reveals anything that is not yet durable, including refusals and reads.
//! * Fencing tokens are one counter that never goes back and never comes from a clock.
//! * A lease never ends early: deadlines are on the boot-time clock; wall time is for display.
//! * A free lock costs nothing: no entry, no row, no timer.
//! * A waiter that is gone is granted nothing, and costs those behind it nothing.
//! * A failed commit is never an OK.
//! * No guard covers IO or an `.await`.

pub mod auth;
pub mod clock;
pub mod command;
pub mod config;
pub mod domain;
pub mod engine;
pub mod entropy;
pub mod http;
pub mod journal;
pub mod lock;
pub mod metrics;
pub mod net;
pub mod reply;
pub mod resp;
pub mod server;
