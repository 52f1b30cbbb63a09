//! Clients that mean harm, or are broken.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use crate::support::client::encode;
use crate::support::server::TestServer;
use crate::support::until;

fn answers(server: &TestServer) {
    assert_eq!(server.connect().line("PING"), "+PONG", "others are served");
}

#[test]
fn a_malformed_request_gets_an_error_and_a_closed_connection() {
    let server = TestServer::real(&[]);
    for (bytes, expected) in [
        (&b"*x\r\n"[..], "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'\r\n"),
        (
            b"*1\r\n$99999999999\r\n",
            "-ERR Protocol error: invalid bulk length: at most 1048576 (--arg-bytes-max)\r\n",
        ),
        (
            b"*1000000000\r\n",
            "-ERR Protocol error: invalid multibulk length: at most 1048576 (--args-max)\r\n",
        ),
        (b"\"unbalanced\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"PING\r\n*x\r\n", "+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "-ERR wrong number of arguments for 'get' command\r\n"),
        (b"POST / HTTP/1.1\r\n\r\n", ""),
    ] {
        let mut client = server.connect();
        client.send_bytes(bytes);
        assert_eq!(
            String::from_utf8_lossy(&client.rest()),
            expected,
            "{:?}",
            bytes.escape_ascii().to_string()
        );
    }
    answers(&server);
}

#[test]
fn the_error_arrives_even_if_much_was_sent_after_the_fault() {
    let server = TestServer::real(&[]);
    for _ in 0..20 {
        let mut client = server.connect();
        let mut bytes = b"*1\r\n$x\r\n".to_vec();
        bytes.extend([b'1'; 200_000]);
        client.send_bytes(&bytes);
        assert_eq!(client.reply(), "-ERR Protocol error: invalid bulk length");
        assert_eq!(client.reply(), "(closed)");
    }
}

#[test]
fn the_memory_of_a_transaction_is_bounded() {
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    client.line("MULTI");
    for _ in 0..1000 {
        client.send(&["COMMAND", "DOCS"]);
    }
    client.send(&["LOCK", "k", "me"]);
    (0..1001).for_each(|_| assert_eq!(client.reply(), "+QUEUED"));
    let replies = client.line("EXEC");
    assert!(replies.len() < 64 << 20, "{}", replies.len());
    assert!(replies.contains("the command was not executed"));
    assert!(replies.ends_with("\n  :1"), "what changes something is done");
}

#[test]
fn the_server_survives_every_prefix_and_bit_flip_of_a_request() {
    let server = TestServer::real(&[]);
    let request = encode(&["LOCK", "key", "owner", "PX", "1000", "WAIT", "0", "META", "text"]);
    for length in 0..request.len() {
        let mut client = server.connect();
        client.send_bytes(&request[..length]);
        drop(client);
    }
    for bit in 0..request.len() * 8 {
        let mut flipped = request.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // What follows makes an incomplete request complete, or is garbage to it.
        flipped.extend_from_slice(b"\r\nQUIT\r\n");
        let mut client = server.connect();
        client.send_bytes(&flipped);
        client.stream().shutdown(std::net::Shutdown::Write).expect("a half-closed socket");
        client.rest();
    }
    answers(&server);
}

#[test]
fn an_error_does_not_change_the_connection() {
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    let long = "x".repeat(5000);
    for words in [
        vec!["LOCK", "k"],
        vec!["LOCK", "", "me"],
        vec!["LOCK", &long, "me"],
        vec!["LOCK", "k", ""],
        vec!["LOCK", "k", &long],
        vec!["LOCK", "k", "me", "PX", "0"],
        vec!["LOCK", "k", "me", "PX", "-5"],
        vec!["LOCK", "k", "me", "PX", "99999999999999999999"],
        vec!["LOCK", "k", "me", "EX", "9223372036854775807"],
        vec!["LOCK", "k", "me", "PX", "soon"],
        vec!["LOCK", "k", "me", "EX", "1", "PX", "1"],
        vec!["LOCK", "k", "me", "SHARED", "LIMIT", "2"],
        vec!["LOCK", "k", "me", "LIMIT", "0"],
        vec!["LOCK", "k", "me", "WAIT"],
        vec!["LOCK", "k", "me", "WAIT", "-1"],
        vec!["LOCK", "k", "me", "CONN", "SESSION", "00000000000000000000000000000000"],
        vec!["LOCK", "k", "me", "META", &long],
        vec!["LOCK", "k", "me", "\r\n"],
        vec!["\r\n-ERR forged", "x\r\n+OK"],
        vec!["SELECT", "16"],
        vec!["SESSION", "OPEN", "EX", "0"],
        vec!["LOCKS", "x"],
        vec!["LOCKS", "0", "COUNT", "0"],
    ] {
        let reply = client.call(&words);
        assert!(reply.starts_with('-'), "{words:?}: {reply}");
        assert_eq!(client.line("PING"), "+PONG", "{words:?}");
    }
    assert_eq!(client.line("LOCKS 0"), "*2\n  \"0\"\n  *0", "nothing was taken");
}

#[test]
fn a_client_that_reads_no_replies_is_disconnected() {
    let server = TestServer::real(&["--output-stall-ms", "50"]);
    let deaf = server.connect();
    let request = encode(&["ECHO", &"x".repeat(8000)]);
    deaf.stream().set_write_timeout(Some(Duration::from_millis(5))).expect("a socket option");
    // The server stops reading long before it would run out of memory; then it closes.
    loop {
        match deaf.stream().write_all(&request) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => {
                break assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
            }
        }
    }
    answers(&server);
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected() {
    let server = TestServer::real(&["--subscriber-bytes-max", "20000", "--output-stall-ms", "60000"]);
    let mut deaf = server.connect();
    assert_eq!(deaf.line("SUBSCRIBE news"), ">3\n  \"subscribe\"\n  \"news\"\n  :1".replace('>', "*"));
    let mut publisher = server.connect();
    let message = "x".repeat(1000);
    // The socket's buffers fill, then the subscriber's queue; then the server disconnects it.
    while publisher.call(&["PUBLISH", "news", &message]) == ":1" {}
    answers(&server);
}

#[test]
fn a_connection_beyond_the_limit_gets_an_error() {
    let server = TestServer::real(&["--connections-max", "2"]);
    let (mut first, second) = (server.connect(), server.connect());
    assert_eq!(first.line("PING"), "+PONG");
    let mut third = server.connect();
    assert_eq!(third.reply(), "-ERR max number of clients reached");
    drop(second);
    until(|| server.connect().line("PING") == "+PONG");
}

#[test]
fn requests_are_small_and_refused_before_authentication() {
    let server = TestServer::real(&["--requirepass", "swordfish"]);
    let mut client = server.connect();
    assert_eq!(client.line("LOCK k me"), "-NOAUTH Authentication required.");
    assert_eq!(client.line("AUTH wrong"), "-WRONGPASS invalid username-password pair or user is disabled.");
    client.send_bytes(b"*17\r\n");
    assert_eq!(
        client.reply(),
        "-ERR Protocol error: invalid multibulk length: at most 16 before authentication"
    );
    let mut client = server.connect();
    assert_eq!(client.line("AUTH swordfish"), "+OK");
    assert_eq!(client.line("LOCK k me"), ":1");
    assert!(!client.line("CONFIG GET *").contains("swordfish"));
}

#[test]
fn an_idle_connection_is_closed_after_the_configured_time() {
    let server = TestServer::real(&["--idle-timeout-s", "1"]);
    let mut client = server.connect();
    assert_eq!(client.line("PING"), "+PONG");
    assert_eq!(client.reply(), "(closed)");
}
