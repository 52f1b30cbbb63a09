//! What is true of every slot after every transition, by name.
//!
//! Guarantees: [`check`] names the first broken predicate. It runs in the exhaustive search, in
//! property tests and, in debug builds, after every transition. Not here: anything about several
//! slots.

use super::mode::Mode;
use super::slot::Slot;
use crate::domain::Timestamp;

/// Beyond this many members a debug build does not re-check a slot, to stay usable with long
/// queues.
const CHECKED_MEMBERS_MAX: usize = 64;

/// The name of the first invariant that `slot` breaks at `now`, the time it was last settled.
pub fn check(slot: &Slot, now: Timestamp) -> Result<(), &'static str> {
    if slot.holder_count() + slot.waiter_count() > CHECKED_MEMBERS_MAX {
        return Ok(());
    }
    let leases: Vec<_> = slot.holders().collect();
    let waiters: Vec<_> = slot.waiters().collect();
    let ensure = |holds: bool, name: &'static str| if holds { Ok(()) } else { Err(name) };

    ensure(leases.iter().all(|lease| !lease.is_over(now)), "an expired lease is not held")?;
    ensure(
        leases.iter().all(|lease| lease.mode != Mode::Exclusive) || leases.len() == 1,
        "an exclusive holder is alone",
    )?;
    ensure(
        leases.iter().all(|a| leases.iter().all(|b| a.token == b.token || a.mode.mixes_with(b.mode))),
        "holders are of one kind",
    )?;
    ensure(
        leases.iter().filter_map(|lease| lease.mode.capacity()).all(|n| leases.len() <= n as usize),
        "no more holders than any of them allows",
    )?;
    ensure(leases.is_sorted_by(|a, b| a.token < b.token), "tokens grow from holder to holder")?;
    ensure(slot.newest() == leases.last().copied(), "the newest holder has the largest token")?;
    ensure(leases.iter().all(|lease| lease.deadline <= lease.hold_until()), "no lease outlasts its MAXHOLD")?;
    ensure(
        waiters.iter().all(|waiter| slot.lease_of(&waiter.request.owner).is_none()),
        "no holder is in the queue",
    )?;
    ensure(waiters.iter().all(|waiter| waiter.deadline > now), "no waiter has timed out")?;
    ensure(slot.delay().is_none_or(|delay| delay.until > now), "a delay that is over is gone")?;
    ensure(
        slot.delay().is_none() || leases.iter().all(|lease| lease.mode != Mode::Exclusive),
        "no lock-delay runs beside an exclusive holder",
    )?;
    ensure(
        waiters.is_empty() || slot.delay().is_some() || !leases.is_empty() || slot.has_more_to_grant(),
        "a free lock has no queue",
    )?;
    let indexed = leases
        .iter()
        .all(|lease| slot.lease(lease.token) == Some(lease) && slot.lease_of(&lease.owner) == Some(lease));
    ensure(indexed, "every holder is found by token and by owner")?;
    let nearest = leases
        .iter()
        .map(|lease| lease.deadline)
        .chain(waiters.iter().map(|waiter| waiter.deadline))
        .chain(slot.delay().map(|delay| delay.until))
        .min();
    let is_due = slot.has_more_to_grant() || slot.is_revoked();
    let nearest = if is_due { Some(Timestamp::default()) } else { nearest };
    ensure(nearest.unwrap_or(Timestamp::NEVER) == slot.next_deadline(), "the next deadline is the nearest")
}
