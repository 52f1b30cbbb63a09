//! A raw HTTP client, and a server with users.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;

use super::server::TestServer;

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

pub(crate) fn read_head(reader: &mut impl BufRead) -> Option<(u16, Vec<(String, String)>)> {
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

pub(crate) fn read_answer(reader: &mut impl BufRead, is_head: bool) -> Option<Answer> {
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

pub(crate) const TOKENS: &str =
    "# users of tests\nalice:token-of-alice\nbob:token-of-bob\n\ncarol:token-of-carol team\n";
pub(crate) const ADMIN_KEY: &str = "key-of-admin";

pub(crate) fn tokens_file(dir: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("tokens");
    std::fs::write(&path, TOKENS).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a file");
    path.to_str().expect("text").to_owned()
}

pub(crate) fn credentials(who: &str) -> String {
    match who {
        "anonymous" => String::new(),
        "admin" => format!("x-admin-key: {ADMIN_KEY}\r\n"),
        user => format!("authorization: Bearer token-of-{user}\r\n"),
    }
}

pub(crate) fn request(who: &str, method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
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

pub(crate) fn call(addr: SocketAddr, who: &str, method: &str, path: &str, body: &str) -> Answer {
    exchange(addr, &request(who, method, path, "", body)).expect("an answer")
}

/// A server with users, under a clock that stands still.
pub(crate) fn server(flags: &[&str]) -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let tokens = tokens_file(dir.path());
    let mut all = vec!["--http-tokens", &tokens, "--http-admin-key", ADMIN_KEY];
    all.extend(flags);
    (TestServer::manual(&all), dir)
}

/// A number that `/metrics` has.
pub(crate) fn metric(addr: SocketAddr, name: &str) -> u64 {
    let text = call(addr, "admin", "GET", "/metrics", "").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
}
