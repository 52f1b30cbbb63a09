//! `/locks`: acquire, renew, release, status, list.
//!
//! Guarantees: checks in the contract's order; a refusal that depends on a lock is decided in the
//! same transaction as the rest. Not here: the rules of locks.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::body::Parsed;
use super::error::ApiError;
use super::fields::{Field, Fields};
use super::users::{Act, Caller, User};
use super::{HttpState, body, names, sessions};
use crate::domain::{FencingToken, Limits, LockName, Owner, SessionId, Timestamp, Ttl};
use crate::engine::{Scan, Txn, Unavailable};
use crate::lock::{Delay, Lease, LeaseExtra, Op, Origin, Outcome, Refusal, Slot};

const TTL_S_DEFAULT: u32 = 60;
const TTL_S_MAX: u32 = 3600;
const TTL_RANGE: &str = "an integer from 1 to 3600";
/// Longest metadata, in code points.
const METADATA_CHARS_MAX: usize = 1024;
const DELAY_S_MAX: u32 = 30;
const DELAY_RANGE: &str = "an integer from 0 to 30";
/// Maximum `retry_after_ms`, so that pollers notice an early release.
const RETRY_MS_MAX: u64 = 1000;
/// Locks in one list. Deployed clients accept at most 1 MiB.
const LIST_MAX: usize = 100_000;
/// Names and metadata in one list, in bytes.
const LIST_BYTES_MAX: usize = 32 << 20;
/// Lists that are built at once.
const LISTS_AT_ONCE: usize = 1;
/// Entries of the table that are visited under one guard.
const ENTRIES_PER_STEP: usize = 256;

#[derive(Deserialize)]
pub(super) struct Acquire {
    ttl_seconds: Option<u32>,
    metadata: Option<String>,
    session_id: Option<Uuid>,
    ephemeral: Option<bool>,
    lock_delay_seconds: Option<u32>,
    acl: Option<Acl>,
}

impl Fields for Acquire {
    const FIELDS: &'static [Field] = &[
        Field::optional("ttl_seconds", TTL_RANGE),
        Field::optional("metadata", "a string"),
        Field::optional("session_id", "a UUID"),
        Field::optional("ephemeral", "true or false"),
        Field::optional("lock_delay_seconds", DELAY_RANGE),
        Field::optional("acl", "an object whose acquire is an array of strings"),
    ];
}

#[derive(Deserialize)]
struct Acl {
    #[serde(rename = "acquire")]
    _acquire: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Renew {
    lease_id: Uuid,
    ttl_seconds: Option<u32>,
}

impl Fields for Renew {
    const FIELDS: &'static [Field] =
        &[Field::required("lease_id", "a UUID"), Field::optional("ttl_seconds", TTL_RANGE)];
}

#[derive(Deserialize)]
pub(super) struct Release {
    lease_id: Uuid,
}

impl Fields for Release {
    const FIELDS: &'static [Field] = &[Field::required("lease_id", "a UUID")];
}

#[derive(Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Answer {
    Acquired {
        lease_id: Uuid,
        fencing_token: i64,
        expires_at: String,
        renew_after_ms: u64,
        metadata: Option<Box<str>>,
    },
    Held {
        holder_id: Uuid,
        expires_at: String,
        retry_after_ms: u64,
        metadata: Option<Box<str>>,
    },
    Delayed {
        available_at: String,
        lock_delay_seconds: u64,
        retry_after_ms: u64,
    },
}

#[derive(Serialize)]
struct Renewed {
    lease_id: Uuid,
    expires_at: String,
    renew_after_ms: u64,
}

/// The public view of a lock.
#[derive(Serialize)]
struct LockView {
    name: String,
    status: &'static str,
    holder_id: Option<Uuid>,
    fencing_token: i64,
    expires_at: Option<String>,
    metadata: Option<Box<str>>,
}

#[derive(Serialize)]
struct LockList {
    total: usize,
    locks: Vec<LockView>,
    prefix: Option<String>,
}

impl LockView {
    fn of_free(name: String, next_token: i64) -> LockView {
        LockView {
            name,
            status: "free",
            holder_id: None,
            fencing_token: next_token,
            expires_at: None,
            metadata: None,
        }
    }
}

