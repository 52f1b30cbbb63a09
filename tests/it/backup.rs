//! Backup, restore and check, as an operator runs them.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::support::client::Client;
use crate::support::peers::skip;
use crate::support::process::Process;
use crate::support::random::{Random, setting};
use crate::support::until;

/// Runs a subcommand. Returns its exit code, and its output with its errors.
fn run(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
    let output = command.env_clear().args(arguments).output().expect("the program");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a code"), String::from_utf8_lossy(&text).into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn back_up(data: &Path, file: &Path) -> String {
    let (code, output) = run(&["backup", "--data", text(data), text(file)]);
    assert_eq!(code, 0, "{output}");
    output
}

/// A server that was restored a few milliseconds ago may have reserved tokens that the clock has yet
/// to reach.
fn restore(file: &Path, data: &Path) -> String {
    let mut output = String::new();
    let result = std::cell::RefCell::new(&mut output);
    until(|| {
        let (code, output) = run(&["restore", text(file), "--data", text(data)]);
        assert!(code == 0 || output.contains("may be behind"), "{output}");
        **result.borrow_mut() = output;
        code == 0
    });
    output
}

fn grant(client: &mut Client, key: &str) -> i64 {
    let reply = client.call(&["LOCK", key, "me", "EX", "1000"]);
    reply.strip_prefix(':').unwrap_or_else(|| panic!("{reply}")).parse().expect("a token")
}

/// Grants `count` locks, and asserts that none of their tokens was issued before.
fn grant_new(server: &Process, issued: &mut HashSet<i64>, name: &str, count: usize) {
    let mut client = server.connect();
    for n in 0..count {
        let token = grant(&mut client, &format!("{name}{n}"));
        assert!(issued.insert(token), "{token} was issued before {name}{n}");
    }
}

/// Loses the database, and its lock file if `with_lock_file`.
fn lose(data: &Path, with_lock_file: bool) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        if suffix != ".lock" || with_lock_file {
            let _ = std::fs::remove_file(format!("{}{suffix}", data.display()));
        }
    }
}

fn folder() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let (data, file) = (dir.path().join("octostore.db"), dir.path().join("copy"));
    (dir, data, file)
}

/// Clients that each take locks in order until the server is gone.
struct Load {
    clients: Vec<JoinHandle<Vec<i64>>>,
    granted: Arc<AtomicUsize>,
}

impl Load {
    const CLIENTS: usize = 3;

