//! Errors in the contract's shape.
//!
//! Guarantees: every `code` and `error` label comes from here; `details` name what is wrong (a
//! header, a field, a byte offset) and never repeat a value that a client sent; those of 5xx are
//! only the label. Not here: the id of the request, which the router adds.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::Unavailable;

/// The codes on which clients switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Code {
    AuthenticationRequired,
    AuthenticationFailed,
    Forbidden,
    LockLimitExceeded,
    InvalidInput,
    InvalidTtl,
    InvalidLockName,
    NotFound,
    SessionExpired,
    LeaseNotCurrent,
    CapacityExceeded,
    RateLimited,
    InternalError,
}

/// Why a request failed.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    code: Code,
    label: &'static str,
    details: String,
    retry_after_s: Option<u64>,
    /// The host and port of the server that serves the request.
    moved_to: Option<String>,
}

/// An error's body.
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    error: &'static str,
    code: Code,
    details: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, code: Code, label: &'static str, details: impl Into<String>) -> ApiError {
        ApiError { status, code, label, details: details.into(), retry_after_s: None, moved_to: None }
    }

    fn because(status: StatusCode, code: Code, label: &'static str, reason: &str) -> ApiError {
        ApiError::new(status, code, label, format!("{label}: {reason}"))
    }

    pub(super) fn no_credentials() -> ApiError {
        let label = "Authorization header required";
        ApiError::new(StatusCode::UNAUTHORIZED, Code::AuthenticationRequired, label, "Bearer token required")
    }

    pub(super) fn wrong_credentials() -> ApiError {
        let label = "Authentication failed";
        ApiError::new(StatusCode::UNAUTHORIZED, Code::AuthenticationFailed, label, label)
    }

    pub(super) fn is_wrong_credentials(&self) -> bool {
        self.code == Code::AuthenticationFailed
    }

    pub(super) fn forbidden(reason: &str) -> ApiError {
        ApiError::because(StatusCode::FORBIDDEN, Code::Forbidden, "Forbidden", reason)
    }

    pub(super) fn lock_limit(max: u64) -> ApiError {
        let label = "Lock limit exceeded";
        let details = format!("{label} (maximum {max} per user)");
        ApiError::new(StatusCode::FORBIDDEN, Code::LockLimitExceeded, label, details)
    }

    /// An invalid value.
    pub(super) fn invalid(reason: &str) -> ApiError {
        ApiError::because(StatusCode::BAD_REQUEST, Code::InvalidInput, "Invalid input", reason)
    }

    /// A request that is refused before its route runs: its head, path, query, media type, size or
    /// JSON.
    pub(super) fn malformed(status: StatusCode, reason: &str) -> ApiError {
        ApiError::because(status, Code::InvalidInput, "Invalid input", reason)
    }

    pub(super) fn invalid_ttl(reason: &str) -> ApiError {
        ApiError::because(StatusCode::BAD_REQUEST, Code::InvalidTtl, "Invalid TTL", reason)
    }

    pub(super) fn invalid_name(reason: &str) -> ApiError {
        ApiError::because(StatusCode::BAD_REQUEST, Code::InvalidLockName, "Invalid lock name", reason)
    }

    pub(super) fn no_route() -> ApiError {
        let label = "Resource not found";
        ApiError::new(StatusCode::NOT_FOUND, Code::NotFound, label, label)
    }

    pub(super) fn no_session() -> ApiError {
        let label = "Session not found";
        ApiError::new(StatusCode::NOT_FOUND, Code::NotFound, label, label)
    }

    pub(super) fn session_expired() -> ApiError {
        let label = "Session expired";
        ApiError::new(StatusCode::GONE, Code::SessionExpired, label, label)
    }

    /// The lock is held under another lease.
    pub(super) fn other_lease() -> ApiError {
        let label = "Lease is not current";
        ApiError::new(StatusCode::BAD_REQUEST, Code::LeaseNotCurrent, label, "Invalid lease ID")
    }

    /// The newest lease of the lock is another one than the caller has seen.
    pub(super) fn other_token(newest: i64) -> ApiError {
        let details = format!("the newest fencing token is {newest}");
        ApiError::new(StatusCode::BAD_REQUEST, Code::LeaseNotCurrent, "Lease is not current", &details)
    }

    /// The lock is not held.
    pub(super) fn no_lease() -> ApiError {
        let label = "Lease is not current";
        ApiError::new(StatusCode::NOT_FOUND, Code::LeaseNotCurrent, label, label)
    }

    pub(super) fn no_capacity(reason: &str) -> ApiError {
        let full =
            ApiError::because(StatusCode::CONFLICT, Code::CapacityExceeded, "Capacity exceeded", reason);
        ApiError { retry_after_s: Some(1), ..full }
    }

    /// The limit of connections is reached.
    pub(super) fn no_connection() -> ApiError {
        let full = ApiError::no_capacity("connection limit reached (--connections-max)");
        ApiError { status: StatusCode::SERVICE_UNAVAILABLE, ..full }
    }

    /// This server does not lead.
    pub(super) fn not_leading() -> ApiError {
        ApiError::unavailable("Not the leader", "another server may lead")
    }

    /// This server does not lead, and no other can be asked.
    pub(super) fn no_leader() -> ApiError {
        ApiError::unavailable("No leader yet", "this server reaches none")
    }

    fn unavailable(label: &'static str, reason: &str) -> ApiError {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let unavailable = ApiError::because(status, Code::CapacityExceeded, label, reason);
        ApiError { retry_after_s: Some(1), ..unavailable }
    }

    /// Another server has this lock.
    pub(super) fn moved(to: String) -> ApiError {
        let (label, details) = ("Lock of another shard", format!("Lock of another shard: it is at {to}"));
        let moved = ApiError::new(StatusCode::TEMPORARY_REDIRECT, Code::NotFound, label, details);
        ApiError { moved_to: Some(to), ..moved }
    }

    /// The caller's budget for bodies is spent.
    pub(super) fn too_many_bodies() -> ApiError {
        let label = "Rate limit exceeded";
        let details = format!("{label}: too many large bodies are in flight; retry in 1 seconds");
        let limited = ApiError::new(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, label, details);
        ApiError { retry_after_s: Some(1), ..limited }
    }

    pub(super) fn internal() -> ApiError {
        let label = "Internal server error";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError, label, label)
    }

    pub(super) fn is_internal(&self) -> bool {
        self.code == Code::InternalError
    }

    pub(super) fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    pub(super) fn moved_to(&self) -> Option<&str> {
        self.moved_to.as_deref()
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
            // Unsettled transactions are retried before this, and so are those that found the server busy.
            Unavailable::Journal(_)
            | Unavailable::TokensExhausted
            | Unavailable::Unsettled
            | Unavailable::Busy => ApiError::internal(),
            Unavailable::LocksMax => ApiError::no_capacity("lock limit reached (--locks-max)"),
            Unavailable::WaitersMax => {
                ApiError::no_capacity("queue limit of this lock reached (--waiters-per-lock-max)")
            }
            Unavailable::SessionsMax => ApiError::no_capacity("session limit reached (--sessions-max)"),
            Unavailable::AccountMax => {
                ApiError::no_capacity("lock limit of this user reached (--http-locks-per-user-max)")
            }
            Unavailable::NoSession => ApiError::no_session(),
            Unavailable::WrongType => ApiError::invalid_name("a value that is not a lock has this name"),
            Unavailable::BacklogMax => {
                ApiError::no_capacity("changes that wait for storage have reached 256 MiB")
            }
            Unavailable::ValuesBytesMax | Unavailable::ValueElementsMax => {
                ApiError::no_capacity("limit of values reached (--values-bytes-max, --value-elements-max)")
            }
        }
    }
}

impl IntoResponse for ApiError {
    /// The body follows in the router, which knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: [Code; 13] = [
        Code::AuthenticationRequired,
        Code::AuthenticationFailed,
        Code::Forbidden,
        Code::LockLimitExceeded,
        Code::InvalidInput,
        Code::InvalidTtl,
        Code::InvalidLockName,
        Code::NotFound,
        Code::SessionExpired,
        Code::LeaseNotCurrent,
        Code::CapacityExceeded,
        Code::RateLimited,
        Code::InternalError,
    ];
    const _: () = assert!(CODES.len() == Code::InternalError as usize + 1);

    #[test]
    fn the_document_lists_all_codes() {
        let document = include_str!("openapi.yaml");
        let list = document.split("\n        code:\n").nth(1).and_then(|rest| rest.split("enum:\n").nth(1));
        let lines = list.expect("the codes").lines().map_while(|line| line.trim_start().strip_prefix("- "));
        let codes = CODES.map(|code| serde_json::to_value(code).expect("text"));
        assert_eq!(lines.collect::<Vec<_>>(), codes.each_ref().map(|code| code.as_str().expect("text")));
    }
}
