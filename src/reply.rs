//! Replies of commands, independent of the protocol.
//!
//! Guarantees: every reply is complete and owns its bytes. Not here: RESP versions, HTTP, sockets.

use std::borrow::Cow;
use std::collections::VecDeque;

/// A reply, in the terms that all protocols share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A short text of the server's.
    Simple(&'static str),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Text of several lines, for people.
    Text(String),
    /// The same, long.
    LongText(Rope),
    /// An array of byte strings, of which there may be many.
    Bulks(Bulks),
    /// Nothing.
    Null,
    /// Nothing, in place of an array.
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

    /// A text as bytes.
    pub fn bulk(text: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(text.as_ref().to_vec())
    }

    /// Approximate memory use, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Reply>()
            + match self {
                Reply::Bulk(bytes) => bytes.len(),
                Reply::Text(text) => text.len(),
                Reply::LongText(rope) => rope.len(),
                Reply::Bulks(bulks) => bulks.size(),
                Reply::Error(text) => text.len(),
                Reply::Array(parts) | Reply::Set(parts) | Reply::Push(parts) | Reply::Sequence(parts) => {
                    parts.iter().map(Reply::size).sum()
                }
                Reply::Map(pairs) => pairs.iter().map(|(key, value)| key.size() + value.size()).sum(),
                Reply::Simple(_) | Reply::Integer(_) | Reply::Null | Reply::NullArray => 0,
            }
    }

    /// Whether it uses more than `bytes` bytes of memory. Stops counting at the limit.
    pub fn is_larger_than(&self, bytes: usize) -> bool {
        fn take(reply: &Reply, left: &mut usize) -> bool {
            let all = |parts: &[Reply], left: &mut usize| parts.iter().all(|part| take(part, left));
            let own = match reply {
                Reply::Array(parts) | Reply::Set(parts) | Reply::Push(parts) | Reply::Sequence(parts) => {
                    return all(parts, left);
                }
                Reply::Map(pairs) => {
                    return pairs.iter().all(|(key, value)| take(key, left) && take(value, left));
                }
                reply => reply.size(),
            };
            own <= *left && {
                *left -= own;
                true
            }
        }
        match self {
            // Most replies are one of these.
            Reply::Integer(_) | Reply::Simple(_) | Reply::Null => false,
            reply => !take(reply, &mut { bytes }),
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

/// Bytes in pieces: growing it never moves earlier bytes, and they are freed one piece at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rope {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Bytes of a piece of a [`Rope`].
const PIECE_BYTES: usize = 32 << 10;

impl Rope {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends parts, all of them in one piece.
    pub fn push(&mut self, parts: &[&[u8]]) {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let has_room = |piece: &Vec<u8>| piece.len() + bytes <= piece.capacity();
        if !self.pieces.back().is_some_and(has_room) {
            // The first is small: most ropes are.
            let room = if self.pieces.is_empty() { 512 } else { PIECE_BYTES };
            self.pieces.push_back(Vec::with_capacity(room.max(bytes)));
        }
        let piece = self.pieces.back_mut().unwrap_or_else(|| unreachable!("pushed above"));
        parts.iter().for_each(|part| piece.extend_from_slice(part));
        self.bytes += bytes;
    }

    /// Its pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(Vec::as_slice)
    }

    /// Removes the first piece.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        Some(piece)
    }
}

/// Byte strings, packed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bulks {
    /// Each string after its length in [`LENGTH_BYTES`] bytes.
    rope: Rope,
    count: usize,
}

const LENGTH_BYTES: usize = size_of::<u32>();

impl Bulks {
    /// Appends a string.
    pub fn push(&mut self, bulk: &[u8]) {
        let length = u32::try_from(bulk.len()).unwrap_or_else(|_| unreachable!("strings are short"));
        self.rope.push(&[&length.to_le_bytes(), bulk]);
        self.count += 1;
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.rope.len()
    }

    /// Removes the first strings, about as many as fit into `PIECE_BYTES`, and passes them to `each`.
    /// Returns `false` if there are none.
    pub fn drain_piece(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        let Some(piece) = self.rope.pop() else { return false };
        for bulk in strings(&piece) {
            each(bulk);
            self.count -= 1;
        }
        true
    }

    /// All strings.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.rope.pieces().flat_map(strings)
    }
}

fn strings(mut piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = piece.split_first_chunk::<LENGTH_BYTES>()?;
        let (string, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        piece = after;
        Some(string)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rope_returns_its_strings_in_order() {
        let lengths = [0, 1, 500, 513, PIECE_BYTES - 4, PIECE_BYTES, 3 * PIECE_BYTES, 7];
        let strings: Vec<Vec<u8>> = (0..200).map(|n| vec![n as u8; lengths[n % lengths.len()]]).collect();
        let mut bulks = Bulks::default();
        strings.iter().for_each(|string| bulks.push(string));
        assert_eq!(bulks.len(), strings.len());
        assert_eq!(bulks.size(), strings.iter().map(|string| LENGTH_BYTES + string.len()).sum::<usize>());
        assert!(bulks.iter().eq(&strings));
        let mut out = Vec::new();
        while bulks.drain_piece(|string| out.push(string.to_vec())) {}
        assert_eq!((out, bulks.len(), bulks.size()), (strings, 0, 0));
    }

    #[test]
    fn a_reply_is_larger_than_one_byte_less_than_its_parts() {
        let reply = Reply::Array(vec![Reply::bulk("abc"), Reply::Map(vec![(Reply::Null, Reply::OK)])]);
        // Those that have no parts themselves.
        let parts = 3 * size_of::<Reply>() + 3;
        assert!(reply.is_larger_than(parts - 1) && !reply.is_larger_than(parts));
    }
}
