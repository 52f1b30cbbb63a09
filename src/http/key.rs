//! `/key`: one key with its holders, its queue and its latest events, once or live; and the
//! end of all its leases by an operator.
//!
//! Guarantees: shown to users who may run LOCKINFO for the key. The first holders and waiters are
//! copied under the guard of the key, a bounded number of them. Leases are ended only if the newest
//! one is the one that the operator has seen. Not here: lists of keys.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::body::{self, Parsed};
use super::error::ApiError;
use super::fields::{Field, Fields};
use super::keys::{Holder, HolderView, kind_name};
use super::live::{self, Frame, View};
use super::users::{Act, Caller, User};
use super::{HttpState, names, times};
use crate::domain::{LockName, Timestamp, Ttl};
use crate::engine::{Content, KeyKind, LeaseEvent, Unavailable};
use crate::lock::{Lease, Mode, Op, Outcome, Waiter};

/// Maximum number of holders, and of waiters, that are shown.
const SHOWN_MAX: usize = 100;
/// Maximum number of events that are shown.
const EVENTS_MAX: usize = 50;
/// Bytes of the metadata that are shown.
const META_CHARS_MAX: usize = 1024;

/// A lease, at one instant.
#[derive(Debug, PartialEq, Eq)]
struct LeaseSnapshot {
    holder: Holder,
    token: i64,
    granted_at: Timestamp,
    deadline: Timestamp,
    ttl: Option<Ttl>,
    renewals: u32,
    meta: Option<String>,
}

/// A request in the queue, at one instant.
#[derive(Debug, PartialEq, Eq)]
struct WaiterSnapshot {
    holder: Holder,
    mode: Mode,
    since: Timestamp,
    deadline: Timestamp,
}

/// A key, at one instant.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    kind: Option<KeyKind>,
    token: Option<i64>,
    deadline: Timestamp,
    delay_until: Option<Timestamp>,
    limit: Option<u32>,
    holders: Vec<LeaseSnapshot>,
    holders_total: usize,
    waiters: Vec<WaiterSnapshot>,
    waiters_total: usize,
}

impl Snapshot {
    fn of(content: &Content) -> Snapshot {
        let mut snapshot = Snapshot {
            kind: content.kind(),
            token: content.token().map(|token| token.get()),
            deadline: content.deadline().unwrap_or(Timestamp::NEVER),
            delay_until: None,
            limit: None,
            holders: Vec::new(),
            holders_total: 0,
            waiters: Vec::new(),
            waiters_total: 0,
        };
        if let Content::Lock(slot) = content {
            snapshot.delay_until = slot.delay().map(|delay| delay.until);
            snapshot.limit = slot.smallest_capacity();
            snapshot.holders = slot.holders().take(SHOWN_MAX).map(LeaseSnapshot::of).collect();
            snapshot.holders_total = slot.holder_count();
            snapshot.waiters = slot.waiters().take(SHOWN_MAX).map(WaiterSnapshot::of).collect();
            snapshot.waiters_total = slot.waiter_count();
        }
        snapshot
    }
}

impl LeaseSnapshot {
    fn of(lease: &Lease) -> LeaseSnapshot {
        LeaseSnapshot {
            holder: Holder::of(&lease.owner, lease.origin.as_ref()),
            token: lease.token.get(),
            granted_at: lease.granted_at,
            deadline: lease.deadline,
            ttl: lease.effective_ttl,
            renewals: lease.renewals,
            meta: lease.meta().map(|meta| meta.chars().take(META_CHARS_MAX).collect()),
        }
    }
}

impl WaiterSnapshot {
    fn of(waiter: &Waiter) -> WaiterSnapshot {
        WaiterSnapshot {
            holder: Holder::of(&waiter.request.owner, waiter.request.origin.as_ref()),
            mode: waiter.request.mode,
            since: waiter.since,
            deadline: waiter.deadline,
        }
    }
}

#[derive(Serialize)]
struct LeaseView {
    #[serde(flatten)]
    holder: HolderView,
    fencing_token: i64,
    granted_at: String,
    expires_at: Option<String>,
    ttl_ms: Option<u64>,
    renewals: u32,
    metadata: Option<String>,
}

#[derive(Serialize)]
struct WaiterView {
    #[serde(flatten)]
    holder: HolderView,
    mode: &'static str,
    since: String,
    waits_until: Option<String>,
}

#[derive(Serialize)]
struct EventView {
    event: &'static str,
    fencing_token: i64,
    observed_at: String,
}

#[derive(Serialize)]
struct KeyView {
    /// The time of the server at which this was the state.
    observed_at: String,
    key: String,
    kind: &'static str,
    fencing_token: Option<i64>,
    expires_at: Option<String>,
    /// The end of its lock-delay.
    available_at: Option<String>,
    limit: Option<u32>,
    holders: Vec<LeaseView>,
    holders_total: usize,
    waiters: Vec<WaiterView>,
    waiters_total: usize,
    /// The newest first. Recorded as long as anything follows events.
    events: Vec<EventView>,
    /// Whether the user may end the leases without further credentials.
    may_force: bool,
}

/// A view that follows one key.
struct Key {
    name: LockName,
    shown: Option<(Snapshot, Option<u64>, bool)>,
}

impl HttpState {
    async fn snapshot(&self, name: &LockName) -> Result<Snapshot, ApiError> {
        self.decide(|txn| txn.read_key(name, |content, _| Snapshot::of(content))).await
    }

