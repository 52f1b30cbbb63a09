//! Lock names in URLs.
//!
//! Guarantees: an HTTP name is a Redis key of database 0 that is a readable path; every other key
//! is shown percent-encoded and cannot be locked. Not here: which user may use which name.

use axum::http::StatusCode;
use axum::http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::error::ApiError;
use crate::domain::{BorrowedName, DATABASES, Limits, LockName};

/// Longest name, in bytes of UTF-8.
const NAME_BYTES_MAX: usize = 256;
/// Longest part between slashes, in bytes.
const COMPONENT_BYTES_MAX: usize = 64;

const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The decoded second segment of the path: a lock name or the id of a session.
pub(super) fn segment(parts: &Parts) -> Result<String, ApiError> {
    let raw = parts.uri.path().split('/').nth(2).unwrap_or("");
    let decoded = percent_decode_str(raw).decode_utf8();
    decoded.map(Into::into).map_err(|error| {
        let reason = format!(
            "segment 2 of the path is not UTF-8 once it is decoded (byte {})",
            error.valid_up_to() + 1
        );
        ApiError::malformed(StatusCode::BAD_REQUEST, &reason)
    })
}

/// The key of a database that the query names: any bytes. In a path, clients and proxies would take
/// some keys for something else, such as `..`.
pub(super) fn key(parts: &Parts) -> Result<LockName, ApiError> {
    let key = query_bytes(parts, "name")?;
    let key = key.ok_or_else(|| ApiError::invalid("the query parameter name is missing"))?;
    LockName::new(database(parts)?, &key).map_err(|invalid| ApiError::invalid_name(&invalid.to_string()))
}

/// The database that the query names; 0 without a name.
pub(super) fn database(parts: &Parts) -> Result<u8, ApiError> {
    let Some(text) = query(parts, "db")? else { return Ok(0) };
    let number = text.parse().ok().filter(|number| *number < DATABASES);
    number.ok_or_else(|| ApiError::invalid(&format!("db is a number below {DATABASES}")))
}

/// The bytes behind a text of [`escape`].
pub(super) fn unescape(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// The value of the query parameter `name`. A repeated parameter is an error; others are ignored.
pub(super) fn query(parts: &Parts, name: &str) -> Result<Option<String>, ApiError> {
    let value = query_bytes(parts, name)?.map(String::from_utf8).transpose();
    value.map_err(|_| malformed(&format!("query parameter {name} is not UTF-8 once it is decoded")))
}

/// [`query`], for a value of any bytes.
fn query_bytes(parts: &Parts, name: &str) -> Result<Option<Vec<u8>>, ApiError> {
    let mut found = None;
    for (at, pair) in parts.uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = String::from_utf8(unescape(&key.replace('+', " "))).map_err(|_| {
            malformed(&format!("the name of query parameter {} is not UTF-8 once it is decoded", at + 1))
        })?;
        if key != name {
            continue;
        }
        if found.replace(unescape(&value.replace('+', " "))).is_some() {
            return Err(malformed(&format!("query parameter {name} appears more than once")));
        }
    }
    Ok(found)
}

fn malformed(reason: &str) -> ApiError {
    ApiError::malformed(StatusCode::BAD_REQUEST, reason)
}

fn problem(name: &str) -> Option<String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Some(format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')) {
        return Some("a name consists of letters, digits, '-', '_', '.' and '/'".into());
    }
    for component in name.split('/') {
        if component.is_empty() {
            return Some("slashes stand between parts, one at a time".into());
        }
        if component == ".." {
            return Some("no part is '..'".into());
        }
        if component.len() > COMPONENT_BYTES_MAX {
            return Some(format!("a part between slashes has at most {COMPONENT_BYTES_MAX} bytes"));
        }
    }
    None
}

/// The lock that a name stands for.
pub(super) fn parse(limits: &Limits, name: &str) -> Result<LockName, ApiError> {
    if let Some(problem) = problem(name) {
        return Err(ApiError::invalid_name(&problem));
    }
    let name = limits.lock_name(0, name.as_bytes());
    name.map(BorrowedName::to_owned).map_err(|invalid| ApiError::invalid_name(&invalid.to_string()))
}

/// Returns whether the names of a user's locks can start with `namespace` and a dot.
pub fn is_namespace(namespace: &str) -> bool {
    problem(&format!("{namespace}.x")).is_none()
}

/// A key as HTTP shows it: as it is if HTTP can name it, otherwise percent-encoded.
pub(super) fn escape(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(name) if problem(name).is_none() => name.to_owned(),
        Ok(text) => utf8_percent_encode(text, KEPT).to_string(),
        Err(_) => percent_encoding::percent_encode(key, KEPT).to_string(),
    }
}

/// Text as a header can carry it: percent-encoded but for ASCII letters, digits, `-`, `_` and `.`.
pub(super) fn header_safe(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_at_their_limits() {
        let long = "a".repeat(64);
        let whole = [long.as_str(); 3].join("/") + "/" + &"b".repeat(61);
        assert_eq!(whole.len(), 256);
        for good in ["a", "db/primary", "a.b-c_d", "ä/日本", ".", "./a", "__election", "²", &long, &whole]
        {
            assert_eq!(problem(good), None, "{good}");
        }
        let past = "a".repeat(65);
        let whole_past = whole.clone() + "c";
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "a b",
            "a:b",
            "a@b",
            "a+b",
            "a~",
            "a!",
            "a%b",
            &past,
            &whole_past,
        ] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn keys_that_http_cannot_name_are_shown_encoded() {
        assert_eq!(escape(b"db/primary"), "db/primary");
        assert_eq!(escape("ä".as_bytes()), "ä");
        assert_eq!(escape(b"job:1"), "job%3A1");
        assert_eq!(escape(b"50%/a"), "50%25%2Fa");
        assert_eq!(escape(b"\xff\0"), "%FF%00");
        assert_eq!(escape(b"a//b"), "a%2F%2Fb");
    }

    #[test]
    fn the_pattern_in_the_document_has_the_characters_of_names() {
        let document = include_str!("openapi.yaml");
        let pattern = document.split("pattern: '").nth(1).and_then(|rest| rest.split('\'').next());
        const PART: &str = r"[A-Za-z0-9_.\-\u0080-\uffff]{1,64}";
        assert_eq!(pattern, Some(format!("^{PART}(/{PART})*$").as_str()));
        for c in (0..=127u8).map(char::from) {
            let is_in_pattern = c.is_ascii_alphanumeric() || "_.-/".contains(c);
            assert_eq!(problem(&format!("a{c}a")).is_none(), is_in_pattern, "{c:?}");
        }
    }
}
