//! Compares the OpenAPI document with the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use octostore::journal::{Faults, JournalError};

use super::document::{self, DOCUMENT, Node, Operation, operations};
use super::{Answer, call, exchange, request, server};
use crate::support::server::TestServer;
use crate::support::until;

const NO_SESSION: &str = "00000000-0000-4000-8000-000000000000";
/// A body that every route takes that takes one.
const LEASE: &str = "{\"lease_id\":\"00000000-0000-4000-8000-000000000000\",\"fencing_token\":1}";

/// The operation of a request, if there is one.
fn find(method: &str, path: &str) -> Option<Operation> {
    let path = path.split('?').next().unwrap_or_default();
    let segments: Vec<_> = path.split('/').collect();
    let matches = |template: &str| {
        let parts: Vec<_> = template.split('/').collect();
        let same = |(part, segment): (&&str, &&str)| {
            part == segment || (part.starts_with('{') && !segment.is_empty())
        };
        parts.len() == segments.len() && parts.iter().zip(&segments).all(same)
    };
    operations().into_iter().find(|operation| operation.method == method && matches(operation.path))
}

/// The path of an operation, and the query that it needs.
fn valid_path(operation: &Operation) -> String {
    let path = operation.path.replace("{name}", "a").replace("{id}", NO_SESSION);
    let is_needed = |parameter: &&'static Node| {
        let parameter = *parameter;
        document::text(parameter, "in") == Some("query") && parameter.as_mapping_get("required").is_some()
    };
    let needed = operation.common.iter().map(document::resolve).find(is_needed);
    match needed.and_then(|parameter| document::text(parameter, "name")) {
        Some(name) => format!("{path}?{name}=a"),
        None => path,
    }
}

/// Asserts that the document has the response to this request: its status, its media type, and in
/// JSON every field. Requests that match no operation are answered with an error.
pub(crate) fn assert_documented(method: &str, path: &str, answer: &Answer) {
    let Some(media) = answer.header("content-type").map(|value| value.split(';').next().unwrap_or(value))
    else {
        return;
    };
    let at = format!("{} for {method} {path}", answer.status);
    let schema = match find(method, path) {
        Some(operation) => {
            let response = operation.response(answer.status);
            let response = response.unwrap_or_else(|| panic!("{at} is not documented"));
            let content = response["content"].as_mapping_get(media);
            &content.unwrap_or_else(|| panic!("{media} of {at} is not documented"))["schema"]
        }
        None => &DOCUMENT["components"]["schemas"]["Error"],
    };
    if media == "application/json" && !answer.body.is_empty() {
        let faults = document::faults(schema, &answer.json(), "body");
        assert!(faults.is_empty(), "{at}: {faults:?} in {}", answer.body);
    }
}

/// The statuses that were seen, by operation.
#[derive(Default)]
struct Seen(BTreeMap<(&'static str, &'static str), BTreeSet<u16>>);

impl Seen {
    fn record(&mut self, method: &str, path: &str, answer: &Answer) {
        assert_documented(method, path, answer);
        let operation = find(method, path).expect("an operation");
        self.0.entry((operation.method, operation.path)).or_default().insert(answer.status);
    }
}

