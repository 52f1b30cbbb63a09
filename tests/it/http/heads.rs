//! Requests whose heads cannot be read, and the hosts that they name.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use super::{Answer, exchange, read_answer, server};
use crate::support::server::TestServer;
use crate::support::transcript::http::{Names, format_answer};

/// What a refusal says; checks that it has the contract's shape.
fn details(answer: &Answer) -> String {
    format_answer(&mut Names::default(), "GET", answer);
    let body = answer.json();
    assert_eq!(body["error"], "Invalid input");
    assert_eq!(body["code"], "invalid_input");
    let details = body["details"].as_str().expect("text");
    details.strip_prefix("Invalid input: ").expect("a reason").to_owned()
}

#[test]
fn a_malformed_head_is_refused_with_its_fault() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let flood: String = (0..101).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let long = "a".repeat(1 << 20);
    for (request, status, reason) in [
        (
            format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
            414,
            "the request line is longer than 16384 bytes",
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
            431,
            "the request line and the headers are longer than 16384 bytes",
        ),
        (format!("GET / HTTP/1.1\r\n{flood}\r\n"), 431, "there are more than 100 headers"),
        (
            "POST /sessions HTTP/1.1\r\nhost: x\r\ncontent-length: two\r\n\r\n".into(),
            400,
            "header content-length is not a number, or appears with different numbers",
        ),
        (
            "POST /sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n".into(),
            400,
            "header content-length is not a number, or appears with different numbers",
        ),
        (
            "POST /sessions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n".into(),
            400,
            "header transfer-encoding does not end in chunked",
        ),
        (
            "POST /sessions HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".into(),
            400,
            "header transfer-encoding is not part of HTTP/1.0",
        ),
        (
            "G@T / HTTP/1.1\r\nhost: x\r\n\r\n".into(),
            400,
            "the method has a byte that no method has (byte 2 of the request)",
        ),
        (
            "GET /a\u{1} HTTP/1.1\r\nhost: x\r\n\r\n".into(),
            400,
            "the request target has a byte that no target has, or is missing (byte 7 of the request)",
        ),
        ("GET /a<b HTTP/1.1\r\nhost: x\r\n\r\n".into(), 400, "the request target is not a URI"),
        (
            "GET / HTTP/9.9\r\n\r\n".into(),
            400,
            "the version is not HTTP/1.0 or HTTP/1.1 (byte 7 of the request)",
        ),
        (
            "GET / HTTP/1.1\r\nhost: x\r\nsecret value\r\n\r\n".into(),
            400,
            "the name of a header is not followed by a colon, or is missing (byte 32 of the request)",
        ),
        (
            "GET / HTTP/1.1\r\nhost: x\r\nx-y: secret\u{1}\r\n\r\n".into(),
            400,
            "the value of header x-y has a control character (byte 37 of the request)",
        ),
        (
            "*3\r\n$4\r\nLOCK\r\n$1\r\na\r\n$1\r\nb\r\n".into(),
            400,
            "the method has a byte that no method has (byte 3 of the request)",
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            400,
            "the version is not HTTP/1.0 or HTTP/1.1 (byte 7 of the request)",
        ),
    ] {
        let begin: String = request.chars().take(60).collect();
        let answer = exchange(addr, request.as_bytes()).unwrap_or_else(|| panic!("no answer: {begin:?}"));
        assert_eq!((answer.status, details(&answer).as_str()), (status, reason), "{begin:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")));
        // Also behind a request that could be read.
        let mut stream = TcpStream::connect(addr).expect("a connection");
        // A long head is refused before all of it is sent.
        let _ = stream.write_all(format!("GET /locks/a HTTP/1.1\r\nhost: x\r\n\r\n{request}").as_bytes());
        let mut reader = BufReader::new(stream);
        let first = read_answer(&mut reader, false).expect("an answer");
        assert_eq!((first.status, first.header("connection")), (401, None), "{begin:?}");
        let second = read_answer(&mut reader, false).unwrap_or_else(|| panic!("no answer: {begin:?}"));
        assert_eq!((second.status, details(&second).as_str()), (status, reason), "{begin:?}");
    }
}

#[test]
fn a_head_has_its_limit_to_the_byte() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let sized = |bytes: usize| {
        let head = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ";
        format!("{head}{}\r\n\r\n", "a".repeat(bytes - head.len() - 4))
    };
    let numbered = |headers: usize| {
        let more: String = (0..headers - 2).map(|n| format!("x-{n}: {n}\r\n")).collect();
        format!("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n")
    };
    let status = |request: String| exchange(addr, request.as_bytes()).map(|answer| answer.status);
    assert_eq!(status(sized(16 << 10)), Some(200));
    assert_eq!(status(sized((16 << 10) + 1)), Some(431));
    assert_eq!(status(numbered(100)), Some(200));
    assert_eq!(status(numbered(101)), Some(431));
}

/// Every method and path that the server has.
fn routes() -> Vec<(String, String)> {
    let filled =
        |path: &str| path.replace("{name}", "a").replace("{id}", "00000000-0000-4000-8000-000000000000");
    let operations = super::document::operations().into_iter();
    operations.map(|operation| (operation.method.to_owned(), filled(operation.path))).collect()
}

fn status(addr: SocketAddr, method: &str, path: &str, version: &str, headers: &str) -> u16 {
    let head = format!("{method} {path} {version}\r\nconnection: close\r\n{headers}\r\n");
    exchange(addr, head.as_bytes()).expect("an answer").status
}

#[test]
fn every_request_of_http_1_1_names_its_host() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let none_such = [("GET", "/nothing"), ("PUT", "/locks/a"), ("OPTIONS", "/locks/a")];
    let none_such = none_such.map(|(method, path)| (method.to_owned(), path.to_owned()));
    for (method, path) in routes().into_iter().chain(none_such) {
        for hosts in ["", "host: a\r\nhost: a\r\n", "host: a/b\r\n", "host: a b\r\n", "host: \u{e9}\r\n"] {
            assert_eq!(status(addr, &method, &path, "HTTP/1.1", hosts), 400, "{method} {path} {hosts:?}");
        }
        let request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n\r\n");
        let answer = exchange(addr, request.as_bytes()).expect("an answer");
        if method != "OPTIONS" {
            assert_eq!(details(&answer), "header host is missing, which HTTP/1.1 requires");
        }
        assert_ne!(status(addr, &method, &path, "HTTP/1.1", "host: any.example\r\n"), 403, "{method} {path}");
    }
    assert_eq!(status(addr, "GET", "/health", "HTTP/1.0", ""), 200);
}

#[test]
fn without_tokens_every_path_is_for_requests_to_this_machine() {
    let server = TestServer::manual(&["--http-admin-key", "key-of-admin"]);
    let addr = server.http.expect("HTTP");
    for (method, path) in routes() {
        let asked = |headers: &str| status(addr, &method, &path, "HTTP/1.1", headers);
        assert_eq!(asked("host: evil.example\r\n"), 403, "{method} {path}");
        if path.ends_with("/watch") {
            // It would not end.
            continue;
        }
        assert_ne!(asked("host: localhost\r\n"), 403, "{method} {path}");
        assert_ne!(asked("host: evil.example\r\nx-admin-key: key-of-admin\r\n"), 403, "{method} {path}");
    }
}
