//! The HTTP adapter over real sockets.
//!
//! `http/*.txt` are golden transcripts: `alice> METHOD PATH [header: value] BODY` is sent with alice's token (`nobody`: with
//! none, `admin`: with the operators' key, `redis>`: over RESP), and what follows is the answer. `advance MS` moves the
//! clock, `flags FLAGS` at the top sets the server up. Ids are numbered in the order in which they turn up.
//! `UPDATE_SCRIPTS=1 cargo test http` writes what the server answers now; review it as a diff.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::http::{
    Answer, call, credentials, exchange, metric, read_answer, read_head, request, server, tokens_file,
};

mod bodies;
mod faults;
mod heads;
mod openapi;
mod service;
mod watch;

/// Replaces ids by their numbers, and back.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn hide(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let length = from.find(|c: char| !c.is_ascii_hexdigit() && c != '-').unwrap_or(from.len());
            let (word, after) = from.split_at(length);
            if word.len() == 36 && word.matches('-').count() == 4 {
                let known = self.0.iter().position(|id| id == word).unwrap_or_else(|| {
                    self.0.push(word.to_owned());
                    self.0.len() - 1
                });
                write!(out, "<id {}>", known + 1).expect("room");
            } else {
                out.push_str(word);
            }
            rest = after;
        }
        out + rest
    }

    fn show(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (n, id) in self.0.iter().enumerate() {
            text = text.replace(&format!("<id {}>", n + 1), id);
            text = text.replace(&format!("<bare id {}>", n + 1), &id.replace('-', "").to_uppercase());
        }
        text
    }
}

/// Checks what every answer has, and gives it as a script shows it.
fn shown(names: &mut Names, method: &str, answer: &Answer) -> String {
    let id = answer.header("x-request-id").unwrap_or_else(|| panic!("no request id: {}", answer.status));
    assert!(id.len() == 36 && id.starts_with("req_"), "{id}");
    assert!(id[4..].chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{id}");
    assert_eq!(
        answer.header("vary"),
        Some("origin, access-control-request-method, access-control-request-headers")
    );
    let exposed = (method != "OPTIONS").then_some("retry-after,x-request-id");
    assert_eq!(answer.header("access-control-expose-headers"), exposed);
    if answer.status >= 400 && method != "HEAD" && !answer.body.contains("\"status\":\"delayed\"") {
        assert_eq!(answer.json()["request_id"], id);
    }
    let mut text = answer.status.to_string();
    for header in ["allow", "retry-after", "content-type", "cache-control", "content-security-policy"]
        .into_iter()
        .chain(["access-control-allow-origin", "access-control-allow-methods"])
        .chain(["x-octostore-ignored-fields"])
        .chain(["access-control-allow-headers", "access-control-max-age", "access-control-allow-credentials"])
    {
        if let Some(value) = answer.header(header).filter(|value| *value != "application/json") {
            write!(text, " [{header}: {value}]").expect("room");
        }
    }
    let body = answer.body.replace(id, "<request id>");
    if !body.is_empty() {
        write!(text, " {}", names.hide(body.trim_end())).expect("room");
    }
    text
}

/// The script with the answers that the server gives now.
fn run(script: &str) -> String {
    let flags = script.lines().find_map(|line| line.strip_prefix("flags ")).unwrap_or("");
    let (server, _dir) = server(&flags.split_whitespace().collect::<Vec<_>>());
    let addr = server.http.expect("HTTP");
    let mut redis = server.connect();
    let mut names = Names::default();
    let mut answered = String::new();
    for line in script.lines() {
        let sent = line.split_once("> ").filter(|(who, _)| who.chars().all(char::is_alphanumeric));
        if line.is_empty() || line.starts_with('#') || line.starts_with("flags ") || sent.is_some() {
            writeln!(answered, "{line}").expect("room");
        }
        if let Some(millis) = line.strip_prefix("advance ") {
            writeln!(answered, "{line}").expect("room");
            server.clock.advance_millis(millis.parse().expect("milliseconds"));
            server.engine.expire_due();
        }
        let Some((who, rest)) = sent else { continue };
        let rest = names.show(rest);
        if who == "redis" {
            writeln!(answered, "{}", names.hide(&redis.line(&rest))).expect("room");
            continue;
        }
        let (method, rest) = rest.split_once(' ').expect("a path");
        let (path, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut headers = String::new();
        while let Some((header, after)) = rest
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .filter(|(header, _)| header.contains(": "))
        {
            write!(headers, "{header}\r\n").expect("room");
            rest = after.trim_start();
        }
        let answer = exchange(addr, &request(who, method, path, &headers, rest)).expect("an answer");
        openapi::assert_documented(method, path, &answer);
        writeln!(answered, "{}", shown(&mut names, method, &answer)).expect("room");
    }
    answered
}

#[test]
fn every_http_script_is_answered_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/http");
    let entries = std::fs::read_dir(&folder).expect("the scripts");
    let mut scripts: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 5, "the scripts are there");
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("a script");
        let answered = run(&text);
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            std::fs::write(&path, &answered).expect("a writable script");
            continue;
        }
        let differing = text.lines().zip(answered.lines()).enumerate().find(|(_, (a, b))| a != b);
        assert!(differing.is_none(), "{}: {differing:?}", path.display());
        assert_eq!(text.lines().count(), answered.lines().count(), "{}", path.display());
    }
}
