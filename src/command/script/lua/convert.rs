//! Values of Lua become replies and arguments of commands, and replies become values of Lua.
//!
//! Guarantees: the conversions are those of Redis' `EVAL`. What a value expands to is bounded: a
//! table that contains others many times, or itself, is refused.

use std::borrow::Cow;

use mlua::{Either, IntoLua, Lua, LuaString, MultiValue, Table, Value};

use super::expansion::Budget;
use super::native::Fault;
use super::number::truncate;
use crate::command::{CommandError, OwnedArgs};
use crate::reply::{Reply, double};

/// Levels of tables within a reply.
const DEPTH_MAX: usize = 100;

pub(super) const NOT_AN_ARG: CommandError =
    CommandError::fixed("ERR Lua redis lib command arguments must be strings or integers");
pub(super) const NO_ARGS: CommandError =
    CommandError::fixed("ERR Please specify at least one argument for this redis lib call");

/// Replaces `args` by the arguments of `redis.call`.
pub(super) fn set_args(
    args: &mut OwnedArgs,
    values: &MultiValue,
    bytes_max: usize,
) -> Result<(), CommandError> {
    if values.is_empty() {
        return Err(NO_ARGS);
    }
    args.clear();
    for value in values {
        match value {
            Value::String(string) => push_arg(args, &string.as_bytes(), bytes_max)?,
            Value::Integer(integer) => push_number(args, *integer as f64, bytes_max)?,
            Value::Number(number) => push_number(args, *number, bytes_max)?,
            _ => return Err(NOT_AN_ARG),
        }
    }
    Ok(())
}

/// Appends an argument of `redis.call`.
pub(super) fn push_arg(args: &mut OwnedArgs, arg: &[u8], bytes_max: usize) -> Result<(), CommandError> {
    args.push(arg);
    match args.size() > bytes_max {
        true => Err(CommandError::new(format!(
            "ERR command arguments exceed {bytes_max} bytes (--script-bytes-max)"
        ))),
        false => Ok(()),
    }
}

/// Appends an argument of `redis.call` that is a number.
pub(super) fn push_number(args: &mut OwnedArgs, number: f64, bytes_max: usize) -> Result<(), CommandError> {
    push_arg(args, double::format(number, double::EXACT_DIGITS).as_bytes(), bytes_max)
}

/// Bytes as a string of Lua. The usual kind, text, is the one that mlua can push without a detour.
pub(super) fn text(bytes: &[u8]) -> Either<&str, impl IntoLua> {
    match str::from_utf8(bytes) {
        Ok(text) => Either::Left(text),
        Err(_) => Either::Right(Bytes(bytes)),
    }
}

struct Bytes<'a>(&'a [u8]);

impl IntoLua for Bytes<'_> {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        Ok(Value::String(lua.create_string(self.0)?))
    }
}

