//! Errors in the contract's shape.
//!
//! Promise: every `code` and `error` label comes from here; 5xx never say more than their label. Absent: the id of the
//! request, which the router adds.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::Unavailable;

/// Why a request got nothing.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    label: &'static str,
    details: String,
    retry_after_s: Option<u64>,
}

/// An error's body.
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    error: &'static str,
    code: &'static str,
    details: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl ApiError {
    fn new(
        status: StatusCode,
        code: &'static str,
        label: &'static str,
        details: impl Into<String>,
    ) -> ApiError {
        ApiError { status, code, label, details: details.into(), retry_after_s: None }
    }

    fn because(status: StatusCode, code: &'static str, label: &'static str, reason: &str) -> ApiError {
        ApiError::new(status, code, label, format!("{label}: {reason}"))
    }

    pub(super) fn no_credentials() -> ApiError {
        let label = "Authorization header required";
        ApiError::new(StatusCode::UNAUTHORIZED, "authentication_required", label, "Bearer token required")
    }

    pub(super) fn wrong_credentials() -> ApiError {
        let label = "Authentication failed";
        ApiError::new(StatusCode::UNAUTHORIZED, "authentication_failed", label, label)
    }

    pub(super) fn forbidden(reason: &str) -> ApiError {
        ApiError::because(StatusCode::FORBIDDEN, "forbidden", "Forbidden", reason)
    }

    pub(super) fn lock_limit(most: u64) -> ApiError {
        let label = "Lock limit exceeded";
        let details = format!("{label} (maximum {most} per user)");
        ApiError::new(StatusCode::FORBIDDEN, "lock_limit_exceeded", label, details)
    }

    /// A value that makes no sense.
    pub(super) fn invalid(reason: &str) -> ApiError {
        ApiError::because(StatusCode::BAD_REQUEST, "invalid_input", "Invalid input", reason)
    }

    /// Something that could not even be read.
    pub(super) fn unreadable(status: StatusCode) -> ApiError {
        let details = "The request could not be parsed, or is not supported here";
        ApiError::new(status, "invalid_input", "Invalid input", details)
    }

    pub(super) fn invalid_ttl(reason: &str) -> ApiError {
        ApiError::because(StatusCode::BAD_REQUEST, "invalid_ttl", "Invalid TTL", reason)
    }

    pub(super) fn invalid_name(reason: &str) -> ApiError {
        ApiError::because(StatusCode::BAD_REQUEST, "invalid_lock_name", "Invalid lock name", reason)
    }

    pub(super) fn no_route() -> ApiError {
        let label = "Resource not found";
        ApiError::new(StatusCode::NOT_FOUND, "not_found", label, label)
    }

    pub(super) fn no_session() -> ApiError {
        let label = "Session not found";
        ApiError::new(StatusCode::NOT_FOUND, "not_found", label, label)
    }

    pub(super) fn session_expired() -> ApiError {
        let label = "Session expired";
        ApiError::new(StatusCode::GONE, "session_expired", label, label)
    }

    /// Somebody holds the lock, but not under this lease.
    pub(super) fn other_lease() -> ApiError {
        let label = "Lease is not current";
        ApiError::new(StatusCode::BAD_REQUEST, "lease_not_current", label, "Invalid lease ID")
    }

    /// Nobody holds the lock.
    pub(super) fn no_lease() -> ApiError {
        let label = "Lease is not current";
        ApiError::new(StatusCode::NOT_FOUND, "lease_not_current", label, label)
    }

    pub(super) fn no_capacity(reason: &str) -> ApiError {
        let full = ApiError::because(StatusCode::CONFLICT, "capacity_exceeded", "Capacity exceeded", reason);
        ApiError { retry_after_s: Some(1), ..full }
    }

    pub(super) fn internal() -> ApiError {
        let label = "Internal server error";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", label, label)
    }

    pub(super) fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    pub(super) fn body<'a>(&'a self, request_id: &'a str) -> ErrorBody<'a> {
        ErrorBody {
            error: self.label,
            code: self.code,
            details: &self.details,
            request_id,
            retry_after_ms: self.retry_after_s.map(|seconds| seconds * 1000),
        }
    }
}

impl From<Unavailable> for ApiError {
    fn from(unavailable: Unavailable) -> ApiError {
        match unavailable {
            // What is unsettled is asked again before it comes to this.
            Unavailable::Journal(_) | Unavailable::TokensExhausted | Unavailable::Unsettled => {
                ApiError::internal()
            }
            Unavailable::LocksMax => ApiError::no_capacity("as many locks are held as may be"),
            Unavailable::WaitersMax => ApiError::no_capacity("as many requests wait for this lock as may"),
            Unavailable::SessionsMax => ApiError::no_capacity("as many sessions are open as may be"),
            Unavailable::AccountMax => ApiError::no_capacity("as many locks are held by this user as may be"),
            Unavailable::NoSession => ApiError::no_session(),
        }
    }
}

impl IntoResponse for ApiError {
    /// Without a body: the router knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
