//! Which requests a server of a shard executes.
//!
//! Guarantees: no command touches a key of another shard, whether a connection or a script calls it. Not here: the division
//! of the slots.

use crate::command::{Args, Caller, Command, CommandError, Context};
use crate::domain::{HostPort, ShardId, Shards, slot_of};

/// The keys of one request are in several slots.
const CROSS_SLOT: CommandError = CommandError::fixed("CROSSSLOT Keys in request don't hash to the same slot");
/// The shard of the keys has no leader. Cluster clients try again.
const NOT_SERVED: CommandError = CommandError::fixed("CLUSTERDOWN Hash slot not served");

impl Context<'_> {
    /// Refuses a request whose keys are not all in one slot, or in a slot of another shard; the
    /// error names the server that leads it. Keyspace commands on a standby are for the leader of
    /// its own shard, too.
    #[inline]
    pub(in crate::command) fn check_slots(
        &self,
        command: &'static Command,
        args: Args<'_>,
    ) -> Result<(), CommandError> {
        match &self.server.shards {
            None => Ok(()),
            Some(shards) => self.check_slots_of(shards, command, args),
        }
    }

    #[inline(never)]
    fn check_slots_of(
        &self,
        shards: &Shards,
        command: &'static Command,
        args: Args<'_>,
    ) -> Result<(), CommandError> {
        let mut slots = SlotsOf::default();
        match &self.client.transaction {
            Some(transaction) if command.name == "exec" => {
                transaction.requests().for_each(|queued| slots.add_request(queued));
            }
            _ => slots.add(command, args),
        }
        let Some(slot) = slots.first else { return Ok(()) };
        if slots.differ {
            return Err(CROSS_SLOT);
        }
        let shard = ShardId::of_slot(slot, shards.own().count());
        if shard == shards.own() && !self.server.is_standby {
            return Ok(());
        }
        if let Caller::Script { .. } = self.caller {
            return Err(CommandError::fixed(
                "ERR Script attempted to access a non local key in a cluster node",
            ));
        }
        let seen = shards.read(shard);
        let leader = seen.leading_node().ok_or(NOT_SERVED)?;
        // This server has begun to lead since the client connected: its other service goes on.
        if leader.id == self.server.info.run_id {
            return Ok(());
        }
        Err(moved(slot, &self.address_of(leader)))
    }

    /// Redis' name of what clients have to know of the keys: whether all of them are here, or none.
    pub(in crate::command) fn mode(&self) -> &'static str {
        match &self.server.shards {
            _ if self.client.is_sentinel => "sentinel",
            Some(_) => "cluster",
            None => "standalone",
        }
    }

    /// Refuses all databases but the first, as Redis Cluster does.
    pub(in crate::command) fn check_database(
        &self,
        database: u8,
        refusal: &'static str,
    ) -> Result<(), CommandError> {
        match self.server.shards {
            Some(_) if database != 0 => Err(CommandError::fixed(refusal)),
            _ => Ok(()),
        }
    }
}

fn moved(slot: u16, HostPort { host, port }: &HostPort) -> CommandError {
    CommandError::new(format!("MOVED {slot} {host}:{port}"))
}

/// The slots of some keys.
#[derive(Default)]
struct SlotsOf {
    first: Option<u16>,
    differ: bool,
}

impl SlotsOf {
    fn add_request(&mut self, args: Args<'_>) {
        if let Some(command) = Command::of_request(args) {
            self.add(command, args);
        }
    }

    fn add(&mut self, command: &'static Command, args: Args<'_>) {
        match command.name {
            // Their channels have slots, too.
            "ssubscribe" | "sunsubscribe" => args.from(1).for_each(|channel| self.add_key(channel)),
            "spublish" => self.add_key(args.at(1)),
            _ => {
                // If the number of keys is invalid, the handler reports that.
                let _ = command.visit_keys(args, &mut |key, _| self.add_key(key));
            }
        }
    }

    fn add_key(&mut self, key: &[u8]) {
        let slot = slot_of(key);
        self.differ |= *self.first.get_or_insert(slot) != slot;
    }
}
