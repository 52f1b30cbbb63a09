//! The server itself: `TIME`. Submodules: its configuration, its state, and what clients and tools of
//! Redis ask.

mod absent;
mod config;
mod flush;
mod info;
mod latency;
mod memory;
mod persistence;
mod replication;
mod slowlog;
mod stats;

pub use slowlog::SlowLog;
pub(in crate::command) use slowlog::cut as cut_for_slow_log;
pub use stats::ServerStats;

use crate::command::{Args, Command, CommandError, Context, Flags, Group, monitor};
use crate::reply::Reply;

pub(in crate::command) const COMMANDS: &[Command] = &[
    config::CONFIG,
    info::INFO,
    slowlog::SLOWLOG,
    memory::MEMORY,
    latency::LATENCY,
    TIME,
    monitor::MONITOR,
    replication::WAIT,
    replication::WAITAOF,
    replication::ROLE,
    replication::REPLICAOF,
    replication::SLAVEOF,
    replication::FAILOVER,
    replication::SYNC,
    replication::PSYNC,
    replication::REPLCONF,
    persistence::SAVE,
    persistence::BGSAVE,
    persistence::BGREWRITEAOF,
    persistence::LASTSAVE,
    persistence::SHUTDOWN,
    flush::FLUSHDB,
    flush::FLUSHALL,
    absent::DEBUG,
    absent::MODULE,
    absent::SWAPDB,
];

const TIME: Command = Command::new("time", 1, time)
    .group(Group::Server)
    .flags(Flags::FAST)
    .summary(
        "Returns the server's wall-clock time in seconds and microseconds. Leases do not \
         depend on it.",
    )
    .example("TIME");

fn time(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let millis = context.txn.wall_millis();
    let micros = (millis % 1000) * 1000;
    Ok(Reply::Array(vec![Reply::bulk((millis / 1000).to_string()), Reply::bulk(micros.to_string())]))
}
