//! `/sessions`: the lock manager's sessions, as users see them.
//!
//! Promise: what is not the caller's looks as if it were not there. Absent: the locks of sessions.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::body::Asked;
use super::error::ApiError;
use super::fields::{Field, Fields, U32};
use super::users::User;
use super::{Adapter, body, names};
use crate::domain::{SessionId, Ttl};
use crate::engine::{Txn, Unavailable};
use crate::journal::{Seq, SessionRecord};

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
    keepalive_interval_secs: u32,
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

/// A session of the user's, how many locks it has, and what that stands on.
pub(super) fn find(
    access: &Txn<'_>,
    user: &User,
    id: SessionId,
) -> Result<(SessionRecord, usize, Seq), ApiError> {
    let is_own = |record: &SessionRecord| record.account.as_deref() == Some(&*user.account);
    match access.session(id) {
        Ok(found) if is_own(&found.0) => Ok(found),
        Ok(_) => Err(ApiError::no_session()),
        Err(Unavailable::NoSession) => match access.expired_session(id) {
            Some(record) if is_own(&record) => Err(ApiError::session_expired()),
            _ => Err(ApiError::no_session()),
        },
        Err(other) => Err(other.into()),
    }
}

pub(super) async fn create(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let Asked { body, user, ignored } = body::read::<Create>(&adapter, &parts, body).await?;
    Ok(ignored.name_in(body.submit(&adapter, &user).await))
}

impl Create {
    async fn submit(self, adapter: &Adapter, user: &User) -> Result<Response, ApiError> {
        let seconds = self.ttl_seconds.unwrap_or(TTL_S_DEFAULT).clamp(TTL_S_MIN, TTL_S_MAX);
        let ttl = Ttl::from_millis(u64::from(seconds) * 1000).map_err(|_| ApiError::internal())?;
        let name = format!("http {}", user.name);
        let (id, deadline) = adapter
            .decide(|access| {
                let (id, seq) = access.open_session(&name, Some(&user.account), Some(ttl))?;
                let deadline = access.session(id).map(|(record, _, _)| record.deadline);
                Ok(((id, deadline), seq))
            })
            .await?;
        let created = Created {
            session_id: Uuid::from_u128(id.0),
            expires_at: adapter.shown(deadline?),
            keepalive_interval_secs: seconds / 2,
        };
        Ok(body::json(StatusCode::CREATED, &created))
    }
}

/// The session in the path, and who asks.
fn named(adapter: &Adapter, parts: &Parts) -> Result<(SessionId, Arc<User>), ApiError> {
    let id = names::segment(parts)?;
    let id = Uuid::parse_str(&id).map_err(|_| {
        ApiError::malformed(StatusCode::BAD_REQUEST, "segment 2 of the path is not the UUID of a session")
    })?;
    let user = adapter.users.authenticate(&parts.headers)?;
    Ok((SessionId(id.as_u128()), user))
}

pub(super) async fn keep_alive(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let (id, user) = named(&adapter, &parts)?;
    let deadline = adapter
        .decide(|access| match find(access, &user, id) {
            Err(refusal) => Ok((Err(refusal), Seq::default())),
            Ok(_) => match access.keep_alive(id) {
                Ok((deadline, seq)) => Ok((Ok(deadline), seq)),
                Err(Unavailable::NoSession) => Ok((
                    Err(find(access, &user, id).err().unwrap_or_else(ApiError::no_session)),
                    Seq::default(),
                )),
                Err(other) => Err(other),
            },
        })
        .await??;
    let kept = KeptAlive { session_id: Uuid::from_u128(id.0), expires_at: adapter.shown(deadline) };
    Ok(body::json(StatusCode::OK, &kept))
}

pub(super) async fn status(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let (id, user) = named(&adapter, &parts)?;
    let (record, lock_count, active) = adapter
        .decide(|access| match find(access, &user, id) {
            Ok((record, locks, seq)) => Ok((Ok((record, locks, true)), seq)),
            Err(refusal) => {
                let own = access.expired_session(id);
                let own = own.filter(|record| record.account.as_deref() == Some(&*user.account));
                Ok((own.map(|record| (record, 0, false)).ok_or(refusal), Seq::default()))
            }
        })
        .await??;
    let view = SessionView {
        session_id: Uuid::from_u128(id.0),
        user_id: user.id,
        expires_at: adapter.shown(record.deadline),
        lock_count,
        active,
    };
    Ok(body::json(StatusCode::OK, &view))
}

pub(super) async fn delete(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let (id, user) = named(&adapter, &parts)?;
    adapter
        .decide(|access| match find(access, &user, id) {
            Ok(_) => match access.close_session(id, true) {
                Ok((_, seq)) => Ok((Ok(()), seq)),
                Err(Unavailable::NoSession) => Ok((Err(ApiError::no_session()), Seq::default())),
                Err(other) => Err(other),
            },
            Err(refusal) => {
                let own = access.expired_session(id);
                let is_own = own.is_some_and(|record| record.account.as_deref() == Some(&*user.account));
                if is_own {
                    access.forget_session(id);
                }
                Ok((if is_own { Ok(()) } else { Err(refusal) }, Seq::default()))
            }
        })
        .await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}
