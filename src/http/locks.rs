//! `/locks`: acquire, renew, release, status, list.
//!
//! Promise: checks in the contract's order; a refusal that depends on a lock is decided in the same look as the rest.
//! Absent: the rules of locks.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::body::Asked;
use super::error::ApiError;
use super::fields::{Field, Fields, U32};
use super::users::User;
use super::{Adapter, body, names, sessions};
use crate::domain::{FencingToken, LockName, Owner, SessionId, Timestamp, Ttl};
use crate::engine::{Scan, Txn, Unavailable};
use crate::journal::Seq;
use crate::lock::{Delay, Lease, LeaseExtra, Op, Origin, Outcome, Refusal, Slot};

const TTL_S_DEFAULT: u32 = 60;
const TTL_S_MAX: u32 = 3600;
/// Longest metadata, in code points.
const METADATA_CHARS_MAX: usize = 1024;
const DELAY_S_MAX: u32 = 30;
/// How long a poller is told to wait at most, so that it sees an early release.
const RETRY_MS_MAX: u64 = 1000;
/// Locks in one list; clients take no more than a mebibyte anyway.
const LIST_MAX: usize = 100_000;
/// Names and metadata in one list, in bytes.
const LIST_BYTES_MAX: usize = 32 << 20;
/// Lists that are made at once.
const LISTS_AT_ONCE: usize = 1;
/// Entries of the table that are looked at under one guard.
const ENTRIES_PER_LOOK: usize = 256;

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
        Field::optional("ttl_seconds", U32),
        Field::optional("metadata", "a string"),
        Field::optional("session_id", "a UUID"),
        Field::optional("ephemeral", "true or false"),
        Field::optional("lock_delay_seconds", U32),
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
        &[Field::required("lease_id", "a UUID"), Field::optional("ttl_seconds", U32)];
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
        metadata: Option<String>,
    },
    Held {
        holder_id: Uuid,
        expires_at: String,
        retry_after_ms: u64,
        metadata: Option<String>,
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

/// A lock as everyone may see it.
#[derive(Serialize)]
struct LockView {
    name: String,
    status: &'static str,
    holder_id: Option<Uuid>,
    fencing_token: i64,
    expires_at: Option<String>,
    metadata: Option<String>,
}

#[derive(Serialize)]
struct LockList {
    total: usize,
    locks: Vec<LockView>,
    prefix: Option<String>,
}

fn ttl(seconds: Option<u32>) -> Result<Ttl, ApiError> {
    let seconds = seconds.unwrap_or(TTL_S_DEFAULT);
    let ttl = Ttl::from_millis(u64::from(seconds) * 1000).ok().filter(|_| seconds <= TTL_S_MAX);
    ttl.ok_or_else(|| ApiError::invalid_ttl(&format!("a TTL is 1 to {TTL_S_MAX} seconds")))
}

fn millis_left(deadline: Timestamp, now: Timestamp) -> u64 {
    deadline.nanos_since(now) / 1_000_000
}

pub(super) async fn acquire(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let name = names::segment(&parts)?;
    let Asked { body, user, ignored } = body::read::<Acquire>(&adapter, &parts, body).await?;
    Ok(ignored.name_in(body.submit(&adapter, &user, &name).await))
}

impl Acquire {
    async fn submit(self, adapter: &Adapter, user: &User, name: &str) -> Result<Response, ApiError> {
        let name = user.lock(name)?;
        let op = Op::Acquire { request: self.check(adapter, user)?, wait: None };
        let session = self.session_id.map(|id| SessionId(id.as_u128()));
        let acquired = adapter.decide(|access| adapter.acquire(access, user, &name, &op, session)).await??;
        let status = match acquired {
            Answer::Delayed { .. } => StatusCode::CONFLICT,
            _ => StatusCode::OK,
        };
        Ok(body::json(status, &acquired))
    }

    /// What is asked of the lock manager.
    fn check(&self, adapter: &Adapter, user: &User) -> Result<crate::lock::Request, ApiError> {
        let ttl = ttl(self.ttl_seconds)?;
        if self.metadata.as_ref().is_some_and(|text| text.chars().count() > METADATA_CHARS_MAX) {
            let problem = format!("metadata has at most {METADATA_CHARS_MAX} characters");
            return Err(ApiError::invalid(&problem));
        }
        let delay_s = self.lock_delay_seconds.unwrap_or(0);
        if delay_s > DELAY_S_MAX {
            let problem = format!("a lock delay is 0 to {DELAY_S_MAX} seconds");
            return Err(ApiError::invalid(&problem));
        }
        let is_ephemeral = self.ephemeral.unwrap_or(false);
        let session = self.session_id.map(|id| SessionId(id.as_u128()));
        let owner = match (is_ephemeral, session) {
            (false, _) => user.owner.clone(),
            (true, Some(id)) => adapter.session_owner(user, id),
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
            delay: Ttl::from_millis(u64::from(delay_s) * 1000).ok(),
            delays_after_release: true,
            session: session.filter(|_| is_ephemeral),
            counted_by: session.filter(|_| !is_ephemeral),
            account: Some(user.account.clone()),
            meta: self.metadata.as_deref().map(Box::from),
            ..LeaseExtra::default()
        }))
    }
}

