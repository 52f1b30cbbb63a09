//! The context of a command handler.

use std::sync::Arc;

use super::options::{self, Given};
use super::{Args, Caller, Client, Command, CommandError, Progress, ServerState, Steps, Waiting};
use crate::domain::{BorrowedName, BorrowedOwner, Invalid, LOCK_TTL_MS_MAX, LockName, Owner, Ttl};
use crate::engine::{AnyTxn, ExclusiveTxn};
use crate::lock::{ENDS_PER_STEP, Op, Outcome};
use crate::reply::Reply;

/// The context of a command handler.
pub struct Context<'a> {
    /// The state that all connections share.
    pub(super) server: &'a Arc<ServerState>,
    /// The requesting connection.
    pub(super) client: &'a mut Client,
    /// What has sent the command.
    pub(super) caller: Caller,
    /// The database of the keys. In a script, it may differ from the connection's.
    pub(super) database: u8,
    /// Access to locks and sessions. The reply waits for everything it has seen.
    pub(super) txn: AnyTxn<'a>,
    /// Set if the request waits and has no reply yet.
    pub(super) waiting: Option<Box<Waiting>>,
    /// Set if the request continues in further turns and has no reply yet.
    pub(super) steps: Option<Box<dyn Steps>>,
    /// Whether the connection closes after the reply.
    pub(super) closes: bool,
    /// Whether the request is for the leader, and this server is not.
    pub(super) is_for_leader: bool,
}

impl<'a> Context<'a> {
    /// The context of a connection's request that runs in `txn`.
    pub(super) fn new(server: &'a Arc<ServerState>, client: &'a mut Client, txn: AnyTxn<'a>) -> Context<'a> {
        let (caller, database) = (Caller::Connection, client.database());
        Context {
            server,
            client,
            caller,
            database,
            txn,
            waiting: None,
            steps: None,
            closes: false,
            is_for_leader: false,
        }
    }
}

impl Context<'_> {
    /// Runs `work`, which uses the keys `names`, in an exclusive transaction. Like an operation on one
    /// key, it may fail because what has ended of these keys must be freed in turns first.
    pub(super) fn atomically<R>(
        &mut self,
        names: &[LockName],
        work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        self.transact(names, false, work)
    }

    /// [`Context::atomically`] for `work` that may edit the values of these keys.
    pub(super) fn edit_atomically<R>(
        &mut self,
        names: &[LockName],
        work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        self.transact(names, true, work)
    }

    /// [`Context::atomically`] with all keys of the request `args`.
    pub(super) fn atomically_on_keys<R>(
        &mut self,
        args: Args<'_>,
        work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        let names = self.names_to_transact(args);
        self.transact(&names, false, work)
    }

    /// [`Context::edit_atomically`] with all keys of the request `args`.
    pub(super) fn edit_atomically_on_keys<R>(
        &mut self,
        args: Args<'_>,
        work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        let names = self.names_to_transact(args);
        self.transact(&names, true, work)
    }

