//! `/sessions`: the lock manager's sessions, as users see them.
//!
//! Guarantees: other users' sessions appear not to exist. Not here: the locks of sessions.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::body::Parsed;
use super::error::ApiError;
use super::fields::{Field, Fields, U32};
use super::users::{Caller, User};
use super::{HttpState, body, names};
use crate::domain::SessionId;
use crate::engine::{Txn, Unavailable};
use crate::journal::SessionRecord;

const TTL_S_DEFAULT: u32 = 60;
const TTL_S_MIN: u32 = 10;
const TTL_S_MAX: u32 = 300;

#[derive(Deserialize)]
pub(super) struct Create {
    ttl_seconds: Option<u32>,
}

impl Fields for Create {
    const FIELDS: &'static [Field] = &[Field::optional("ttl_seconds", U32)];
}

#[derive(Serialize)]
struct Created {
    session_id: Uuid,
    expires_at: String,
    keepalive_interval_secs: u64,
}

#[derive(Serialize)]
struct KeptAlive {
    session_id: Uuid,
    expires_at: String,
}

#[derive(Serialize)]
struct SessionView {
    session_id: Uuid,
    user_id: Uuid,
    expires_at: String,
    lock_count: usize,
    active: bool,
}

/// A session of the user, and the number of its locks.
pub(super) fn find(txn: &Txn<'_>, user: &User, id: SessionId) -> Result<(SessionRecord, usize), ApiError> {
    let is_own = |record: &SessionRecord| record.account.as_deref() == Some(&*user.account);
    match txn.session(id) {
        Ok(found) if is_own(&found.0) => Ok(found),
        Ok(_) => Err(ApiError::no_session()),
        Err(Unavailable::NoSession) => match txn.expired_session(id) {
            Some(record) if is_own(&record) => Err(ApiError::session_expired()),
            _ => Err(ApiError::no_session()),
        },
        Err(other) => Err(other.into()),
    }
}

pub(super) async fn create(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let Parsed { body, user, ignored } = body::read::<Create>(&state, &parts, body).await?;
    Ok(ignored.name_in(body.submit(&state, &user).await))
}

impl Create {
    async fn submit(self, state: &HttpState, user: &User) -> Result<Response, ApiError> {
        user.check("session|open")?;
        let seconds = self.ttl_seconds.unwrap_or(TTL_S_DEFAULT).clamp(TTL_S_MIN, TTL_S_MAX);
        let ttl = state.limits.ttl_at_most(u64::from(seconds) * 1000).map_err(|_| ApiError::internal())?;
        let name = format!("http {}", user.name);
        let (id, deadline) = state
            .decide(|txn| {
                let id = txn.open_session(&name, Some(&user.account), Some(ttl))?;
                let deadline = txn.session(id).map(|(record, _)| record.deadline);
                Ok((id, deadline))
            })
            .await?;
        let created = Created {
            session_id: Uuid::from_u128(id.0),
            expires_at: state.format_time(deadline?),
            keepalive_interval_secs: (ttl.as_millis() / 2000).max(1),
        };
        Ok(body::json(StatusCode::CREATED, &created))
    }
}

/// The session in the path, and the requesting user, who may run `command`.
fn named(state: &HttpState, parts: &Parts, command: &str) -> Result<(SessionId, Arc<User>), ApiError> {
    let id = names::segment(parts)?;
    let id = Uuid::parse_str(&id).map_err(|_| {
        ApiError::malformed(StatusCode::BAD_REQUEST, "segment 2 of the path is not the UUID of a session")
    })?;
    let user = state.users.authenticate(Caller::of(parts))?;
    user.check(command)?;
    Ok((SessionId(id.as_u128()), user))
}

pub(super) async fn keep_alive(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let (id, user) = named(&state, &parts, "session|keepalive")?;
    let deadline = state
        .decide(|txn| match find(txn, &user, id) {
            Err(refusal) => Ok(Err(refusal)),
            Ok(_) => match txn.keep_alive(id) {
                Ok(deadline) => Ok(Ok(deadline)),
                Err(Unavailable::NoSession) => {
                    Ok(Err(find(txn, &user, id).err().unwrap_or_else(ApiError::no_session)))
                }
                Err(other) => Err(other),
            },
        })
        .await??;
    let kept = KeptAlive { session_id: Uuid::from_u128(id.0), expires_at: state.format_time(deadline) };
    Ok(body::json(StatusCode::OK, &kept))
}

pub(super) async fn status(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let (id, user) = named(&state, &parts, "session|info")?;
    let (record, lock_count, active) = state
        .decide(|txn| match find(txn, &user, id) {
            Ok((record, locks)) => Ok(Ok((record, locks, true))),
            Err(refusal) => {
                let own = txn.expired_session(id);
                let own = own.filter(|record| record.account.as_deref() == Some(&*user.account));
                Ok(own.map(|record| (record, 0, false)).ok_or(refusal))
            }
        })
        .await??;
    let view = SessionView {
        session_id: Uuid::from_u128(id.0),
        user_id: user.id,
        expires_at: state.format_time(record.deadline),
        lock_count,
        active,
    };
    Ok(body::json(StatusCode::OK, &view))
}

pub(super) async fn delete(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let (id, user) = named(&state, &parts, "session|close")?;
    state
        .decide(|txn| match find(txn, &user, id) {
            Ok(_) => match txn.close_session(id, true) {
                Ok(_) => Ok(Ok(())),
                Err(Unavailable::NoSession) => Ok(Err(ApiError::no_session())),
                Err(other) => Err(other),
            },
            Err(refusal) => {
                let own = txn.expired_session(id);
                let is_own = own.is_some_and(|record| record.account.as_deref() == Some(&*user.account));
                if is_own {
                    txn.forget_session(id);
                }
                Ok(if is_own { Ok(()) } else { Err(refusal) })
            }
        })
        .await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}
