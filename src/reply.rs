//! What a command answers, before any protocol.
//!
//! Promise: every reply is complete and owns its bytes. Absent: RESP versions, HTTP, sockets.

use std::borrow::Cow;

/// A reply, in the terms that all protocols share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A short word of ours.
    Simple(&'static str),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Text for people, of several lines.
    Text(String),
    /// Nothing.
    Null,
    /// Nothing, where there might have been an array.
    NullArray,
    /// Several values.
    Array(Vec<Reply>),
    /// Pairs, in this order.
    Map(Vec<(Reply, Reply)>),
    /// Values in no order.
    Set(Vec<Reply>),
    /// A message that answers no request.
    Push(Vec<Reply>),
    /// Several replies to one request.
    Sequence(Vec<Reply>),
    /// A failure: its first word is a stable code.
    Error(Cow<'static, str>),
}

impl Reply {
    /// `+OK`
    pub const OK: Reply = Reply::Simple("OK");

    /// A text of ours as bytes.
    pub fn bulk(text: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(text.as_ref().to_vec())
    }

    /// About how many bytes of memory it takes.
    pub fn size(&self) -> usize {
        size_of::<Reply>()
            + match self {
                Reply::Bulk(bytes) => bytes.len(),
                Reply::Text(text) => text.len(),
                Reply::Error(text) => text.len(),
                Reply::Array(parts) | Reply::Set(parts) | Reply::Push(parts) | Reply::Sequence(parts) => {
                    parts.iter().map(Reply::size).sum()
                }
                Reply::Map(pairs) => pairs.iter().map(|(key, value)| key.size() + value.size()).sum(),
                Reply::Simple(_) | Reply::Integer(_) | Reply::Null | Reply::NullArray => 0,
            }
    }

    /// A count.
    pub fn count(n: usize) -> Reply {
        Reply::Integer(i64::try_from(n).unwrap_or(i64::MAX))
    }

    /// Milliseconds or another unsigned number.
    pub fn unsigned(n: u64) -> Reply {
        Reply::Integer(i64::try_from(n).unwrap_or(i64::MAX))
    }
}
