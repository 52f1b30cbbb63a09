//! `LOCKINFO key`
//!
//! Map: state, limit, holders and waiters, each in order.

use super::{Args, Command, CommandError, Context, Flags, Group, Run};
use crate::lock::{Lease, Mode, SessionId, Slot, Timestamp, Waiter};
use crate::reply::Reply;

pub(super) const LOCKINFO: Command = Command {
    name: "lockinfo",
    syntax: "key",
    summary: "Answers who holds a lock and who waits for it, in order.",
    group: Group::Lock,
    arity: 2,
    flags: Flags::READONLY,
    keys: (1, 1, 1),
    run: Run::Handler(run),
};

fn run(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(words.word(1))?;
    let client = &*context.client;
    let pseudonyms = context.access.engine().pseudonyms();
    // A session's id is a secret: only the connection that opened it sees it.
    let shown = |id| if client.knows_session(id) { session_text(id) } else { pseudonyms.short_session(id) };
    let read = context.access.read(&name, |slot, now| describe(slot, now, &shown));
    context.look(read)
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

fn describe(slot: &Slot, now: Timestamp, shown: &impl Fn(SessionId) -> String) -> Reply {
    let state = slot.newest().map_or("free", |lease| mode_name(lease.mode));
    // The tightest limit among those who hold it is the one that counts.
    let limit = slot.holders().filter_map(|lease| lease.mode.capacity()).min();
    map([
        ("state", Reply::bulk(state)),
        ("limit", limit.map_or(Reply::Null, |n| Reply::Integer(i64::from(n)))),
        ("delay_ms", delay(slot, now)),
        ("holders", Reply::Array(slot.holders().map(|lease| holder(lease, now, shown)).collect())),
        ("waiters", Reply::Array(slot.waiters().map(|waiter| waiting(waiter, now)).collect())),
    ])
}

fn delay(slot: &Slot, now: Timestamp) -> Reply {
    let left = slot.delay().and_then(|delay| delay.until.millis_left(now));
    Reply::unsigned(left.unwrap_or(0))
}

fn holder(lease: &Lease, now: Timestamp, shown: &impl Fn(SessionId) -> String) -> Reply {
    let origin = lease.origin.as_deref();
    map([
        ("owner", Reply::bulk(lease.owner.as_bytes())),
        ("token", Reply::Integer(lease.token.get())),
        ("ttl_ms", lease.deadline.millis_left(now).map_or(Reply::Null, Reply::unsigned)),
        ("held_ms", Reply::unsigned(now.millis_since(lease.granted_at))),
        ("renewals", Reply::Integer(i64::from(lease.renewals))),
        ("addr", origin.map_or(Reply::Null, |origin| Reply::bulk(&origin.addr))),
        ("client_name", origin.map_or(Reply::Null, |origin| Reply::bulk(&origin.client_name))),
        ("session", lease.session().map_or(Reply::Null, |id| Reply::bulk(shown(id)))),
        ("meta", lease.meta().map_or(Reply::Null, Reply::bulk)),
    ])
}

fn waiting(waiter: &Waiter, now: Timestamp) -> Reply {
    map([
        ("owner", Reply::bulk(waiter.request.owner.as_bytes())),
        ("mode", Reply::bulk(mode_name(waiter.request.mode))),
        ("waited_ms", Reply::unsigned(now.millis_since(waiter.since))),
    ])
}

/// A session id as SESSION OPEN answers it: 32 hexadecimal digits.
pub(super) fn session_text(id: SessionId) -> String {
    format!("{:032x}", id.0)
}
