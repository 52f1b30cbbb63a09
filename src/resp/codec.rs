//! Replies on the wire, in RESP2 and RESP3.
//!
//! Guarantees: each reply is one frame, whatever its bytes; the pairs of a map keep their order.
//! Scalars are encoded by redis-protocol, which is named only in this file and in the scanner's
//! tests. The heads of aggregates are written here, because its maps have no order, and so are
//! integers, the most frequent reply. Not here: sockets, commands.

use bytes::BytesMut;
use redis_protocol::resp2::encode::extend_encode_borrowed as encode2;
use redis_protocol::resp2::types::BorrowedFrame as Frame2;
use redis_protocol::resp3::encode::complete::extend_encode_borrowed as encode3;
use redis_protocol::resp3::types::{BorrowedFrame as Frame3, VerbatimStringFormat};

use crate::reply::{Bulks, Reply, Rope};

/// Appends a reply in RESP `protocol` (2 or 3) to `out`.
pub fn encode(reply: &Reply, protocol: u8, out: &mut BytesMut) {
    let is_3 = protocol == 3;
    match reply {
        Reply::Simple(text) => scalar(out, &Frame2::SimpleString(text.as_bytes())),
        Reply::Integer(n) => number(b':', *n, out),
        Reply::Bulk(bytes) => scalar(out, &Frame2::BulkString(bytes)),
        Reply::Error(text) => match text.contains(['\r', '\n']) {
            true => scalar(out, &Frame2::Error(&text.replace(['\r', '\n'], " "))),
            false => scalar(out, &Frame2::Error(text)),
        },
        Reply::Text(text) if is_3 => {
            let (data, format) = (text.as_bytes(), VerbatimStringFormat::Text);
            scalar3(out, &Frame3::VerbatimString { data, format, attributes: None });
        }
        Reply::Text(text) => scalar(out, &Frame2::BulkString(text.as_bytes())),
        Reply::LongText(rope) => {
            long_text_head(rope, is_3, out);
            rope.pieces().for_each(|piece| out.extend_from_slice(piece));
            out.extend_from_slice(b"\r\n");
        }
        Reply::Bulks(bulks) => {
            number(b'*', bulks.len(), out);
            bulks.iter().for_each(|bytes| bulk(bytes, out));
        }
        Reply::Null | Reply::NullArray if is_3 => scalar3(out, &Frame3::Null),
        Reply::Null => scalar(out, &Frame2::Null),
        Reply::NullArray => out.extend_from_slice(b"*-1\r\n"),
        Reply::Array(items) => aggregate(b'*', items, protocol, out),
        Reply::Set(items) => aggregate(if is_3 { b'~' } else { b'*' }, items, protocol, out),
        Reply::Push(items) => aggregate(if is_3 { b'>' } else { b'*' }, items, protocol, out),
        Reply::Map(pairs) => {
            map_head(pairs.len(), is_3, out);
            for (key, value) in pairs {
                encode(key, protocol, out);
                encode(value, protocol, out);
            }
        }
        Reply::Sequence(replies) => replies.iter().for_each(|reply| encode(reply, protocol, out)),
    }
}

/// Encodes one reply in parts, and frees each part once it is encoded.
pub(super) struct Encoder {
    protocol: u8,
    /// The parts to encode, innermost last.
    rest: Vec<Rest>,
}

enum Rest {
    One(Reply),
    Replies(std::vec::IntoIter<Reply>),
    Pairs(std::vec::IntoIter<(Reply, Reply)>),
    Bulks(Bulks),
    Rope(Rope),
    Literal(&'static [u8]),
}

impl Encoder {
    pub(super) fn new(reply: Reply, protocol: u8) -> Encoder {
        Encoder { protocol, rest: vec![Rest::One(reply)] }
    }

    /// Appends to `out` until it has `bytes` bytes or somewhat more. Returns `false` after the last
    /// part.
    pub(super) fn encode(&mut self, out: &mut BytesMut, bytes: usize) -> bool {
        while out.len() < bytes {
            let Some(rest) = self.rest.last_mut() else { return false };
            let (next, value) = match rest {
                Rest::Replies(replies) => (replies.next(), None),
                Rest::Pairs(pairs) => {
                    pairs.next().map_or((None, None), |(key, value)| (Some(key), Some(value)))
                }
                Rest::Bulks(bulks) => {
                    if bulks.drain_piece(|bulk| self::bulk(bulk, out)) {
                        continue;
                    }
                    (None, None)
                }
                Rest::Rope(rope) => match rope.pop() {
                    Some(piece) => {
                        out.extend_from_slice(&piece);
                        continue;
                    }
                    None => (None, None),
                },
                Rest::One(_) | Rest::Literal(_) => match self.rest.pop() {
                    Some(Rest::Literal(literal)) => {
                        out.extend_from_slice(literal);
                        continue;
                    }
                    Some(Rest::One(reply)) => (Some(reply), None),
                    _ => unreachable!("it was the last"),
                },
            };
            self.rest.extend(value.map(Rest::One));
            match next {
                Some(reply) => self.begin(reply, out),
                None => drop(self.rest.pop()),
            }
        }
        !self.rest.is_empty()
    }

