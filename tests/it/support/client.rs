//! A raw RESP client that shows every byte of a reply's shape.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection that neither retries nor hides anything.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        // Far longer than any reply takes: a test that hangs then fails where it hangs.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
        Client { reader: BufReader::new(stream) }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("a server that reads");
    }

    pub(crate) fn send(&mut self, words: &[&str]) {
        self.send_bytes(&encode(words));
    }

    /// Sends a request and formats the reply.
    pub(crate) fn call(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.reply()
    }

    /// Sends a request and formats the reply; `None` if the connection has ended.
    pub(crate) fn try_call(&mut self, words: &[&str]) -> Option<String> {
        self.reader.get_mut().write_all(&encode(words)).ok()?;
        self.format_reply(0).ok()
    }

    /// Splits `line` at blanks, sends it and formats the reply.
    pub(crate) fn line(&mut self, line: &str) -> String {
        self.call(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The next reply, one line per part, or "(closed)" at the end of the connection.
    pub(crate) fn reply(&mut self) -> String {
        self.format_reply(0).unwrap_or_else(|_| "(closed)".to_owned())
    }

    /// Reads until the server closes the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset ends the connection as well.
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    fn format_reply(&mut self, depth: usize) -> std::io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let (kind, rest) = line.split_at(1);
        let length = || rest.parse::<usize>().ok();
        let text = match kind {
            "+" | "-" | ":" | "_" | "#" | "," => line.to_owned(),
            "$" | "=" if rest == "-1" => "(nil)".to_owned(),
            "*" if rest == "-1" => "(nil array)".to_owned(),
            "$" | "=" => {
                let mut bytes = vec![0; length().expect("a length") + 2];
                self.reader.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                let sign = if kind == "=" { "=" } else { "" };
                format!("{sign}\"{}\"", bytes.escape_ascii())
            }
            "*" | "~" | ">" | "%" => {
                let count = length().expect("a count") * if kind == "%" { 2 } else { 1 };
                let mut text = line.to_owned();
                for _ in 0..count {
                    text.push('\n');
                    text.push_str(&self.format_reply(depth + 1)?);
                }
                return Ok(indented(&text, depth));
            }
            other => panic!("not a reply: {other}{rest}"),
        };
        Ok(indented(&text, depth))
    }
}

fn indented(text: &str, depth: usize) -> String {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let mut shown = format!("{}{first}", "  ".repeat(depth));
    if !rest.is_empty() {
        shown.push('\n');
        shown.push_str(rest);
    }
    shown
}

/// A request as an array of bulk strings.
pub(crate) fn encode(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
