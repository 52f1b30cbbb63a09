//! `CLUSTER …`, `READONLY`, `READWRITE`, `ASKING`: the shards, for clients of Redis Cluster.
//!
//! The leader of a shard is the master of its slots; its standbys are the replicas. Slots do not
//! move, so there is nothing to ask for. Not here: the division of the slots.

mod slots;

use std::fmt::Write;
use std::sync::Arc;

use super::{Args, Categories, Command, CommandError, Context, Flags, Group, Progress, Steps, options, scan};
use crate::domain::{HostPort, Node, SLOTS, Shard, ShardId, Shards, slot_of};
use crate::engine::Scan;
use crate::reply::Reply;

pub(super) const COMMANDS: &[Command] = &[CLUSTER, READONLY, READWRITE, ASKING];

const CLUSTER: Command = Command::container(
    "cluster",
    -2,
    &[
        subcommand("cluster|countkeysinslot", 3, count_keys)
            .flags(Flags::NONE)
            .syntax("slot")
            .summary("Returns the number of keys in a slot of this shard.")
            .example("CLUSTER COUNTKEYSINSLOT 1"),
        subcommand("cluster|info", 2, info)
            .summary("Returns the state of the cluster.")
            .example("CLUSTER INFO"),
        subcommand("cluster|keyslot", 3, key_slot)
            .syntax("key")
            .summary("Returns the slot of a key.")
            .example("CLUSTER KEYSLOT jobs:import"),
        subcommand("cluster|myid", 2, my_id)
            .summary("Returns the id of this server, another one at each start.")
            .example("CLUSTER MYID"),
        subcommand("cluster|nodes", 2, nodes)
            .summary("Returns the servers of all shards as text.")
            .example("CLUSTER NODES"),
        subcommand("cluster|shards", 2, list_shards)
            .summary("Returns the shards, with their slots and servers.")
            .example("CLUSTER SHARDS"),
        subcommand("cluster|slots", 2, list_slots)
            .summary("Returns the ranges of slots, each with its leader and its standbys.")
            .example("CLUSTER SLOTS"),
    ],
)
.flags(Flags::ANY_NODE)
.summary("A container for the commands of Redis Cluster.");

const fn subcommand(name: &'static str, arity: i8, handler: super::Handler) -> Command {
    Command::new(name, arity, handler).group(Group::Server).flags(Flags::ANY_NODE)
}

const READONLY: Command = Command::new("readonly", 1, accept)
    .group(Group::Server)
    .own_categories(Categories::CONNECTION)
    .flags(Flags::ANY_NODE | Flags::FAST)
    .summary("Accepted without effect: every reply comes from a leader.")
    .example("READONLY");

const READWRITE: Command = Command { name: "readwrite", ..READONLY }.example("READWRITE");

const ASKING: Command = Command { name: "asking", ..READONLY }
    .summary("Accepted without effect: slots do not move.")
    .example("ASKING");

fn accept(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    shards_of(context).map(|_| Reply::OK)
}

fn shards_of(context: &Context<'_>) -> Result<Arc<Shards>, CommandError> {
    let shards = context.server.shards.clone();
    shards.ok_or(CommandError::fixed("ERR This instance has cluster support disabled"))
}

fn key_slot(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    shards_of(context)?;
    Ok(Reply::Integer(slot_of(args.at(2)).into()))
}

fn my_id(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    shards_of(context)?;
    Ok(Reply::bulk(&context.server.info.run_id))
}

