//! `INFO [section ...]`
//!
//! Not here: counting.

use std::fmt::Write as _;

use super::persistence::last_save_seconds;
use super::stats::STATS_WORK;
use crate::auth::DenialReason;
use crate::command::{
    Args, Categories, Command, CommandError, Context, Group, REDIS_VERSION, options, sentinel,
};
use crate::domain::{DATABASES, HostPort};
use crate::metrics::{cpu_seconds, machine_bytes, peak_resident_bytes, resident_bytes};
use crate::reply::Reply;

pub(super) const INFO: Command = Command::new("info", -1, run)
    .group(Group::Server)
    .own_categories(Categories::DANGEROUS)
    .syntax("[section [section ...]]")
    .summary(
        "Returns information and statistics about the server: server, clients, memory, \
         persistence, stats, replication, cpu, modules, cluster, locks, values, keyspace, and with \
         all or by name commandstats and latencystats. Counts include changes that are not durable \
         yet.",
    )
    .example("INFO locks");

type Section = fn(&Context<'_>, &mut String) -> std::fmt::Result;

const SECTIONS: [(&str, Section); 15] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Modules", |_, _| Ok(())),
    ("Commandstats", command_stats),
    ("Latencystats", latency_stats),
    ("Cluster", |context, out| {
        write!(out, "cluster_enabled:{}\r\n", u8::from(context.server.shards.is_some()))
    }),
    ("Locks", locks),
    ("Values", values),
    ("Keyspace", keyspace),
    ("Sentinel", sentinel::info),
];

/// The sections of a Sentinel; the last one is of no other server.
const OF_SENTINEL: [&str; 5] = ["Server", "Clients", "CPU", "Stats", "Sentinel"];

/// Sections that `default` leaves out.
const LONG_SECTIONS: [&str; 2] = ["Commandstats", "Latencystats"];

/// Units of work of all sections. The memory in use is read from the system, and the state of every
/// client is checked.
const INFO_WORK: usize = 1000;

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut wanted = SECTIONS.map(|(name, _)| args.len() == 1 && !LONG_SECTIONS.contains(&name));
    for arg in args.from(1) {
        let is_all = ["all", "everything"].iter().any(|all| options::is(arg, all));
        let is_default = options::is(arg, "default");
        for ((name, _), is_wanted) in SECTIONS.iter().zip(&mut wanted) {
            let is_short = !LONG_SECTIONS.contains(name);
            *is_wanted |= is_all || is_default && is_short || options::is(arg, name);
        }
    }
    for ((name, _), is_wanted) in SECTIONS.iter().zip(&mut wanted) {
        let is_shown = match context.client.is_sentinel {
            true => OF_SENTINEL.contains(name),
            false => *name != "Sentinel",
        };
        *is_wanted &= is_shown;
    }
    context.spend(INFO_WORK + STATS_WORK + args.len());
    let mut text = String::new();
    for ((name, section), is_wanted) in SECTIONS.into_iter().zip(wanted) {
        if is_wanted {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let _ = write!(text, "# {name}\r\n");
            // Writing to a String does not fail.
            let _ = section(context, &mut text);
        }
    }
    Ok(Reply::Text(text))
}

fn server(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let info = &context.server.info;
    let now = context.txn.now();
    let uptime = now.millis_since(info.started) / 1000;
    write!(out, "redis_version:{REDIS_VERSION}\r\n")?;
    write!(out, "octostore_version:{}\r\n", env!("CARGO_PKG_VERSION"))?;
    write!(out, "redis_mode:{}\r\n", context.mode())?;
    write!(out, "os:{} {}\r\n", std::env::consts::OS, std::env::consts::ARCH)?;
    write!(out, "arch_bits:{}\r\n", usize::BITS)?;
    write!(out, "process_id:{}\r\n", std::process::id())?;
    write!(out, "run_id:{}\r\n", info.run_id)?;
    write!(out, "tcp_port:{}\r\n", info.port)?;
    if let Some(days) = context.server.metrics.certificate_days(context.txn.wall_millis()) {
        write!(out, "tls_certificate_expiry_days:{days}\r\n")?;
    }
    write!(out, "server_time_usec:{}\r\n", context.txn.wall_millis() * 1000)?;
    write!(out, "uptime_in_seconds:{uptime}\r\n")?;
    write!(out, "uptime_in_days:{}\r\n", uptime / 86_400)
}

fn clients(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let clients = &context.server.clients;
    write!(out, "connected_clients:{}\r\n", clients.len())?;
    write!(out, "cluster_connections:0\r\n")?;
    let connections_max = context.server.settings.connections_max();
    write!(out, "maxclients:{}\r\n", connections_max.load(std::sync::atomic::Ordering::Relaxed))?;
    write!(out, "blocked_clients:{}\r\n", clients.waiting())?;
    write!(out, "tracking_clients:{}\r\n", context.server.tracking.counts().clients)
}

