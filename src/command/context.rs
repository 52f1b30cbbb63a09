//! What a handler works with.

use std::sync::Arc;

use super::{Client, CommandError, ServerState, Steps, options};
use crate::engine::{Access, Parked, Unavailable};
use crate::journal::Seq;
use crate::lock::{Invalid, KEY_BYTES_MAX, LockName, OWNER_BYTES_MAX, Op, Outcome, Owner, TTL_MS_MAX, Ttl};
use crate::reply::Reply;

/// What a handler works with.
pub struct Context<'a> {
    /// What all connections share.
    pub(super) server: &'a Arc<ServerState>,
    /// The connection that asks.
    pub(super) client: &'a mut Client,
    /// The locks.
    pub(super) access: &'a Access<'a>,
    /// The reply must wait for this.
    pub(super) seq: Seq,
    /// The request waits for a lock; there is no reply yet.
    pub(super) parked: Option<Parked>,
    /// The request goes on in further turns; there is no reply yet.
    pub(super) steps: Option<Box<dyn Steps>>,
    /// The connection ends after the reply.
    pub(super) closes: bool,
}

impl Context<'_> {
    /// Takes a result, and notes what the reply has to wait for.
    pub(super) fn observe<R>(&mut self, result: Result<(R, Seq), Unavailable>) -> Result<R, CommandError> {
        let (value, seq) = result?;
        self.seq = self.seq.max(seq);
        Ok(value)
    }

    /// Runs an operation that may end more leases than one step does, until it has ended all.
    pub(super) fn submit_whole(&mut self, name: &LockName, op: &Op) -> Result<Outcome, CommandError> {
        loop {
            match self.observe(self.access.submit(name, op))? {
                Outcome::ReleasedSome(_) if self.access.is_alone() => {}
                Outcome::ReleasedSome(_) => return Err(CommandError::UNSETTLED),
                outcome => return Ok(outcome),
            }
        }
    }

    /// Makes the reply wait for all that was looked at.
    pub(super) fn depend_on_all(&mut self) -> Result<(), CommandError> {
        self.seq = self.seq.max(self.access.covering_seq()?);
        Ok(())
    }

    /// What a client is told of a command.
    pub(super) fn reply_to(&mut self, done: Result<Reply, CommandError>) -> Reply {
        let Err(error) = done else { return done.unwrap_or(Reply::Null) };
        if error.reveals_state()
            && let Err(unavailable) = self.depend_on_all()
        {
            return unavailable.into();
        }
        error.into()
    }

    /// Runs `work` with nobody coming between its operations.
    pub(super) fn atomically<R>(
        &mut self,
        work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        if self.access.is_alone() {
            return work(self);
        }
        let alone = self.access.engine().alone();
        let mut inner = Context {
            server: self.server,
            client: self.client,
            access: &alone,
            seq: self.seq,
            parked: None,
            steps: None,
            closes: false,
        };
        let result = work(&mut inner);
        self.seq = inner.seq;
        result
    }

    /// The lock that `key` names in this connection's database.
    pub(super) fn name(&self, key: &[u8]) -> Result<LockName, CommandError> {
        let max = self.server.limits.key_bytes_max;
        if key.len() > max && max < KEY_BYTES_MAX {
            return Err(CommandError::new(format!("ERR a key has 1 to {max} bytes")));
        }
        Ok(LockName::new(self.client.database(), key)?)
    }

    /// A TTL in seconds or milliseconds, for the command `name`.
    pub(super) fn ttl(&self, arg: &[u8], unit_ms: i64, name: &str) -> Result<Ttl, CommandError> {
        let amount = options::integer(arg)?;
        let millis =
            Some(amount).filter(|amount| *amount > 0).and_then(|amount| self.millis(amount, unit_ms));
        self.ttl_of(millis.ok_or_else(|| CommandError::expire_time(name))?.unsigned_abs())
    }

    /// An amount of time in milliseconds; `None` if it ends when Redis has no number for the time.
    pub(super) fn millis(&self, amount: i64, unit_ms: i64) -> Option<i64> {
        let millis = amount.checked_mul(unit_ms)?;
        if millis <= i64::from(TTL_MS_MAX) {
            return Some(millis);
        }
        let now = i64::try_from(self.access.engine().clock().wall_millis()).ok()?;
        now.checked_add(millis).map(|_| millis)
    }

    /// A TTL of so many milliseconds.
    pub(super) fn ttl_of(&self, millis: u64) -> Result<Ttl, CommandError> {
        let max = self.server.limits.ttl_ms_max;
        let ttl = Ttl::from_millis(millis).ok().filter(|ttl| ttl.as_millis() <= max);
        ttl.ok_or_else(|| CommandError::new(format!("ERR a TTL is 1 to {max} milliseconds")))
    }

    /// An owner.
    pub(super) fn owner(&self, owner: &[u8]) -> Result<Owner, CommandError> {
        let max = self.server.limits.owner_bytes_max;
        if owner.len() > max && max < OWNER_BYTES_MAX {
            return Err(CommandError::new(format!("ERR an owner has 1 to {max} bytes")));
        }
        Ok(Owner::new(owner)?)
    }
}

/// Commands that only compare keys find nothing under one that no lock can have.
pub(super) fn name_or_none(context: &Context<'_>, key: &[u8]) -> Result<Option<LockName>, CommandError> {
    match LockName::new(context.client.database(), key) {
        Ok(name) => Ok(Some(name)),
        Err(Invalid::KeyLength) => Ok(None),
        Err(other) => Err(other.into()),
    }
}
