//! The pure core: leases, their queue, and the function that moves them.
//!
//! Guarantees: a transition is total and deterministic, and everything it decided comes back as
//! data. An expired lease is expired for every reader, swept or not. Not here: IO, clocks (time is
//! an argument and only compared), threads, and modules of this crate other than `domain`.

mod effect;
mod index;
pub mod invariants;
mod lease;
mod mode;
mod slot;
mod transition;

pub use effect::{Effect, Effects, EndReason, LeaveReason};
pub use lease::{Lease, LeaseExtra, Origin, Request};
pub use mode::Mode;
pub use slot::{Delay, Slot, TooManyEnded, Waiter};
pub use transition::{ENDS_PER_STEP, Env, Op, Outcome, PROMOTIONS_PER_STEP, Refusal, SetCondition, apply};

#[cfg(test)]
mod tests;
