//! Replies on the wire, in RESP2 and RESP3.
//!
//! Promise: one reply, one frame, whatever its bytes; the pairs of a map keep their order. Scalars are encoded by
//! redis-protocol, named in this file and in the scanner's tests only. Written here are the heads of aggregates, as its
//! own maps have no order, and integers, which nearly all replies are. Absent: sockets, commands.

use bytes::BytesMut;
use redis_protocol::resp2::encode::extend_encode_borrowed as encode2;
use redis_protocol::resp2::types::BorrowedFrame as Frame2;
use redis_protocol::resp3::encode::complete::extend_encode_borrowed as encode3;
use redis_protocol::resp3::types::{BorrowedFrame as Frame3, VerbatimStringFormat};

use crate::reply::Reply;

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
        Reply::Null | Reply::NullArray if is_3 => scalar3(out, &Frame3::Null),
        Reply::Null => scalar(out, &Frame2::Null),
        Reply::NullArray => out.extend_from_slice(b"*-1\r\n"),
        Reply::Array(items) => aggregate(b'*', items, protocol, out),
        Reply::Set(items) => aggregate(if is_3 { b'~' } else { b'*' }, items, protocol, out),
        Reply::Push(items) => aggregate(if is_3 { b'>' } else { b'*' }, items, protocol, out),
        Reply::Map(pairs) => {
            if is_3 {
                number(b'%', pairs.len(), out);
            } else {
                number(b'*', pairs.len() * 2, out);
            }
            for (key, value) in pairs {
                encode(key, protocol, out);
                encode(value, protocol, out);
            }
        }
        Reply::Sequence(replies) => replies.iter().for_each(|reply| encode(reply, protocol, out)),
    }
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
    fn integers_are_exact_around_every_power_of_ten() {
        let near = |n: i64| [n.saturating_sub(1), n, n.saturating_add(1)];
        let powers = (0..19).flat_map(|exponent| near(10i64.pow(exponent)));
        for n in powers.chain([0, i64::MIN, i64::MAX]).flat_map(|n| [n, n.wrapping_neg()]) {
            check(&Reply::Integer(n), &format!(":{n}\r\n"), &format!(":{n}\r\n"));
        }
    }
}
