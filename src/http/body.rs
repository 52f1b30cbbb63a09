//! Request bodies.
//!
//! Promise: bounded in bytes and in time, and refused in the contract's order: media type 415, size 413, syntax 400,
//! shape 422. Absent: what the values mean.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use super::error::ApiError;

/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 2 << 20;
/// How long a body may take in all.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// Reads a JSON object.
pub(super) async fn read<T: DeserializeOwned>(parts: &Parts, body: Body) -> Result<T, ApiError> {
    if !is_json(parts) {
        return Err(ApiError::unreadable(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let bad_syntax = || ApiError::unreadable(StatusCode::BAD_REQUEST);
    let bytes = tokio::time::timeout(BODY_TIME_MAX, collect(body)).await.map_err(|_| bad_syntax())??;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad_syntax())?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| bad_syntax())?;
    // What follows would also take an array for an object.
    if !text.trim_start().starts_with('{') {
        return Err(ApiError::unreadable(StatusCode::UNPROCESSABLE_ENTITY));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => ApiError::unreadable(StatusCode::UNPROCESSABLE_ENTITY),
        Category::Io | Category::Syntax | Category::Eof => bad_syntax(),
    })
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

async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let too_long = || ApiError::unreadable(StatusCode::PAYLOAD_TOO_LARGE);
    let announced = http_body::Body::size_hint(&body);
    if announced.lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::unreadable(StatusCode::BAD_REQUEST))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        // Only a bug makes an answer that JSON cannot hold.
        Err(_) => ApiError::internal().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(content_type: Option<&str>) -> Parts {
        let mut request = axum::http::Request::new(());
        if let Some(value) = content_type {
            request.headers_mut().insert(header::CONTENT_TYPE, value.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn json_goes_by_several_names() {
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
}
