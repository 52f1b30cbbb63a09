//! The list of keys, single keys, and what operators do to them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{call, exchange, metric, request, server};
use crate::support::client::encode;
use crate::support::server::TestServer;
use crate::support::until;

/// The keys of a page, with blanks between them.
fn keys(addr: SocketAddr, who: &str, query: &str) -> String {
    let page = call(addr, who, "GET", &format!("/keys?{query}"), "").json();
    let keys = page["keys"].as_array().expect("keys").iter();
    keys.map(|row| row["key"].as_str().expect("a key")).collect::<Vec<_>>().join(" ")
}

#[test]
fn keys_of_any_type_are_sorted_filtered_and_paged() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let mut redis = server.connect();
    for line in ["LOCK b me EX 9", "LOCK a:1 me EX 5", "HSET h f 1", "LOCK team.x me EX 7 SHARED"] {
        redis.line(line);
    }
    let mut waiter = server.connect();
    waiter.send(&["LOCK", "team.x", "you", "EX", "7", "WAIT", "60000"]);
    until(|| server.engine.lock_stats().waiting() == 1);
    assert_eq!(keys(addr, "admin", ""), "a%3A1 b h team.x");
    assert_eq!(keys(addr, "admin", "sort=newest"), "team.x h a%3A1 b");
    assert_eq!(keys(addr, "admin", "sort=ending"), "a%3A1 team.x b h");
    assert_eq!(keys(addr, "admin", "sort=waiting&limit=1"), "team.x");
    assert_eq!(keys(addr, "admin", "prefix=a:"), "a%3A1");
    assert_eq!(keys(addr, "admin", "db=1"), "");
    let mut after = String::new();
    for expected in ["a%3A1 b", "h team.x"] {
        let page = call(addr, "admin", "GET", &format!("/keys?limit=2{after}"), "").json();
        assert_eq!(page["total"], 4);
        assert_eq!(keys(addr, "admin", &format!("limit=2{after}")), expected);
        after = format!("&after={}", page["next_page"].as_str().unwrap_or("").replace('%', "%25"));
    }
    // These users may not run SCAN, and carol sees only her namespace.
    assert_eq!(keys(addr, "alice", ""), "a%3A1 b team.x");
    assert_eq!(keys(addr, "carol", ""), "team.x");
    assert_eq!(call(addr, "carol", "GET", "/key?name=b", "").status, 403);
    for path in ["/key", "/key?name=a&name=b", "/key?name=a&db=16"] {
        assert_eq!(call(addr, "admin", "GET", path, "").status, 400, "{path}");
    }
    let one = call(addr, "carol", "GET", "/key?name=team%2Ex", "").json();
    assert_eq!((&one["kind"], &one["waiters_total"]), (&"shared".into(), &1.into()));
    assert_eq!(one["waiters"][0]["owner"], "you");
    assert_eq!(call(addr, "alice", "GET", "/server", "").status, 403);
    let shown = call(addr, "admin", "GET", "/server", "").json();
    assert_eq!((&shown["locks"], &shown["cluster"]["nodes"][0]["role"]), (&3.into(), &"leader".into()));
}

#[test]
fn a_key_may_have_any_bytes() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let mut redis = server.connect();
    for (key, encoded) in [
        (&b""[..], ""),
        (b".", "."),
        (b"..", "%2e%2E"),
        (b"a/../b", "a%2F..%2Fb"),
        (b"a/../b", "a/../b"),
        (b"//", "%2F%2F"),
        (b"%2e", "%252e"),
        (b"a b+c&d=e#?", "a+b%2Bc%26d%3De%23%3F"),
        (b"\0\r\n\xff", "%00%0D%0A%FF"),
    ] {
        redis.send_bytes(&encode(&[&b"HSET"[..], key, b"field", b"value"]));
        redis.reply();
        let shown = call(addr, "admin", "GET", &format!("/key?name={encoded}"), "").json();
        assert_eq!(shown["kind"], "hash", "{encoded}");
        let again = shown["key"].as_str().expect("a key");
        assert_eq!(call(addr, "admin", "GET", &format!("/key?name={again}"), "").json()["key"], again);
    }
}