fn memory(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let resident = resident_bytes().unwrap_or(0);
    for (name, bytes) in [
        ("used_memory", resident),
        ("used_memory_rss", resident),
        ("used_memory_peak", peak_resident_bytes().unwrap_or(resident)),
        ("total_system_memory", machine_bytes().unwrap_or(0)),
        ("maxmemory", 0),
    ] {
        write!(out, "{name}:{bytes}\r\n{name}_human:{}\r\n", human(bytes))?;
    }
    write!(out, "maxmemory_policy:noeviction\r\n")?;
    let (scripts, script_bytes) = context.txn.engine().scripts_size();
    write!(out, "number_of_cached_scripts:{scripts}\r\n")?;
    write!(out, "used_memory_scripts:{script_bytes}\r\n")?;
    write!(out, "active_defrag_running:0\r\n")?;
    write!(out, "mem_fragmentation_ratio:1.00\r\n")?;
    write!(out, "mem_allocator:mimalloc\r\n")
}

/// A number of bytes as Redis shows it to people.
fn human(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "K", "M", "G"] {
        if number < 1024.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{number:.2}{unit}") };
        }
        number /= 1024.0;
    }
    format!("{number:.2}T")
}

fn persistence(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let engine = context.txn.engine();
    let info = &context.server.info;
    let (commits, records) = engine.commits();
    let down = engine.journal_down();
    let status = if down.is_none() { "ok" } else { "err" };
    write!(out, "loading:0\r\n")?;
    write!(out, "async_loading:0\r\n")?;
    write!(out, "rdb_changes_since_last_save:0\r\n")?;
    write!(out, "rdb_bgsave_in_progress:0\r\n")?;
    write!(out, "rdb_last_save_time:{}\r\n", last_save_seconds(context))?;
    write!(out, "rdb_last_bgsave_status:{status}\r\n")?;
    write!(out, "rdb_last_bgsave_time_sec:-1\r\n")?;
    write!(out, "rdb_current_bgsave_time_sec:-1\r\n")?;
    write!(out, "aof_enabled:{}\r\n", u8::from(info.durability != "memory"))?;
    write!(out, "aof_rewrite_in_progress:0\r\n")?;
    write!(out, "aof_rewrite_scheduled:0\r\n")?;
    write!(out, "aof_last_rewrite_time_sec:-1\r\n")?;
    write!(out, "aof_current_rewrite_time_sec:-1\r\n")?;
    write!(out, "aof_last_bgrewrite_status:ok\r\n")?;
    write!(out, "aof_last_write_status:{status}\r\n")?;
    write!(out, "durability:{}\r\n", info.durability)?;
    write!(out, "data:{}\r\n", info.data)?;
    match down {
        None => write!(out, "journal:up\r\n")?,
        Some(error) => {
            // Clients take commas for the ends of fields.
            let why = error.to_string().replace([',', '='], ";");
            write!(out, "journal:down\r\njournal_error:{why}\r\n")?;
        }
    }
    write!(out, "commits:{commits}\r\n")?;
    write!(out, "committed_records:{records}\r\n")
}

fn stats(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let server = context.server;
    let totals = server.stats.totals(server);
    let (channels, patterns, shard_channels) = server.pubsub.counts();
    let tracking = server.tracking.counts();
    let errors: u64 = totals.by_command.values().map(|totals| totals.errors).sum();
    for (name, number) in [
        ("total_connections_received", totals.connections),
        ("total_commands_processed", totals.commands),
        ("instantaneous_ops_per_sec", server.stats.commands_per_second(server)),
        ("total_net_input_bytes", totals.received_bytes),
        ("total_net_output_bytes", totals.sent_bytes),
        ("rejected_connections", totals.refused_connections),
        ("acl_access_denied_auth", totals.failed_logins),
        ("acl_access_denied_cmd", server.denials.total(DenialReason::Command)),
        ("acl_access_denied_key", server.denials.total(DenialReason::Key)),
        ("acl_access_denied_channel", server.denials.total(DenialReason::Channel)),
        ("expired_keys", totals.expired_keys),
        ("evicted_keys", 0),
        ("evicted_clients", 0),
        ("keyspace_hits", totals.lookup_hits),
        ("keyspace_misses", totals.lookup_misses),
        ("pubsub_channels", channels as u64),
        ("pubsub_patterns", patterns as u64),
        ("pubsubshard_channels", shard_channels as u64),
        ("tracking_total_keys", tracking.keys as u64),
        ("tracking_total_prefixes", tracking.prefixes as u64),
        // There are no forks, migrations and replicas.
        ("latest_fork_usec", 0),
        ("migrate_cached_sockets", 0),
        ("sync_full", 0),
        ("sync_partial_ok", 0),
        ("sync_partial_err", 0),
        ("total_error_replies", errors),
    ] {
        write!(out, "{name}:{number}\r\n")?;
    }
    Ok(())
}

