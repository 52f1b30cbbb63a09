//! `INFO [section ...]`

use std::fmt::Write as _;

use super::{Args, Command, CommandError, Context, Flags, Group, REDIS_VERSION, Run, args};
use crate::domain::DATABASES;
use crate::metrics::resident_bytes;
use crate::reply::Reply;

pub(super) const INFO: Command = Command {
    name: "info",
    syntax: "[section [section ...]]",
    summary: "Answers what the server is and how it does: server, clients, memory, persistence, stats, \
              replication, locks, keyspace. Counts are of this moment: what is not durable yet is counted, too.",
    group: Group::Server,
    arity: -1,
    flags: Flags::NONE,
    keys: (0, 0, 0),
    run: Run::Handler(run),
};

type Section = fn(&Context<'_>, &mut String) -> std::fmt::Result;

const SECTIONS: [(&str, Section); 8] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Locks", locks),
    ("Keyspace", keyspace),
];

/// What the sections cost: the memory in use is asked of the system, and of all clients whether they wait.
const INFO_WORK: usize = 1000;

fn run(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let mut wanted = [words.len() == 1; SECTIONS.len()];
    for word in words.from(1) {
        let is_all = ["all", "default", "everything"].iter().any(|all| args::is(word, all));
        for ((name, _), is_wanted) in SECTIONS.iter().zip(&mut wanted) {
            *is_wanted |= is_all || args::is(word, name);
        }
    }
    context.spend(INFO_WORK + words.len());
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
    let about = &context.service.about;
    let now = context.access.now();
    let uptime = now.millis_since(about.started) / 1000;
    write!(out, "redis_version:{REDIS_VERSION}\r\n")?;
    write!(out, "octostore_version:{}\r\n", env!("CARGO_PKG_VERSION"))?;
    write!(out, "redis_mode:standalone\r\n")?;
    write!(out, "os:{} {}\r\n", std::env::consts::OS, std::env::consts::ARCH)?;
    write!(out, "arch_bits:{}\r\n", usize::BITS)?;
    write!(out, "process_id:{}\r\n", std::process::id())?;
    write!(out, "tcp_port:{}\r\n", about.port)?;
    write!(out, "uptime_in_seconds:{uptime}\r\n")?;
    write!(out, "uptime_in_days:{}\r\n", uptime / 86_400)
}

fn clients(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let clients = &context.service.clients;
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
    let engine = context.access.engine();
    let about = &context.service.about;
    let (commits, records) = engine.commits();
    write!(out, "loading:0\r\n")?;
    write!(out, "durability:{}\r\n", about.durability)?;
    write!(out, "data:{}\r\n", about.data)?;
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
    let service = context.service;
    let lock_stats = context.access.engine().lock_stats();
    let (channels, patterns) = service.hub.counts();
    write!(out, "total_connections_received:{}\r\n", service.metrics.redis.opened())?;
    write!(out, "rejected_connections:{}\r\n", service.metrics.redis.refused())?;
    write!(out, "total_commands_processed:{}\r\n", service.commands_run.read())?;
    write!(out, "acl_access_denied_auth:{}\r\n", service.metrics.failed_logins.read())?;
    write!(out, "expired_keys:{}\r\n", lock_stats.expiries.read())?;
    write!(out, "evicted_keys:0\r\n")?;
    write!(out, "pubsub_channels:{channels}\r\n")?;
    write!(out, "pubsub_patterns:{patterns}\r\n")
}

fn replication(_: &Context<'_>, out: &mut String) -> std::fmt::Result {
    write!(out, "role:master\r\n")?;
    write!(out, "connected_slaves:0\r\n")
}

fn locks(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let engine = context.access.engine();
    let lock_stats = engine.lock_stats();
    write!(out, "leases:{}\r\n", lock_stats.leases())?;
    write!(out, "waiting:{}\r\n", lock_stats.waiting())?;
    write!(out, "sessions:{}\r\n", engine.sessions())?;
    for (name, total) in [
        ("grants", &lock_stats.grants),
        ("repeats", &lock_stats.repeats),
        ("refusals", &lock_stats.refusals),
        ("renewals", &lock_stats.renewals),
        ("releases", &lock_stats.releases),
        ("session_ends", &lock_stats.session_ends),
        ("expiries", &lock_stats.expiries),
        ("forced", &lock_stats.forced),
        ("replaced", &lock_stats.replaced),
        ("waits", &lock_stats.waits),
        ("wait_timeouts", &lock_stats.wait_timeouts),
    ] {
        write!(out, "total_{name}:{}\r\n", total.read())?;
    }
    Ok(())
}

fn keyspace(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    for database in 0..DATABASES {
        let keys = context.access.engine().lock_stats().keys(database);
        if keys > 0 {
            write!(out, "db{database}:keys={keys}\r\n")?;
        }
    }
    Ok(())
}