/// The TTL of a request. The default is lowered to the server's limit; a TTL that the client names
/// must be within it.
fn ttl(limits: &Limits, seconds: Option<u32>) -> Result<Ttl, ApiError> {
    let ttl = match seconds {
        None => limits.ttl_at_most(u64::from(TTL_S_DEFAULT) * 1000).ok(),
        Some(seconds) => limits.ttl(u64::from(seconds) * 1000).ok().filter(|_| seconds <= TTL_S_MAX),
    };
    ttl.ok_or_else(|| {
        ApiError::invalid_ttl(&format!("a TTL is 1 to {TTL_S_MAX} seconds{}", beyond(limits, TTL_S_MAX)))
    })
}

/// The rest of a sentence that gives a range up to `max_s` seconds, if the server allows less.
fn beyond(limits: &Limits, max_s: u32) -> String {
    let max = limits.ttl_ms_max;
    let is_lower = max < u64::from(max_s) * 1000;
    if is_lower { format!(", and at most {max} ms (--ttl-ms-max)") } else { String::new() }
}

fn delay(limits: &Limits, seconds: u32) -> Result<Option<Ttl>, ApiError> {
    match (seconds, limits.ttl(u64::from(seconds) * 1000)) {
        (0, _) => Ok(None),
        (_, Ok(delay)) if seconds <= DELAY_S_MAX => Ok(Some(delay)),
        _ => {
            let limit = beyond(limits, DELAY_S_MAX);
            Err(ApiError::invalid(&format!("a lock delay is 0 to {DELAY_S_MAX} seconds{limit}")))
        }
    }
}

fn millis_left(deadline: Timestamp, now: Timestamp) -> u64 {
    deadline.nanos_since(now) / 1_000_000
}

pub(super) async fn acquire(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let name = names::segment(&parts)?;
    let Parsed { body, user, ignored } = body::read::<Acquire>(&state, &parts, body).await?;
    Ok(ignored.name_in(body.submit(&state, &user, &name).await))
}

impl Acquire {
    async fn submit(self, state: &HttpState, user: &User, name: &str) -> Result<Response, ApiError> {
        let name = user.lock(state, name, Act::ACQUIRE)?;
        let op = Op::Acquire { request: self.check(state, user)?, wait: None };
        let session = self.session_id.map(|id| SessionId(id.as_u128()));
        let acquired = state.decide(|txn| state.acquire(txn, user, &name, &op, session)).await??;
        let status = match acquired {
            Answer::Delayed { .. } => StatusCode::CONFLICT,
            _ => StatusCode::OK,
        };
        Ok(body::json(status, &acquired))
    }

    /// The request to the lock manager.
    fn check(&self, state: &HttpState, user: &User) -> Result<crate::lock::Request, ApiError> {
        let ttl = ttl(&state.limits, self.ttl_seconds)?;
        // The limit in bytes bounds characters here, or the default would refuse legal metadata.
        let metadata_chars_max = METADATA_CHARS_MAX.min(state.limits.meta_bytes_max);
        if self.metadata.as_ref().is_some_and(|text| text.chars().count() > metadata_chars_max) {
            let problem = format!("metadata has at most {metadata_chars_max} characters");
            return Err(ApiError::invalid(&problem));
        }
        let delay = delay(&state.limits, self.lock_delay_seconds.unwrap_or(0))?;
        let is_ephemeral = self.ephemeral.unwrap_or(false);
        let session = self.session_id.map(|id| SessionId(id.as_u128()));
        let owner = match (is_ephemeral, session) {
            (false, _) => user.owner.clone(),
            (true, Some(id)) => state.session_owner(user, id),
            (true, None) => return Err(ApiError::invalid("an ephemeral lock needs a session_id")),
        };
        if self.acl.is_some() {
            return Err(ApiError::invalid("access lists are not offered here"));
        }
        let request = crate::lock::Request {
            origin: Some(Arc::new(Origin { addr: "http".into(), client_name: user.name.clone() })),
            ..crate::lock::Request::exclusive(owner, Some(ttl))
        };
        Ok(request.with(LeaseExtra {
            delay,
            delays_after_release: true,
            session: session.filter(|_| is_ephemeral),
            counted_by: session.filter(|_| !is_ephemeral),
            account: Some(user.account.clone()),
            meta: self.metadata.as_deref().map(Box::from),
            ..LeaseExtra::default()
        }))
    }
}

