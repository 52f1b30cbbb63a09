//! The program when its storage is damaged, taken away, locked by others, or read in another time
//! namespace.

use std::path::Path;

use crate::support::process::Process;
use crate::support::until;

/// With a suffix to the name of the database.
fn beside(data: &Path, suffix: &str) -> std::path::PathBuf {
    let mut path = data.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[test]
fn a_log_damaged_in_the_middle_is_refused_until_the_loss_is_accepted() {
    const LOCKS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    for n in 1..=LOCKS {
        assert_eq!(client.line(&format!("LOCK k{n} me EX 3600")), format!(":{n}"));
    }
    server.kill();
    let log = beside(&data, "-wal");
    let mut bytes = std::fs::read(&log).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    for _ in 0..2 {
        let why = Process::try_start(&data).err().expect("a refusal");
        for text in ["octostore.db: a frame of the write-ahead log", "commits", "--accept-damaged-log"] {
            assert!(why.contains(text), "{text}: {why}");
        }
    }
    let server = Process::start(&data, &["--accept-damaged-log"]);
    let mut client = server.connect();
    let held = (1..=LOCKS).filter(|n| client.line(&format!("GET k{n}")) == "\"me\"").count();
    assert!((1..LOCKS).contains(&held), "{held}");
    let token: usize = client.line(&format!("LOCK k{LOCKS} you EX 3600"))[1..].parse().unwrap();
    assert!(token > LOCKS, "no token is issued twice: {token}");
    server.kill();
    let server = Process::start(&data, &[]);
    assert_eq!(server.connect().line(&format!("GET k{LOCKS}")), "\"you\"");
}

#[test]
fn a_server_whose_files_are_gone_refuses_all_requests() {
    for is_busy in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("octostore.db");
        let old = Process::start(&data, &[]);
        let mut client = old.connect();
        assert_eq!(client.line("LOCK k old EX 3600"), ":1");
        for suffix in ["", "-wal", "-shm", ".lock"] {
            std::fs::remove_file(beside(&data, suffix)).unwrap();
        }
        let new = Process::start(&data, &[]);
        assert_eq!(new.connect().line("LOCK k new EX 3600"), ":1");
        let asks = if is_busy { "RENEW k old EX 3600" } else { "FENCE k" };
        until(|| old.connect().line(asks).starts_with("-MISCONF"));
        for asks in ["LOCK k old EX 3600", "LOCK other me", "FENCE k 1", "GET k", "UNLOCK k old"] {
            let refusal = client.line(asks);
            assert!(refusal.starts_with("-MISCONF") && refusal.contains("db was replaced"), "{refusal}");
        }
        assert_eq!(client.line("PING"), "+PONG");
        assert_eq!(new.connect().line("LOCK later new EX 3600"), ":2");
        let (code, _) = old.terminate();
        assert_eq!(code, Some(0));
        new.kill();
        let new = Process::start(&data, &[]);
        let mut client = new.connect();
        assert_eq!((client.line("GET k"), client.line("FENCE later")), ("\"new\"".into(), ":2".into()));
    }
}

#[test]
fn a_foreign_lock_on_the_database_delays_only_commits() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &["--threads", "1"]);
    let (mut locking, mut other) = (server.connect(), server.connect());
    assert_eq!(locking.line("LOCK first me"), ":1");
    let tool = rusqlite::Connection::open(&data).unwrap();
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    locking.send(&["LOCK", "k", "me"]);
    for _ in 0..5 {
        assert_eq!(other.line("PING"), "+PONG");
    }
    tool.execute_batch("ROLLBACK").unwrap();
    assert_eq!(locking.reply(), ":2", "no commit failed meanwhile");
}

#[cfg(target_os = "linux")]
#[test]
fn a_restart_in_another_time_namespace_ends_nothing_early() {
    const AHEAD: [&str; 4] = ["unshare", "--time", "--boottime", "1000000"];
    let mut uptime = std::process::Command::new(AHEAD[0]);
    let uptime = uptime.args(&AHEAD[1..]).args(["cat", "/proc/uptime"]).output();
    let seconds = uptime.ok().and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        text.split('.').next()?.parse::<u64>().ok()
    });
    if seconds.is_none_or(|seconds| seconds < 1_000_000) {
        return println!("skipped: time namespaces are not permitted here");
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    assert_eq!(server.connect().line("LOCK k me EX 600"), ":1");
    server.kill();
    for is_ahead in [true, true, false] {
        let server = if is_ahead { Process::start_under(&AHEAD, &data) } else { Process::start(&data, &[]) };
        let mut client = server.connect();
        assert_eq!(client.line("GET k"), "\"me\"");
        let left: i64 = client.line("PTTL k")[1..].parse().unwrap();
        assert!((1..=600_000).contains(&left), "{left}");
        server.kill();
    }
}
