//! The HTTP adapter over real sockets.
//!
//! `http/*.txt` are golden transcripts: `alice> METHOD PATH [header: value] BODY` is sent with alice's token (`nobody`: with
//! none, `admin`: with the operators' key, `redis>`: over RESP), and what follows is the answer. `advance MS` moves the
//! clock, `flags FLAGS` at the top sets the server up. Ids are numbered in the order in which they turn up.
//! `UPDATE_SCRIPTS=1 cargo test http` writes what the server answers now; review it as a diff.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;

use super::wire::TestServer;

mod bodies;
mod faults;
mod heads;
mod openapi;
mod service;
mod watch;

/// An answer as it came over the wire.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {:?}", self.status, self.body))
    }
}

/// Sends bytes and reads one answer; `None` if the connection ends without one.
pub(crate) fn exchange(addr: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    // The server may refuse before it has read everything.
    let _ = stream.write_all(request);
    read_answer(&mut BufReader::new(stream), request.starts_with(b"HEAD "))
}

fn read_head(reader: &mut impl BufRead) -> Option<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let status = line.split(' ').nth(1)?.parse().expect("a status");
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => return Some((status, headers)),
        }
    }
}

fn read_answer(reader: &mut impl BufRead, is_head: bool) -> Option<Answer> {
    let (status, headers) = read_head(reader)?;
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = Vec::new();
    match length.filter(|_| !is_head) {
        Some((_, length)) => {
            body.resize(length.parse().expect("a length"), 0);
            reader.read_exact(&mut body).expect("a body");
        }
        // Nothing, or all there is until the end.
        None => drop(reader.read_to_end(&mut body)),
    }
    Some(Answer { status, headers, body: String::from_utf8(body).expect("text") })
}

const TOKENS: &str =
    "# users of tests\nalice:token-of-alice\nbob:token-of-bob\n\ncarol:token-of-carol team\n";
const ADMIN_KEY: &str = "key-of-admin";

fn tokens_file(dir: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("tokens");
    std::fs::write(&path, TOKENS).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a file");
    path.to_str().expect("text").to_owned()
}

fn credentials(who: &str) -> String {
    match who {
        "nobody" => String::new(),
        "admin" => format!("x-admin-key: {ADMIN_KEY}\r\n"),
        user => format!("authorization: Bearer token-of-{user}\r\n"),
    }
}

fn request(who: &str, method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let media = if headers.contains("content-type") || body.is_empty() {
        ""
    } else {
        "content-type: application/json\r\n"
    };
    let length = if body.is_empty() && method != "POST" {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    let credentials = credentials(who);
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{credentials}{headers}{media}{length}\r\n{body}"
    )
    .into_bytes()
}

fn call(addr: SocketAddr, who: &str, method: &str, path: &str, body: &str) -> Answer {
    exchange(addr, &request(who, method, path, "", body)).expect("an answer")
}

/// A server with users, under a clock that stands still.
fn server(flags: &[&str]) -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let tokens = tokens_file(dir.path());
    let mut all = vec!["--http-tokens", &tokens, "--http-admin-key", ADMIN_KEY];
    all.extend(flags);
    (TestServer::manual(&all), dir)
}

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

/// A number that `/metrics` has.
fn metric(addr: SocketAddr, name: &str) -> u64 {
    let text = call(addr, "admin", "GET", "/metrics", "").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
}
