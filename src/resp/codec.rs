//! Replies on the wire, in RESP2 and RESP3.
//!
//! Guarantees: one reply becomes one frame, whatever its bytes. The pairs of a map keep their
//! order. redis-protocol encodes scalars. Encoded here are the heads of aggregates, because maps of
//! redis-protocol have no order, integers, which most replies are, and doubles, which it does not
//! write as Redis does. Not here: sockets, commands.

use std::borrow::Cow;

use bytes::BytesMut;
use itoa::Integer;
use redis_protocol::resp2::encode::extend_encode_borrowed as encode2;
use redis_protocol::resp2::types::BorrowedFrame as Frame2;
use redis_protocol::resp3::encode::complete::extend_encode_borrowed as encode3;
use redis_protocol::resp3::types::BorrowedFrame as Frame3;

use crate::reply::{Bulks, Reply, Rope, double};

/// Appends a reply in RESP `protocol` (2 or 3) to `out`.
pub fn encode(reply: &Reply, protocol: u8, out: &mut BytesMut) {
    match reply {
        // Most replies: kept apart, since it stays in the processor's cache.
        Reply::Integer(n) => number(b':', *n, out),
        _ => encode_any(reply, protocol, out),
    }
}

#[inline(never)]
fn encode_any(reply: &Reply, protocol: u8, out: &mut BytesMut) {
    let is_3 = protocol == 3;
    match reply {
        Reply::Simple(text) => scalar(out, &Frame2::SimpleString(text.as_bytes())),
        Reply::Integer(n) => number(b':', *n, out),
        Reply::Bulk(bytes) => scalar(out, &Frame2::BulkString(bytes)),
        Reply::Status(text) => scalar(out, &Frame2::SimpleString(one_line(text).as_bytes())),
        Reply::Error(text) => scalar(out, &Frame2::Error(&one_line(text))),
        Reply::Double(n) => {
            let digits = double::format(*n, double::EXACT_DIGITS);
            if is_3 { line(b',', &digits, out) } else { bulk(digits.as_bytes(), out) }
        }
        Reply::Boolean(value) if is_3 => line(b'#', if *value { "t" } else { "f" }, out),
        Reply::Boolean(value) => number(b':', u8::from(*value), out),
        Reply::BigNumber(digits) if is_3 => line(b'(', &one_line(digits), out),
        Reply::BigNumber(digits) => bulk(digits.as_bytes(), out),
        Reply::Text(text) => verbatim(*b"txt", text.as_bytes(), is_3, out),
        Reply::Verbatim(format, bytes) => verbatim(*format, bytes, is_3, out),
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
        Reply::Pairs(pairs) => {
            pairs_head(pairs.len(), is_3, out);
            for (first, second) in pairs {
                if is_3 {
                    number(b'*', 2, out);
                }
                encode(first, protocol, out);
                encode(second, protocol, out);
            }
        }
        Reply::Sequence(replies) => replies.iter().for_each(|reply| encode(reply, protocol, out)),
    }
}

/// Encodes one reply in parts. Frees each part once it is encoded.
pub(super) struct Encoder {
    protocol: u8,
    /// The parts that are left, the innermost last.
    rest: Vec<Rest>,
}

enum Rest {
    One(Reply),
    Replies(std::vec::IntoIter<Reply>),
    /// The pairs of a map; in RESP3, those of [`Reply::Pairs`] have heads.
    Pairs {
        pairs: std::vec::IntoIter<(Reply, Reply)>,
        have_heads: bool,
    },
    Bulks(Bulks),
    Rope(Rope),
    Literal(&'static [u8]),
}

impl Encoder {
    pub(super) fn new(reply: Reply, protocol: u8) -> Encoder {
        Encoder { protocol, rest: vec![Rest::One(reply)] }
    }