/// The way to a session's locks: what is said of a request, and what that stands on.
type Decision<R> = Result<(Result<R, ApiError>, Seq), Unavailable>;

impl Adapter {
    /// As whom a session holds its ephemeral locks.
    fn session_owner(&self, user: &User, id: SessionId) -> Owner {
        let text = format!("http:{}:session:{}", user.name, self.ids.session(id));
        Owner::new(text.as_bytes()).unwrap_or_else(|_| unreachable!("names of users are short"))
    }

    fn acquire(
        &self,
        access: &Txn<'_>,
        user: &User,
        name: &LockName,
        op: &Op,
        session: Option<SessionId>,
    ) -> Decision<Answer> {
        let fault = match session.map(|id| sessions::find(access, user, id)) {
            Some(Err(fault)) => Some(fault),
            _ => None,
        };
        let refusal = match fault {
            Some(fault) => fault,
            None => match access
                .submit_and_look(name, op, |outcome, slot, now| self.acquired(user, name, outcome, slot, now))
            {
                Ok((acquired, seq)) => return Ok((Ok(acquired), seq)),
                Err(Unavailable::NoSession) => {
                    let gone = session.and_then(|id| sessions::find(access, user, id).err());
                    gone.unwrap_or_else(ApiError::no_session)
                }
                Err(Unavailable::AccountMax) => ApiError::lock_limit(self.config.locks_per_user_max),
                Err(other) => return Err(other),
            },
        };
        // A running delay is said before anything that is wrong with the session or the user's number of locks.
        let (delayed, seq) =
            access.read(name, |slot, now| slot.delay().map(|delay| self.delayed(delay, now)))?;
        Ok((delayed.ok_or(refusal), seq))
    }

    fn acquired(
        &self,
        user: &User,
        name: &LockName,
        outcome: Outcome,
        slot: &Slot,
        now: Timestamp,
    ) -> Answer {
        let granted = match outcome {
            // Somebody may hold it over Redis under the name that HTTP gives this user: it has no lease id.
            Outcome::Granted { token, .. } => {
                slot.lease(token).filter(|lease| lease.account() == Some(&*user.account))
            }
            Outcome::Refused(Refusal::Delayed(delay)) => return self.delayed(delay, now),
            _ => None,
        };
        if let Some(lease) = granted {
            return Answer::Acquired {
                lease_id: self.ids.lease(name, lease.token),
                fencing_token: lease.token.get(),
                expires_at: self.shown(lease.deadline),
                renew_after_ms: millis_left(lease.deadline, now) / 2,
                metadata: lease.meta().map(str::to_owned),
            };
        }
        let holder = slot.newest();
        let deadline = holder.map_or(now, |lease| lease.deadline);
        Answer::Held {
            holder_id: holder.map_or(Uuid::nil(), |lease| self.ids.holder(&lease.owner)),
            expires_at: self.shown(deadline),
            retry_after_ms: millis_left(deadline, now).min(RETRY_MS_MAX),
            metadata: holder.and_then(Lease::meta).map(str::to_owned),
        }
    }

    fn delayed(&self, delay: Delay, now: Timestamp) -> Answer {
        Answer::Delayed {
            available_at: self.shown(delay.until),
            lock_delay_seconds: u64::from(delay.length.as_millis()).div_ceil(1000),
            retry_after_ms: millis_left(delay.until, now),
        }
    }

    /// The owner and the token that a lease id proves, if `user` may use it.
    fn proven(
        &self,
        access: &Txn<'_>,
        user: &User,
        name: &LockName,
        lease_id: Uuid,
    ) -> Decision<(Owner, FencingToken)> {
        let look = |slot: &Slot, _: Timestamp| {
            let Some(lease) = slot.newest() else {
                return Err(if access.had_expired_session(&user.account, name) {
                    ApiError::session_expired()
                } else {
                    ApiError::no_lease()
                });
            };
            let is_own = lease.account() == Some(&*user.account);
            if lease.session().is_some() && lease.account().is_some() && !is_own {
                return Err(ApiError::no_session());
            }
            if !is_own || lease_id != self.ids.lease(name, lease.token) {
                return Err(ApiError::other_lease());
            }
            Ok((lease.owner.clone(), lease.token))
        };
        access.read(name, look)
    }

    fn view(&self, name: String, lease: Option<&Lease>) -> LockView {
        LockView {
            name,
            status: if lease.is_some() { "held" } else { "free" },
            holder_id: lease.map(|lease| self.ids.holder(&lease.owner)),
            fencing_token: lease.map_or_else(|| self.engine.next_token(), |lease| lease.token.get()),
            expires_at: lease.map(|lease| self.shown(lease.deadline)),
            metadata: lease.and_then(Lease::meta).map(str::to_owned),
        }
    }
}

pub(super) async fn renew(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let name = names::segment(&parts)?;
    let Asked { body, user, ignored } = body::read::<Renew>(&adapter, &parts, body).await?;
    Ok(ignored.name_in(body.submit(&adapter, &user, &name).await))
}