#[test]
fn the_document_has_exactly_the_possible_statuses() {
    let mut seen = Seen::default();
    let (server, _dir) =
        server(&["--http-locks-per-user-max", "1", "--sessions-max", "3", "--locks-max", "3"]);
    let addr = server.http.expect("HTTP");
    let long = "a".repeat(20 << 10);
    let is_json = "content-type: application/json\r\n";
    let taken = call(addr, "alice", "POST", "/locks/a/acquire", "{\"lock_delay_seconds\":9}").json();
    let opened =
        |ttl: u32| call(addr, "alice", "POST", "/sessions", &format!("{{\"ttl_seconds\":{ttl}}}")).json();
    let (first, second) = (opened(10), opened(300));
    let (ended, live) =
        (first["session_id"].as_str().expect("an id"), second["session_id"].as_str().expect("an id"));
    call(addr, "bob", "POST", "/locks/b/acquire", &format!("{{\"session_id\":{NO_SESSION:?}}}"));
    let lease = format!("{{\"lease_id\":{}}}", taken["lease_id"]);
    let in_session = |id: &str| format!("{{\"session_id\":{id:?},\"ephemeral\":true}}");
    let ephemeral = {
        call(addr, "alice", "POST", "/locks/a/release", &lease);
        let taken = call(addr, "alice", "POST", "/locks/e/acquire", &in_session(ended)).json();
        format!("{{\"lease_id\":{}}}", taken["lease_id"])
    };
    server.advance(10_000);
    for operation in operations() {
        let method = operation.method;
        let path = valid_path(&operation);
        let raw = |head: &str| exchange(addr, head.as_bytes()).expect("an answer");
        for answer in [
            raw(&format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n\r\n")),
            raw(&format!("{method} {path}?{long} HTTP/1.1\r\nhost: x\r\n\r\n")),
            raw(&format!("{method} {path} HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n")),
        ] {
            seen.record(method, &path, &answer);
        }
        if method == "POST" {
            for (headers, body) in
                [("content-type: text/plain\r\n", "{}"), (is_json, "{"), (is_json, "[]"), ("", "{}")]
            {
                let asked = request("alice", method, &path, headers, body);
                seen.record(method, &path, &exchange(addr, &asked).expect("an answer"));
            }
            let head = format!("{is_json}content-length: {}\r\n", (2 << 20) + 1);
            let asked = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token-of-alice\r\n{head}\r\n"
            );
            seen.record(method, &path, &raw(&asked));
        }
        for who in ["anonymous", "alice", "carol", "admin"] {
            if path.ends_with("/watch") && ["alice", "admin"].contains(&who) {
                continue;
            }
            let body = if method == "POST" { LEASE } else { "" };
            seen.record(method, &path, &call(addr, who, method, &path, body));
        }
        if path == "/locks/a/watch" {
            seen.record(method, &path, &call_watch(addr));
        }
    }
    let mut ask = |who: &str, method: &str, path: &str, body: &str, status: u16| {
        let answer = call(addr, who, method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.body);
        seen.record(method, path, &answer);
    };
    ask("alice", "GET", "/locks?prefix=a&prefix=b", "", 400);
    ask("alice", "GET", "/locks/..", "", 400);
    ask("alice", "GET", "/keys?limit=0", "", 400);
    ask("alice", "GET", "/key?name=a&db=16", "", 400);
    ask("admin", "POST", "/key/force-unlock?name=free", LEASE, 404);
    ask("carol", "GET", "/locks?prefix=a", "", 403);
    ask("admin", "GET", "/admin/metrics/timeseries?window=2h", "", 400);
    ask("alice", "POST", "/locks/e/renew", &ephemeral, 410);
    ask("alice", "POST", "/locks/e/release", &ephemeral, 410);
    ask("alice", "POST", "/locks/a/acquire", &in_session(ended), 410);
    ask("alice", "POST", &format!("/sessions/{ended}/keepalive"), "", 410);
    ask("alice", "POST", "/locks/a/acquire", &in_session(NO_SESSION), 404);
    ask("alice", "GET", &format!("/sessions/{live}"), "", 200);
    ask("alice", "POST", &format!("/sessions/{live}/keepalive"), "", 200);
    ask("alice", "DELETE", &format!("/sessions/{live}"), "", 204);
    call(addr, "alice", "DELETE", &format!("/sessions/{ended}"), "");
    let lease = call(addr, "bob", "POST", "/locks/r/acquire", "{}").json()["lease_id"].clone();
    let lease = format!("{{\"lease_id\":{lease}}}");
    ask("bob", "POST", "/locks/r/renew", &lease, 200);
    ask("bob", "POST", "/locks/r/release", &lease, 200);
    ask("bob", "POST", "/locks/r/release", &lease, 404);
    ask("bob", "POST", "/locks/r/renew", &lease, 404);
    for n in 0..3 {
        call(addr, "alice", "POST", "/sessions", &format!("{{\"ttl_seconds\":{}}}", 300 - n));
    }
    ask("alice", "POST", "/sessions", "{}", 409);
    for n in 0..3 {
        server.connect().line(&format!("LOCK full{n} me EX 600"));
    }
    let token = call(addr, "admin", "GET", "/key?name=full0", "").json()["fencing_token"].clone();
    let newest = format!("{{\"fencing_token\":{token}}}");
    ask("admin", "POST", "/key/force-unlock?name=full0", "{\"fencing_token\":0}", 400);
    ask("alice", "POST", "/locks/z/acquire", "{}", 409);
    ask("admin", "POST", "/key/force-unlock?name=full0", &newest, 200);
    for (method, path, answer) in faults() {
        seen.record(method, &path, &answer);
    }
    // Other tests cover the limits of bodies, time, connections and watched names, and shards.
    let elsewhere = BTreeSet::from([307, 408, 429, 503]);
    for streams in ["/locks/{name}/watch", "/keys", "/key"] {
        seen.0.entry(("GET", streams)).or_default().insert(409);
    }
    for operation in operations() {
        let key = (operation.method, operation.path);
        let seen = seen.0.get(&key).cloned().unwrap_or_default();
        let statuses = operation.responses().map(|(status, _)| status);
        let unseen: Vec<_> =
            statuses.filter(|status| !seen.contains(status) && !elsewhere.contains(status)).collect();
        assert!(unseen.is_empty(), "{key:?} is documented to answer {unseen:?}");
    }
}