/// The value of a reply to `redis.call`; `is_resp3` is what `redis.setresp` has chosen.
pub(super) fn to_lua(lua: &Lua, reply: Reply, is_resp3: bool) -> mlua::Result<Value> {
    let string = |bytes: &[u8]| Ok(Value::String(lua.create_string(bytes)?));
    match reply {
        Reply::Simple(text) => tagged(lua, "ok", Value::String(lua.create_string(text)?)),
        Reply::Status(text) => tagged(lua, "ok", Value::String(lua.create_string(text)?)),
        Reply::Error(text) => tagged(lua, "err", Value::String(lua.create_string(text.as_bytes())?)),
        Reply::Integer(n) => Ok(Value::Number(n as f64)),
        Reply::Double(number) if is_resp3 => tagged(lua, "double", Value::Number(number)),
        Reply::Double(number) => string(double::format(number, double::EXACT_DIGITS).as_bytes()),
        Reply::Boolean(boolean) if is_resp3 => Ok(Value::Boolean(boolean)),
        Reply::Boolean(boolean) => Ok(Value::Number(f64::from(u8::from(boolean)))),
        Reply::BigNumber(digits) if is_resp3 => {
            tagged(lua, "big_number", Value::String(lua.create_string(digits)?))
        }
        Reply::BigNumber(digits) => string(digits.as_bytes()),
        Reply::Bulk(bytes) => string(&bytes),
        Reply::Text(text) => verbatim(lua, *b"txt", text.as_bytes(), is_resp3),
        Reply::LongText(rope) => {
            verbatim(lua, *b"txt", &rope.pieces().collect::<Vec<_>>().concat(), is_resp3)
        }
        Reply::Verbatim(format, bytes) => verbatim(lua, format, &bytes, is_resp3),
        Reply::Bulks(bulks) => {
            let table = lua.create_table_with_capacity(bulks.len(), 0)?;
            for (n, bulk) in (1..).zip(bulks.iter()) {
                table.raw_set(n, lua.create_string(bulk)?)?;
            }
            Ok(Value::Table(table))
        }
        Reply::Null | Reply::NullArray if is_resp3 => Ok(Value::Nil),
        Reply::Null | Reply::NullArray => Ok(Value::Boolean(false)),
        Reply::Array(parts) | Reply::Push(parts) | Reply::Sequence(parts) => list(lua, parts, is_resp3),
        Reply::Set(parts) if is_resp3 => {
            let set = lua.create_table_with_capacity(0, parts.len())?;
            for part in parts {
                set.raw_set(to_lua(lua, part, is_resp3)?, true)?;
            }
            tagged(lua, "set", Value::Table(set))
        }
        Reply::Set(parts) => list(lua, parts, is_resp3),
        Reply::Map(pairs) if is_resp3 => {
            let map = lua.create_table_with_capacity(0, pairs.len())?;
            for (key, value) in pairs {
                map.raw_set(to_lua(lua, key, is_resp3)?, to_lua(lua, value, is_resp3)?)?;
            }
            tagged(lua, "map", Value::Table(map))
        }
        Reply::Pairs(pairs) if is_resp3 => {
            let pairs = pairs.into_iter().map(|(first, second)| Reply::Array(vec![first, second]));
            list(lua, pairs.collect(), is_resp3)
        }
        Reply::Map(pairs) | Reply::Pairs(pairs) => {
            list(lua, pairs.into_iter().flat_map(|(key, value)| [key, value]).collect(), is_resp3)
        }
    }
}

/// The reply of a script that returns what `redis.call` returned for `reply`.
pub(super) fn in_resp2(reply: Reply) -> Reply {
    match reply {
        Reply::Simple(_) | Reply::Bulk(_) | Reply::Bulks(_) | Reply::Null => reply,
        Reply::Status(text) => Reply::Status(one_line(&text)),
        Reply::Error(text) => Reply::Error(Cow::Owned(one_line(&text))),
        Reply::Integer(n) => Reply::Integer(truncate(n as f64)),
        Reply::Double(number) => Reply::bulk(double::format(number, double::EXACT_DIGITS)),
        Reply::Boolean(boolean) => Reply::Integer(i64::from(boolean)),
        Reply::BigNumber(text) | Reply::Text(text) => Reply::Bulk(text.into_bytes()),
        Reply::LongText(rope) => Reply::Bulk(rope.pieces().collect::<Vec<_>>().concat()),
        Reply::Verbatim(_, bytes) => Reply::Bulk(bytes),
        Reply::NullArray => Reply::Null,
        Reply::Array(parts) | Reply::Push(parts) | Reply::Sequence(parts) | Reply::Set(parts) => {
            Reply::Array(parts.into_iter().map(in_resp2).collect())
        }
        Reply::Map(pairs) | Reply::Pairs(pairs) => {
            Reply::Array(pairs.into_iter().flat_map(|(key, value)| [key, value]).map(in_resp2).collect())
        }
    }
}

/// Text in a format: in RESP3, a table that says so.
fn verbatim(lua: &Lua, format: [u8; 3], text: &[u8], is_resp3: bool) -> mlua::Result<Value> {
    let text = Value::String(lua.create_string(text)?);
    if !is_resp3 {
        return Ok(text);
    }
    let fields = lua.create_table_with_capacity(0, 2)?;
    fields.raw_set("format", lua.create_string(format)?)?;
    fields.raw_set("string", text)?;
    tagged(lua, "verbatim_string", Value::Table(fields))
}

/// A table with one field.
fn tagged(lua: &Lua, tag: &str, value: Value) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(tag, value)?;
    Ok(Value::Table(table))
}

