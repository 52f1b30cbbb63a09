//! Bytes in a log entry: keys, owners, and the parts of elements.
//!
//! Text is a JSON string. Other bytes are an array, of numbers or of one string in base64.
//!
//! Guarantees: both forms are read wherever bytes are expected. Not here: which entries have bytes.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A key, an owner, or a part of an element.
#[derive(Debug)]
pub(in crate::journal) struct Bytes(pub(in crate::journal) Vec<u8>);

/// Writes bytes; as an array of numbers if they are not text. The view of leases reads that with
/// the functions of any SQLite.
pub(super) fn write_listed(to: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        write_plain(to, bytes);
    } else {
        serialize(to, &Listed(bytes));
    }
}

/// Writes bytes; in base64 if they are not text. Values may be large, and no view reads them.
pub(in crate::journal) fn write_compact(to: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        write_plain(to, bytes);
        return;
    }
    match std::str::from_utf8(bytes) {
        // Most control characters take six characters in JSON.
        Ok(text) if !bytes.iter().any(|byte| is_escaped_at_length(*byte)) => serialize(to, text),
        _ => {
            to.extend_from_slice(b"[\"");
            let start = to.len();
            let length = base64::encoded_len(bytes.len(), false).unwrap_or_default();
            to.resize(start + length, 0);
            let written = STANDARD_NO_PAD.encode_slice(bytes, &mut to[start..]);
            debug_assert_eq!(written.ok(), Some(length));
            to.extend_from_slice(b"\"]");
        }
    }
}

/// Whether bytes are what they are in JSON. Nearly all are, and serde takes longer to find out. Looks
/// at all of them, sixteen at a time.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, byte| all & matches!(byte, b' '..=b'~') & !matches!(byte, b'"' | b'\\'))
}

fn is_escaped_at_length(byte: u8) -> bool {
    byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')
}

fn write_plain(to: &mut Vec<u8>, bytes: &[u8]) {
    to.push(b'"');
    to.extend_from_slice(bytes);
    to.push(b'"');
}

fn serialize(to: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(to, value).unwrap_or_else(|_| unreachable!("a Vec takes all"));
}

struct Listed<'a>(&'a [u8]);

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            // SQLite's JSON functions end a text at NUL.
            Ok(text) if !self.0.contains(&0) => serializer.serialize_str(text),
            _ => serializer.collect_seq(self.0),
        }
    }
}

/// An item of an array.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Byte(u8),
    Base64(String),
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct TextOrArray;
        impl<'de> Visitor<'de> for TextOrArray {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an array of bytes or of text in base64")
            }
            fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(item) = items.next_element()? {
                    match item {
                        Item::Byte(byte) => bytes.push(byte),
                        Item::Base64(text) => {
                            STANDARD_NO_PAD.decode_vec(text, &mut bytes).map_err(A::Error::custom)?
                        }
                    }
                }
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_any(TextOrArray)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> String {
        let mut text = Vec::new();
        write(&mut text, bytes);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn text_stays_readable_and_other_bytes_are_read_in_both_forms() {
        for (bytes, listed, compact) in [
            (&b""[..], r#""""#, r#""""#),
            (b"plain", r#""plain""#, r#""plain""#),
            (b"a \"quote\"\n", r#""a \"quote\"\n""#, r#""a \"quote\"\n""#),
            ("caf\u{e9}".as_bytes(), "\"caf\u{e9}\"", "\"caf\u{e9}\""),
            (b"\x01", r#""\u0001""#, r#"["AQ"]"#),
            (b"nul\0", "[110,117,108,0]", r#"["bnVsAA"]"#),
            (b"\xff\xfe\xfd", "[255,254,253]", r#"["//79"]"#),
        ] {
            for (write, expected) in
                [(write_listed as fn(&mut Vec<u8>, &[u8]), listed), (write_compact, compact)]
            {
                let text = written(write, bytes);
                assert_eq!(text, expected);
                assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap().0, bytes);
            }
        }
        assert!(serde_json::from_str::<Bytes>(r#"["no base64!"]"#).is_err());
        assert!(serde_json::from_str::<Bytes>("[256]").is_err());
    }

    #[test]
    fn every_byte_at_every_place_is_read_again() {
        for byte in 0..=u8::MAX {
            for place in 0..40 {
                let mut bytes = [b'a'; 40];
                bytes[place] = byte;
                for write in [write_listed as fn(&mut Vec<u8>, &[u8]), write_compact] {
                    let text = written(write, &bytes);
                    assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap().0, bytes, "{text}");
                }
            }
        }
    }

    #[test]
    fn a_megabyte_of_any_bytes_takes_little_more_in_the_log() {
        let all: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
        for bytes in [all, vec![1; 1 << 20], vec![0xff; 1 << 20], vec![b'\n'; 1 << 20]] {
            let text = written(write_compact, &bytes);
            assert!(text.len() <= 2 * bytes.len() + 2, "{}", text.len());
            assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap().0, bytes);
        }
    }
}
