//! The fields of JSON objects.
//!
//! Guarantees: the error for a body of the wrong shape names a field of the route, or a position,
//! and repeats nothing that a client sent. Not here: reading bytes, and what the values mean.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Error;
use serde_json::de::Read;

/// A field that a route knows.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Describes its value, after "must be".
    pub(super) what: &'static str,
    pub(super) is_required: bool,
}

impl Field {
    pub(super) const fn optional(name: &'static str, what: &'static str) -> Field {
        Field { name, what, is_required: false }
    }

    pub(super) const fn required(name: &'static str, what: &'static str) -> Field {
        Field { name, what, is_required: true }
    }
}

/// A JSON object that is the body of a request.
pub(super) trait Fields: DeserializeOwned + Send + 'static {
    /// Every field that it reads.
    const FIELDS: &'static [Field];
}

/// The description of an integer that is clamped to its range.
pub(super) const U32: &str = "an integer from 0 to 4294967295";

/// Fields of one object.
const FIELDS_MAX: usize = 8;
/// Number of unknown fields whose names are kept.
const UNKNOWN_MAX: usize = 9;
/// Characters kept of the name of an unknown field.
const UNKNOWN_CHARS_MAX: usize = 32;

/// The keys of an object.
pub(super) struct Keys {
    fields: &'static [Field],
    /// How often each of the fields is there, up to twice.
    counts: [u8; FIELDS_MAX],
    /// The field that came last; `None` if an unknown one did.
    last: Option<usize>,
    unknown: Vec<String>,
}

impl Keys {
    /// Reads the keys of an object, and checks the syntax of all of it.
    pub(super) fn of(text: &str, fields: &'static [Field]) -> Result<Keys, Error> {
        let mut keys = Keys::none(fields);
        keys.read(serde_json::Deserializer::from_str(text))?;
        Ok(keys)
    }

    fn none(fields: &'static [Field]) -> Keys {
        debug_assert!(fields.len() <= FIELDS_MAX);
        Keys { fields, counts: [0; FIELDS_MAX], last: None, unknown: Vec::new() }
    }

    /// The names of fields that are not known, at most [`UNKNOWN_MAX`], each cut to
    /// [`UNKNOWN_CHARS_MAX`].
    pub(super) fn into_unknown(self) -> Vec<String> {
        self.unknown
    }

    fn read<'de, R: Read<'de>>(
        &mut self,
        mut deserializer: serde_json::Deserializer<R>,
    ) -> Result<(), Error> {
        (&mut deserializer).deserialize_map(&mut *self)?;
        deserializer.end()
    }

    fn record(&mut self, key: &str) {
        self.last = self.fields.iter().position(|field| field.name == key);
        if let Some(field) = self.last {
            self.counts[field] = (self.counts[field] + 1).min(2);
        } else if self.unknown.len() < UNKNOWN_MAX {
            let key: String = key.chars().take(UNKNOWN_CHARS_MAX).collect();
            if !self.unknown.contains(&key) {
                self.unknown.push(key);
            }
        }
    }
}

impl<'de> Visitor<'de> for &mut Keys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Key(self))?.is_some() {
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Records one key.
struct Key<'a>(&'a mut Keys);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        self.0.record(key);
        Ok(())
    }
}

/// Whether a text is JSON.
pub(super) fn check_syntax(text: &str) -> Result<(), Error> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ())
}

/// Describes why an object was not read into its type.
pub(super) fn explain(text: &str, fields: &'static [Field], keys: &Keys, error: &Error) -> String {
    let position = format!("(line {}, column {})", error.line(), error.column());
    let missing = fields.iter().zip(&keys.counts).find(|(field, count)| field.is_required && **count == 0);
    if let Some((field, _)) = missing {
        return format!("field {} is missing", field.name);
    }
    // The last key before the error belongs to the wrong value. The text up to there is not JSON.
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let end = (before + error.column()).min(text.len());
    let mut read = Keys::none(fields);
    let _ = read.read(serde_json::Deserializer::from_slice(&text.as_bytes()[..end]));
    match read.last.map(|field| (&fields[field], read.counts[field])) {
        Some((field, 1)) => format!("field {} must be {} {position}", field.name, field.what),
        Some((field, _)) => format!("field {} appears twice {position}", field.name),
        None => format!("a field has a value that it cannot have {position}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[Field::required("id", "a number"), Field::optional("text", "a string")];

    #[derive(Debug, serde::Deserialize)]
    struct Object {
        #[serde(rename = "id")]
        _id: u32,
        #[serde(rename = "text")]
        _text: Option<String>,
    }

    fn explained(text: &str) -> String {
        let keys = Keys::of(text, FIELDS).expect("JSON");
        explain(text, FIELDS, &keys, &serde_json::from_str::<Object>(text).expect_err("no such object"))
    }

    #[test]
    fn a_wrong_field_is_named_and_its_value_is_not_repeated() {
        for (text, expected) in [
            ("{}", "field id is missing"),
            ("{\"secret\":1}", "field id is missing"),
            ("{\"id\":\"secret\"}", "field id must be a number (line 1, column 14)"),
            ("{\"id\":1,\n\"text\":[\"secret\", {}]}", "field text must be a string (line 2, column 7)"),
            ("{\"text\":\"\",\"id\":null,\"text\":\"\"}", "field id must be a number (line 1, column 20)"),
            ("{\"text\":\"\",\"text\":\"\",\"id\":1}", "field text appears twice (line 1, column 17)"),
            (
                "{\"text\":\"\u{e9}\", \"x\":{\"text\":1}, \"id\":-1}",
                "field id must be a number (line 1, column 37)",
            ),
        ] {
            assert_eq!(explained(text), expected, "{text}");
        }
    }

    /// Records the fields that a type reads, and supplies none.
    struct FieldsRead(&'static [&'static str]);

    impl<'de> Deserializer<'de> for &mut FieldsRead {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("nothing is read"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    #[test]
    fn the_fields_that_routes_declare_are_those_that_they_read() {
        fn check<T: Fields>() {
            let mut fields_read = FieldsRead(&[]);
            assert!(T::deserialize(&mut fields_read).is_err());
            assert_eq!(T::FIELDS.iter().map(|field| field.name).collect::<Vec<_>>(), fields_read.0);
        }
        check::<crate::http::locks::Acquire>();
        check::<crate::http::locks::Renew>();
        check::<crate::http::locks::Release>();
        check::<crate::http::sessions::Create>();
    }

    #[test]
    fn unknown_fields_are_kept_within_bounds() {
        let text =
            (0..20).map(|n| format!("\"{}{n}\":{{\"id\":0}}", "\u{e9}".repeat(100))).collect::<Vec<_>>();
        let keys = Keys::of(&format!("{{{},\"id\":1}}", text.join(",")), FIELDS).expect("JSON");
        assert_eq!(keys.into_unknown(), ["\u{e9}".repeat(UNKNOWN_CHARS_MAX)], "once cut they are one");
        let text = (0..20).map(|n| format!("\"x{n}\":0")).collect::<Vec<_>>();
        let keys = Keys::of(&format!("{{{}}}", text.join(",")), FIELDS).expect("JSON");
        assert_eq!(keys.into_unknown().len(), UNKNOWN_MAX);
    }
}
