//! Request bodies.
//!
//! Guarantees: a body is bounded in bytes and in time, and so are all bodies of one caller. Checks
//! follow the contract's order: media type 415, size 413, syntax 400, shape 422, then credentials
//! 401. A refusal names the field or the position. Unknown fields are ignored; the response names
//! them. Not here: what the values mean.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::error::Category;

use super::budget::{Budget, Charge};
use super::error::ApiError;
use super::fields::{self, Fields, Keys};
use super::users::{Caller, User};
use super::{HttpState, names};

/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 2 << 20;
/// How long a body may take in all.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a body that are not charged; more than an ordinary request has.
const BODY_BYTES_FREE: usize = 8 << 10;
/// Budget for longer bodies, in bytes: of each user, and of all callers without credentials
/// together.
const BODIES_BYTES_MAX: usize = 16 << 20;
/// Longer bodies, in bytes, are parsed on the threads for blocking work.
const PARSE_INLINE_MAX: usize = 64 << 10;

const _: () = assert!(BODY_BYTES_FREE <= PARSE_INLINE_MAX && PARSE_INLINE_MAX <= BODY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX <= BODIES_BYTES_MAX);

const IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-octostore-ignored-fields");
/// Names of ignored fields that a response lists.
const IGNORED_SHOWN_MAX: usize = 8;

/// The budget of one caller for bodies in flight.
pub(super) fn budget() -> Budget {
    Budget::new(BODIES_BYTES_MAX)
}

/// A parsed body and its sender.
pub(super) struct Parsed<T> {
    pub(super) body: T,
    pub(super) user: Arc<User>,
    pub(super) ignored: Ignored,
}

/// The fields of a body that were ignored.
pub(super) struct Ignored(Option<HeaderValue>);

impl Ignored {
    /// Names the fields in a response.
    pub(super) fn name_in(self, response: Result<Response, ApiError>) -> Response {
        let mut response = response.into_response();
        if let Some(names) = self.0 {
            response.headers_mut().insert(IGNORED_FIELDS, names);
        }
        response
    }
}

