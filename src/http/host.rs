//! Which host a request is meant for.
//!
//! Guarantees: every HTTP/1.1 request names one well-formed host. Where no credentials are needed,
//! that host must be this machine, on every path. So a web page whose name resolves to this machine
//! reads nothing. Not here: credentials.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Version, header};

use super::error::ApiError;

/// Why the request is refused for its host.
pub(super) fn check(request: &Request, must_be_local: bool) -> Result<(), ApiError> {
    let malformed = |reason| Err(ApiError::malformed(StatusCode::BAD_REQUEST, reason));
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() >= Version::HTTP_11 => {
            return malformed("header host is missing, which HTTP/1.1 requires");
        }
        (Some(_), Some(_)) => return malformed("header host appears more than once"),
        (Some(host), None) if !host.as_bytes().iter().all(|byte| is_of_host(*byte)) => {
            return malformed("header host is not host or host:port");
        }
        _ => {}
    }
    if must_be_local && !is_local(request) {
        return Err(ApiError::forbidden(
            "without credentials only requests whose Host is localhost are served; set --users or --requirepass-file",
        ));
    }
    Ok(())
}

/// Whether RFC 3986 allows this byte in a host, or between host and port.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// Whether the request names this machine as such, or nothing.
fn is_local(request: &Request) -> bool {
    let is_loopback = |host: &str| {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(""),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let named =
        |headers: &HeaderMap| headers.get(header::HOST).map(|host| host.to_str().is_ok_and(is_loopback));
    // A target that names a host counts before the header.
    let target = request.uri().authority().map(|authority| is_loopback(authority.host()));
    target != Some(false) && named(request.headers()) != Some(false)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(hosts: &[&str], version: Version, target: &str, must_be_local: bool) -> Option<u16> {
        use axum::response::IntoResponse;
        let mut request = Request::builder().uri(target).version(version);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let checked = check(&request.body(Body::empty()).unwrap(), must_be_local);
        checked.err().map(|error| error.into_response().status().as_u16())
    }

    #[test]
    fn one_host_is_named_in_a_form_that_a_host_has() {
        for (hosts, version, expected) in [
            (&[][..], Version::HTTP_11, Some(400)),
            (&[], Version::HTTP_10, None),
            (&["a", "a"], Version::HTTP_11, Some(400)),
            (&["a", "a"], Version::HTTP_10, Some(400)),
            (&["a b"], Version::HTTP_11, Some(400)),
            (&["a/b"], Version::HTTP_11, Some(400)),
            (&["localhost:7380@evil.example"], Version::HTTP_11, Some(400)),
            (&["locks.example:7380"], Version::HTTP_11, None),
            (&[""], Version::HTTP_11, None),
        ] {
            assert_eq!(status(hosts, version, "/", false), expected, "{hosts:?} {version:?}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for (host, expected) in [
            ("localhost", None),
            ("LocalHost:7380", None),
            ("127.0.0.1:7380", None),
            ("127.9.9.9", None),
            ("[::1]:7380", None),
            ("evil.example", Some(403)),
            ("localhost.evil.example:7380", Some(403)),
            ("192.168.0.1:7380", Some(403)),
            ("", Some(403)),
        ] {
            assert_eq!(status(&[host], Version::HTTP_11, "/", true), expected, "{host}");
        }
        assert_eq!(status(&[], Version::HTTP_10, "/", true), None);
        assert_eq!(status(&["localhost"], Version::HTTP_11, "http://localhost:7380/", true), None);
        assert_eq!(status(&["localhost"], Version::HTTP_11, "http://evil.example/", true), Some(403));
    }
}
