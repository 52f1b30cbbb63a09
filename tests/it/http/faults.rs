//! Crashes, storage failures, races and hostile input.

use std::fmt::Write as _;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::Value;

use super::watch::Watch;
use super::{call, exchange, request, server, tokens_file};
use crate::support::process::Process;
use crate::support::server::TestServer;
use crate::support::until;

#[test]
fn a_lease_outlives_kill_9_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let (data, tokens) = (dir.path().join("octostore.db"), tokens_file(dir.path()));
    let flags = ["--http-tokens", &tokens, "--http-locks-per-user-max", "1000"];
    let server = Process::start(&data, &flags);
    let addr = server.http.expect("HTTP");
    let kept = call(addr, "alice", "POST", "/locks/kept/acquire", "{\"ttl_seconds\":600}").json();
    let session = call(addr, "alice", "POST", "/sessions", "{\"ttl_seconds\":300}").json();
    let in_session = format!("{{\"session_id\":{},\"ephemeral\":true}}", session["session_id"]);
    let ephemeral = call(addr, "alice", "POST", "/locks/ephemeral/acquire", &in_session).json();
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            std::thread::spawn(move || {
                let (client, mut highest) = (reqwest::blocking::Client::new(), 0);
                let post = |path: String, body: String| {
                    let request = client.post(format!("http://{addr}/locks/w{worker}/{path}")).body(body);
                    let request =
                        request.bearer_auth("token-of-bob").header("content-type", "application/json");
                    request.send()?.json::<Value>()
                };
                // Until the server dies.
                while let Ok(taken) = post("acquire".into(), "{}".into()) {
                    highest = taken["fencing_token"].as_i64().unwrap_or_else(|| panic!("{taken}"));
                    if post("release".into(), format!("{{\"lease_id\":{}}}", taken["lease_id"])).is_err() {
                        break;
                    }
                }
                highest
            })
        })
        .collect();
    until(|| call(addr, "anonymous", "GET", "/status", "").json()["total_releases"].as_u64() >= Some(200));
    server.kill();
    let highest = workers.into_iter().map(|worker| worker.join().expect("a worker")).max().unwrap_or(0);
    assert!(highest > 200);
    let server = Process::start(&data, &flags);
    let addr = server.http.expect("HTTP");
    for (name, taken) in [("kept", &kept), ("ephemeral", &ephemeral)] {
        let lease = format!("{{\"lease_id\":{}}}", taken["lease_id"]);
        let seen = call(addr, "bob", "GET", &format!("/locks/{name}"), "").json();
        assert_eq!((&seen["status"], &seen["fencing_token"]), (&"held".into(), &taken["fencing_token"]));
        let renewed = call(addr, "alice", "POST", &format!("/locks/{name}/renew"), &lease);
        assert_eq!((renewed.status, &renewed.json()["lease_id"]), (200, &taken["lease_id"]));
    }
    let path = format!("/sessions/{}", session["session_id"].as_str().expect("an id"));
    assert_eq!(call(addr, "alice", "GET", &path, "").json()["lock_count"], 1);
    let next = call(addr, "alice", "POST", "/locks/next/acquire", "{}").json();
    assert!(next["fencing_token"].as_i64() > Some(highest), "{next} after {highest}");
}

#[test]
fn concurrent_acquires_of_one_name_by_different_owners_grant_one() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    for round in 0..20 {
        let path = format!("/locks/r{round}/acquire");
        let racers: Vec<_> = ["alice", "bob", "admin"]
            .into_iter()
            .map(|who| {
                let path = path.clone();
                std::thread::spawn(move || call(addr, who, "POST", &path, "{}").json()["status"].clone())
            })
            .collect();
        let got: Vec<_> = racers.into_iter().map(|racer| racer.join().expect("an answer")).collect();
        assert_eq!(got.iter().filter(|status| **status == "acquired").count(), 1, "{got:?}");
    }
}

