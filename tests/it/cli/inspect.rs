use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{call, octostore, result};
use crate::support::client::encode;
use crate::support::server::TestServer;
use crate::support::until;

#[test]
fn locks_are_listed_for_people_and_for_scripts() {
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    client.line("LOCK jobs:b me EX 1000 META nightly");
    client.line("LOCK jobs:a \u{1b}[31mred EX 1000");
    client.line("LOCK other me EX 1000 SHARED");
    client.line("LOCK jobs:* me EX 1000");
    client.line("HSET jobs:hash f v");
    let (code, text, _) = call(server.addr, &["locks", "jobs:"]);
    assert_eq!(code, 0);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let columns: Vec<&[&str]> = rows.iter().map(|row| &row[..3]).collect();
    assert_eq!(columns[0], ["KEY", "STATE", "OWNER"]);
    assert_eq!(columns[1], ["jobs:*", "exclusive", "me"]);
    assert_eq!(columns[2], ["jobs:a", "exclusive", "\\u{1b}[31mred"]);
    assert_eq!(columns[3], ["jobs:b", "exclusive", "me"]);
    assert_eq!(rows.len(), 4, "{text}");
    let (_, text, _) = call(server.addr, &["locks", "jobs:*", "--json"]);
    assert!(text.contains("\"key\":\"jobs:*\"") && text.contains("\"owner\":\"me\""), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let (_, text, _) = call(server.addr, &["info", "jobs:b", "--json"]);
    assert!(text.contains("\"meta\":\"nightly\"") && text.contains("\"waiters_total\":0"), "{text}");
    let (_, text, _) = call(server.addr, &["info", "jobs:b"]);
    assert!(text.contains("state    exclusive") && text.contains("nightly"), "{text}");
    let (_, text, _) = call(server.addr, &["info", "free"]);
    assert!(text.contains("state    free"), "{text}");
}

#[test]
fn all_pages_of_a_long_list_are_read() {
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    for n in 0..1234 {
        client.line(&format!("LOCK k{n} me EX 1000"));
    }
    let (_, text, _) = call(server.addr, &["locks", "--json"]);
    assert_eq!(text.lines().count(), 1234);
}

#[test]
fn a_lock_is_taken_from_its_holder() {
    let server = TestServer::real(&[]);
    server.connect().line("LOCK k me EX 1000");
    assert_eq!(call(server.addr, &["force-unlock", "k"]).0, 0);
    let (code, text, _) = call(server.addr, &["force-unlock", "k", "--yes"]);
    assert_eq!((code, text.trim_end()), (1, "holders removed: 0"));
    // A key is any bytes.
    let mut client = server.connect();
    client.send_bytes(&encode(&[&b"LOCK"[..], b"\xff*k", b"me"]));
    client.reply();
    let with_key = |subcommand: &str, key: &[u8]| {
        let mut command = octostore(server.addr, &[subcommand]);
        result(command.arg(OsStr::from_bytes(key)).output().expect("the program"))
    };
    assert_eq!(with_key("locks", b"\xff*").1.lines().count(), 2, "a header and a lock");
    assert_eq!(with_key("locks", b"\xfe").1.lines().count(), 1);
    assert!(with_key("info", b"\xff*k").1.contains("holders  1"));
    assert_eq!(with_key("force-unlock", b"\xff*k").1, "holders removed: 1\n");
}

#[test]
fn a_watch_goes_on_until_its_output_is_closed() {
    use std::io::{BufRead, BufReader};
    let server = TestServer::real(&[]);
    let mut child = octostore(server.addr, &["locks", "--watch"]).spawn().expect("the program");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    lines.next().expect("a header").expect("text");
    server.connect().line("LOCK k me EX 1000");
    until(|| server.engine.lock_stats().leases() == 1);
    while !lines.next().expect("a line").expect("text").starts_with("k ") {}
    drop(lines);
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

#[test]
fn a_client_without_a_server_or_a_password_says_so() {
    let (code, _, message) = call("127.0.0.1:1".parse().expect("an address"), &["locks"]);
    assert!(code == 69 && message.contains("127.0.0.1:1"), "{code} {message}");
    let server = TestServer::real(&["--requirepass", "s3cret"]);
    let (code, _, message) = call(server.addr, &["info", "k"]);
    assert!(code == 69 && message.contains("NOAUTH"), "{code} {message}");
    let url = format!("redis://:wr0ng@{}", server.addr);
    let (code, _, message) = call(server.addr, &["info", "k", "--url", &url]);
    assert!(code == 69 && !message.contains("wr0ng"), "{code} {message}");
    let url = format!("redis://:s3cret@{}/1", server.addr);
    assert_eq!(call(server.addr, &["info", "k", "--url", &url]).0, 0);
}

#[test]
fn completions_and_manual_pages_name_every_subcommand() {
    let addr = "127.0.0.1:1".parse().expect("an address");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, script, _) = call(addr, &["completions", shell]);
        assert!(code == 0 && script.contains("force-unlock") && script.contains("on-lost"), "{shell}");
    }
    let (_, script, _) = call(addr, &["completions", "bash"]);
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("octostore.bash");
    std::fs::write(&file, script).expect("a file");
    let parsed = std::process::Command::new("bash").arg("-n").arg(&file).status().expect("bash");
    assert!(parsed.success());
    let (_, page, _) = call(addr, &["man"]);
    assert!(page.contains(".TH octostore") && page.contains("force\\-unlock"), "{page}");
    let (_, page, _) = call(addr, &["man", "run"]);
    assert!(page.contains("on\\-lost"), "{page}");
    assert_eq!(call(addr, &["man", "nothing"]).0, 2);
}

#[test]
fn serve_is_the_program_without_a_subcommand() {
    let addr = "127.0.0.1:1".parse().expect("an address");
    let mut serve = octostore(addr, &["serve", "--durability", "nonsense"]);
    let (code, _, message) = result(serve.output().expect("the program"));
    assert!(code == 2 && message.contains("--durability"), "{code} {message}");
}

#[test]
fn help_is_found_by_each_of_its_names() {
    let addr = "127.0.0.1:1".parse().expect("an address");
    for (arguments, part) in [
        (vec!["help"], "octostore SUBCOMMAND"),
        (vec!["--help"], "octostore SUBCOMMAND"),
        (vec!["serve", "--help"], "octostore SUBCOMMAND"),
        (vec!["help", "run"], "Usage: octostore run"),
        (vec!["run", "--help"], "Usage: octostore run"),
    ] {
        let (code, text, message) = call(addr, &arguments);
        assert!(code == 0 && text.contains(part), "{arguments:?}: {code} {text} {message}");
    }
}
