//! Golden transcripts: what clients send and what they get, as text that anyone can read.
//!
//! A line `> WORDS` is sent by the first client, `b> WORDS` by client b, and what follows is the reply. `b>> WORDS` sends
//! and waits until the request queues; `b<` reads the reply later. `b>- WORDS` sends what is not answered. `advance MS` moves the clock, `flags FLAGS` at the top
//! sets the server up. `UPDATE_SCRIPTS=1 cargo test scripts` writes what the server answers now; review it as a diff.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::wire::{Client, TestServer};

#[test]
fn every_script_is_answered_as_written() {
    let count = check("tests/it/scripts", TestServer::manual);
    assert!(count >= 8, "the scripts are there");
}

/// What answers a script.
pub(crate) trait Answers {
    fn connect(&self) -> Client;
    /// Lets this much time pass.
    fn advance(&self, millis: u64);
    /// How many requests queue for a lock.
    fn waiting(&self) -> u64;
}

impl Answers for TestServer {
    fn connect(&self) -> Client {
        TestServer::connect(self)
    }
    fn advance(&self, millis: u64) {
        TestServer::advance(self, millis);
    }
    fn waiting(&self) -> u64 {
        self.engine.lock_stats().waiting()
    }
}

/// Runs all scripts of a folder, each on a server started with the flags it names, and compares. Returns how many there are.
pub(crate) fn check<S: Answers>(folder: &str, start: impl Fn(&[&str]) -> S) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut scripts: Vec<_> = std::fs::read_dir(&folder)
        .expect("the scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    scripts.sort();
    let count = scripts.len();
    let mut differing = Vec::new();
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("a script");
        let answered = run(&text, &start);
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            std::fs::write(&path, &answered).expect("a writable script");
        } else if answered != text {
            let line = text.lines().zip(answered.lines()).position(|(a, b)| a != b).unwrap_or(0);
            let expected = text.lines().nth(line).unwrap_or("(nothing)");
            let found = answered.lines().nth(line).unwrap_or("(nothing)");
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            differing.push(format!("{name}:{}: expected {expected:?}, got {found:?}", line + 1));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    count
}

/// What the README shows is what redis-cli prints on a new database.
#[test]
fn the_session_in_the_readme_is_answered_as_printed() {
    let readme = include_str!("../../README.md");
    let session = readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next());
    let server = TestServer::manual(&[]);
    let mut client = server.connect();
    let mut lines = session.expect("a session").lines();
    let mut asked = 0;
    while let Some(line) = lines.next() {
        let request = line.strip_prefix("127.0.0.1:7379> ").expect("a request");
        let reply = client.line(request);
        let printed = match reply.strip_prefix(':') {
            Some(number) => format!("(integer) {number}"),
            None => reply,
        };
        assert_eq!(lines.next(), Some(&*printed), "{request}");
        asked += 1;
    }
    assert!(asked >= 8, "the session is there");
}

/// The script with the replies that the server gives now.
fn run<S: Answers>(script: &str, start: impl Fn(&[&str]) -> S) -> String {
    let flags: Vec<&str> = script
        .lines()
        .find_map(|line| line.strip_prefix("flags "))
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let server = start(&flags);
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    let mut secrets: Vec<String> = Vec::new();
    let mut waiting = 0;
    let mut answered = String::new();
    for line in script.lines() {
        let is_kept = line.is_empty() || line.starts_with(['#']) || line.starts_with("flags ");
        let sent = line
            .split_once("> ")
            .filter(|(name, _)| name.trim_end_matches('>').chars().all(char::is_alphanumeric));
        if is_kept {
            let _ = writeln!(answered, "{line}");
        } else if let Some(millis) = line.strip_prefix("advance ") {
            server.advance(millis.parse().expect("milliseconds"));
            waiting = server.waiting();
            let _ = writeln!(answered, "{line}");
        } else if let Some((name, words)) = line.split_once(">- ") {
            let client = clients.entry(name.to_owned()).or_insert_with(|| server.connect());
            client.send_bytes(format!("{words}\r\n").as_bytes());
            let _ = writeln!(answered, "{line}");
        } else if let Some(name) = line.strip_suffix('<') {
            let client = clients.get_mut(name).expect("a client that sent something");
            let _ = writeln!(answered, "{line}\n{}", hide(&client.reply(), &mut secrets));
        } else if let Some(name) = line.strip_suffix(" closes") {
            clients.remove(name).expect("a client");
            let _ = writeln!(answered, "{line}");
            super::wire::until(|| server.waiting() < waiting || waiting == 0);
            waiting = server.waiting();
        } else if let Some((name, words)) = sent {
            let (name, parks) = (name.trim_end_matches('>'), name.ends_with('>'));
            let client = clients.entry(name.to_owned()).or_insert_with(|| server.connect());
            let words = secrets.iter().enumerate().fold(words.to_owned(), |words, (n, secret)| {
                words.replace(&format!("$secret{}", n + 1), secret)
            });
            client.send_bytes(format!("{words}\r\n").as_bytes());
            let _ = writeln!(answered, "{line}");
            if parks {
                waiting += 1;
                super::wire::until(|| server.waiting() == waiting);
            } else {
                let reply = client.reply();
                waiting = server.waiting();
                let _ = writeln!(answered, "{}", hide(&reply, &mut secrets));
            }
        }
    }
    answered
}

/// Replaces what differs from run to run: ports, session ids and their pseudonyms.
fn hide(reply: &str, secrets: &mut Vec<String>) -> String {
    let mut lines = Vec::new();
    for line in reply.lines() {
        let word = line.trim_matches([' ', '"']);
        let line = if [16, 32].contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let label = if word.len() == 32 { "secret" } else { "pseudonym" };
            let known = secrets.iter().position(|secret| secret == word);
            let n = known.unwrap_or_else(|| {
                secrets.push(word.to_owned());
                secrets.len() - 1
            });
            line.replace(word, &format!("${label}{}", n + 1))
        } else if word.starts_with("127.0.0.1:") {
            line.replace(word, "ADDR")
        } else {
            line.to_owned()
        };
        lines.push(line);
    }
    lines.join("\n")
}