/// Reads a JSON object, and only then refuses a caller without credentials. The bytes of the body
/// are charged to the budget of the user, or to the one that all other callers share.
pub(super) async fn read<T: Fields>(
    state: &HttpState,
    parts: &Parts,
    body: Body,
) -> Result<Parsed<T>, ApiError> {
    if !is_json(parts) {
        let reason = "header content-type must be application/json or application/<name>+json";
        return Err(ApiError::malformed(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    let user = state.users.authenticate(Caller::of(parts));
    let mut charge = user.as_ref().map_or(&state.anonymous, |user| &user.bodies).charge();
    let bytes =
        tokio::time::timeout(BODY_TIME_MAX, collect(body, &mut charge)).await.unwrap_or_else(|_| {
            let reason = format!("the body did not arrive within {} s", BODY_TIME_MAX.as_secs());
            Err(bad_request(&reason))
        })?;
    let parsed = if bytes.len() <= PARSE_INLINE_MAX {
        parse(&bytes)
    } else {
        let parsing = tokio::task::spawn_blocking(move || parse(&bytes));
        parsing.await.map_err(|_| ApiError::internal())?
    };
    drop(charge);
    let (body, ignored) = parsed?;
    Ok(Parsed { body, user: user?, ignored: Ignored(header_value(&ignored)) })
}

fn bad_request(reason: &str) -> ApiError {
    ApiError::malformed(StatusCode::BAD_REQUEST, reason)
}

fn parse<T: Fields>(bytes: &[u8]) -> Result<(T, Vec<String>), ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| bad_request(&format!("the body is not UTF-8 (byte {})", error.valid_up_to() + 1)))?;
    let bad_syntax = |error: serde_json::Error| match text.trim_ascii().is_empty() {
        true => bad_request("the body is empty and must be a JSON object"),
        // These errors do not repeat the body.
        false => bad_request(&format!("the body is not JSON: {error}")),
    };
    let bad_shape = |reason: &str| ApiError::malformed(StatusCode::UNPROCESSABLE_ENTITY, reason);
    if !text.trim_start().starts_with('{') {
        fields::check_syntax(text).map_err(bad_syntax)?;
        return Err(bad_shape("the body must be a JSON object"));
    }
    let keys = Keys::of(text, T::FIELDS).map_err(bad_syntax)?;
    match serde_json::from_str(text) {
        Ok(asked) => Ok((asked, keys.into_unknown())),
        Err(error) if error.classify() == Category::Data => {
            Err(bad_shape(&fields::explain(text, T::FIELDS, &keys, &error)))
        }
        Err(error) => Err(bad_syntax(error)),
    }
}

/// The names of ignored fields as a header, and in the log.
fn header_value(ignored: &[String]) -> Option<HeaderValue> {
    if ignored.is_empty() {
        return None;
    }
    let listed = ignored.iter().take(IGNORED_SHOWN_MAX).map(|name| names::header_safe(name));
    // An encoded name has no asterisk.
    let more = (ignored.len() > IGNORED_SHOWN_MAX).then(|| "*".to_owned());
    let text = listed.chain(more).collect::<Vec<_>>().join(", ");
    tracing::debug!(fields = %text, "a request has fields that are not known and were ignored");
    HeaderValue::from_str(&text).ok()
}

/// `application/json` or `application/<anything>+json`, with or without parameters.
fn is_json(parts: &Parts) -> bool {
    let Some(Ok(value)) = parts.headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let media = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let Some(subtype) = media.strip_prefix("application/") else { return false };
    subtype == "json" || subtype.strip_suffix("+json").is_some_and(|name| !name.is_empty())
}

async fn collect(mut body: Body, charge: &mut Charge<'_>) -> Result<Vec<u8>, ApiError> {
    let too_long = || {
        let reason = format!("the body is longer than {BODY_BYTES_MAX} bytes");
        ApiError::malformed(StatusCode::PAYLOAD_TOO_LARGE, &reason)
    };
    let announced = http_body::Body::size_hint(&body);
    if announced.lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let broken = "the body ends before its announced end, or a chunk of it is malformed";
        let frame = frame.map_err(|_| bad_request(broken))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > BODY_BYTES_MAX {
            return Err(too_long());
        }
        if length > bytes.capacity() {
            let capacity = length.next_power_of_two().min(BODY_BYTES_MAX);
            if capacity > BODY_BYTES_FREE {
                charge.raise_to(capacity).map_err(|_| ApiError::too_many_bodies())?;
            }
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// A response in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        // Responses have no value that JSON cannot represent.
        Err(_) => ApiError::internal().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn parts(content_type: Option<&str>) -> Parts {
        let mut request = axum::http::Request::new(());
        if let Some(value) = content_type {
            request.headers_mut().insert(header::CONTENT_TYPE, value.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn json_has_several_media_types() {
        for (media, expected) in [
            (Some("application/json"), true),
            (Some("APPLICATION/JSON; charset=latin1"), true),
            (Some("application/vnd.api+json"), true),
            (Some("application/+json"), false),
            (Some("application/jsonp"), false),
            (Some("text/json"), false),
            (Some("text/plain"), false),
            (None, false),
        ] {
            assert_eq!(is_json(&parts(media)), expected, "{media:?}");
        }
    }

    #[test]
    fn ignored_fields_are_listed_in_a_header_that_is_short_and_safe() {
        let shown = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            header_value(&names).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(shown(&[]), None);
        assert_eq!(
            shown(&["ttl", "a b,*\r\nx: \u{e9}"]).as_deref(),
            Some("ttl, a%20b%2C%2A%0D%0Ax%3A%20%C3%A9")
        );
        assert_eq!(shown(&["a"; 8]).as_deref(), Some("a, a, a, a, a, a, a, a"));
        assert_eq!(shown(&["a"; 9]).as_deref(), Some("a, a, a, a, a, a, a, a, *"));
    }

    /// A body that sends its bytes, and then never ends.
    struct Endless(Option<Vec<u8>>);

    impl http_body::Body for Endless {
        type Data = axum::body::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            let bytes = self.0.take();
            bytes.map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(http_body::Frame::data(bytes.into())))))
        }
    }

    #[test]
    fn bodies_are_held_up_to_the_budget_and_to_the_byte() {
        let budget = budget();
        let mut context = Context::from_waker(Waker::noop());
        let mut read = |length: usize| {
            let budget = &budget;
            let mut reading = Box::pin(async move {
                collect(Body::new(Endless(Some(vec![b' '; length]))), &mut budget.charge()).await
            });
            let polled = reading.as_mut().poll(&mut context).map(|read| read.is_err());
            (polled, reading)
        };
        let held: Vec<_> = (0..BODIES_BYTES_MAX / BODY_BYTES_MAX).map(|_| read(BODY_BYTES_MAX)).collect();
        assert!(held.iter().all(|(polled, _)| polled.is_pending()), "all of it is taken");
        assert_eq!(read(BODY_BYTES_FREE + 1).0, Poll::Ready(true), "no byte is left");
        assert_eq!(read(BODY_BYTES_FREE).0, Poll::Pending, "short ones are not charged");
        drop(held);
        assert_eq!(read(BODY_BYTES_MAX).0, Poll::Pending, "all of it is back");
        assert_eq!(read(BODY_BYTES_MAX + 1).0, Poll::Ready(true), "too long");
    }
}
