//! The credentials of a request, in its header `authorization`.
//!
//! Not here: whom they authenticate.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The credentials of a request. They cannot be printed.
pub(super) enum Credentials<'a> {
    /// `Bearer secret`.
    Bearer(&'a str),
    /// `Basic base64(user:password)`.
    Basic {
        /// The name before the first colon.
        user: Vec<u8>,
        /// The rest.
        password: Vec<u8>,
    },
}

impl Credentials<'_> {
    /// The credentials; `None` without any that can be read.
    pub(super) fn of(headers: &HeaderMap) -> Option<Credentials<'_>> {
        if let Some(token) = bearer(headers) {
            return Some(Credentials::Bearer(token));
        }
        let text = value(headers)?.strip_prefix("Basic ")?;
        let mut user = BASE64_STANDARD.decode(text.trim()).ok()?;
        let colon = user.iter().position(|byte| *byte == b':')?;
        let password = user.split_off(colon + 1);
        user.truncate(colon);
        Some(Credentials::Basic { user, password })
    }
}

/// The token after `Bearer `. The contract demands this exact prefix.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    value(headers)?.strip_prefix("Bearer ").filter(|token| !token.is_empty())
}

fn value(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_and_basic_credentials_are_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            Credentials::of(&headers).map(|credentials| match credentials {
                Credentials::Bearer(token) => (Vec::new(), token.as_bytes().to_vec()),
                Credentials::Basic { user, password } => (user, password),
            })
        };
        let basic =
            |user: &str, password: &str| Some((user.as_bytes().to_vec(), password.as_bytes().to_vec()));
        assert_eq!(read("Bearer a b"), basic("", "a b"));
        assert_eq!(read("Basic YWxpY2U6czNjOnJldA=="), basic("alice", "s3c:ret"));
        assert_eq!(read("Basic Og=="), basic("", ""));
        for text in ["bearer a", "Bearer ", "Basic", "Basic !", "Basic YWxpY2U=", "Digest x", ""] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(Credentials::of(&HeaderMap::new()).is_none());
    }
}
