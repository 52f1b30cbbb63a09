//! `ROLE`, `REPLICAOF`, `SLAVEOF`, `FAILOVER`, `WAIT`, `WAITAOF`, `SYNC`, `PSYNC`, `REPLCONF`. The
//! leader of a cluster is a primary, whose replicas are the standbys; nothing is replicated between
//! them.

use crate::command::{Args, Categories, Command, CommandError, Context, Flags, Group, options};
use crate::domain::HostPort;
use crate::reply::Reply;

pub(super) const ROLE: Command = Command::new("role", 1, role)
    .group(Group::Server)
    .own_categories(Categories::ADMIN.and(Categories::DANGEROUS))
    .flags(Flags::ANY_NODE | Flags::FAST | Flags::NOSCRIPT)
    .summary("Returns the role of this server: a primary, with the standbys as its replicas, or a replica.")
    .example("ROLE");

fn role(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    if context.client.is_sentinel {
        return Ok(context.role_of_sentinel());
    }
    let topology = context.server.topology.read();
    if context.server.is_standby {
        let leader = topology.leading_node().map(|leader| context.address_of(leader));
        let (host, port) = leader.as_ref().map_or(("", 0), |leader| (&leader.host, leader.port));
        return Ok(Reply::Array(vec![
            Reply::bulk("slave"),
            Reply::bulk(host),
            Reply::Integer(i64::from(port)),
            Reply::bulk(if leader.is_some() { "connected" } else { "connect" }),
            Reply::Integer(if leader.is_some() { 0 } else { -1 }),
        ]));
    }
    // By this, clients check that they are connected to the leader.
    context.txn.confirm_leadership();
    let standbys = topology.standbys().map(|standby| {
        let HostPort { host, port } = context.address_of(standby);
        Reply::Array(vec![Reply::bulk(host), Reply::bulk(port.to_string()), Reply::bulk("0")])
    });
    Ok(Reply::Array(vec![Reply::bulk("master"), Reply::Integer(0), Reply::Array(standbys.collect())]))
}

pub(super) const REPLICAOF: Command = Command::new("replicaof", 3, replicaof)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT)
    .syntax("host port | NO ONE")
    .summary("Accepts NO ONE. Fails otherwise: there is no replication.")
    .example("REPLICAOF NO ONE");

pub(super) const SLAVEOF: Command = Command { name: "slaveof", ..REPLICAOF }.example("SLAVEOF NO ONE");

fn replicaof(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if options::is(args.at(1), "no") && options::is(args.at(2), "one") {
        return Ok(Reply::OK);
    }
    match options::integer(args.at(2)) {
        Ok(0..=65535) => Err(CommandError::fixed("ERR this server cannot be a replica of another one")),
        _ => Err(CommandError::fixed("ERR Invalid master port")),
    }
}

pub(super) const FAILOVER: Command = Command::new("failover", -1, failover)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT)
    .syntax("[TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]")
    .summary("Fails: there are no replicas.")
    .example("FAILOVER");

fn failover(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    Err(CommandError::fixed(match args.len() {
        2 if options::is(args.at(1), "abort") => "ERR No failover in progress.",
        _ => "ERR FAILOVER requires connected replicas.",
    }))
}

pub(super) const SYNC: Command = Command::new("sync", 1, sync)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT | Flags::NO_MULTI)
    .summary("Fails: there is no replication.")
    .example("SYNC");

pub(super) const PSYNC: Command =
    Command { name: "psync", arity: -3, ..SYNC }.syntax("replicationid offset").example("PSYNC ? -1");

pub(super) const REPLCONF: Command = Command { name: "replconf", arity: -1, ..SYNC }
    .flags(Flags::ADMIN | Flags::NOSCRIPT)
    .syntax("[option value [option value ...]]")
    .example("REPLCONF capa eof");

/// What `redis-cli --rdb` and `--replica` show.
fn sync(_: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Err(CommandError::fixed("ERR there is no replication; copy the data with octostore backup"))
}

pub(super) const WAIT: Command = Command::new("wait", 3, wait)
    .group(Group::Generic)
    .own_categories(Categories::CONNECTION)
    .flags(Flags::NOSCRIPT)
    .syntax("numreplicas timeout")
    .summary("Returns 0: there are no replicas, and every reply is durable before it is sent.")
    .example("WAIT 0 100");

fn wait(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    options::integer(args.at(1))?;
    check_timeout(args.at(2))?;
    // There are no replicas to wait for.
    Ok(Reply::Integer(0))
}

pub(super) const WAITAOF: Command = Command::new("waitaof", 4, waitaof)
    .group(Group::Generic)
    .own_categories(Categories::CONNECTION)
    .flags(Flags::NOSCRIPT)
    .syntax("numlocal numreplicas timeout")
    .summary(
        "Returns whether this server has made the connection's changes durable, which it does before \
         it replies unless --durability says otherwise, and 0 replicas.",
    )
    .example("WAITAOF 0 0 100");

fn waitaof(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let local = options::integer(args.at(1))?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::fixed("ERR value is out of range, value must between 0 and 1"));
    }
    if options::integer(args.at(2))? < 0 {
        return Err(CommandError::fixed("ERR value is out of range, must be positive"));
    }
    check_timeout(args.at(3))?;
    let durability = context.server.info.durability;
    if local > 0 && durability == "memory" {
        return Err(CommandError::fixed(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    let is_durable = durability == "always";
    Ok(Reply::Array(vec![Reply::Integer(i64::from(is_durable)), Reply::Integer(0)]))
}

fn check_timeout(arg: &[u8]) -> Result<(), CommandError> {
    match options::integer(arg) {
        Ok(0..) => Ok(()),
        Ok(_) => Err(CommandError::fixed("ERR timeout is negative")),
        Err(_) => Err(CommandError::fixed("ERR timeout is not an integer or out of range")),
    }
}
