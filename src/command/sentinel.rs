//! `SENTINEL …`: which server leads, for clients that ask Redis Sentinel.
//!
//! Every server of a cluster answers as a Sentinel, the leader is the master, and the standbys are
//! its replicas: they pass requests on to the leader, so reads from them are up to date, too.
//!
//! Some clients demand that a Sentinel is nothing else. For these, servers listen at further addresses,
//! where only the commands of Sentinel exist.

use std::fmt::Write as _;

use super::pubsub::is_of_sentinel;
use super::{Args, Categories, Command, CommandError, Context, Flags, Group, options};
use crate::domain::{HostPort, Node, Topology};
use crate::reply::Reply;

pub(super) const COMMANDS: &[Command] = &[SENTINEL];

const SENTINEL: Command = Command::container(
    "sentinel",
    -2,
    &[
        subcommand("sentinel|get-master-addr-by-name", 3, master_address)
            .syntax("master-name")
            .summary("Returns the host and the port of the leader.")
            .example("SENTINEL GET-MASTER-ADDR-BY-NAME octostore"),
        subcommand("sentinel|masters", 2, masters)
            .summary("Returns information about the leader, as the only master.")
            .example("SENTINEL MASTERS"),
        subcommand("sentinel|master", 3, master)
            .syntax("master-name")
            .summary("Returns information about the leader.")
            .example("SENTINEL MASTER octostore"),
        subcommand("sentinel|replicas", 3, replicas)
            .syntax("master-name")
            .summary("Returns information about the standbys.")
            .example("SENTINEL REPLICAS octostore"),
        subcommand("sentinel|slaves", 3, replicas)
            .syntax("master-name")
            .summary("Returns information about the standbys.")
            .example("SENTINEL SLAVES octostore"),
        subcommand("sentinel|sentinels", 3, sentinels)
            .syntax("master-name")
            .summary("Returns information about the other servers.")
            .example("SENTINEL SENTINELS octostore"),
        subcommand("sentinel|ckquorum", 3, check_quorum)
            .syntax("master-name")
            .summary("Returns whether there is a leader, and the number of servers that could lead.")
            .example("SENTINEL CKQUORUM octostore"),
        subcommand("sentinel|myid", 2, |context, _| Ok(Reply::bulk(&context.server.topology.read().own)))
            .summary("Returns the id of this server, another one at each start.")
            .example("SENTINEL MYID"),
    ],
)
.own_categories(Categories::CONNECTION)
.flags(Flags::ANY_NODE)
.summary("A container for the commands of Redis Sentinel.");

const fn subcommand(name: &'static str, arity: i8, handler: super::Handler) -> Command {
    Command::new(name, arity, handler)
        .group(Group::Server)
        .own_categories(Categories::CONNECTION)
        .flags(Flags::ANY_NODE | Flags::NOSCRIPT)
}

/// What there is while no server leads.
pub(super) const NO_LEADER: CommandError = CommandError::fixed("LOADING no leader yet, try again");

/// Milliseconds after which a silent leader counts as down. Informative; clients only show it.
const DOWN_AFTER_MS: i64 = 1000;

impl Context<'_> {
    /// Where clients reach a server. One without an address of its own is reached where this client
    /// is connected.
    pub(super) fn address_of(&self, node: &Node) -> HostPort {
        let connected = || HostPort::parse(&self.client.info().local_addr);
        let unknown = || HostPort { host: "127.0.0.1".into(), port: self.server.info.port };
        node.redis.clone().or_else(connected).unwrap_or_else(unknown)
    }
}

/// The commands of Sentinel. Those that Sentinel has for its users are left out: the users are those of
/// the server.
const OF_SENTINEL: &[&str] = &[
    "auth",
    "client",
    "command",
    "hello",
    "info",
    "ping",
    "psubscribe",
    "punsubscribe",
    "quit",
    "reset",
    "role",
    "sentinel",
    "shutdown",
    "subscribe",
    "unsubscribe",
];

impl Context<'_> {
    /// Whether a command of this name exists for the connection.
    pub(super) fn has_command(&self, name: &[u8]) -> bool {
        !self.client.is_sentinel || OF_SENTINEL.iter().any(|own| options::is(name, own))
    }

    /// The role of a Sentinel, and the only master that it knows.
    pub(super) fn role_of_sentinel(&self) -> Reply {
        let name = Reply::bulk(&self.server.topology.read().name);
        Reply::Array(vec![Reply::bulk("sentinel"), Reply::Array(vec![name])])
    }
}

/// The section of INFO that only Sentinel has.
pub(super) fn info(context: &Context<'_>, out: &mut String) -> std::fmt::Result {
    let topology = context.server.topology.read();
    let leader = topology.leading_node().map(|leader| context.address_of(leader));
    write!(out, "sentinel_masters:{}\r\n", u8::from(leader.is_some()))?;
    write!(out, "sentinel_tilt:0\r\nsentinel_tilt_since_seconds:-1\r\n")?;
    write!(out, "sentinel_running_scripts:0\r\nsentinel_scripts_queue_length:0\r\n")?;
    write!(out, "sentinel_simulate_failure_flags:0\r\n")?;
    let Some(leader) = leader else { return Ok(()) };
    let (name, slaves, sentinels) = (&topology.name, topology.standbys().count(), topology.nodes.len());
    write!(out, "master0:name={name},status=ok,address={leader},slaves={slaves},sentinels={sentinels}\r\n")
}

