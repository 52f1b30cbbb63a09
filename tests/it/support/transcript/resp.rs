//! Transcripts over RESP, on octostore or on another server.
//!
//! `> WORDS` is sent by the first client, `b> WORDS` by client b. `b>> WORDS` sends and waits until
//! the request waits; `b<` reads its reply later. `b>- WORDS` sends what is not
//! answered. `b closes` closes a connection. `$secret1` stands for the first session id that a
//! reply had. `b~> WORDS` rounds what is left of a TTL up to ten seconds.
//!
//! `script NAME` begins a script, and `| LUA` is a line of it. In requests, `@NAME` stands for its
//! text and `@NAME.sha1` for its digest.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha1::{Digest, Sha1};

use super::{Performed, Session};
use crate::support::client::Client;
use crate::support::server::TestServer;
use crate::support::until;

/// A server that transcripts run on.
pub(crate) trait Answers {
    fn connect(&self) -> Client;
    /// Lets `millis` pass.
    fn advance(&self, millis: u64);
    /// The number of requests that wait.
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
        TestServer::waiting(self)
    }
}

/// The clients of a transcript.
pub(crate) struct RespSession<S> {
    server: S,
    clients: BTreeMap<String, Client>,
    secrets: Vec<String>,
    /// Names and texts.
    scripts: Vec<(String, String)>,
    /// Requests that waited after the last line.
    waiting: u64,
}

impl<S: Answers> RespSession<S> {
    pub(crate) fn new(server: S) -> RespSession<S> {
        RespSession { server, clients: BTreeMap::new(), secrets: Vec::new(), scripts: Vec::new(), waiting: 0 }
    }

    fn client(&mut self, name: &str) -> &mut Client {
        let server = &self.server;
        self.clients.entry(name.to_owned()).or_insert_with(|| server.connect())
    }

    fn send(&mut self, name: &str, words: &str) {
        self.client(name).send_bytes(format!("{words}\r\n").as_bytes());
    }

    fn reply(&mut self, name: &str) -> Performed {
        let reply = self.clients.get_mut(name).expect("a client that sent something").reply();
        Performed::Answered(hide(&reply, &mut self.secrets))
    }

    /// Puts session ids and scripts in the place of their labels.
    fn reveal(&self, words: &str) -> String {
        let words =
            self.secrets.iter().enumerate().fold(words.to_owned(), |words, (n, secret)| {
                words.replace(&format!("$secret{}", n + 1), secret)
            });
        words
            .split(' ')
            .map(|word| self.script(word).unwrap_or_else(|| word.to_owned()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The text or the digest of a script, if `word` is the label of one.
    fn script(&self, word: &str) -> Option<String> {
        let label = word.strip_prefix('@')?;
        let name = label.strip_suffix(".sha1").unwrap_or(label);
        let (_, text) = self.scripts.iter().find(|(known, _)| known == name)?;
        Some(if name == label { quoted(text) } else { hex_sha1(text) })
    }

    /// Whether the line is a part of a script.
    fn reads_script(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix("script ") {
            self.scripts.push((name.to_owned(), String::new()));
            return true;
        }
        let Some(code) = line.strip_prefix("| ") else { return false };
        let (_, text) = self.scripts.last_mut().expect("a script begins with its name");
        text.push_str(code);
        text.push('\n');
        true
    }
}

impl<S: Answers> Session for RespSession<S> {
    fn advance(&mut self, millis: u64) {
        self.server.advance(millis);
        self.waiting = self.server.waiting();
    }

    fn perform(&mut self, line: &str) -> Performed {
        if self.reads_script(line) {
            return Performed::Silent;
        }
        if let Some((name, words)) = line.split_once(">- ") {
            self.send(name, words);
            return Performed::Silent;
        }
        if let Some(name) = line.strip_suffix('<') {
            let reply = self.reply(name);
            self.waiting = self.server.waiting();
            return reply;
        }
        if let Some(name) = line.strip_suffix(" closes") {
            self.clients.remove(name).expect("a client");
            until(|| self.server.waiting() < self.waiting || self.waiting == 0);
            self.waiting = self.server.waiting();
            return Performed::Silent;
        }
        let is_name = |name: &str| name.trim_end_matches(['>', '~']).chars().all(char::is_alphanumeric);
        let Some((name, words)) = line.split_once("> ").filter(|(name, _)| is_name(name)) else {
            return Performed::NotARequest;
        };
        let (name, queues) = (name.trim_end_matches('>'), name.ends_with('>'));
        let (name, is_rounded) = (name.trim_end_matches('~'), name.ends_with('~'));
        let words = self.reveal(words);
        self.send(name, &words);
        if queues {
            self.waiting += 1;
            until(|| self.server.waiting() == self.waiting);
            return Performed::Silent;
        }
        let reply = self.reply(name);
        self.waiting = self.server.waiting();
        match reply {
            Performed::Answered(reply) if is_rounded => Performed::Answered(rounded(&reply)),
            reply => reply,
        }
    }
}

/// An argument of an inline request.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

fn hex_sha1(text: &str) -> String {
    Sha1::digest(text).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("room");
        hex
    })
}

/// The reply with all numbers beyond a thousand rounded up to ten thousands.
fn rounded(reply: &str) -> String {
    let round = |line: &str| {
        let number = line.trim_start().strip_prefix(':').and_then(|number| number.parse::<u64>().ok());
        match number.filter(|number| *number > 1000) {
            Some(number) => {
                line.replace(&number.to_string(), &(number.div_ceil(10_000) * 10_000).to_string())
            }
            None => line.to_owned(),
        }
    };
    reply.lines().map(round).collect::<Vec<_>>().join("\n")
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
        } else if let Some((start, rest)) = line.split_once(" 127.0.0.1:")
            && let Some((_, end)) = rest.split_once(']')
        {
            // A line of MONITOR.
            format!("{start} ADDR]{end}")
        } else {
            line.to_owned()
        };
        lines.push(line);
    }
    lines.join("\n")
}