    /// A time; `None`: never.
    fn format_end(&self, time: Timestamp) -> Option<String> {
        (time != Timestamp::NEVER).then(|| self.format_time(time))
    }

    fn key_view(
        &self,
        name: &LockName,
        snapshot: &Snapshot,
        events: Vec<(LeaseEvent, u64)>,
        may_force: bool,
    ) -> KeyView {
        let lease = |lease: &LeaseSnapshot| LeaseView {
            holder: lease.holder.view(self, true),
            fencing_token: lease.token,
            granted_at: self.format_time(lease.granted_at),
            expires_at: self.format_end(lease.deadline),
            ttl_ms: lease.ttl.map(Ttl::as_millis),
            renewals: lease.renewals,
            metadata: lease.meta.clone(),
        };
        let waiter = |waiter: &WaiterSnapshot| WaiterView {
            holder: waiter.holder.view(self, true),
            mode: kind_name(KeyKind::Lock(waiter.mode)),
            since: self.format_time(waiter.since),
            waits_until: self.format_end(waiter.deadline),
        };
        let event = |(event, millis): (LeaseEvent, u64)| EventView {
            event: event.kind.as_str(),
            fencing_token: event.token.get(),
            observed_at: times::rfc3339(i64::try_from(millis * 1_000_000).ok()),
        };
        KeyView {
            observed_at: self.format_time(self.engine.clock().now()),
            key: names::escape(name.key()),
            kind: snapshot.kind.map_or("free", kind_name),
            fencing_token: snapshot.token,
            expires_at: self.format_end(snapshot.deadline),
            available_at: snapshot.delay_until.map(|until| self.format_time(until)),
            limit: snapshot.limit,
            holders: snapshot.holders.iter().map(lease).collect(),
            holders_total: snapshot.holders_total,
            waiters: snapshot.waiters.iter().map(waiter).collect(),
            waiters_total: snapshot.waiters_total,
            events: events.into_iter().map(event).collect(),
            may_force,
        }
    }
}

impl Key {
    fn check(&self, user: &User) -> Result<(), ApiError> {
        if user.may(Act::INSPECT, &self.name) { Ok(()) } else { Err(user.refusal()) }
    }
}

impl View for Key {
    async fn advance(
        &mut self,
        state: &Arc<HttpState>,
        user: &Arc<User>,
        frame: &mut Frame,
    ) -> Result<(), ApiError> {
        self.check(user)?;
        // Events first: they are older than the state, or part of it.
        let events = state.recent.of(&self.name, EVENTS_MAX);
        let may_force = user.may(Act::FORCE, &self.name);
        let last = events.first().map(|(event, _)| event.number);
        let shown = (state.snapshot(&self.name).await?, last, may_force);
        if self.shown.as_ref() != Some(&shown) {
            frame.push("key", &state.key_view(&self.name, &shown.0, events, may_force));
            self.shown = Some(shown);
        }
        Ok(())
    }

    async fn once(self, state: &Arc<HttpState>, user: &Arc<User>) -> Result<Response, ApiError> {
        self.check(user)?;
        let events = state.recent.of(&self.name, EVENTS_MAX);
        let snapshot = state.snapshot(&self.name).await?;
        let may_force = user.may(Act::FORCE, &self.name);
        Ok(live::json(&state.key_view(&self.name, &snapshot, events, may_force)))
    }
}

pub(super) async fn status(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let name = names::key(&parts)?;
    let user = state.users.authenticate(Caller::of(&parts))?;
    let view = Key { name, shown: None };
    view.check(&user)?;
    state.check_shard(&view.name)?;
    live::answer(state, &parts, user, view).await
}

#[derive(Deserialize)]
struct ForceUnlock {
    fencing_token: i64,
}

impl Fields for ForceUnlock {
    const FIELDS: &'static [Field] = &[Field::required("fencing_token", "an integer")];
}

#[derive(Serialize)]
struct Forced {
    holders: u32,
}

pub(super) async fn force_unlock(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, request) = request.into_parts();
    let name = names::key(&parts)?;
    let Parsed { body, ignored, .. } = body::read::<ForceUnlock>(&state, &parts, request).await?;
    Ok(ignored.name_in(force(&state, Caller::of(&parts), &name, body.fencing_token).await))
}

/// Ends all leases of a lock whose newest one has this token.
async fn force(
    state: &HttpState,
    caller: Caller<'_>,
    name: &LockName,
    token: i64,
) -> Result<Response, ApiError> {
    let user = state.users.authenticate_operator(caller)?;
    if !user.may(Act::FORCE, name) {
        return Err(user.refusal());
    }
    state.check_shard(name)?;
    let holders = state
        .decide(|txn| {
            let done = txn.exclusively(std::slice::from_ref(name), |txn| {
                let newest = txn.read(name, |slot, _| slot.newest().map(|lease| lease.token.get()))?;
                match newest {
                    None => Ok(Err(ApiError::no_lease())),
                    Some(newest) if newest != token => Ok(Err(ApiError::other_token(newest))),
                    Some(_) => match txn.submit(name, &Op::Force)? {
                        Outcome::Released(holders) => Ok(Ok(holders)),
                        _ => Ok(Err(ApiError::no_lease())),
                    },
                }
            })?;
            done.map_err(|error: Unavailable| error)
        })
        .await??;
    tracing::warn!(lock = ?name, holders, user = %user.name, "lock forced over HTTP");
    // Very many leases are freed in turns.
    state.decide(|txn| txn.free_ended(name)).await?;
    Ok(body::json(StatusCode::OK, &Forced { holders }))
}
