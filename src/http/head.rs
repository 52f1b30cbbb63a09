//! Request heads that cannot be read.
//!
//! Guarantees: the refusal names the byte, the header or the limit at fault, and repeats nothing of
//! the request except the name of a header. Not here: reading heads, which hyper does. This module
//! parses a head again after hyper has refused it.

use axum::http::StatusCode;

use super::error::ApiError;

/// Longest head of a request, in bytes; also what hyper buffers of a body at once.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of one request.
pub(super) const HEADERS_MAX: usize = 100;
/// Longest name of a header that a refusal repeats, in bytes.
const NAME_SHOWN_MAX: usize = 64;

/// Why hyper refused a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault<'a> {
    /// It has too many bytes or headers.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// Another fault, in hyper's words. They repeat nothing of the request.
    Malformed(&'a str),
}

/// The refusal of a head; `unread` is what hyper has read of the connection and not consumed.
pub(super) fn refusal(fault: Fault<'_>, unread: &[u8]) -> ApiError {
    let bad_request = |reason: &str| ApiError::malformed(StatusCode::BAD_REQUEST, reason);
    match fault {
        Fault::TooLarge if !unread.contains(&b'\n') => {
            let reason = format!("the request line is longer than {HEAD_BYTES_MAX} bytes");
            ApiError::malformed(StatusCode::URI_TOO_LONG, &reason)
        }
        Fault::TooLarge => {
            let reason = if unread.len() < HEAD_BYTES_MAX {
                format!("there are more than {HEADERS_MAX} headers")
            } else {
                format!("the request line and the headers are longer than {HEAD_BYTES_MAX} bytes")
            };
            ApiError::malformed(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &reason)
        }
        Fault::TooSlow => ApiError::malformed(
            StatusCode::REQUEST_TIMEOUT,
            "the request line and the headers did not arrive in time",
        ),
        // These heads were consumed before the fault was found.
        Fault::Malformed("invalid content-length parsed") => {
            bad_request("header content-length is not a number, or appears with different numbers")
        }
        Fault::Malformed("invalid transfer-encoding parsed") => {
            bad_request("header transfer-encoding does not end in chunked")
        }
        Fault::Malformed("unexpected transfer-encoding parsed") => {
            bad_request("header transfer-encoding is not part of HTTP/1.0")
        }
        Fault::Malformed("invalid URI") => match locate(unread) {
            Some((Part::Target, at)) => bad_request(&described(Part::Target, at)),
            _ => bad_request("the request target is not a URI"),
        },
        Fault::Malformed(words) => match locate(unread) {
            Some((part, at)) => bad_request(&described(part, at)),
            None => bad_request(words),
        },
    }
}

/// A part of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Method,
    Target,
    Version,
    /// A header's name.
    Name,
    /// The value of the header of this name.
    Value(&'a str),
}

fn described(part: Part<'_>, at: usize) -> String {
    let problem = match part {
        Part::Method => "the method has a byte that no method has".to_owned(),
        Part::Target => "the request target has a byte that no target has, or is missing".to_owned(),
        Part::Version => "the version is not HTTP/1.0 or HTTP/1.1".to_owned(),
        Part::Name => "the name of a header is not followed by a colon, or is missing".to_owned(),
        Part::Value(name) => format!("the value of header {name} has a control character"),
    };
    format!("{problem} (byte {} of the request)", at + 1)
}

/// The first part of a head that is not well-formed, and where.
fn locate(unread: &[u8]) -> Option<(Part<'_>, usize)> {
    let start = unread.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let head = &unread[start..];
    let method = token(head);
    if method == 0 || head.get(method) != Some(&b' ') {
        return Some((Part::Method, method));
    }
    let at = method + 1;
    let target = head[at..].iter().take_while(|byte| **byte > b' ' && **byte != 0x7f).count();
    if target == 0 || head.get(at + target) != Some(&b' ') {
        return Some((Part::Target, at + target));
    }
    let begin = at + target + 1;
    let (version, mut next) = line(head, begin)?;
    if !matches!(version, b"HTTP/1.0" | b"HTTP/1.1") {
        return Some((Part::Version, begin));
    }
    loop {
        let begin = next;
        let (text, after) = line(head, begin)?;
        next = after;
        if text.is_empty() {
            return None;
        }
        let name = token(text);
        if name == 0 || text.get(name) != Some(&b':') {
            return Some((Part::Name, begin + name));
        }
        let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
        if let Some(control) = text.iter().position(is_control) {
            let name = std::str::from_utf8(&text[..name.min(NAME_SHOWN_MAX)]).unwrap_or_default();
            return Some((Part::Value(name), begin + control));
        }
    }
}

/// The line at `at` without its end, and where the next one begins; `None` if it is not whole.
fn line(head: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = head[at..].iter().position(|byte| *byte == b'\n')?;
    let text = &head[at..at + length];
    Some((text.strip_suffix(b"\r").unwrap_or(text), at + length + 1))
}

/// Length of the token at the start: methods and header names are tokens.
fn token(text: &[u8]) -> usize {
    let is_token = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    text.iter().take_while(is_token).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_of_a_head_is_located() {
        for (head, expected) in [
            (&b"\r\nG@T / HTTP/1.1\r\n\r\n"[..], Some((Part::Method, 1))),
            (b"GET\r\n\r\n", Some((Part::Method, 3))),
            (b"GET  HTTP/1.1\r\n\r\n", Some((Part::Target, 4))),
            (b"GET /a\x01 HTTP/1.1\r\n\r\n", Some((Part::Target, 6))),
            (b"GET / HTTP/9.9\r\n\r\n", Some((Part::Version, 6))),
            (b"GET / HTTP/1.1\r\nhost x\r\n\r\n", Some((Part::Name, 20))),
            (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", Some((Part::Name, 16))),
            (b"GET / HTTP/1.1\na: b\nx-y: \x01\n\n", Some((Part::Value("x-y"), 25))),
            (b"GET / HTTP/1.1\r\na: b\tc\xff\r\n\r\n", None),
            (b"GET / HTTP/1.1\r\na: b", None),
            (b"", None),
        ] {
            assert_eq!(locate(head), expected, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn no_prefix_and_no_byte_of_a_head_causes_a_panic() {
        let head = b"\r\nPOST /locks/a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n";
        for length in 0..head.len() {
            locate(&head[..length]);
            for byte in 0..=u8::MAX {
                let mut other = head.to_vec();
                other[length] = byte;
                locate(&other);
            }
        }
    }
}
