//! `LOCKINFO key`
//!
//! Map: state, limit, the first holders and waiters in order, and the number of each.

use crate::command::{
    Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, Progress, Steps,
};
use crate::domain::{Owner, SessionId, Timestamp};
use crate::lock::{Lease, Mode, Slot, Waiter};
use crate::reply::Reply;

pub(super) const LOCKINFO: Command = Command::new("lockinfo", 2, run)
    .group(Group::Lock)
    .flags(Flags::READONLY)
    .keys(KeySpec::first(KeyAccess::Read))
    .syntax("key")
    .summary(
        "Returns the holders and waiters of a lock in order: the first 1000 of each, and \
         their numbers.",
    )
    .example("LOCKINFO jobs:import");

/// Maximum number of holders, and of waiters, in one reply.
const SHOWN_MAX: usize = 1000;
/// Maximum size of their owners and META texts, in bytes.
const SHOWN_BYTES_MAX: usize = 1 << 20;
/// Units of work to describe one of them, with the pseudonym of its session.
const MEMBER_WORK: usize = 32;

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    let snapshot = context.txn.read(&name, Snapshot::of)?;
    let (holders, waiters) =
        (Vec::with_capacity(snapshot.holders.len()), Vec::with_capacity(snapshot.waiters.len()));
    context.in_turns(Describing { snapshot, holders, waiters })
}

/// The state of a lock at one instant.
struct Snapshot {
    now: Timestamp,
    state: &'static str,
    limit: Option<u32>,
    delay_ms: u64,
    holders: Vec<Lease>,
    holders_total: usize,
    waiters: Vec<(Owner, Mode, Timestamp)>,
    waiters_total: usize,
}

impl Snapshot {
    fn of(slot: &Slot, now: Timestamp) -> Snapshot {
        let waiting = |waiter: &Waiter| (waiter.request.owner.clone(), waiter.request.mode, waiter.since);
        Snapshot {
            now,
            state: slot.newest().map_or("free", |lease| mode_name(lease.mode)),
            // The smallest limit among the holders applies.
            limit: slot.smallest_capacity(),
            delay_ms: slot.delay().and_then(|delay| delay.until.millis_left(now)).unwrap_or(0),
            holders: within_bytes(slot.holders(), |lease| lease.owner.as_bytes().len() + meta_bytes(lease))
                .cloned()
                .collect(),
            holders_total: slot.holder_count(),
            waiters: within_bytes(slot.waiters(), |waiter| waiter.request.owner.as_bytes().len())
                .map(waiting)
                .collect(),
            waiters_total: slot.waiter_count(),
        }
    }
}

/// The first [`SHOWN_MAX`] members, or fewer if these have more than [`SHOWN_BYTES_MAX`]; at least
/// one.
fn within_bytes<T>(all: impl Iterator<Item = T>, bytes_of: impl Fn(&T) -> usize) -> impl Iterator<Item = T> {
    let mut bytes = 0;
    all.take(SHOWN_MAX).take_while(move |member| {
        let is_shown = bytes < SHOWN_BYTES_MAX;
        bytes += bytes_of(member);
        is_shown
    })
}

fn meta_bytes(lease: &Lease) -> usize {
    lease.meta().map_or(0, str::len)
}

/// A LOCKINFO in progress.
struct Describing {
    snapshot: Snapshot,
    holders: Vec<Reply>,
    waiters: Vec<Reply>,
}

impl Steps for Describing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let snapshot = &self.snapshot;
        loop {
            if let Some(lease) = snapshot.holders.get(self.holders.len()) {
                let session = lease.session().map(|id| session_label(context, id));
                self.holders.push(holder(lease, snapshot.now, session));
            } else if let Some(next) = snapshot.waiters.get(self.waiters.len()) {
                self.waiters.push(waiting(next, snapshot.now));
            } else {
                break;
            }
            context.spend(MEMBER_WORK);
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done(map([
            ("state", Reply::bulk(snapshot.state)),
            ("limit", snapshot.limit.map_or(Reply::Null, |n| Reply::Integer(i64::from(n)))),
            ("delay_ms", Reply::unsigned(snapshot.delay_ms)),
            ("holders", Reply::Array(std::mem::take(&mut self.holders))),
            ("waiters", Reply::Array(std::mem::take(&mut self.waiters))),
            ("holders_total", Reply::count(snapshot.holders_total)),
            ("waiters_total", Reply::count(snapshot.waiters_total)),
        ])))
    }
}

fn map<const N: usize>(pairs: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(pairs.into_iter().map(|(key, value)| (Reply::bulk(key), value)).collect())
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
        Mode::Limit(_) => "limit",
    }
}

/// A session's id is a secret. Only the connection that opened the session sees it; others see a
/// pseudonym.
fn session_label(context: &Context<'_>, id: SessionId) -> String {
    match context.client.knows_session(id) {
        true => session_text(id),
        false => context.txn.engine().pseudonyms().short_session(id),
    }
}

fn holder(lease: &Lease, now: Timestamp, session: Option<String>) -> Reply {
    let origin = lease.origin.as_deref();
    map([
        ("owner", Reply::bulk(lease.owner.as_bytes())),
        ("token", Reply::Integer(lease.token.get())),
        ("ttl_ms", lease.deadline.millis_left(now).map_or(Reply::Null, Reply::unsigned)),
        ("held_ms", Reply::unsigned(now.millis_since(lease.granted_at))),
        ("renewals", Reply::Integer(i64::from(lease.renewals))),
        ("addr", origin.map_or(Reply::Null, |origin| Reply::bulk(&origin.addr))),
        ("client_name", origin.map_or(Reply::Null, |origin| Reply::bulk(&origin.client_name))),
        ("session", session.map_or(Reply::Null, Reply::bulk)),
        ("meta", lease.meta().map_or(Reply::Null, Reply::bulk)),
    ])
}

fn waiting((owner, mode, since): &(Owner, Mode, Timestamp), now: Timestamp) -> Reply {
    map([
        ("owner", Reply::bulk(owner.as_bytes())),
        ("mode", Reply::bulk(mode_name(*mode))),
        ("waited_ms", Reply::unsigned(now.millis_since(*since))),
    ])
}

/// A session id as SESSION OPEN returns it: 32 hexadecimal digits.
pub(in crate::command) fn session_text(id: SessionId) -> String {
    format!("{:032x}", id.0)
}
