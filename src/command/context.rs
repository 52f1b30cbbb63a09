//! The context of a command handler.

use std::sync::Arc;

use super::{Client, CommandError, Progress, ServerState, Steps, options};
use crate::domain::{Invalid, KEY_BYTES_MAX, LockName, OWNER_BYTES_MAX, Owner, TTL_MS_MAX, Ttl};
use crate::engine::{AnyTxn, Blocked};
use crate::lock::{ENDS_PER_STEP, Op, Outcome};
use crate::reply::Reply;

/// The context of a command handler.
pub struct Context<'a> {
    /// The state that all connections share.
    pub(super) server: &'a Arc<ServerState>,
    /// The requesting connection.
    pub(super) client: &'a mut Client,
    /// Access to locks and sessions. The reply waits for everything it has seen.
    pub(super) txn: AnyTxn<'a>,
    /// Set if the request waits for a lock and has no reply yet.
    pub(super) parked: Option<Blocked>,
    /// Set if the request continues in further turns and has no reply yet.
    pub(super) steps: Option<Box<dyn Steps>>,
    /// Whether the connection closes after the reply.
    pub(super) closes: bool,
}

impl<'a> Context<'a> {
    /// The context of a request that runs in `txn`.
    pub(super) fn new(server: &'a Arc<ServerState>, client: &'a mut Client, txn: AnyTxn<'a>) -> Context<'a> {
        Context { server, client, txn, parked: None, steps: None, closes: false }
    }
}

impl Context<'_> {
    /// Runs `work`, which uses the locks `names`, in an exclusive transaction. Like an operation on one lock, it may
    /// fail because what has ended of these locks must be freed in turns first.
    pub(super) fn atomically<R>(
        &mut self,
        names: &[LockName],
        work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        let AnyTxn::Shared(txn) = self.txn else { return work(self) };
        let (server, client) = (self.server, &mut *self.client);
        txn.exclusively(names, |exclusive| {
            work(&mut Context::new(server, client, AnyTxn::Exclusive(exclusive)))
        })?
    }

    /// Runs an operation that ends all leases of a lock, [`Op::Force`] or [`Op::Delete`]. The reply follows when they
    /// are freed, in turns if there are very many.
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

    /// Parses a key of the current database.
    pub(super) fn name(&self, key: &[u8]) -> Result<LockName, CommandError> {
        let max = self.server.limits.key_bytes_max;
        if key.len() > max && max < KEY_BYTES_MAX {
            return Err(CommandError::new(format!("ERR key must be 1 to {max} bytes")));
        }
        Ok(LockName::new(self.client.database(), key)?)
    }

    /// Parses a TTL in units of `unit_ms` milliseconds for the command `name`.
    pub(super) fn ttl(&self, arg: &[u8], unit_ms: i64, name: &str) -> Result<Ttl, CommandError> {
        let amount = options::integer(arg)?;
        let millis =
            Some(amount).filter(|amount| *amount > 0).and_then(|amount| self.millis(amount, unit_ms));
        self.ttl_of(millis.ok_or_else(|| CommandError::expire_time(name))?.unsigned_abs())
    }

    /// Converts `amount` to milliseconds; `None` if the resulting time would overflow in Redis.
    pub(super) fn millis(&self, amount: i64, unit_ms: i64) -> Option<i64> {
        let millis = amount.checked_mul(unit_ms)?;
        if millis <= i64::from(TTL_MS_MAX) {
            return Some(millis);
        }
        let now = i64::try_from(self.txn.engine().clock().wall_millis()).ok()?;
        now.checked_add(millis).map(|_| millis)
    }

    /// A TTL of `millis` milliseconds, within the limits.
    pub(super) fn ttl_of(&self, millis: u64) -> Result<Ttl, CommandError> {
        let max = self.server.limits.ttl_ms_max;
        let ttl = Ttl::from_millis(millis).ok().filter(|ttl| ttl.as_millis() <= max);
        ttl.ok_or_else(|| CommandError::new(format!("ERR TTL must be 1 to {max} milliseconds")))
    }

    /// Parses an owner.
    pub(super) fn owner(&self, owner: &[u8]) -> Result<Owner, CommandError> {
        let max = self.server.limits.owner_bytes_max;
        if owner.len() > max && max < OWNER_BYTES_MAX {
            return Err(CommandError::new(format!("ERR owner must be 1 to {max} bytes")));
        }
        Ok(Owner::new(owner)?)
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

/// Parses a key for a command that only looks keys up: a key that no lock can have is `None`, not an error.
pub(super) fn name_or_none(context: &Context<'_>, key: &[u8]) -> Result<Option<LockName>, CommandError> {
    match LockName::new(context.client.database(), key) {
        Ok(name) => Ok(Some(name)),
        Err(Invalid::KeyLength) => Ok(None),
        Err(other) => Err(other.into()),
    }
}