fn list(lua: &Lua, parts: Vec<Reply>, is_resp3: bool) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(parts.len(), 0)?;
    for (n, part) in (1..).zip(parts) {
        table.raw_set(n, to_lua(lua, part, is_resp3)?)?;
    }
    Ok(Value::Table(table))
}

/// Converts the result of a script to its reply.
pub(super) struct ReplyBuilder<'a> {
    is_resp3: bool,
    budget: Budget<'a>,
}

impl<'a> ReplyBuilder<'a> {
    pub(super) fn new(is_resp3: bool, budget: Budget<'a>) -> ReplyBuilder<'a> {
        ReplyBuilder { is_resp3, budget }
    }

    /// The reply for a value.
    pub(super) fn reply(&mut self, value: &Value) -> Result<Reply, Fault> {
        self.at_depth(value, 0)
    }

    fn at_depth(&mut self, value: &Value, depth: usize) -> Result<Reply, Fault> {
        self.budget.take(size_of::<Reply>())?;
        Ok(match value {
            Value::String(string) => Reply::Bulk(self.bytes(string)?),
            Value::Integer(n) => Reply::Integer(*n),
            Value::Number(number) => Reply::Integer(truncate(*number)),
            Value::Boolean(boolean) if self.is_resp3 => Reply::Boolean(*boolean),
            Value::Boolean(true) => Reply::Integer(1),
            Value::Table(table) => return self.table(table, depth),
            _ => Reply::Null,
        })
    }

    fn table(&mut self, table: &Table, depth: usize) -> Result<Reply, Fault> {
        if depth >= DEPTH_MAX {
            return Err("reached lua stack limit".into());
        }
        if let Value::String(text) = table.raw_get("err")? {
            return Ok(Reply::Error(Cow::Owned(self.line(&text)?)));
        }
        if let Value::String(text) = table.raw_get("ok")? {
            return Ok(Reply::Status(self.line(&text)?));
        }
        match table.raw_get("double")? {
            Value::Number(number) => return Ok(Reply::Double(number)),
            Value::Integer(integer) => return Ok(Reply::Double(integer as f64)),
            _ => {}
        }
        if let Value::Table(map) = table.raw_get("map")? {
            let mut pairs = Vec::new();
            for pair in map.pairs::<Value, Value>() {
                let (key, value) = pair?;
                pairs.push((self.at_depth(&key, depth + 1)?, self.at_depth(&value, depth + 1)?));
            }
            return Ok(Reply::Map(pairs));
        }
        if let Value::Table(set) = table.raw_get("set")? {
            let mut members = Vec::new();
            for pair in set.pairs::<Value, Value>() {
                members.push(self.at_depth(&pair?.0, depth + 1)?);
            }
            return Ok(Reply::Set(members));
        }
        if let Value::String(digits) = table.raw_get("big_number")? {
            return Ok(Reply::BigNumber(self.line(&digits)?));
        }
        if let Value::Table(fields) = table.raw_get("verbatim_string")?
            && let (Value::String(format), Value::String(text)) =
                (fields.raw_get("format")?, fields.raw_get("string")?)
        {
            let mut letters = *b"   ";
            letters.iter_mut().zip(format.as_bytes().iter()).for_each(|(letter, byte)| *letter = *byte);
            return Ok(Reply::Verbatim(letters, self.bytes(&text)?));
        }
        self.array(table, depth)
    }

    /// The elements up to the first nil.
    fn array(&mut self, table: &Table, depth: usize) -> Result<Reply, Fault> {
        let mut parts = Vec::new();
        for n in 1.. {
            let part: Value = table.raw_get(n)?;
            if part.is_nil() {
                break;
            }
            parts.push(self.at_depth(&part, depth + 1)?);
        }
        Ok(Reply::Array(parts))
    }

    /// Text of a reply that ends at the end of its line.
    fn line(&mut self, text: &LuaString) -> Result<String, Fault> {
        let bytes = self.bytes(text)?;
        Ok(one_line(&String::from_utf8_lossy(&bytes)))
    }

    fn bytes(&mut self, string: &LuaString) -> Result<Vec<u8>, Fault> {
        let bytes = string.as_bytes();
        self.budget.take(bytes.len())?;
        Ok(bytes.to_vec())
    }
}

/// Text without line breaks.
pub(super) fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}