#[test]
fn bodies_are_bounded_in_every_framing() {
    const LIMIT: usize = 2 << 20;
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let padded = |length: usize| {
        let text = "{\"x\":\"";
        format!("{text}{}\"}}", "a".repeat(length - text.len() - 2))
    };
    assert_eq!(call(addr, "alice", "POST", "/locks/a/acquire", &padded(LIMIT)).status, 200);
    assert_eq!(call(addr, "alice", "POST", "/locks/a/acquire", &padded(LIMIT + 1)).status, 413);
    let head = "POST /locks/a/acquire HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                authorization: Bearer token-of-alice\r\ncontent-type: application/json\r\n";
    let chunked = |body: &str| {
        let mut text = format!("{head}transfer-encoding: chunked\r\n\r\n");
        for chunk in body.as_bytes().chunks(50_000) {
            write!(text, "{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()).unwrap();
        }
        text + "0\r\n\r\n"
    };
    let status = |request: String| exchange(addr, request.as_bytes()).map(|answer| answer.status);
    assert_eq!(status(chunked("{}")), Some(200));
    assert_eq!(status(chunked(&padded(LIMIT))), Some(200));
    assert_eq!(status(chunked(&padded(LIMIT + 1))), Some(413));
    // Announced and not sent: refused before anything is waited for.
    assert_eq!(status(format!("{head}content-length: 99999999\r\n\r\n")), Some(413));
    assert_eq!(status(format!("{head}\r\n")), Some(400));
    assert_eq!(status(format!("{}\r\n", head.replace("HTTP/1.1", "HTTP/1.0"))), Some(400));
    assert_eq!(status(format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n")), Some(400));
    let list = format!("{{\"metadata\":\"{}\"}}", "é".repeat(1024));
    assert_eq!(call(addr, "alice", "POST", "/locks/b/acquire", &list).status, 200);
    let list = format!("{{\"metadata\":\"{}\"}}", "é".repeat(1025));
    assert_eq!(call(addr, "alice", "POST", "/locks/b/acquire", &list).status, 400);
}

#[test]
fn hostile_requests_get_an_error_or_a_closed_connection() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let flood: String = (0..5000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let long = "a".repeat(1 << 20);
    for request in [
        format!("GET /health HTTP/1.1\r\nhost: x\r\n{flood}\r\n"),
        format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
        format!("GET /locks/{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "*3\r\n$4\r\nLOCK\r\n$1\r\na\r\n$1\r\nb\r\n".to_owned(),
        "POST /sessions HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n".to_owned(),
    ] {
        let answer = exchange(addr, request.as_bytes());
        let shown: String = request.chars().take(40).collect();
        assert!(answer.is_none_or(|answer| (400..600).contains(&answer.status)), "{shown:?}");
    }
    // A deep nest is not followed.
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(500_000), "]".repeat(500_000));
    let status = call(addr, "alice", "POST", "/locks/a/acquire", &deep).status;
    assert!(status == 200 || status == 400, "{status}");
    let mut invalid = request("alice", "POST", "/locks/a/acquire", "", "{\"metadata\":\"xx\"}");
    let at = invalid.len() - 4;
    invalid[at] = 0xff;
    assert_eq!(exchange(addr, &invalid).expect("an answer").status, 400);
    // Still serving, and idle connections that send half a request take nothing from others.
    let halves: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).expect("a connection");
            stream.write_all(b"POST /locks/a/acquire HTTP/1.1\r\ncontent-le").expect("sent");
            stream
        })
        .collect();
    assert_eq!(call(addr, "anonymous", "GET", "/health", "").status, 200);
    drop(halves);
}

#[test]
fn connections_have_a_limit() {
    let server = TestServer::real(&["--connections-max", "2"]);
    let addr = server.http.expect("HTTP");
    let first = Watch::open(addr, "anonymous", "a");
    let _second = Watch::open(addr, "anonymous", "a");
    until(|| {
        exchange(addr, b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .is_none_or(|answer| answer.status == 503)
    });
    drop(first);
    until(|| {
        let answer = exchange(addr, b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        answer.is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_failed_commit_is_an_internal_error_and_service_resumes() {
    let faults = Arc::new(octostore::journal::Faults::default());
    let server = TestServer::on(Arc::clone(&faults));
    let addr = server.http.expect("HTTP");
    let take = |name: &str| call(addr, "anonymous", "POST", &format!("/locks/{name}/acquire"), "{}");
    let held = take("held").json();
    faults.fail_with(Some(octostore::journal::JournalError::Full));
    let answer = take("a");
    assert_eq!((answer.status, answer.json()["code"].clone()), (500, "internal_error".into()));
    until(|| call(addr, "anonymous", "GET", "/health", "").status == 500);
    assert_eq!(call(addr, "anonymous", "GET", "/locks/held", "").status, 500);
    faults.fail_with(None);
    until(|| call(addr, "anonymous", "GET", "/health", "").status == 200);
    assert_eq!(take("held").json()["lease_id"], held["lease_id"]);
    assert_eq!(take("a").status, 200);
}
