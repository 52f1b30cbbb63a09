//! Servers of one cluster as processes, on a real etcd.

mod clients;
mod example;
mod failover;
mod full;
mod nodes;
mod roles;
mod secured;
mod sentinel;
mod shards;
mod subcommands;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::encode;
use crate::support::http::exchange;

/// A client that neither panics nor hangs when its server dies.
struct Caller(BufReader<TcpStream>);

impl Caller {
    fn connect(addr: SocketAddr) -> Option<Caller> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_nodelay(true).ok()?;
        // A server that is stopped accepts, and answers nothing.
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        Some(Caller(BufReader::new(stream)))
    }

    fn send(&mut self, words: &[&str]) -> Option<()> {
        self.0.get_mut().write_all(&encode(words)).ok()
    }

    /// The next line that the server sends; `None`: the connection has ended, or is silent.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).ok()?;
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// Sends a request whose reply is one line.
    fn call(&mut self, words: &[&str]) -> Option<String> {
        self.send(words)?;
        self.line()
    }
}

/// Calls the JSON interface of etcd.
fn call_etcd(port: u16, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let head = format!("POST /v3/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close");
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = exchange(([127, 0, 0, 1], port).into(), request.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}
