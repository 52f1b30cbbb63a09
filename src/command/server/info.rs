//! `INFO [section ...]`

use std::fmt::Write as _;

use crate::command::{Args, Categories, Command, CommandError, Context, Group, REDIS_VERSION, options};
use crate::domain::DATABASES;
use crate::metrics::resident_bytes;
use crate::reply::Reply;

pub(super) const INFO: Command = Command::new("info", -1, run)
    .group(Group::Server)
    .own_categories(Categories::DANGEROUS)
    .syntax("[section [section ...]]")
    .summary(
        "Returns information and statistics about the server: server, clients, memory, \
         persistence, stats, replication, locks, values, keyspace. Counts include changes that are \
         not durable yet.",
    )
    .example("INFO locks");

type Section = fn(&Context<'_>, &mut String) -> std::fmt::Result;

const SECTIONS: [(&str, Section); 9] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Locks", locks),
    ("Values", values),
    ("Keyspace", keyspace),
];

/// Units of work of all sections. The memory in use is read from the system, and the state of every
/// client is checked.
const INFO_WORK: usize = 1000;

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut wanted = [args.len() == 1; SECTIONS.len()];
    for arg in args.from(1) {
        let is_all = ["all", "default", "everything"].iter().any(|all| options::is(arg, all));
        for ((name, _), is_wanted) in SECTIONS.iter().zip(&mut wanted) {
            *is_wanted |= is_all || options::is(arg, name);
        }
    }
    context.spend(INFO_WORK + args.len());
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
    write!(out, "redis_mode:standalone\r\n")?;
    write!(out, "os:{} {}\r\n", std::env::consts::OS, std::env::consts::ARCH)?;
    write!(out, "arch_bits:{}\r\n", usize::BITS)?;
    write!(out, "process_id:{}\r\n", std::process::id())?;
    write!(out, "tcp_port:{}\r\n", info.port)?;
    write!(out, "uptime_in_seconds:{uptime}\r\n")?;
    write!(out, "uptime_in_days:{}\r\n", uptime / 86_400)
}

fn clients(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let clients = &context.server.clients;
    write!(out, "connected_clients:{}\r\n", clients.len())?;
    write!(out, "blocked_clients:{}\r\n", clients.waiting())
}

fn memory(_: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let resident = resident_bytes().unwrap_or(0);
    write!(out, "used_memory:{resident}\r\n")?;
    write!(out, "used_memory_rss:{resident}\r\n")?;
    write!(out, "maxmemory:0\r\n")?;
    write!(out, "maxmemory_policy:noeviction\r\n")
}

fn persistence(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let engine = context.txn.engine();
    let info = &context.server.info;
    let (commits, records) = engine.commits();
    write!(out, "loading:0\r\n")?;
    write!(out, "durability:{}\r\n", info.durability)?;
    write!(out, "data:{}\r\n", info.data)?;
    match engine.journal_down() {
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
    let stats = context.txn.engine().lock_stats();
    let (channels, patterns) = server.pubsub.counts();
    write!(out, "total_connections_received:{}\r\n", server.metrics.redis.opened())?;
    write!(out, "rejected_connections:{}\r\n", server.metrics.redis.refused())?;
    write!(out, "total_commands_processed:{}\r\n", server.commands_run.read())?;
    write!(out, "acl_access_denied_auth:{}\r\n", server.metrics.failed_logins.read())?;
    write!(out, "expired_keys:{}\r\n", stats.expiries.read())?;
    write!(out, "evicted_keys:0\r\n")?;
    write!(out, "pubsub_channels:{channels}\r\n")?;
    write!(out, "pubsub_patterns:{patterns}\r\n")
}

fn replication(_: &Context<'_>, out: &mut String) -> std::fmt::Result {
    write!(out, "role:master\r\n")?;
    write!(out, "connected_slaves:0\r\n")
}

fn locks(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let engine = context.txn.engine();
    let stats = engine.lock_stats();
    write!(out, "leases:{}\r\n", stats.leases())?;
    write!(out, "waiting:{}\r\n", stats.waiting())?;
    write!(out, "sessions:{}\r\n", engine.sessions())?;
    for (name, total) in [
        ("grants", &stats.grants),
        ("repeats", &stats.repeats),
        ("refusals", &stats.refusals),
        ("renewals", &stats.renewals),
        ("releases", &stats.releases),
        ("session_ends", &stats.session_ends),
        ("expiries", &stats.expiries),
        ("forced", &stats.forced),
        ("replaced", &stats.replaced),
        ("waits", &stats.waits),
        ("wait_timeouts", &stats.wait_timeouts),
    ] {
        write!(out, "total_{name}:{}\r\n", total.read())?;
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
    for database in 0..DATABASES {
        let keys = context.txn.engine().lock_stats().keys(database);
        if keys > 0 {
            write!(out, "db{database}:keys={keys}\r\n")?;
        }
    }
    Ok(())
}