/// The result of a request, unless it could not be decided.
type Decision<R> = Result<Result<R, ApiError>, Unavailable>;

/// The public part of a lease, at one instant.
pub(super) struct LeaseSnapshot {
    owner: Owner,
    token: FencingToken,
    deadline: Timestamp,
    meta: Option<Box<str>>,
}

impl LeaseSnapshot {
    fn of(lease: &Lease) -> LeaseSnapshot {
        LeaseSnapshot {
            owner: lease.owner.clone(),
            token: lease.token,
            deadline: lease.deadline,
            meta: lease.meta().map(Box::from),
        }
    }
}

/// The outcome of an attempt to acquire a lock.
enum Attempt {
    Acquired(LeaseSnapshot),
    /// `None`: the lock is free, and refused all the same.
    Held(Option<LeaseSnapshot>),
    Delayed(Delay),
}

impl Attempt {
    fn of(user: &User, outcome: Outcome, slot: &Slot) -> Attempt {
        let granted = match outcome {
            // A Redis client may hold it as the owner of this user; that lease has no lease id.
            Outcome::Granted { token, .. } => {
                slot.lease(token).filter(|lease| lease.account() == Some(&*user.account))
            }
            Outcome::Refused(Refusal::Delayed) => match slot.delay() {
                Some(delay) => return Attempt::Delayed(delay),
                None => None,
            },
            _ => None,
        };
        match granted {
            Some(lease) => Attempt::Acquired(LeaseSnapshot::of(lease)),
            None => Attempt::Held(slot.newest().map(LeaseSnapshot::of)),
        }
    }
}

/// What a user needs to have in common with a lease to use it.
struct Claim {
    owner: Owner,
    token: FencingToken,
    is_own: bool,
    /// The lock is an ephemeral one of a user.
    is_of_session: bool,
}

impl HttpState {
    /// The owner of a session's ephemeral locks.
    fn session_owner(&self, user: &User, id: SessionId) -> Owner {
        let text = format!("http:{}:session:{}", user.name, self.ids.session(id));
        Owner::new(text.as_bytes()).unwrap_or_else(|_| unreachable!("names of users are short"))
    }

    fn acquire(
        &self,
        txn: &Txn<'_>,
        user: &User,
        name: &LockName,
        op: &Op,
        session: Option<SessionId>,
    ) -> Decision<Answer> {
        let fault = match session.map(|id| sessions::find(txn, user, id)) {
            Some(Err(fault)) => Some(fault),
            _ => None,
        };
        let refusal = match fault {
            Some(fault) => fault,
            None => match txn
                .submit_and_inspect(name, op, |outcome, slot, now| (Attempt::of(user, outcome, slot), now))
            {
                Ok((attempt, now)) => return Ok(Ok(self.answer(name, attempt, now))),
                Err(Unavailable::NoSession) => {
                    let gone = session.and_then(|id| sessions::find(txn, user, id).err());
                    gone.unwrap_or_else(ApiError::no_session)
                }
                Err(Unavailable::AccountMax) => ApiError::lock_limit(self.config.locks_per_user_max),
                Err(other) => return Err(other),
            },
        };
        // The contract checks a running delay before the session and the limit of the user.
        Ok(match txn.read(name, |slot, now| slot.delay().map(|delay| (delay, now)))? {
            Some((delay, now)) => Ok(self.delayed(delay, now)),
            None => Err(refusal),
        })
    }

    fn answer(&self, name: &LockName, attempt: Attempt, now: Timestamp) -> Answer {
        match attempt {
            Attempt::Acquired(lease) => Answer::Acquired {
                lease_id: self.ids.lease(name, lease.token),
                fencing_token: lease.token.get(),
                expires_at: self.format_time(lease.deadline),
                renew_after_ms: millis_left(lease.deadline, now) / 2,
                metadata: lease.meta,
            },
            Attempt::Held(holder) => {
                let deadline = holder.as_ref().map_or(now, |lease| lease.deadline);
                Answer::Held {
                    holder_id: holder.as_ref().map_or(Uuid::nil(), |lease| self.ids.holder(&lease.owner)),
                    expires_at: self.format_time(deadline),
                    retry_after_ms: millis_left(deadline, now).min(RETRY_MS_MAX),
                    metadata: holder.and_then(|lease| lease.meta),
                }
            }
            Attempt::Delayed(delay) => self.delayed(delay, now),
        }
    }

