//! A client of the HTTP format.
//!
//! Promise: it costs little: one kept connection, blocking. Absent: what is measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An HTTP client on one kept connection.
pub struct HttpClient {
    stream: BufReader<TcpStream>,
    authorization: String,
}

impl HttpClient {
    /// With a bearer token, if there is one.
    pub fn connect(addr: SocketAddr, token: Option<&str>) -> HttpClient {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        let authorization =
            token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        HttpClient { stream: BufReader::new(stream), authorization }
    }

    fn post(&mut self, path: &str, body: &str) -> String {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.authorization,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Takes a lock and gives it back.
    pub fn cycle(&mut self, name: &str) {
        let taken = self.post(&format!("/locks/{name}/acquire"), r#"{"ttl_seconds":30}"#);
        let lease = taken.split("\"lease_id\":\"").nth(1).expect("acquired").split('"').next().unwrap();
        let body = format!(r#"{{"lease_id":"{lease}"}}"#);
        assert_eq!(self.post(&format!("/locks/{name}/release"), &body), "null");
    }
}