#[test]
fn an_operator_ends_only_the_lease_that_it_has_seen() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    server.connect().line("LOCK a:b me EX 60");
    let answer = |who: &str, token: i64| {
        let body = format!("{{\"fencing_token\":{token}}}");
        call(addr, who, "POST", "/key/force-unlock?name=a%3Ab", &body)
    };
    let force = |who: &str, token: i64| answer(who, token).status;
    assert_eq!(force("anonymous", 1), 401);
    assert_eq!(force("alice", 1), 403);
    assert_eq!(force("admin", 2), 400);
    assert_eq!(answer("admin", 2).json()["details"], "the newest fencing token is 1");
    assert_eq!(force("admin", 1), 200);
    assert_eq!(force("admin", 1), 404);
    // A form of another web page has no JSON.
    let form = request("admin", "POST", "/key/force-unlock?name=a%3Ab", "content-type: text/plain\r\n", "{}");
    assert_eq!(exchange(addr, &form).expect("an answer").status, 415);
}

/// A stream of keys.
struct Live(BufReader<TcpStream>);

impl Live {
    fn open(addr: SocketAddr, who: &str, path: &str) -> Live {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.write_all(&request(who, "GET", path, "accept: text/event-stream\r\n", "")).expect("sent");
        Live(BufReader::new(stream))
    }

    /// Reads until a line contains `text`; `false` at the end.
    fn reads(&mut self, text: &str) -> bool {
        let mut line = String::new();
        while self.0.read_line(&mut line).is_ok_and(|length| length > 0) {
            if line.contains(text) {
                return true;
            }
            line.clear();
        }
        false
    }
}

#[test]
fn a_stream_follows_the_keys_and_ends_with_the_permission() {
    let server = TestServer::real(&["--requirepass", "swordfish"]);
    let addr = server.http.expect("HTTP");
    let mut redis = server.connect();
    redis.line("AUTH swordfish");
    redis.line("ACL SETUSER viewer on >token-of-viewer ~a* +locks");
    let mut list = Live::open(addr, "viewer", "/keys");
    assert!(list.reads("\"total\":0"));
    redis.line("LOCK secret owner-1 EX 60");
    redis.line("LOCK abc owner-1 EX 60");
    assert!(list.reads("\"key\":\"abc\""));
    redis.line("ACL SETUSER viewer +lockinfo");
    assert!(list.reads("owner-1"));
    let mut one = Live::open(addr, "viewer", "/key?name=abc");
    assert!(one.reads("owner-1"));
    redis.line("RENEW abc owner-1 EX 90");
    assert!(one.reads("\"event\":\"renewed\""));
    redis.line("ACL SETUSER viewer resetkeys");
    assert!(!one.reads("never"), "the stream has ended");
    redis.line("ACL DELUSER viewer");
    assert!(!list.reads("never"), "the stream has ended");
}

#[test]
fn a_reader_that_stalls_is_cut_off() {
    let server = TestServer::real(&["--output-stall-ms", "100", "--key-bytes-max", "65534"]);
    let addr = server.http.expect("HTTP");
    let mut redis = server.connect();
    // One state of the list is larger than what sockets buffer.
    for n in 0..100 {
        redis.send(&["SET", &format!("{n:03}{}", ":".repeat(60_000)), "me"]);
        assert_eq!(redis.reply(), "+OK");
    }
    let stalled = Live::open(addr, "anonymous", "/keys?limit=100");
    let mut reader = Live::open(addr, "anonymous", "/key?name=k");
    assert!(reader.reads("\"kind\":\"free\""));
    // The other reader, and the one that asks for the number.
    until(|| metric(addr, "octostore_connections{protocol=\"http\"}") == 2);
    redis.line("LOCK k me EX 60");
    assert!(reader.reads("\"kind\":\"exclusive\""));
    drop(stalled);
}

#[test]
fn streams_are_limited_and_end_with_their_readers() {
    let server = TestServer::real(&[]);
    let addr = server.http.expect("HTTP");
    let mut all: Vec<_> = (0..64).map(|_| Live::open(addr, "anonymous", "/keys")).collect();
    assert!(all.iter_mut().all(|live| live.reads("\"total\":0")));
    assert!(Live::open(addr, "anonymous", "/keys").reads("409"));
    all.pop();
    until(|| Live::open(addr, "anonymous", "/key?name=a").reads(" 200 "));
}