    fn transact<R>(
        &mut self,
        names: &[LockName],
        edits: bool,
        work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        let AnyTxn::Shared(txn) = self.txn else { return work(self) };
        let (server, client, closes) = (self.server, &mut *self.client, &mut self.closes);
        let work = |exclusive: &ExclusiveTxn<'_>| {
            let mut inner = Context::new(server, client, AnyTxn::Exclusive(exclusive));
            let done = work(&mut inner);
            *closes |= inner.closes;
            done
        };
        if edits { txn.exclusively_editing(names, work)? } else { txn.exclusively(names, work)? }
    }

    /// The keys of a request, unless it is a part of a transaction that has begun already.
    fn names_to_transact(&self, args: Args<'_>) -> Vec<LockName> {
        match self.txn {
            AnyTxn::Exclusive(_) => Vec::new(),
            AnyTxn::Shared(_) => self.names_in(args),
        }
    }

    /// The keys of a request. Those that cannot exist are left out, and a request that is invalid has
    /// none: its handler reports that.
    pub(super) fn names_in(&self, args: Args<'_>) -> Vec<LockName> {
        let mut names = Vec::new();
        if let Some(command) = Command::of_request(args) {
            let visit = &mut |key, _| names.extend(name_or_none(self, key).ok().flatten());
            let _ = command.visit_keys(args, visit);
        }
        names
    }

    /// Runs an operation that ends all leases of a lock, [`Op::Force`] or [`Op::Delete`]. The reply
    /// follows when they are freed, in turns if there are very many.
    pub(super) fn end_all(
        &mut self,
        name: &LockName,
        op: &Op,
        reply: impl FnOnce(Outcome) -> Result<Reply, CommandError>,
    ) -> Result<Reply, CommandError> {
        let outcome = self.txn.submit(name, op)?;
        let is_much = matches!(outcome, Outcome::Released(leases) if leases as usize > ENDS_PER_STEP);
        let reply = reply(outcome)?;
        if is_much { self.in_turns(EndingAll { name: name.clone(), reply: Some(reply) }) } else { Ok(reply) }
    }

    /// Counts a lookup of a key by a command that reads it.
    pub(super) fn count_lookup(&self, exists: bool) {
        let lookups = &self.server.lookups;
        if exists { lookups.hits.add(1) } else { lookups.misses.add(1) }
    }

    /// Parses a key of the current database, for a command that may create it.
    pub(super) fn key(&self, key: &[u8]) -> Result<LockName, CommandError> {
        Ok(self.server.limits.key(self.database, key)?)
    }

    /// Parses the value of a string.
    pub(super) fn value(&self, value: &[u8]) -> Result<Owner, CommandError> {
        self.server.limits.value(value).map_err(|_| CommandError::VALUE_TOO_LONG)
    }

    /// Longest value of a string, in bytes.
    pub(super) fn value_bytes_max(&self) -> usize {
        self.server.limits.value_bytes_max
    }

    /// Parses the key of a lock in the current database.
    pub(super) fn name(&self, key: &[u8]) -> Result<LockName, CommandError> {
        Ok(self.borrowed_name(key)?.to_owned())
    }

    /// [`Context::name`] without a copy of the key.
    #[inline]
    pub(super) fn borrowed_name<'k>(&self, key: &'k [u8]) -> Result<BorrowedName<'k>, CommandError> {
        Ok(self.server.limits.lock_name(self.database, key)?)
    }

    /// Parses a TTL in units of `unit_ms` milliseconds for the command `name`.
    pub(super) fn ttl(&self, arg: &[u8], unit_ms: i64, name: &str) -> Result<Ttl, CommandError> {
        let amount = options::integer(arg)?;
        let millis =
            Some(amount).filter(|amount| *amount > 0).and_then(|amount| self.millis(amount, unit_ms));
        self.ttl_of(millis.ok_or_else(|| CommandError::expire_time(name))?.unsigned_abs())
    }

    /// Parses the TTL in the options `EX seconds` and `PX milliseconds` of the command `name`.
    pub(super) fn ttl_option(
        &self,
        ex: Given<'_>,
        px: Given<'_>,
        name: &str,
    ) -> Result<Option<Ttl>, CommandError> {
        match (ex.value(), px.value()) {
            (Some(seconds), _) => self.ttl(seconds, 1000, name).map(Some),
            (None, Some(millis)) => self.ttl(millis, 1, name).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Converts `amount` to milliseconds; `None` if the resulting time would overflow in Redis.
    pub(super) fn millis(&self, amount: i64, unit_ms: i64) -> Option<i64> {
        let millis = amount.checked_mul(unit_ms)?;
        if millis <= LOCK_TTL_MS_MAX as i64 {
            return Some(millis);
        }
        let now = i64::try_from(self.txn.engine().clock().wall_millis()).ok()?;
        now.checked_add(millis).map(|_| millis)
    }

    /// A TTL of `millis` milliseconds, within the limits.
    pub(super) fn ttl_of(&self, millis: u64) -> Result<Ttl, CommandError> {
        Ok(self.server.limits.ttl(millis)?)
    }

    /// Parses an owner.
    pub(super) fn owner(&self, owner: &[u8]) -> Result<Owner, CommandError> {
        Ok(self.borrowed_owner(owner)?.to_owned())
    }

    /// [`Context::owner`] without a copy of the owner.
    #[inline]
    pub(super) fn borrowed_owner<'o>(&self, owner: &'o [u8]) -> Result<BorrowedOwner<'o>, CommandError> {
        Ok(self.server.limits.owner(owner)?)
    }
}

/// The end of all leases of a lock, some of which are still to be freed.
struct EndingAll {
    name: LockName,
    reply: Option<Reply>,
}

impl Steps for EndingAll {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        context.txn.free_ended(&self.name)?;
        Ok(self.reply.take().map_or(Progress::More, Progress::Done))
    }
}

/// Parses a key for a command that does not create it. Returns `None` for a key that cannot exist.
pub(super) fn name_or_none(context: &Context<'_>, key: &[u8]) -> Result<Option<LockName>, CommandError> {
    match LockName::new(context.database, key) {
        Ok(name) => Ok(Some(name)),
        Err(Invalid::KeyLength { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}