impl Renew {
    async fn submit(self, adapter: &Adapter, user: &User, name: &str) -> Result<Response, ApiError> {
        let name = user.lock(name)?;
        let ttl = ttl(self.ttl_seconds)?;
        let renewed = adapter
            .decide(|access| {
                let (proven, seq) = adapter.proven(access, user, &name, self.lease_id)?;
                let (owner, token) = match proven {
                    Ok(proven) => proven,
                    Err(refusal) => return Ok((Err(refusal), seq)),
                };
                let op = Op::Renew { owner, ttl: Some(ttl), token: Some(token) };
                access.submit_and_look(&name, &op, |outcome, _, now| match outcome {
                    Outcome::Renewed { deadline } => Ok(Renewed {
                        lease_id: self.lease_id,
                        expires_at: adapter.shown(deadline),
                        renew_after_ms: millis_left(deadline, now) / 2,
                    }),
                    _ => Err(ApiError::no_lease()),
                })
            })
            .await??;
        Ok(body::json(StatusCode::OK, &renewed))
    }
}

pub(super) async fn release(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let name = names::segment(&parts)?;
    let Asked { body, user, ignored } = body::read::<Release>(&adapter, &parts, body).await?;
    Ok(ignored.name_in(body.submit(&adapter, &user, &name).await))
}

impl Release {
    async fn submit(self, adapter: &Adapter, user: &User, name: &str) -> Result<Response, ApiError> {
        let name = user.lock(name)?;
        adapter
            .decide(|access| {
                let (proven, seq) = adapter.proven(access, user, &name, self.lease_id)?;
                let (owner, token) = match proven {
                    Ok(proven) => proven,
                    Err(refusal) => return Ok((Err(refusal), seq)),
                };
                let op = Op::Release { owner, token: Some(token) };
                access.submit_and_look(&name, &op, |outcome, _, _| match outcome {
                    Outcome::Released(_) => Ok(()),
                    _ => Err(ApiError::no_lease()),
                })
            })
            .await??;
        Ok(body::json(StatusCode::OK, &()))
    }
}

pub(super) async fn status(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let shown = names::segment(&parts)?;
    let user = adapter.users.authenticate(&parts.headers)?;
    let name = user.lock(&shown)?;
    let view = adapter
        .decide(|access| access.read(&name, |slot, _| adapter.view(shown.clone(), slot.newest())))
        .await?;
    Ok(body::json(StatusCode::OK, &view))
}

pub(super) async fn list(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let prefix = names::query(&parts, "prefix")?;
    let user = adapter.users.authenticate(&parts.headers)?;
    let prefix = user.prefix(prefix)?;
    let wanted = prefix.clone().unwrap_or_default();
    let pick = move |adapter: &Adapter, name: &LockName, lease: &Lease| {
        let shown = names::shown(name.key());
        shown.starts_with(&wanted).then(|| adapter.view(shown, Some(lease)))
    };
    let answer = |mut locks: Vec<LockView>| {
        locks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        body::json(StatusCode::OK, &LockList { total: locks.len(), locks, prefix })
    };
    collect(&adapter, pick, answer).await
}

/// The answer that `answer` makes of what `pick` makes of all locks that are held. Both run beside the threads
/// that serve requests, as they look at every lock and write a long answer; a few requests at a time, so that
/// those threads have the processors.
pub(super) async fn collect<R: Send + 'static>(
    adapter: &Arc<Adapter>,
    pick: impl Fn(&Adapter, &LockName, &Lease) -> Option<R> + Send + 'static,
    answer: impl FnOnce(Vec<R>) -> Response + Send + 'static,
) -> Result<Response, ApiError> {
    static AT_ONCE: Semaphore = Semaphore::const_new(LISTS_AT_ONCE);
    let turn = AT_ONCE.acquire().await.map_err(|_| ApiError::internal())?;
    let looking = Arc::clone(adapter);
    let work = move || {
        let _turn = turn;
        let mut scan = Scan::new(0, 0, usize::MAX);
        let (mut found, mut bytes) = (Vec::new(), 0);
        loop {
            let (mut picked, mut picked_bytes) = (Vec::new(), 0);
            let scanned = looking.engine.access().scan(&mut scan, ENTRIES_PER_LOOK, |held| {
                held.with_lease(|name, lease| {
                    let Some(one) = pick(&looking, name, lease) else { return };
                    picked.push(one);
                    picked_bytes += name.key().len() + lease.meta().map_or(0, str::len);
                });
            })?;
            if scanned.is_restarted {
                (found, bytes) = (Vec::new(), 0);
            }
            found.append(&mut picked);
            bytes += picked_bytes;
            if found.len() > LIST_MAX || bytes > LIST_BYTES_MAX {
                return Ok((None, scan.seq()));
            }
            if scanned.is_done {
                return Ok::<_, Unavailable>((Some(answer(found)), scan.seq()));
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
    adapter.engine.barrier(seq).await.map_err(|_| ApiError::internal())?;
    Ok(response)
}
