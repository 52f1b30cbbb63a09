//! Values become JSON.

use mlua::{Table, Value};

use super::super::expansion::Budget;
use super::super::native::Fault;
use super::{DEPTH_MAX, DIGITS, InvalidNumbers, JsonSettings};
use crate::domain::TOKEN_MAX;
use crate::reply::double;

/// The text of a value.
pub(super) fn encode(value: &Value, settings: &JsonSettings, budget: Budget<'_>) -> Result<Vec<u8>, Fault> {
    let mut encoder = Encoder { settings, text: Vec::new(), budget };
    encoder.value(value, 0)?;
    Ok(encoder.text)
}

struct Encoder<'a> {
    settings: &'a JsonSettings,
    text: Vec<u8>,
    budget: Budget<'a>,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value, depth: i64) -> Result<(), Fault> {
        let length = self.text.len();
        match value {
            Value::Nil => self.text.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => self.text.extend_from_slice(b"null"),
            Value::Boolean(true) => self.text.extend_from_slice(b"true"),
            Value::Boolean(false) => self.text.extend_from_slice(b"false"),
            Value::Integer(n) => self.number(*n as f64)?,
            Value::Number(number) => self.number(*number)?,
            Value::String(string) => self.string(&string.as_bytes())?,
            Value::Table(table) => self.table(table, depth + 1)?,
            other => return Err(unserialisable(other.type_name(), "type not supported")),
        }
        // What is in a table has been counted already, but not what is around it.
        let is_table = matches!(value, Value::Table(_));
        self.budget.take(if is_table { 2 } else { self.text.len() - length })
    }

    fn number(&mut self, number: f64) -> Result<(), Fault> {
        if !number.is_finite() {
            match self.settings.encode_invalid {
                InvalidNumbers::Refused => return Err(unserialisable("number", "must not be NaN or Inf")),
                InvalidNumbers::Null => {
                    self.text.extend_from_slice(b"null");
                    return Ok(());
                }
                InvalidNumbers::Allowed if number.is_nan() => {
                    self.text.extend_from_slice(b"nan");
                    return Ok(());
                }
                InvalidNumbers::Allowed => {}
            }
        }
        let digits = usize::try_from(self.settings.digits).unwrap_or(1);
        let mut text = double::format(number, digits);
        // Unlike in Redis, an integer that may be a fencing token keeps its digits.
        let may_be_token = number.fract() == 0.0 && number.abs() <= TOKEN_MAX as f64;
        if may_be_token && self.settings.digits == DIGITS && text.parse() != Ok(number) {
            text = double::format(number, double::EXACT_DIGITS);
        }
        self.text.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn string(&mut self, string: &[u8]) -> Result<(), Fault> {
        self.budget.before_string(string.len())?;
        self.text.push(b'"');
        for &byte in string {
            match byte {
                b'"' => self.text.extend_from_slice(b"\\\""),
                b'\\' => self.text.extend_from_slice(b"\\\\"),
                b'/' => self.text.extend_from_slice(b"\\/"),
                b'\n' => self.text.extend_from_slice(b"\\n"),
                b'\t' => self.text.extend_from_slice(b"\\t"),
                b'\r' => self.text.extend_from_slice(b"\\r"),
                8 => self.text.extend_from_slice(b"\\b"),
                12 => self.text.extend_from_slice(b"\\f"),
                0..32 | 127 => self.text.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                byte => self.text.push(byte),
            }
        }
        self.text.push(b'"');
        Ok(())
    }

    fn table(&mut self, table: &Table, depth: i64) -> Result<(), Fault> {
        if depth > self.settings.encode_depth_max.min(DEPTH_MAX) {
            return Err(Fault::Text(format!("Cannot serialise, excessive nesting ({depth})")));
        }
        match self.array_length(table)? {
            Some(length) => self.array(table, length, depth),
            None => self.object(table, depth),
        }
    }

    /// The largest index of a table that is an array; `None` for an object.
    fn array_length(&mut self, table: &Table) -> Result<Option<i64>, Fault> {
        let (mut max, mut items) = (0, 0);
        for pair in table.pairs::<Value, Value>() {
            self.budget.take(0)?;
            match pair?.0 {
                Value::Integer(n) if n > 0 => max = max.max(n),
                _ => return Ok(None),
            }
            items += 1;
        }
        let JsonSettings { sparse_ratio, sparse_safe, sparse_convert, .. } = *self.settings;
        let is_sparse = sparse_ratio > 0 && max > sparse_safe && max > items * sparse_ratio;
        match (max, is_sparse) {
            (0, _) => Ok(None),
            (_, true) if sparse_convert => Ok(None),
            (_, true) => Err(unserialisable("table", "excessively sparse array")),
            (_, false) => Ok(Some(max)),
        }
    }

    fn array(&mut self, table: &Table, length: i64, depth: i64) -> Result<(), Fault> {
        self.text.push(b'[');
        for n in 1..=length {
            if n > 1 {
                self.text.push(b',');
            }
            self.value(&table.raw_get::<Value>(n)?, depth)?;
        }
        self.text.push(b']');
        Ok(())
    }

    fn object(&mut self, table: &Table, depth: i64) -> Result<(), Fault> {
        self.text.push(b'{');
        let mut is_first = true;
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            let length = self.text.len();
            if !std::mem::take(&mut is_first) {
                self.text.push(b',');
            }
            match key {
                Value::String(key) => self.string(&key.as_bytes())?,
                Value::Integer(_) | Value::Number(_) => {
                    self.text.push(b'"');
                    self.value(&key, depth)?;
                    self.text.push(b'"');
                }
                other => {
                    return Err(unserialisable(other.type_name(), "table key must be a number or string"));
                }
            }
            self.text.push(b':');
            self.budget.take(self.text.len() - length)?;
            self.value(&value, depth)?;
        }
        self.text.push(b'}');
        Ok(())
    }
}

fn unserialisable(kind: &str, why: &str) -> Fault {
    Fault::Text(format!("Cannot serialise {kind}: {why}"))
}