    fn delayed(&self, delay: Delay, now: Timestamp) -> Answer {
        Answer::Delayed {
            available_at: self.format_time(delay.until),
            lock_delay_seconds: delay.length.as_millis().div_ceil(1000),
            retry_after_ms: millis_left(delay.until, now),
        }
    }

    /// The owner and the token that a lease id proves, if `user` may use it.
    fn proven(
        &self,
        txn: &Txn<'_>,
        user: &User,
        name: &LockName,
        lease_id: Uuid,
    ) -> Decision<(Owner, FencingToken)> {
        let claim = |lease: &Lease| Claim {
            owner: lease.owner.clone(),
            token: lease.token,
            is_own: lease.account() == Some(&*user.account),
            is_of_session: lease.session().is_some() && lease.account().is_some(),
        };
        let Some(claim) = txn.read(name, |slot, _| slot.newest().map(claim))? else {
            return Ok(Err(match txn.had_expired_session(&user.account, name)? {
                true => ApiError::session_expired(),
                false => ApiError::no_lease(),
            }));
        };
        if claim.is_of_session && !claim.is_own {
            return Ok(Err(ApiError::no_session()));
        }
        if !claim.is_own || lease_id != self.ids.lease(name, claim.token) {
            return Ok(Err(ApiError::other_lease()));
        }
        Ok(Ok((claim.owner, claim.token)))
    }

    fn view(&self, name: String, lease: LeaseSnapshot) -> LockView {
        LockView {
            name,
            status: "held",
            holder_id: Some(self.ids.holder(&lease.owner)),
            fencing_token: lease.token.get(),
            expires_at: Some(self.format_time(lease.deadline)),
            metadata: lease.meta,
        }
    }
}

pub(super) async fn renew(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let name = names::segment(&parts)?;
    let Parsed { body, user, ignored } = body::read::<Renew>(&state, &parts, body).await?;
    Ok(ignored.name_in(body.submit(&state, &user, &name).await))
}

