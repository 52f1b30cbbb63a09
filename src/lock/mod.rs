//! The pure core: leases, their queue, and the function that moves them.
//!
//! Promise: a transition is total and deterministic, and everything it decided comes back as data. An expired lease
//! is expired for every reader, swept or not.
//! Absent: IO, clocks (time is an argument and only compared), threads, other modules of this crate.

mod effect;
pub mod invariants;
mod roster;
mod slot;
mod transition;
mod types;

pub use effect::{Effect, Effects, End, Left};
pub use slot::{Delay, Lease, LeaseExtra, Origin, Request, Slot, Waiter};
pub use transition::{ENDS_PER_STEP, Env, Op, Outcome, PROMOTIONS_PER_STEP, Refusal, SetCondition, apply};
pub use types::{
    DATABASES, FencingToken, Invalid, KEY_BYTES_MAX, LockName, Mode, OWNER_BYTES_MAX, Owner, SessionId,
    TOKEN_MAX, TTL_MS_MAX, Timestamp, Ttl, WaiterId,
};

#[cfg(test)]
mod tests;
