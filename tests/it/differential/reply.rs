//! A connection that keeps each reply as a tree, and the rules by which two replies are compared.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::client::encode;

/// A request: its arguments, which may be any bytes.
pub(super) type Words = Vec<Vec<u8>>;

/// A reply of either version of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reply {
    /// A reply of one line, with its type.
    Line(String),
    /// A bulk or verbatim string.
    Bulk(Vec<u8>),
    /// An aggregate: its type, and the parts of a map in a flat list.
    Many(char, Vec<Reply>),
    /// The server closed the connection.
    Closed,
}

impl Reply {
    /// The text of an error.
    pub(super) fn error(&self) -> Option<&str> {
        match self {
            Reply::Line(line) => line.strip_prefix('-'),
            _ => None,
        }
    }

    fn read(reader: &mut impl BufRead) -> io::Result<Reply> {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
        let kind = line.chars().next().ok_or(ErrorKind::UnexpectedEof)?;
        let length = line.get(1..).and_then(|rest| rest.parse::<usize>().ok());
        Ok(match (kind, length) {
            ('$' | '=', Some(length)) => {
                let mut bytes = vec![0; length + 2];
                reader.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Reply::Bulk(bytes)
            }
            ('*' | '~' | '>' | '%', Some(length)) => {
                let count = if kind == '%' { 2 * length } else { length };
                let parts = (0..count).map(|_| Reply::read(reader));
                Reply::Many(kind, parts.collect::<io::Result<_>>()?)
            }
            _ => Reply::Line(line),
        })
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Reply::Line(line) => line.strip_prefix(':')?.parse().ok(),
            _ => None,
        }
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Reply::Line(line) => formatter.write_str(line),
            Reply::Bulk(bytes) => write!(formatter, "\"{}\"", bytes.escape_ascii()),
            Reply::Closed => formatter.write_str("(closed)"),
            Reply::Many(kind, parts) => {
                write!(formatter, "{kind}[")?;
                for (index, part) in parts.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(formatter, "{comma}{part}")?;
                }
                formatter.write_str("]")
            }
        }
    }
}

/// What two replies to the same request must have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Everything.
    Exact,
    /// The parts, in any order.
    Unordered,
    /// The pairs of parts, in any order.
    Pairs,
    /// The cursor, and the elements of the page in any order.
    Page,
    /// The cursor, and the pairs of the page in any order.
    PageOfPairs,
    /// An integer may differ by this much: the servers read their clocks at different times.
    Near(i64),
    /// The number of parts: which ones is a random choice.
    Length,
    /// The type: the value is the server's own.
    Kind,
}

impl Rule {
    pub(super) fn accepts(self, ours: &Reply, theirs: &Reply) -> bool {
        if ours == theirs {
            return true;
        }
        if ours.error().is_some() || theirs.error().is_some() {
            return false;
        }
        if let (Rule::Near(distance), Some(a), Some(b)) = (self, ours.integer(), theirs.integer()) {
            // A negative reply is a state.
            return a >= 0 && b >= 0 && a.abs_diff(b) <= distance.unsigned_abs();
        }
        match (self, ours, theirs) {
            (Rule::Kind, Reply::Line(a), Reply::Line(b)) => a.get(..1) == b.get(..1),
            (Rule::Kind | Rule::Length, Reply::Bulk(_), Reply::Bulk(_)) => true,
            (_, Reply::Many(kind, a), Reply::Many(other, b)) if kind == other => match self {
                Rule::Unordered => sorted(a, 1) == sorted(b, 1),
                Rule::Pairs => sorted(a, 2) == sorted(b, 2),
                Rule::Length => a.len() == b.len(),
                Rule::Page | Rule::PageOfPairs => {
                    let part = if self == Rule::Page { Rule::Unordered } else { Rule::Pairs };
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| part.accepts(a, b))
                }
                Rule::Kind => true,
                Rule::Exact | Rule::Near(_) => false,
            },
            _ => false,
        }
    }
}

/// The parts in groups of `size`, sorted.
fn sorted(parts: &[Reply], size: usize) -> Vec<&[Reply]> {
    let mut groups: Vec<_> = parts.chunks(size).collect();
    groups.sort();
    groups
}

/// A connection to either server.
pub(super) struct Link {
    reader: BufReader<TcpStream>,
}

impl Link {
    pub(super) fn connect(addr: SocketAddr) -> Link {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        // Far longer than any reply takes: a test that hangs then fails where it hangs.
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
        Link { reader: BufReader::new(stream) }
    }

    pub(super) fn send(&mut self, requests: &[&Words]) {
        let bytes: Vec<u8> = requests.iter().flat_map(|words| encode(words)).collect();
        // The replies of a connection that is closed show it.
        let _ = self.reader.get_mut().write_all(&bytes);
    }

    pub(super) fn reply(&mut self) -> Reply {
        match Reply::read(&mut self.reader) {
            Ok(reply) => reply,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Reply::Line("(no reply)".to_owned())
            }
            Err(_) => Reply::Closed,
        }
    }

    pub(super) fn call(&mut self, line: &str) -> Reply {
        self.send(&[&words(line)]);
        self.reply()
    }

    /// Whether there is something to read.
    pub(super) fn is_readable(&self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).expect("a socket option");
        let is_readable = !self.reader.buffer().is_empty() || stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).expect("a socket option");
        is_readable
    }
}

/// The words of a line.
pub(super) fn words(line: &str) -> Words {
    line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}