    fn begin(&mut self, reply: Reply, out: &mut BytesMut) {
        let is_3 = self.protocol == 3;
        let rest = match reply {
            Reply::Array(items) => list(b'*', items, out),
            Reply::Set(items) => list(if is_3 { b'~' } else { b'*' }, items, out),
            Reply::Push(items) => list(if is_3 { b'>' } else { b'*' }, items, out),
            Reply::Map(pairs) => {
                map_head(pairs.len(), is_3, out);
                Rest::Pairs(pairs.into_iter())
            }
            Reply::Sequence(replies) => Rest::Replies(replies.into_iter()),
            Reply::Bulks(bulks) => {
                number(b'*', bulks.len(), out);
                Rest::Bulks(bulks)
            }
            Reply::LongText(rope) => {
                long_text_head(&rope, is_3, out);
                self.rest.push(Rest::Literal(b"\r\n"));
                Rest::Rope(rope)
            }
            reply => return encode(&reply, self.protocol, out),
        };
        self.rest.push(rest);
    }
}

fn long_text_head(rope: &Rope, is_3: bool, out: &mut BytesMut) {
    const FORMAT: &[u8] = b"txt:";
    match is_3 {
        true => number(b'=', rope.len() + FORMAT.len(), out),
        false => number(b'$', rope.len(), out),
    }
    out.extend_from_slice(if is_3 { FORMAT } else { b"" });
}

fn list(kind: u8, items: Vec<Reply>, out: &mut BytesMut) -> Rest {
    number(kind, items.len(), out);
    Rest::Replies(items.into_iter())
}

fn map_head(pairs: usize, is_3: bool, out: &mut BytesMut) {
    if is_3 {
        number(b'%', pairs, out);
    } else {
        number(b'*', pairs * 2, out);
    }
}

fn bulk(bytes: &[u8], out: &mut BytesMut) {
    number(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn aggregate(kind: u8, items: &[Reply], protocol: u8, out: &mut BytesMut) {
    number(kind, items.len(), out);
    items.iter().for_each(|item| encode(item, protocol, out));
}

fn number(kind: u8, n: impl itoa::Integer, out: &mut BytesMut) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(n).as_bytes();
    out.reserve(digits.len() + 3);
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(digits);
    out.extend_from_slice(b"\r\n");
}

fn scalar(out: &mut BytesMut, frame: &Frame2<'_>) {
    // The encoder may leave bytes behind the end that it returns.
    match encode2(out, frame, false) {
        Ok(end) => out.truncate(end),
        Err(error) => unreachable!("scalars have no shape that could be wrong: {error}"),
    }
}

fn scalar3(out: &mut BytesMut, frame: &Frame3<'_>) {
    match encode3(out, frame, false) {
        Ok(end) => out.truncate(end),
        Err(error) => unreachable!("scalars have no shape that could be wrong: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: &Reply, resp2: &str, resp3: &str) {
        for (protocol, expected) in [(2, resp2), (3, resp3)] {
            let mut out = BytesMut::from(&b"before"[..]);
            encode(reply, protocol, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("before{expected}"), "RESP{protocol}");
            // In parts as small as they get.
            let (mut encoder, mut parts) = (Encoder::new(reply.clone(), protocol), BytesMut::new());
            while {
                let bytes = parts.len() + 1;
                encoder.encode(&mut parts, bytes)
            } {}
            assert_eq!(String::from_utf8_lossy(&parts), expected, "RESP{protocol}");
        }
    }

    #[test]
    fn every_reply_has_its_frame_in_both_protocols() {
        check(&Reply::OK, "+OK\r\n", "+OK\r\n");
        check(&Reply::bulk("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n");
        check(&Reply::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(&Reply::Null, "$-1\r\n", "_\r\n");
        check(&Reply::NullArray, "*-1\r\n", "_\r\n");
        check(&Reply::Text("a".into()), "$1\r\na\r\n", "=5\r\ntxt:a\r\n");
        check(&Reply::Error("ERR a\r\nb".into()), "-ERR a  b\r\n", "-ERR a  b\r\n");
        let pair = || (Reply::bulk("k"), Reply::Integer(1));
        check(&Reply::Map(vec![pair()]), "*2\r\n$1\r\nk\r\n:1\r\n", "%1\r\n$1\r\nk\r\n:1\r\n");
        check(&Reply::Set(vec![Reply::Null]), "*1\r\n$-1\r\n", "~1\r\n_\r\n");
        check(&Reply::Push(vec![]), "*0\r\n", ">0\r\n");
        check(&Reply::Sequence(vec![Reply::OK, Reply::OK]), "+OK\r\n+OK\r\n", "+OK\r\n+OK\r\n");
    }

    #[test]
    fn packed_strings_and_long_texts_have_the_frames_of_plain_ones() {
        let (mut bulks, mut rope) = (Bulks::default(), Rope::default());
        check(&Reply::Bulks(bulks.clone()), "*0\r\n", "*0\r\n");
        check(&Reply::LongText(rope.clone()), "$0\r\n\r\n", "=4\r\ntxt:\r\n");
        bulks.push(b"a\r\nb");
        bulks.push(b"");
        rope.push(&[b"a", b"b"]);
        let strings = "*2\r\n$4\r\na\r\nb\r\n$0\r\n\r\n";
        check(&Reply::Bulks(bulks.clone()), strings, strings);
        check(&Reply::LongText(rope), "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n");
        let nested =
            Reply::Map(vec![(Reply::OK, Reply::Array(vec![Reply::Bulks(bulks)])), (Reply::OK, Reply::Null)]);
        check(
            &nested,
            &format!("*4\r\n+OK\r\n*1\r\n{strings}+OK\r\n$-1\r\n"),
            &format!("%2\r\n+OK\r\n*1\r\n{strings}+OK\r\n_\r\n"),
        );
    }

    #[test]
    fn integers_are_exact_around_every_power_of_ten() {
        let near = |n: i64| [n.saturating_sub(1), n, n.saturating_add(1)];
        let powers = (0..19).flat_map(|exponent| near(10i64.pow(exponent)));
        for n in powers.chain([0, i64::MIN, i64::MAX]).flat_map(|n| [n, n.wrapping_neg()]) {
            check(&Reply::Integer(n), &format!(":{n}\r\n"), &format!(":{n}\r\n"));
        }
    }
}