/// The topology, if `name` is the name of this cluster.
fn named(context: &Context<'_>, name: &[u8]) -> Option<std::sync::Arc<Topology>> {
    Some(context.server.topology.read()).filter(|topology| topology.name.as_bytes() == name)
}

fn topology_of(context: &Context<'_>, args: Args<'_>) -> Result<std::sync::Arc<Topology>, CommandError> {
    named(context, args.at(2)).ok_or(CommandError::fixed("ERR No such master with that name"))
}

fn master_address(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(topology) = named(context, args.at(2)) else { return Ok(Reply::NullArray) };
    let leader = topology.leading_node().ok_or(NO_LEADER)?;
    let address = context.address_of(leader);
    Ok(Reply::Array(vec![Reply::bulk(&address.host), Reply::bulk(address.port.to_string())]))
}

fn masters(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let topology = context.server.topology.read();
    Ok(Reply::Array(vec![describe_master(context, &topology)?]))
}

fn master(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let topology = topology_of(context, args)?;
    describe_master(context, &topology)
}

fn replicas(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let topology = topology_of(context, args)?;
    let leader = topology.leading_node().ok_or(NO_LEADER)?;
    let master = context.address_of(leader);
    let describe = |node: &Node| {
        let address = context.address_of(node);
        let mut fields = common_fields(&address.to_string(), &address, node, "slave");
        fields.extend([
            ("info-refresh", "0".to_owned()),
            ("role-reported", "slave".to_owned()),
            ("role-reported-time", "0".to_owned()),
            ("master-link-down-time", "0".to_owned()),
            ("master-link-status", "ok".to_owned()),
            ("master-host", master.host.clone()),
            ("master-port", master.port.to_string()),
            ("slave-priority", "100".to_owned()),
            ("slave-repl-offset", "0".to_owned()),
            ("replica-announced", "1".to_owned()),
        ]);
        map(fields)
    };
    Ok(Reply::Array(topology.standbys().map(describe).collect()))
}

fn sentinels(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let topology = topology_of(context, args)?;
    let others = topology.nodes.iter().filter(|node| node.id != topology.own);
    let describe = |node: &Node| {
        let address = node.sentinel.clone().unwrap_or_else(|| context.address_of(node));
        let mut fields = common_fields(&node.id, &address, node, "sentinel");
        fields.extend([
            ("last-hello-message", "0".to_owned()),
            ("voted-leader", "?".to_owned()),
            ("voted-leader-epoch", "0".to_owned()),
        ]);
        map(fields)
    };
    Ok(Reply::Array(others.map(describe).collect()))
}

fn check_quorum(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let topology = topology_of(context, args)?;
    let usable = topology.nodes.len();
    if topology.leading_node().is_none() {
        return Err(CommandError::new(format!("NOQUORUM {usable} usable Sentinels. There is no leader yet")));
    }
    Ok(Reply::Status(format!(
        "OK {usable} usable Sentinels. Quorum and failover authorization can be reached"
    )))
}

fn describe_master(context: &Context<'_>, topology: &Topology) -> Result<Reply, CommandError> {
    let (Some(leader), Some(node)) = (&topology.leader, topology.leading_node()) else {
        return Err(NO_LEADER);
    };
    let mut fields = common_fields(&topology.name, &context.address_of(node), node, "master");
    fields.extend([
        ("info-refresh", "0".to_owned()),
        ("role-reported", "master".to_owned()),
        ("role-reported-time", "0".to_owned()),
        ("config-epoch", leader.epoch.to_string()),
        ("num-slaves", topology.standbys().count().to_string()),
        ("num-other-sentinels", (topology.nodes.len() - 1).to_string()),
        ("quorum", "1".to_owned()),
        ("failover-timeout", "0".to_owned()),
        ("parallel-syncs", "1".to_owned()),
    ]);
    Ok(map(fields))
}

/// The fields that Sentinel shows of every server.
fn common_fields(
    name: &str,
    address: &HostPort,
    node: &Node,
    flags: &'static str,
) -> Vec<(&'static str, String)> {
    vec![
        ("name", name.to_owned()),
        ("ip", address.host.clone()),
        ("port", address.port.to_string()),
        ("runid", node.id.clone()),
        ("flags", flags.to_owned()),
        ("link-pending-commands", "0".to_owned()),
        ("link-refcount", "1".to_owned()),
        ("last-ping-sent", "0".to_owned()),
        ("last-ok-ping-reply", "0".to_owned()),
        ("last-ping-reply", "0".to_owned()),
        ("down-after-milliseconds", DOWN_AFTER_MS.to_string()),
    ]
}

fn map(fields: Vec<(&'static str, String)>) -> Reply {
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())
}

/// The request subscribes to channels of Sentinel only, or ends subscriptions.
fn concerns_sentinel_channels(command: &Command, args: Args<'_>) -> bool {
    match command.name {
        "subscribe" | "psubscribe" => args.from(1).all(is_of_sentinel),
        "unsubscribe" | "punsubscribe" => true,
        _ => false,
    }
}

/// Whether every server of a cluster answers the request itself; the others are for the leader.
pub(super) fn is_for_any_node(command: &Command, args: Args<'_>) -> bool {
    command.is(Flags::ANY_NODE)
        || concerns_sentinel_channels(command, args)
        || command.name == "info" && args.len() > 1 && args.from(1).all(|arg| options::is(arg, "replication"))
}