fn info(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let shards = shards_of(context)?;
    let all = shards.all();
    let count_slots = |shard: &ShardId| shard.slots().len();
    let served: usize = all
        .iter()
        .filter(|(_, seen)| seen.leading_node().is_some())
        .map(|(shard, _)| count_slots(shard))
        .sum();
    let epoch = |seen: &Shard| seen.leader.as_ref().map_or(0, |leader| leader.epoch);
    let state = if served == usize::from(SLOTS) { "ok" } else { "fail" };
    let mut text = String::new();
    for (name, value) in [
        ("cluster_state", state.to_owned()),
        ("cluster_slots_assigned", SLOTS.to_string()),
        ("cluster_slots_ok", served.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", (usize::from(SLOTS) - served).to_string()),
        ("cluster_known_nodes", all.iter().map(|(_, seen)| seen.nodes.len()).sum::<usize>().to_string()),
        ("cluster_size", all.len().to_string()),
        ("cluster_current_epoch", all.iter().map(|(_, seen)| epoch(seen)).max().unwrap_or(0).to_string()),
        ("cluster_my_epoch", epoch(&shards.read(shards.own())).to_string()),
        ("cluster_stats_messages_sent", "0".to_owned()),
        ("cluster_stats_messages_received", "0".to_owned()),
        ("total_cluster_links_buffer_limit_exceeded", "0".to_owned()),
    ] {
        // Writing to a String does not fail.
        let _ = write!(text, "{name}:{value}\r\n");
    }
    Ok(Reply::Text(text))
}

/// The servers of a shard, its leader first.
fn leader_first(seen: &Shard) -> impl Iterator<Item = (&Node, bool)> {
    let leader = seen.leading_node().map(|node| (node, true));
    leader.into_iter().chain(seen.standbys().map(|node| (node, false)))
}

fn nodes(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let shards = shards_of(context)?;
    let own = &context.server.info.run_id;
    let mut text = String::new();
    for (shard, seen) in shards.all() {
        let epoch = seen.leader.as_ref().map_or(0, |leader| leader.epoch);
        for (node, leads) in leader_first(&seen) {
            let HostPort { host, port } = context.address_of(node);
            let myself = if node.id == *own { "myself," } else { "" };
            let role = if leads { "master" } else { "slave" };
            let master = seen.leading_node().filter(|_| !leads).map_or("-", |leader| &leader.id);
            // Writing to a String does not fail.
            let _ = write!(text, "{} {host}:{port}@0 {myself}{role} {master} 0 0 {epoch} connected", node.id);
            if leads {
                let slots = shard.slots();
                let _ = write!(text, " {}-{}", slots.start(), slots.end());
            }
            text.push('\n');
        }
    }
    Ok(Reply::Text(text))
}

fn list_slots(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let shards = shards_of(context)?;
    let describe = |node: &Node| {
        let HostPort { host, port } = context.address_of(node);
        Reply::Array(vec![
            Reply::bulk(host),
            Reply::Integer(port.into()),
            Reply::bulk(&node.id),
            Reply::Array(vec![]),
        ])
    };
    let all = shards.all();
    // A shard without a leader is listed with its standbys: clients that miss slots give up, and
    // those that ask a standby try again.
    let known = all.iter().filter(|(_, seen)| !seen.nodes.is_empty());
    let ranges = known.map(|(shard, seen)| {
        let slots = shard.slots();
        let mut range = vec![Reply::Integer((*slots.start()).into()), Reply::Integer((*slots.end()).into())];
        range.extend(leader_first(seen).map(|(node, _)| describe(node)));
        Reply::Array(range)
    });
    Ok(Reply::Array(ranges.collect()))
}

fn list_shards(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let shards = shards_of(context)?;
    let field = |name: &'static str, value| (Reply::bulk(name), value);
    let describe = |(node, leads): (&Node, bool)| {
        let HostPort { host, port } = context.address_of(node);
        Reply::Map(vec![
            field("id", Reply::bulk(&node.id)),
            field("port", Reply::Integer(port.into())),
            field("ip", Reply::bulk(&host)),
            field("endpoint", Reply::bulk(&host)),
            field("role", Reply::bulk(if leads { "master" } else { "replica" })),
            field("replication-offset", Reply::Integer(0)),
            field("health", Reply::bulk("online")),
        ])
    };
    let all = shards.all();
    let shards = all.iter().map(|(shard, seen)| {
        let slots = shard.slots();
        let slots = [*slots.start(), *slots.end()].map(|slot| Reply::Integer(slot.into()));
        Reply::Map(vec![
            field("slots", Reply::Array(slots.into())),
            field("nodes", Reply::Array(leader_first(seen).map(describe).collect())),
        ])
    });
    Ok(Reply::Array(shards.collect()))
}

fn count_keys(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    shards_of(context)?;
    let slot = u16::try_from(options::integer(args.at(2))?).ok().filter(|slot| *slot < SLOTS);
    let slot = slot.ok_or(CommandError::fixed("ERR Invalid slot"))?;
    context.in_turns(Counting { scan: Scan::new(0, 0, usize::MAX), slot, found: 0 })
}

/// A COUNTKEYSINSLOT in progress.
struct Counting {
    scan: Scan,
    slot: u16,
    found: i64,
}

impl Steps for Counting {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        loop {
            let mut found = 0;
            let user = &context.client.user;
            let scanned = context.txn.scan(&mut self.scan, scan::entries_per_look(None), |name| {
                let key = name.key();
                found += i64::from(slot_of(key) == self.slot && scan::may_list(user, key));
            })?;
            self.found = if scanned.is_restarted { found } else { self.found + found };
            scan::spend(context, &scanned);
            if scanned.is_done {
                return Ok(Progress::Done(Reply::Integer(self.found)));
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
    }
}
