//! Request bodies that are not read, that are late, or that are too many at once.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Answer, call, credentials, read_answer, server};
use crate::support::until;

const LIMIT: usize = 2 << 20;
const SESSION: &str = "/sessions/00000000-0000-4000-8000-000000000000";

/// A connection whose answers are read one by one.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(addr: SocketAddr) -> Connection {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        // Far longer than anything takes.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
        Connection(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("a server that reads");
    }

    fn answer(&mut self) -> Answer {
        read_answer(&mut self.0, false).expect("an answer")
    }

    /// Whether there is no answer yet.
    fn is_waiting(&self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).expect("a socket option");
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("a socket option");
        seen.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Asserts that the server closes the connection, and does not reset it.
    fn assert_closed(&mut self, why: &str) {
        let mut rest = Vec::new();
        let end = self.0.read_to_end(&mut rest).map_err(|error| error.kind());
        assert_eq!((end, rest.len()), (Ok(0), 0), "{why}");
    }
}

fn head(who: &str, method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{}{headers}", credentials(who))
}

/// Requests that are answered without their bodies, and with which status.
fn unread() -> Vec<(&'static str, &'static str, String, &'static str, u16)> {
    let json = "content-type: application/json\r\n";
    vec![
        ("alice", "POST", format!("{SESSION}/keepalive"), "", 404),
        ("alice", "POST", "/sessions/nonsense/keepalive".into(), "", 400),
        ("anonymous", "POST", format!("{SESSION}/keepalive"), "", 401),
        ("alice", "DELETE", SESSION.into(), json, 404),
        ("alice", "GET", "/locks/a".into(), json, 200),
        ("alice", "GET", "/locks".into(), json, 200),
        ("anonymous", "GET", "/health".into(), json, 200),
        ("alice", "POST", "/nothing".into(), json, 404),
        ("alice", "POST", "/locks//acquire".into(), json, 404),
        ("alice", "POST", "/locks/%ff/acquire".into(), json, 400),
        ("alice", "PUT", "/locks/a/acquire".into(), json, 405),
        ("alice", "POST", "/locks/a/acquire".into(), "content-type: text/plain\r\n", 415),
        ("anonymous", "OPTIONS", "/locks/a/acquire".into(), json, 200),
    ]
}

#[test]
fn a_connection_stays_open_after_an_unread_body() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let session = call(addr, "alice", "POST", "/sessions", "{}").json();
    let kept = format!("/sessions/{}/keepalive", session["session_id"].as_str().expect("an id"));
    for (who, method, path, headers, status) in unread().into_iter().chain([("alice", "POST", kept, "", 200)])
    {
        for framing in ["content-length: 2\r\n", "transfer-encoding: chunked\r\n"] {
            let mut connection = Connection::open(addr);
            connection.send(format!("{}{framing}\r\n", head(who, method, &path, headers)).as_bytes());
            // Meanwhile the server sees the head without its body.
            assert_eq!(call(addr, "anonymous", "GET", "/health", "").status, 200);
            let body = if framing.contains("chunked") { "2\r\n{}\r\n0\r\n\r\n" } else { "{}" };
            connection.send(body.as_bytes());
            connection.send(head("anonymous", "GET", "/status", "\r\n").as_bytes());
            let first = connection.answer();
            assert_eq!(
                (first.status, first.header("connection")),
                (status, None),
                "{method} {path} {framing}"
            );
            assert_eq!(connection.answer().status, 200, "{method} {path} {framing}");
        }
    }
}

#[test]
fn a_client_whose_body_is_too_long_can_read_the_response() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let json = "content-type: application/json\r\n";
    let too_long = [("alice", "POST", "/locks/a/acquire".to_owned(), json, 413)];
    for (who, method, path, headers, status) in unread().into_iter().chain(too_long) {
        // In chunks the length is not known before the limit is passed, and what is left then may
        // be short.
        for (is_chunked, length) in [(false, LIMIT + 1), (true, 2 * LIMIT)] {
            let body = " ".repeat(length);
            let head = head(who, method, &path, headers);
            let request = if is_chunked {
                format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
            } else {
                format!("{head}content-length: {}\r\n\r\n{body}", body.len())
            };
            let mut connection = Connection::open(addr);
            // As clients do that send all before they read: the server must not reset the
            // connection meanwhile.
            connection.send(request.as_bytes());
            let answer = connection.answer();
            let seen = (answer.status, answer.header("connection"));
            assert_eq!(seen, (status, Some("close")), "{method} {path} {is_chunked}");
            connection.assert_closed(&path);
        }
    }
}