/// The answer to a watch, without its stream.
fn call_watch(addr: std::net::SocketAddr) -> Answer {
    let _stream = super::watch::Watch::open(addr, "alice", "a");
    Answer { status: 200, headers: Vec::new(), body: String::new() }
}

/// The responses to a request for another host, and while storage fails.
fn faults() -> Vec<(&'static str, String, Answer)> {
    let faults = Arc::new(Faults::default());
    let server = TestServer::on(Arc::clone(&faults));
    let addr = server.http.expect("HTTP");
    faults.fail_with(Some(JournalError::Full));
    call(addr, "anonymous", "POST", "/locks/x/acquire", "{}");
    until(|| call(addr, "anonymous", "GET", "/health", "").status == 500);
    let mut answers = Vec::new();
    for operation in operations() {
        let path = valid_path(&operation);
        let head = format!(
            "{} {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
            operation.method
        );
        let foreign = exchange(addr, head.as_bytes()).expect("an answer");
        answers.push((operation.method, path.clone(), foreign));
        let body = if operation.method == "POST" { LEASE } else { "" };
        if operation.response(500).is_some() {
            let answer = call(addr, "anonymous", operation.method, &path, body);
            answers.push((operation.method, path, answer));
        }
    }
    faults.fail_with(None);
    answers
}

#[test]
fn the_document_says_who_needs_credentials() {
    let (server, _dir) = server(&[]);
    let (addr, open) = (server.http.expect("HTTP"), TestServer::manual(&[]));
    let open = open.http.expect("HTTP");
    // Without users, no credentials are needed: an empty alternative.
    let common = document::items(&DOCUMENT, "security").expect("alternatives");
    assert!(common.iter().any(|one| document::entries(one).next().is_none()));
    for operation in operations() {
        let path = valid_path(&operation);
        let body = if operation.method == "POST" { LEASE } else { "" };
        if !path.ends_with("/watch") {
            assert_ne!(call(open, "anonymous", operation.method, &path, body).status, 401, "{operation:?}");
        }
        let status = call(addr, "anonymous", operation.method, &path, body).status;
        assert_eq!(status != 401, operation.is_public(), "{operation:?}");
    }
}
