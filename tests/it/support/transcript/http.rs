//! Transcripts over HTTP.
//!
//! `alice> METHOD PATH [header: value] BODY` is sent with alice's token, `anonymous>` without one,
//! `admin>` with the operators' key; `redis>` is sent over RESP. Ids are numbered in the order in
//! which they appear.

use std::fmt::Write as _;

use super::{Performed, Session};
use crate::http::openapi;
use crate::support::client::Client;
use crate::support::http::{Answer, exchange, request, server};
use crate::support::server::TestServer;

/// A server with users, and what the transcript has seen of it.
pub(crate) struct HttpSession {
    server: TestServer,
    _dir: tempfile::TempDir,
    redis: Client,
    names: Names,
}

impl HttpSession {
    pub(crate) fn start(flags: &[&str]) -> HttpSession {
        let (server, dir) = server(flags);
        let redis = server.connect();
        HttpSession { server, _dir: dir, redis, names: Names::default() }
    }
}

impl Session for HttpSession {
    fn advance(&mut self, millis: u64) {
        self.server.advance(millis);
    }

    fn perform(&mut self, line: &str) -> Performed {
        let sent = line.split_once("> ").filter(|(who, _)| who.chars().all(char::is_alphanumeric));
        let Some((who, rest)) = sent else { return Performed::NotARequest };
        let rest = self.names.show(rest);
        if who == "redis" {
            return Performed::Answered(self.names.hide(&self.redis.line(&rest)));
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
        let addr = self.server.http.expect("HTTP");
        let answer = exchange(addr, &request(who, method, path, &headers, rest)).expect("an answer");
        openapi::assert_documented(method, path, &answer);
        Performed::Answered(format_answer(&mut self.names, method, &answer))
    }
}

/// Replaces ids by their numbers, and back.
#[derive(Default)]
pub(crate) struct Names(Vec<String>);

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
pub(crate) fn format_answer(names: &mut Names, method: &str, answer: &Answer) -> String {
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