    fn start(server: &Process) -> Load {
        let granted = Arc::new(AtomicUsize::new(0));
        let load = |client: usize| {
            let (addr, granted) = (server.addr, Arc::clone(&granted));
            std::thread::spawn(move || {
                let (mut connection, mut tokens) = (Client::connect(addr), Vec::new());
                loop {
                    let key = format!("c{client}n{}", tokens.len());
                    let reply = connection.try_call(&["LOCK", &key, "me", "EX", "1000"]);
                    let Some(token) = reply.and_then(|reply| reply[1..].parse().ok()) else { return tokens };
                    tokens.push(token);
                    granted.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Load { clients: (0..Load::CLIENTS).map(load).collect(), granted }
    }

    fn granted(&self) -> usize {
        self.granted.load(Ordering::Relaxed)
    }

    /// The tokens that each client was granted.
    fn end(self) -> Vec<Vec<i64>> {
        self.clients.into_iter().map(|client| client.join().expect("a client")).collect()
    }
}

/// Asserts that the server has a prefix of each client's locks. Returns the number of locks in all of
/// them.
fn prefixes(client: &mut Client, histories: &[Vec<i64>]) -> usize {
    let mut total = 0;
    for (number, tokens) in histories.iter().enumerate() {
        let fence = |n: usize, client: &mut Client| client.call(&["FENCE", &format!("c{number}n{n}")]);
        let mut n = 0;
        while n < tokens.len() && fence(n, client) == format!(":{}", tokens[n]) {
            n += 1;
        }
        total += n;
        for later in n..tokens.len() {
            assert_eq!(fence(later, client), "(nil)", "client {number}: {later} without {n}");
        }
    }
    total
}

#[test]
fn a_backup_under_load_restores_to_a_prefix_of_the_history() {
    let (dir, data, file) = folder();
    let offline = dir.path().join("offline");
    let server = Process::start(&data, &[]);
    let load = Load::start(&server);
    until(|| load.granted() > 100);
    let before = load.granted();
    back_up(&data, &file);
    until(|| load.granted() > before + 1000);
    server.kill();
    let histories = load.end();
    // Of the database that the killed server has left, too.
    back_up(&data, &offline);
    let mut issued: HashSet<i64> = histories.iter().flatten().copied().collect();
    let mut found = Vec::new();
    // With and without what the lost branch knew of its tokens.
    for (copy, loses_lock_file) in [(&file, false), (&file, true), (&offline, true)] {
        lose(&data, loses_lock_file);
        restore(copy, &data);
        let server = Process::start(&data, &[]);
        let mut client = server.connect();
        found.push(prefixes(&mut client, &histories));
        let highest = issued.iter().max().copied();
        assert!(Some(grant(&mut client, "new")) > highest);
        grant_new(&server, &mut issued, "new-branch", 1000);
        drop(client);
        server.kill();
    }
    assert!(found[0] >= before, "what was acknowledged before the backup is in it: {found:?}, {before}");
    assert_eq!(found[2], histories.iter().map(Vec::len).sum::<usize>(), "the last state has everything");
}

/// The server, the program that copies, or both are killed while a copy is being made.
/// `OCTOSTORE_TEST_CRASHES` is the number of rounds.
#[test]
fn a_copy_that_exists_is_whole_whatever_is_killed() {
    let rounds = setting("OCTOSTORE_TEST_CRASHES").unwrap_or(12);
    let seed = setting("OCTOSTORE_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{rounds} rounds, seed {seed}");
    let mut random = Random::new(seed);
    let mut copies = 0;
    for round in 0..rounds {
        let (dir, data, file) = folder();
        let server = Process::start(&data, &[]);
        let load = Load::start(&server);
        until(|| load.granted() > 50);
        let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
        command.args(["backup", "--data", text(&data), text(&file)]);
        let mut copying = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        let enough = load.granted() as u64 + random.below(300);
        until(|| load.granted() as u64 >= enough);
        // In the first round, for certain, a copy of a database whose server is killed.
        let is_finished = match if round == 0 { 0 } else { random.below(3) } {
            0 => {
                server.kill();
                copying.wait().expect("its end").success()
            }
            1 => {
                copying.kill().expect("a process to kill");
                copying.wait().expect("its end");
                server.kill();
                false
            }
            _ => {
                server.kill();
                copying.kill().expect("a process to kill");
                copying.wait().expect("its end").success()
            }
        };
        let histories = load.end();
        assert!(file.exists() || !is_finished, "round {round}");
        if file.exists() {
            copies += 1;
        } else {
            // What a killed program leaves is in the way of no other.
            back_up(&data, &file);
        }
        let (code, output) = run(&["check", "--data", text(&file)]);
        assert_eq!(code, 0, "round {round}: {output}");
        let restored = dir.path().join("restored.db");
        restore(&file, &restored);
        let server = Process::start(&restored, &[]);
        let mut client = server.connect();
        let found = prefixes(&mut client, &histories);
        assert!(found >= 50, "round {round}: {found}");
        assert!(Some(grant(&mut client, "new")) > histories.iter().flatten().max().copied());
        drop(client);
        server.kill();
    }
    assert!(copies > 0);
}

#[test]
fn no_token_is_issued_twice_after_restores() {
    let (_dir, data, file) = folder();
    let mut issued = HashSet::new();
    let server = Process::start(&data, &[]);
    grant_new(&server, &mut issued, "kept", 10);
    let output = back_up(&data, &file);
    assert!(output.contains("keys 10, sessions 0, highest token "), "{output}");
    grant_new(&server, &mut issued, "lost", 1000);
    server.kill();
    let same = file.with_extension("same");
    std::fs::copy(&file, &same).expect("a copy of the copy");
    // With the lock file, without it, and from the same copy without it again.
    for (round, (file, loses_lock_file)) in
        [(&file, false), (&file, true), (&file, true), (&same, true)].into_iter().enumerate()
    {
        lose(&data, loses_lock_file);
        let highest = issued.iter().max().copied().expect("a token");
        let output = restore(file, &data);
        assert!(output.contains("more than were issued until now"), "{output}");
        let server = Process::start(&data, &[]);
        let mut client = server.connect();
        assert_eq!(client.call(&["EXISTS", "kept9", "lost0"]), ":1");
        assert!(grant(&mut client, &format!("first{round}")) > highest);
        grant_new(&server, &mut issued, &format!("round{round}n"), 1000);
        drop(client);
        server.kill();
    }
    lose(&data, true);
    let (code, output) =
        run(&["restore", text(&file), "--data", text(&data), "--token-floor", "1125899906842624"]);
    assert!(code == 0 && output.contains("tokens go on above 1125899906842624, ahead"), "{output}");
}

/// Copies of one history, each restored on a disk of its own.
#[test]
fn copies_restored_in_any_order_on_any_disk_repeat_no_token() {
    let (dir, data, older) = folder();
    let [newer, same, latest] = ["newer", "same", "latest"].map(|name| dir.path().join(name));
    let mut issued = HashSet::new();
    let server = Process::start(&data, &[]);
    grant_new(&server, &mut issued, "older", 10);
    back_up(&data, &older);
    grant_new(&server, &mut issued, "newer", 10);
    back_up(&data, &newer);
    grant_new(&server, &mut issued, "lost", 10);
    server.kill();
    std::fs::copy(&older, &same).expect("a copy of the copy");
    for (disk, file) in [&newer, &older, &same, &older, &latest, &latest, &newer].into_iter().enumerate() {
        let before = std::fs::read(file).expect("a file");
        let folder = dir.path().join(format!("disk{disk}"));
        std::fs::create_dir(&folder).expect("a folder");
        let data = folder.join("octostore.db");
        restore(file, &data);
        assert!(std::fs::read(file).expect("a file") == before, "a restore changes no copy");
        let highest = issued.iter().max().copied().expect("a token");
        let server = Process::start(&data, &[]);
        assert!(grant(&mut server.connect(), &format!("first{disk}")) > highest);
        grant_new(&server, &mut issued, &format!("disk{disk}n"), 10);
        // A copy of what was restored.
        if disk < 4 {
            back_up(&data, &latest);
        }
        server.kill();
    }
    let data = dir.path().join("refused");
    let (code, output) = run(&["restore", text(&latest), "--data", text(&data), "--token-floor", "5"]);
    assert!(code == 1 && output.contains("--token-floor 5 is too low"), "{code} {output}");
    assert!(!data.exists() && !dir.path().join("refused.lock").exists(), "nothing is left behind");
}

#[test]
fn what_must_not_be_overwritten_is_not() {
    let (dir, data, file) = folder();
    let server = Process::start(&data, &[]);
    server.connect().call(&["LOCK", "k", "me"]);
    back_up(&data, &file);
    let refused = |arguments: &[&str], expected: &str| {
        let (code, output) = run(arguments);
        assert!(code != 0 && output.contains(expected), "{arguments:?}: {code} {output}");
    };
    refused(&["restore", text(&file), "--data", text(&data)], "exists; move it away first");
    refused(&["backup", "--data", text(&data), text(&data)], "is the database of a server");
    refused(&["check", "--data", text(&data)], "another server");
    let notes = dir.path().join("notes");
    std::fs::write(&notes, "nothing that a database would say".repeat(100)).expect("a file");
    refused(&["backup", "--data", text(&data), text(&notes)], "");
    refused(&["restore", text(&notes), "--data", text(&dir.path().join("other"))], "");
    assert!(!dir.path().join("other").exists() && !dir.path().join("other.lock").exists());
    refused(&["restore", text(&dir.path().join("nowhere")), "--data", text(&data)], "there is no database");
    refused(&["backup", "--data", text(&dir.path().join("nowhere")), text(&file)], "there is no database");
    refused(&["backup", "--every", "often", text(&file)], "as in 30s");
    // The files of a running server are gone, and it still runs.
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", data.display())).expect("a file");
    }
    refused(&["restore", text(&file), "--data", text(&data)], "another server");
    server.kill();
    // A copy that was damaged.
    let mut bytes = std::fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2000].fill(0x55);
    bytes.truncate(bytes.len() - 4096);
    std::fs::write(&file, bytes).expect("a file");
    let _ = std::fs::remove_file(&data);
    refused(&["restore", text(&file), "--data", text(&data)], "nothing was restored");
    assert!(!data.exists(), "nothing is left behind");
}

#[test]
fn a_part_of_a_copy_is_not_restored() {
    let (dir, data, file) = folder();
    let server = Process::start(&data, &[]);
    server.connect().call(&["LOCK", "k", "me"]);
    back_up(&data, &file);
    server.kill();
    lose(&data, true);
    let whole = std::fs::read(&file).expect("a copy");
    let page = whole.len() - 4096;
    let sizes = [0, 1, 50, 100, 4095, 4096, page - 1, page, page + 1, whole.len() - 1];
    let again = dir.path().join("again");
    for size in sizes {
        std::fs::write(&file, &whole[..size]).expect("a file");
        for arguments in [
            &["restore", text(&file), "--data", text(&data)][..],
            &["backup", "--data", text(&file), text(&again)],
            &["check", "--data", text(&file)],
        ] {
            let (code, output) = run(arguments);
            assert!(code != 0 && output.lines().count() == 1, "{size} bytes: {arguments:?}: {code} {output}");
            assert!(size > 0 || output.contains("the file is empty"), "{output}");
        }
        let names: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").flatten().collect();
        assert_eq!(names.len(), 1, "only the copy is there: {names:?}");
    }
    // What a process that was killed has left goes with the next attempt.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        std::fs::write(format!("{}.partial{suffix}", again.display()), "left").expect("a file");
    }
    std::fs::write(&file, &whole).expect("a file");
    back_up(&file, &again);
    let names: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").flatten().collect();
    assert_eq!(names.len(), 2, "only the copies are there: {names:?}");
    restore(&file, &data);
}

#[test]
fn a_loop_of_backups_keeps_the_newest() {
    let (dir, data, file) = folder();
    let server = Process::start(&data, &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
    command.args(["backup", "--data", text(&data), text(&file), "--every", "1s", "--keep", "2"]);
    let mut looping = command.stdout(Stdio::null()).spawn().expect("the program");
    let seen = std::cell::RefCell::new(HashSet::new());
    let copies = || {
        let entries = std::fs::read_dir(dir.path()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let copies: Vec<String> =
            names.filter(|name| name.starts_with("copy.") && name.ends_with('Z')).collect();
        seen.borrow_mut().extend(copies.iter().cloned());
        copies.len()
    };
    until(|| copies() <= 2 && seen.borrow().len() > 3);
    looping.kill().expect("a process to kill");
    looping.wait().expect("its end");
    server.kill();
}

#[test]
fn what_litestream_copies_can_be_restored() {
    let (dir, data, file) = folder();
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    grant(&mut client, "first");
    let replica = dir.path().join("replica");
    let address = format!("file://{}", text(&replica));
    let litestream = |arguments: &[&str]| {
        let mut command = Command::new("litestream");
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut replicating = match litestream(&["replicate", text(&data), &address]).spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => return skip("there is no litestream"),
        spawned => spawned.expect("the program"),
    };
    until(|| replica.exists());
    let tokens: Vec<i64> = (0..500).map(|n| grant(&mut client, &format!("c0n{n}"))).collect();
    // It copies what is left before it ends.
    let id = replicating.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    assert!(replicating.wait().expect("its end").success());
    drop(client);
    server.kill();
    let restored = litestream(&["restore", "-o", text(&file), &address]).status();
    assert!(restored.expect("the program").success());
    for database in [&data, &file] {
        let (code, output) = run(&["check", "--data", text(database)]);
        assert_eq!(code, 0, "{output}");
    }
    lose(&data, true);
    restore(&file, &data);
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    let highest = tokens.last().copied();
    assert_eq!(prefixes(&mut client, &[tokens]), 500);
    assert!(Some(grant(&mut client, "new")) > highest);
    drop(client);
    server.kill();
}

#[test]
fn check_prints_a_line_for_each_finding() {
    let (_dir, data, _) = folder();
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    for line in ["LOCK a me EX 1000", "LOCK b me", "HSET h f v", "SESSION OPEN EX 100 NAME s"] {
        assert!(!client.line(line).starts_with('-'), "{line}");
    }
    drop(client);
    assert_eq!(server.terminate().0, Some(0));
    let (code, output) = run(&["check", "--data", text(&data)]);
    assert!(code == 0 && output.contains("keys 3, sessions 1, highest token "), "{code} {output}");
    let change = |sql: &str| {
        let db = rusqlite::Connection::open(&data).expect("a database");
        db.execute_batch(sql).expect("a change");
    };
    let findings = || {
        let (code, output) = run(&["check", "--data", text(&data)]);
        assert_eq!(code, 1, "{output}");
        output.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    change("UPDATE octostore SET tokens_reserved = 1");
    let found = findings();
    assert_eq!(found.len(), 2, "of b and h: {found:?}");
    assert!(found.iter().all(|line| line.contains("none above 1 was issued")), "{found:?}");
    change("UPDATE octostore SET tokens_reserved = 40000; ALTER TABLE delays ADD COLUMN extra TEXT");
    assert_eq!(findings(), ["schema: column extra TEXT of table delays is not one of octostore's"]);
    let (code, output) = run(&["check", "--data", "/nonexistent/octostore.db"]);
    assert!(code == 2 && output.contains("cannot check"), "{code} {output}");
}

/// Commits go on while a large database is copied.
#[test]
fn commits_go_on_during_a_backup() {
    let (_dir, data, file) = folder();
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    let value = "x".repeat(64 << 10);
    for n in 0..200 {
        assert!(client.call(&["HSET", &format!("h{n}"), "f", &value]).starts_with(':'));
    }
    let done = Arc::new(AtomicBool::new(false));
    let backup = std::thread::spawn({
        let (data, file, done) = (data.clone(), file.clone(), Arc::clone(&done));
        move || {
            back_up(&data, &file);
            done.store(true, Ordering::Release);
        }
    });
    let mut during = 0;
    while !done.load(Ordering::Acquire) {
        assert_eq!(client.call(&["SET", "k", "v"]), "+OK");
        during += 1;
    }
    backup.join().expect("a backup");
    assert!(during > 0, "{during}");
}