#[test]
fn a_response_announces_the_close_if_the_end_of_the_body_is_unknown() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let json = "content-type: application/json\r\n";
    for (head, body, status) in [
        // It never comes.
        (head("alice", "DELETE", SESSION, "content-length: 10\r\n\r\n"), "", 404),
        (head("alice", "POST", "/nothing", "transfer-encoding: chunked\r\n\r\n"), "5\r\nab", 404),
        // It is no body.
        (head("alice", "POST", "/nothing", "transfer-encoding: chunked\r\n\r\n"), "zz\r\n", 404),
        (
            head("alice", "POST", "/locks/a/acquire", &format!("{json}transfer-encoding: chunked\r\n\r\n")),
            "zz\r\n",
            400,
        ),
    ] {
        let mut connection = Connection::open(addr);
        connection.send(head.as_bytes());
        connection.send(body.as_bytes());
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{head}");
        connection.assert_closed(&head);
    }
}

#[test]
fn an_expected_body_that_no_route_reads_is_not_requested() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let json = "content-type: application/json\r\nexpect: 100-continue\r\n";
    for (who, path, length, status) in [
        ("alice", "/locks/a/acquire", LIMIT + 1, 413),
        ("alice", "/nothing", 2, 404),
        ("alice", "/locks/%ff/acquire", 2, 400),
    ] {
        let mut connection = Connection::open(addr);
        let head = head(who, "POST", path, &format!("{json}content-length: {length}\r\n\r\n"));
        connection.send(head.as_bytes());
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path}");
        connection.assert_closed(path);
    }
    let mut connection = Connection::open(addr);
    let head = head("alice", "POST", "/locks/a/acquire", &format!("{json}content-length: 2\r\n\r\n"));
    connection.send(head.as_bytes());
    let mut line = [0; 25];
    connection.0.read_exact(&mut line).expect("an interim answer");
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.send(b"{}");
    assert_eq!(connection.answer().status, 200);
}

/// A connection that has sent all of a long body but its last byte.
fn holding(addr: SocketAddr, who: &str) -> Connection {
    let headers = format!("content-type: application/json\r\ncontent-length: {LIMIT}\r\n\r\n");
    let mut connection = Connection::open(addr);
    connection.send(head(who, "POST", "/locks/a/acquire", &headers).as_bytes());
    connection.send(" ".repeat(LIMIT - 1).as_bytes());
    connection
}

#[test]
fn bodies_in_flight_are_bounded_for_each_user_and_for_anonymous_callers() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let padded = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    let ask = |who: &str, length: usize| call(addr, who, "POST", "/locks/b/acquire", &padded(length));
    let answered = |who: &str| if who == "anonymous" { 401 } else { 200 };
    call(addr, "alice", "POST", "/locks/b/acquire", "{}");
    for (who, other) in [("anonymous", "alice"), ("alice", "bob"), ("bob", "anonymous")] {
        assert_eq!(ask(who, LIMIT).status, answered(who), "{who} alone");
        let mut held: Vec<Connection> = Vec::new();
        let refused = (0..1000).find_map(|_| {
            // The probe may have taken the room of one of them.
            held.retain(Connection::is_waiting);
            held.extend((held.len()..8).map(|_| holding(addr, who)));
            Some(ask(who, LIMIT)).filter(|answer| answer.status != answered(who))
        });
        let refused = refused.expect("a limit");
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{who}");
        assert_eq!(refused.json()["code"], "rate_limited");
        assert_eq!(refused.json()["retry_after_ms"], 1000);
        // What is within every connection's own share, and what others send, is none of that.
        assert_eq!(ask(who, 8 << 10).status, answered(who), "{who}");
        assert_eq!(ask(other, LIMIT).status, answered(other), "{other} beside {who}");
        drop(held);
        until(|| ask(who, LIMIT).status == answered(who));
    }
}