fn replication(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let topology = context.server.topology.read();
    if context.server.is_standby {
        let leader = topology.leading_node().map(|leader| context.address_of(leader));
        let status = if leader.is_some() { "up" } else { "down" };
        let (host, port) = leader.map_or((String::new(), 0), |leader| (leader.host, leader.port));
        write!(out, "role:slave\r\nmaster_host:{host}\r\nmaster_port:{port}\r\n")?;
        write!(out, "master_link_status:{status}\r\nmaster_last_io_seconds_ago:0\r\n")?;
        write!(out, "master_sync_in_progress:0\r\nslave_repl_offset:0\r\nslave_priority:100\r\n")?;
        write!(out, "slave_read_only:1\r\nconnected_slaves:0\r\n")?;
    } else {
        write!(out, "role:master\r\nconnected_slaves:{}\r\n", topology.standbys().count())?;
        for (number, standby) in topology.standbys().enumerate() {
            let HostPort { host, port } = context.address_of(standby);
            write!(out, "slave{number}:ip={host},port={port},state=online,offset=0,lag=0\r\n")?;
        }
    }
    write!(out, "master_failover_state:no-failover\r\n")?;
    write!(out, "master_replid:{}\r\n", context.server.info.run_id)?;
    write!(out, "master_repl_offset:0\r\n")?;
    write!(out, "second_repl_offset:-1\r\n")?;
    write!(out, "repl_backlog_active:0\r\n")
}

fn cpu(_: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let (user, system) = cpu_seconds().unwrap_or_default();
    write!(out, "used_cpu_sys:{system:.6}\r\n")?;
    write!(out, "used_cpu_user:{user:.6}\r\n")?;
    // There are no child processes.
    write!(out, "used_cpu_sys_children:0.000000\r\n")?;
    write!(out, "used_cpu_user_children:0.000000\r\n")
}

fn command_stats(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let totals = context.server.stats.totals(context.server);
    for (name, totals) in totals.by_command.iter().filter(|(_, totals)| totals.calls > 0) {
        let per_call = totals.micros as f64 / totals.calls as f64;
        write!(
            out,
            "cmdstat_{name}:calls={},usec={},usec_per_call={per_call:.2},rejected_calls=0,failed_calls={}\r\n",
            totals.calls, totals.micros, totals.errors
        )?;
    }
    Ok(())
}

fn latency_stats(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    for (name, times) in context.server.metrics.commands.times() {
        let times = times.read();
        if times.count > 0 {
            let micros = |permille| times.permille(permille) as f64 / 1000.0;
            let (half, most, nearly_all) = (micros(500), micros(990), micros(999));
            write!(
                out,
                "latency_percentiles_usec_{name}:p50={half:.3},p99={most:.3},p99.9={nearly_all:.3}\r\n"
            )?;
        }
    }
    Ok(())
}

fn locks(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let engine = context.txn.engine();
    let stats = engine.lock_stats();
    write!(out, "leases:{}\r\n", stats.leases())?;
    write!(out, "waiting:{}\r\n", stats.waiting())?;
    write!(out, "sessions:{}\r\n", engine.sessions())?;
    let totals = stats.totals();
    for (name, total) in [
        ("grants", totals.grants),
        ("repeats", totals.repeats),
        ("refusals", totals.refusals),
        ("renewals", totals.renewals),
        ("releases", totals.releases),
        ("session_ends", totals.session_ends),
        ("expiries", totals.expiries),
        ("forced", totals.forced),
        ("replaced", totals.replaced),
        ("waits", totals.waits),
        ("wait_timeouts", totals.wait_timeouts),
    ] {
        write!(out, "total_{name}:{total}\r\n")?;
    }
    Ok(())
}

fn values(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let stats = context.txn.engine().value_stats();
    write!(out, "values:{}\r\n", stats.values())?;
    write!(out, "values_bytes:{}\r\n", stats.bytes())?;
    write!(out, "total_value_expiries:{}\r\n", stats.expiries.read())
}

fn keyspace(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let (counts, now) = (context.txn.engine().lock_stats(), context.txn.now());
    for database in 0..DATABASES {
        let keys = counts.keys(database);
        if keys > 0 {
            let (expires, avg_ttl) = counts.expiring(database, now);
            write!(out, "db{database}:keys={keys},expires={expires},avg_ttl={avg_ttl}\r\n")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_redis_shows_them() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (988_544, "965.38K"),
            (12_967_936, "12.37M"),
            (25_276_502_016, "23.54G"),
        ] {
            assert_eq!(human(bytes), expected);
        }
    }
}
