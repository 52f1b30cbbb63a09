//! What a command returns, in no protocol.
//!
//! Guarantees: a reply is complete and owns its bytes. A handler returns the same reply to RESP2,
//! RESP3 and scripts: each form of a reply says how it appears in either protocol. Not here:
//! frames, HTTP, sockets.

pub mod double;

use std::borrow::Cow;
use std::collections::VecDeque;

/// A reply of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A status, one of the server's own.
    Simple(&'static str),
    /// A status that was made at run time. Line breaks become spaces.
    Status(String),
    /// An integer.
    Integer(i64),
    /// A double. In RESP2, a string of its digits.
    Double(f64),
    /// A boolean. In RESP2, 1 or 0.
    Boolean(bool),
    /// The digits of an integer of any size. In RESP2, a string.
    BigNumber(String),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Text for people. In RESP2, a string.
    Text(String),
    /// [`Reply::Text`] of any length.
    LongText(Rope),
    /// Text in a format of three letters, such as `mkd`. In RESP2, a string.
    Verbatim([u8; 3], Vec<u8>),
    /// An array of any number of byte strings.
    Bulks(Bulks),
    /// Nothing.
    Null,
    /// Nothing, in place of an array.
    NullArray,
    /// Several values.
    Array(Vec<Reply>),
    /// Keys with their values, in this order. In RESP2, an array of both in turn.
    Map(Vec<(Reply, Reply)>),
    /// Pairs, in this order. In RESP3, an array of arrays; in RESP2, an array of both in turn.
    Pairs(Vec<(Reply, Reply)>),
    /// Values without an order. In RESP2, an array.
    Set(Vec<Reply>),
    /// A message that is not the reply to a request. In RESP2, an array.
    Push(Vec<Reply>),
    /// Several replies to one request.
    Sequence(Vec<Reply>),
    /// A failure. The first word is a stable code.
    Error(Cow<'static, str>),
}

impl Reply {
    /// `+OK`
    pub const OK: Reply = Reply::Simple("OK");

    /// Bytes.
    pub fn bulk(text: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(text.as_ref().to_vec())
    }

    /// The approximate size in memory, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Reply>()
            + match self {
                Reply::Bulk(bytes) => bytes.len(),
                Reply::Status(text) | Reply::BigNumber(text) | Reply::Text(text) => text.len(),
                Reply::Verbatim(_, bytes) => bytes.len(),
                Reply::LongText(rope) => rope.len(),
                Reply::Bulks(bulks) => bulks.size(),
                Reply::Error(text) => text.len(),
                Reply::Array(parts) | Reply::Set(parts) | Reply::Push(parts) | Reply::Sequence(parts) => {
                    parts.iter().map(Reply::size).sum()
                }
                Reply::Map(pairs) | Reply::Pairs(pairs) => {
                    pairs.iter().map(|(key, value)| key.size() + value.size()).sum()
                }
                Reply::Simple(_)
                | Reply::Integer(_)
                | Reply::Double(_)
                | Reply::Boolean(_)
                | Reply::Null
                | Reply::NullArray => 0,
            }
    }

    /// Whether the size in memory exceeds `bytes`. Stops counting as soon as it does.
    pub fn is_larger_than(&self, bytes: usize) -> bool {
        fn take(reply: &Reply, left: &mut usize) -> bool {
            let all = |parts: &[Reply], left: &mut usize| parts.iter().all(|part| take(part, left));
            let own = match reply {
                Reply::Array(parts) | Reply::Set(parts) | Reply::Push(parts) | Reply::Sequence(parts) => {
                    return all(parts, left);
                }
                Reply::Map(pairs) | Reply::Pairs(pairs) => {
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

    /// An unsigned number.
    pub fn unsigned(n: u64) -> Reply {
        Reply::Integer(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

/// Bytes in pieces: growth never moves them, and they can be removed piece by piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rope {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Size of a piece of a [`Rope`], in bytes.
const PIECE_BYTES: usize = 32 << 10;

impl Rope {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends `parts`, contiguously.
    pub fn push(&mut self, parts: &[&[u8]]) {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let has_room = |piece: &Vec<u8>| piece.len() + bytes <= piece.capacity();
        if !self.pieces.back().is_some_and(has_room) {
            // The first piece is small, as most ropes are.
            let room = if self.pieces.is_empty() { 512 } else { PIECE_BYTES };
            self.pieces.push_back(Vec::with_capacity(room.max(bytes)));
        }
        let piece = self.pieces.back_mut().unwrap_or_else(|| unreachable!("pushed above"));
        parts.iter().for_each(|part| piece.extend_from_slice(part));
        self.bytes += bytes;
    }

    /// The pieces, in order.
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
    /// Each string follows its length, which has [`LENGTH_BYTES`] bytes.
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

    /// The number of strings.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size in bytes.
    pub fn size(&self) -> usize {
        self.rope.len()
    }

    /// Removes the first strings, about as many as fit into `PIECE_BYTES`, and passes them to
    /// `each`. Returns `false` if there are none.
    pub fn drain_piece(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        let Some(piece) = self.rope.pop() else { return false };
        for bulk in strings(&piece) {
            each(bulk);
            self.count -= 1;
        }
        true
    }

    /// The strings, in order.
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
    fn strings_leave_a_rope_in_the_order_they_entered() {
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
    fn the_size_of_a_reply_is_that_of_its_parts() {
        let reply = Reply::Array(vec![Reply::bulk("abc"), Reply::Map(vec![(Reply::Null, Reply::OK)])]);
        // The parts that have no parts themselves.
        let parts = 3 * size_of::<Reply>() + 3;
        assert!(reply.is_larger_than(parts - 1) && !reply.is_larger_than(parts));
    }
}