    /// Appends to `out` until it has at least `bytes` bytes. Returns whether anything is left.
    pub(super) fn encode(&mut self, out: &mut BytesMut, bytes: usize) -> bool {
        while out.len() < bytes {
            let Some(rest) = self.rest.last_mut() else { return false };
            let (next, value) = match rest {
                Rest::Replies(replies) => (replies.next(), None),
                Rest::Pairs { pairs, have_heads } => match pairs.next() {
                    Some((key, value)) => {
                        if *have_heads {
                            number(b'*', 2, out);
                        }
                        (Some(key), Some(value))
                    }
                    None => (None, None),
                },
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
                    _ => unreachable!("the last part"),
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
                Rest::Pairs { pairs: pairs.into_iter(), have_heads: false }
            }
            Reply::Pairs(pairs) => {
                pairs_head(pairs.len(), is_3, out);
                Rest::Pairs { pairs: pairs.into_iter(), have_heads: is_3 }
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

fn pairs_head(pairs: usize, is_3: bool, out: &mut BytesMut) {
    number(b'*', if is_3 { pairs } else { pairs * 2 }, out);
}

fn verbatim(format: [u8; 3], bytes: &[u8], is_3: bool, out: &mut BytesMut) {
    if !is_3 {
        return bulk(bytes, out);
    }
    number(b'=', format.len() + 1 + bytes.len(), out);
    out.extend_from_slice(&format);
    out.extend_from_slice(b":");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Text without line breaks, which would end its frame.
fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(['\r', '\n']) {
        true => text.replace(['\r', '\n'], " ").into(),
        false => text.into(),
    }
}

fn line(kind: u8, text: &str, out: &mut BytesMut) {
    out.reserve(text.len() + 3);
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
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

/// Writes a number of at most 64 bits.
fn number(kind: u8, n: impl Integer, out: &mut BytesMut) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(n).as_bytes();
    let mut line = [kind; 1 + i64::MAX_STR_LEN + 2];
    let end = 1 + digits.len();
    line[1..end].copy_from_slice(digits);
    line[end..end + 2].copy_from_slice(b"\r\n");
    out.extend_from_slice(&line[..end + 2]);
}

fn scalar(out: &mut BytesMut, frame: &Frame2<'_>) {
    // The encoder may append bytes after the end that it returns.
    match encode2(out, frame, false) {
        Ok(end) => out.truncate(end),
        Err(error) => unreachable!("scalars can always be encoded: {error}"),
    }
}

fn scalar3(out: &mut BytesMut, frame: &Frame3<'_>) {
    match encode3(out, frame, false) {
        Ok(end) => out.truncate(end),
        Err(error) => unreachable!("scalars can always be encoded: {error}"),
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
            // In the smallest possible parts.
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
        check(&Reply::Verbatim(*b"mkd", b"a\r\nb".into()), "$4\r\na\r\nb\r\n", "=8\r\nmkd:a\r\nb\r\n");
        check(&Reply::Status("a\r\nb".into()), "+a  b\r\n", "+a  b\r\n");
        check(&Reply::Double(3.1), "$18\r\n3.1000000000000001\r\n", ",3.1000000000000001\r\n");
        check(&Reply::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
        check(&Reply::Boolean(true), ":1\r\n", "#t\r\n");
        check(&Reply::Boolean(false), ":0\r\n", "#f\r\n");
        check(&Reply::BigNumber("1\n2".into()), "$3\r\n1\n2\r\n", "(1 2\r\n");
        check(&Reply::Error("ERR a\r\nb".into()), "-ERR a  b\r\n", "-ERR a  b\r\n");
        let pair = || (Reply::bulk("k"), Reply::Integer(1));
        check(&Reply::Map(vec![pair()]), "*2\r\n$1\r\nk\r\n:1\r\n", "%1\r\n$1\r\nk\r\n:1\r\n");
        check(
            &Reply::Pairs(vec![pair(), pair()]),
            "*4\r\n$1\r\nk\r\n:1\r\n$1\r\nk\r\n:1\r\n",
            "*2\r\n*2\r\n$1\r\nk\r\n:1\r\n*2\r\n$1\r\nk\r\n:1\r\n",
        );
        check(&Reply::Pairs(vec![]), "*0\r\n", "*0\r\n");
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