impl Renew {
    async fn submit(self, state: &HttpState, user: &User, name: &str) -> Result<Response, ApiError> {
        let name = user.lock(state, name, Act::RENEW)?;
        let ttl = ttl(&state.limits, self.ttl_seconds)?;
        let renewed = state
            .decide(|txn| {
                let (owner, token) = match state.proven(txn, user, &name, self.lease_id)? {
                    Ok(proven) => proven,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let op = Op::Renew { owner, ttl: Some(ttl), token: Some(token) };
                let renewed = txn.submit_and_inspect(&name, &op, |outcome, _, now| (outcome, now))?;
                let (Outcome::Renewed { deadline }, now) = renewed else {
                    return Ok(Err(ApiError::no_lease()));
                };
                Ok(Ok(Renewed {
                    lease_id: self.lease_id,
                    expires_at: state.format_time(deadline),
                    renew_after_ms: millis_left(deadline, now) / 2,
                }))
            })
            .await??;
        Ok(body::json(StatusCode::OK, &renewed))
    }
}

pub(super) async fn release(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let name = names::segment(&parts)?;
    let Parsed { body, user, ignored } = body::read::<Release>(&state, &parts, body).await?;
    Ok(ignored.name_in(body.submit(&state, &user, &name).await))
}

impl Release {
    async fn submit(self, state: &HttpState, user: &User, name: &str) -> Result<Response, ApiError> {
        let name = user.lock(state, name, Act::RELEASE)?;
        state
            .decide(|txn| {
                let (owner, token) = match state.proven(txn, user, &name, self.lease_id)? {
                    Ok(proven) => proven,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                Ok(match txn.submit(&name, &Op::Release { owner, token: Some(token) })? {
                    Outcome::Released(_) => Ok(()),
                    _ => Err(ApiError::no_lease()),
                })
            })
            .await??;
        Ok(body::json(StatusCode::OK, &()))
    }
}

pub(super) async fn status(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let text = names::segment(&parts)?;
    let user = state.users.authenticate(Caller::of(&parts))?;
    let name = user.lock(&state, &text, Act::INSPECT)?;
    // Read under the same guard: a later grant of the lock has at least this token.
    let inspect = |slot: &Slot, _| (slot.newest().map(LeaseSnapshot::of), state.engine.next_token());
    let view = match state.decide(|txn| txn.read(&name, inspect)).await? {
        (Some(lease), _) => state.view(text, lease),
        (None, next_token) => LockView::of_free(text, next_token),
    };
    Ok(body::json(StatusCode::OK, &view))
}

pub(super) async fn list(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let prefix = names::query(&parts, "prefix")?;
    let user = state.users.authenticate(Caller::of(&parts))?;
    let prefix = user.prefix(prefix)?;
    let wanted = prefix.clone().unwrap_or_default();
    let snapshot = |name: &LockName, lease: &Lease| (name.clone(), LeaseSnapshot::of(lease));
    let view = move |state: &HttpState, (name, lease): (LockName, LeaseSnapshot)| {
        let is_shown = name.key().starts_with(wanted.as_bytes()) && user.may_list(&name);
        is_shown.then(|| state.view(names::escape(name.key()), lease))
    };
    let answer = |mut locks: Vec<LockView>| {
        locks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        body::json(StatusCode::OK, &LockList { total: locks.len(), locks, prefix })
    };
    collect(&state, snapshot, view, answer).await
}

/// Builds an `answer` from the views of all held locks. `snapshot` runs under the guard of a lock
/// and only copies. `view` converts the copy to what is shown, or drops it. The work visits every
/// lock and writes a long response, so it runs on the threads for blocking work, one list at a
/// time.
pub(super) async fn collect<S, R: Send + 'static>(
    state: &Arc<HttpState>,
    snapshot: impl Fn(&LockName, &Lease) -> S + Send + 'static,
    view: impl Fn(&HttpState, S) -> Option<R> + Send + 'static,
    answer: impl FnOnce(Vec<R>) -> Response + Send + 'static,
) -> Result<Response, ApiError> {
    static AT_ONCE: Semaphore = Semaphore::const_new(LISTS_AT_ONCE);
    let turn = AT_ONCE.acquire().await.map_err(|_| ApiError::internal())?;
    let shared = Arc::clone(state);
    let work = move || {
        let _turn = turn;
        let mut scan = Scan::new(0, 0, usize::MAX);
        let (mut found, mut bytes) = (Vec::new(), 0);
        let txn = shared.engine.txn();
        loop {
            let mut held = Vec::new();
            let scanned = match txn.scan(&mut scan, ENTRIES_PER_STEP, |lock| {
                held.extend(lock.with_lease(|name, lease| {
                    (snapshot(name, lease), name.key().len() + lease.meta().map_or(0, str::len))
                }));
            }) {
                Err(Unavailable::Unsettled | Unavailable::Busy) => {
                    shared.engine.wait_while_held_up();
                    continue;
                }
                scanned => scanned?,
            };
            if scanned.is_restarted {
                (found, bytes) = (Vec::new(), 0);
            }
            for (copy, copy_bytes) in held {
                let Some(one) = view(&shared, copy) else { continue };
                found.push(one);
                bytes += copy_bytes;
            }
            if found.len() > LIST_MAX || bytes > LIST_BYTES_MAX {
                return Ok((None, txn.finish()));
            }
            if scanned.is_done {
                return Ok::<_, Unavailable>((Some(answer(found)), txn.finish()));
            }
        }
    };
    let (response, seq) = tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal())??;
    let Some(response) = response else {
        let problem = format!(
            "more than {LIST_MAX} locks, or {LIST_BYTES_MAX} bytes of names and metadata; ask with a longer prefix"
        );
        return Err(ApiError::invalid(&problem));
    };
    state.engine.barrier(seq).await.map_err(|_| ApiError::internal())?;
    Ok(response)
}
