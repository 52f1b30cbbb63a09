//! Routes of the server itself: permissions, metrics, documents.

use super::{call, exchange, metric, request, server};
use crate::support::server::TestServer;

#[test]
fn without_tokens_one_user_works_on_this_machine_only() {
    let server = TestServer::manual(&[]);
    let addr = server.http.expect("HTTP");
    let with = |headers: &str| {
        let text = format!("GET /locks/a HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
        exchange(addr, text.as_bytes()).expect("an answer").status
    };
    assert_eq!(with("host: localhost:7380\r\n"), 200);
    assert_eq!(with("host: [::1]\r\nauthorization: Bearer whatever\r\n"), 200);
    assert_eq!(with("host: evil.example\r\n"), 403);
    assert_eq!(call(addr, "anonymous", "GET", "/admin/status", "").status, 200);
    assert_eq!(call(addr, "anonymous", "GET", "/status", "").json()["total_users"], 1);
    // With a password for Redis clients, it is the token of `local`.
    let server = TestServer::manual(&["--requirepass", "swordfish"]);
    let addr = server.http.expect("HTTP");
    let with = |headers: &str| {
        let text = format!("GET /locks/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        exchange(addr, text.as_bytes()).expect("an answer").status
    };
    assert_eq!(with(""), 401);
    assert_eq!(with("authorization: Bearer swordfish\r\n"), 200);
    assert_eq!(call(addr, "anonymous", "GET", "/metrics", "").status, 401);
}

#[test]
fn metrics_are_what_prometheus_reads_and_json_on_demand() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    assert_eq!(metric(addr, "octostore_late_owner_seconds_count{wanted=\"renew\"}"), 0);
    let mut redis = server.connect();
    redis.line("LOCK a me PX 1000");
    redis.line("LOCK a you");
    redis.line("LOCK b me EX 60");
    redis.line("UNLOCK b me");
    redis.line("UNLOCK");
    server.clock.advance_millis(1500);
    server.engine.expire_due();
    redis.line("UNLOCK a me");
    call(addr, "alice", "POST", "/locks/c/acquire", "{}");
    call(addr, "alice", "POST", "/locks/c/renew", "{}");
    call(addr, "mallory", "GET", "/locks/c", "");
    call(addr, "anonymous", "GET", "/locks/c", "");
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";
    let answer = exchange(addr, &request("admin", "GET", "/metrics", accept, "")).expect("an answer");
    let media = answer.header("content-type").unwrap_or_default();
    assert!(media.starts_with("application/openmetrics-text; version=1.0.0"), "{media}");
    assert!(answer.body.contains("# TYPE octostore_grants counter\n"));
    assert!(answer.body.ends_with("# EOF\n"));
    let answer = call(addr, "admin", "GET", "/metrics", "");
    let media = answer.header("content-type").unwrap_or_default();
    assert!(media.starts_with("text/plain; version=0.0.4"), "{media}");
    for line in [
        "octostore_leases 1",
        "octostore_leases_max 10000000",
        "octostore_leader 1",
        "# TYPE octostore_grants_total counter",
        concat!("octostore_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "octostore_grants_total 3",
        "octostore_refusals_total 1",
        "octostore_releases_total 1",
        "octostore_expiries_total 1",
        "octostore_late_owner_seconds_count{wanted=\"release\"} 1",
        "octostore_late_owner_seconds_sum{wanted=\"release\"} 0.5",
        "octostore_hold_seconds_count 2",
        "octostore_hold_seconds_bucket{le=\"0.000001\"} 1",
        "octostore_hold_seconds_bucket{le=\"+Inf\"} 2",
        "octostore_command_seconds_count{command=\"lock\"} 3",
        "octostore_command_errors_total{command=\"unlock\"} 0",
        "octostore_http_request_seconds_count{endpoint=\"acquire\"} 1",
        "octostore_http_request_errors_total{endpoint=\"renew\"} 1",
        "octostore_connections{protocol=\"redis\"} 1",
        "octostore_failed_logins_total{protocol=\"http\"} 1",
        "octostore_failed_logins_total{protocol=\"redis\"} 0",
        "octostore_journal_up 1",
        "octostore_queue_length 0",
        "octostore_sessions 0",
        "# TYPE octostore_commit_seconds histogram",
        "# TYPE octostore_commit_records histogram",
        "# TYPE octostore_wait_seconds histogram",
        "# TYPE octostore_resident_memory_bytes gauge",
    ] {
        assert!(answer.body.lines().any(|own| own == line), "{line} in {}", answer.body);
    }
    let names = |text: &str| ["a", "me", "alice"].iter().any(|name| text.contains(&format!("\"{name}\"")));
    assert!(!answer.body.lines().any(names), "names are no labels");
    let asked = request("admin", "GET", "/metrics", "accept: application/json\r\n", "");
    let json = exchange(addr, &asked).expect("an answer").json();
    assert_eq!(json["endpoints"]["acquire"]["count"], 1);
    assert_eq!(json["endpoints"]["renew"]["errors"], 1);
    assert!(json["endpoints"]["acquire"]["p99_ms"].as_str().is_some_and(|text| text.contains('.')));
    assert_eq!(json["lock_store"]["total_expirations"], 1);
    assert_eq!(json["active_locks"], 1);
}

#[test]
fn the_documents_are_served() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let answer = call(addr, "anonymous", "GET", "/openapi.yaml", "");
    assert_eq!(answer.header("content-type"), Some("application/yaml"));
    assert!(answer.body.contains(&format!("version: \"{}\"", env!("CARGO_PKG_VERSION"))));
    let is_strict = |policy: &str| !policy.contains("unsafe") && !policy.contains('*');
    let docs = call(addr, "anonymous", "GET", "/docs", "");
    assert!(docs.body.contains("/openapi.yaml") && !docs.body.contains("<script"));
    for path in ["/", "/docs", "/page/app.js", "/page/style.css"] {
        let answer = call(addr, "anonymous", "GET", path, "");
        assert!(
            answer
                .header("content-security-policy")
                .is_some_and(|policy| policy.contains("default-src 'none'"))
        );
        assert!(answer.header("content-security-policy").is_some_and(is_strict));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn the_sessions_in_the_documents_exclude_each_other() {
    let server = TestServer::manual(&[]);
    let page = include_str!("../../../docs/http.md");
    let block = page.split("```sh\nsession() {").nth(1).and_then(|rest| rest.split("```").next());
    let script = format!("session() {{{}", block.expect("the commands"));
    let script = script.replace("localhost:7380", &server.http.expect("HTTP").to_string());
    let run = |script: &str| {
        let shell = std::process::Command::new("sh").args(["-c", script]).output().expect("a shell");
        String::from_utf8(shell.stdout).expect("text")
    };
    if run("command -v curl").is_empty() {
        println!("skipped: there is no curl");
        return;
    }
    let answered = run(&script);
    let statuses: Vec<_> =
        answered.lines().filter_map(|line| line.strip_prefix("{\"status\":\"")?.split('"').next()).collect();
    assert_eq!(statuses, ["acquired", "held"], "{answered}");
}
