use super::{call, octostore, result};
use crate::differential::redis::Redis;
use crate::support::process::Process;
use crate::support::server::TestServer;
use crate::support::until;

#[test]
fn each_kind_of_work_is_measured_and_leaves_nothing() {
    let server = TestServer::real(&[]);
    for (work, requests) in [
        ("cycle", &["acquire", "release"][..]),
        ("contend", &["acquire", "release"]),
        ("renew", &["acquire", "release", "renew"]),
    ] {
        let arguments = ["bench", "--work", work, "--clients", "3", "--time", "50ms", "--json"];
        let (code, output, message) = call(server.addr, &arguments);
        assert_eq!(code, 0, "{work}: {message}");
        let report: serde_json::Value = serde_json::from_str(&output).expect("JSON");
        let side = &report["sides"][0];
        let measured = side["requests"].as_object().expect("requests");
        assert!(measured.keys().eq(requests), "{output}");
        for times in measured.values() {
            let value = |name: &str| times[name].as_f64().expect("a number");
            assert!(value("count") >= 3.0 && value("per_second") > 0.0, "{output}");
            // No round trip takes less than a microsecond.
            assert!(1.0 < value("p50_us") && value("p50_us") <= value("p99_us"), "{output}");
            assert!(value("p99_us") <= value("max_us"), "{output}");
        }
        assert_eq!(server.engine.lock_stats().leases(), 0, "{work}");
    }
}

#[test]
fn two_servers_are_compared_in_turns() {
    let (one, two) = (TestServer::real(&[]), TestServer::real(&[]));
    let url = format!("redis://{}", two.addr);
    let (code, output, message) = call(one.addr, &["bench", "-c", "2", "--time", "50ms", "--compare", &url]);
    assert_eq!(code, 0, "{message}");
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("SERVER") && lines[1].starts_with(&one.addr.to_string()), "{output}");
    assert!(lines[3].starts_with(&two.addr.to_string()), "{output}");
    assert!(output.contains("times as fast as the second"), "{output}");
    assert!(!message.contains('\r'), "no progress bar without a terminal: {message}");
}

#[test]
fn redis_is_measured_by_the_requests_that_it_knows() {
    if Redis::is_missing() {
        return;
    }
    let (server, redis) = (TestServer::real(&[]), Redis::start(&[]));
    let url = format!("redis://{}", redis.addr);
    for work in ["cycle", "contend", "renew"] {
        let arguments = ["bench", "--work", work, "-c", "3", "--time", "50ms", "--json", "--compare", &url];
        let (code, output, message) = call(server.addr, &arguments);
        assert_eq!(code, 0, "{work}: {message}");
        let report: serde_json::Value = serde_json::from_str(&output).expect("JSON");
        assert!(report["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{output}");
        assert_eq!(redis.control().line("DBSIZE"), ":0", "{work}");
    }
}

#[test]
fn a_benchmark_that_cannot_work_says_why() {
    let (code, _, message) = call("127.0.0.1:1".parse().expect("an address"), &["bench"]);
    assert!(code == 69 && message.contains("127.0.0.1:1"), "{code} {message}");
    let server = TestServer::real(&[]);
    for arguments in [["--work", "nothing"], ["--clients", "0"], ["--time", "1"], ["--compare", "none"]] {
        let (code, _, message) = call(server.addr, &[&["bench"], arguments.as_slice()].concat());
        assert_eq!(code, 2, "{arguments:?}: {message}");
    }
}

#[test]
fn a_benchmark_whose_server_ends_says_which() {
    let dir = tempfile::tempdir().expect("a folder");
    let (lasting, ending) = (TestServer::real(&[]), Process::start(&dir.path().join("octostore.db"), &[]));
    let (url, addr) = (format!("redis://{}", ending.addr), ending.addr.to_string());
    let arguments = ["bench", "--work", "renew", "--time", "60s", "--compare", &url];
    let running = octostore(lasting.addr, &arguments).spawn().expect("the program");
    until(|| ending.connect().line("DBSIZE") != ":0");
    ending.kill();
    let (code, _, message) = result(running.wait_with_output().expect("its end"));
    assert!(code == 69 && message.contains(&addr), "{code} {message}");
}
