//! `cjson`: JSON as the library of that name writes and reads it.
//!
//! Guarantees: settings hold until the end of the script. Not here: encoding and decoding.

mod decode;
mod encode;

use std::rc::Rc;

use mlua::{IntoLuaMulti, Lua, Table, Value};

use super::Shared;
use super::expansion::Budget;
use super::native::{Call, Fault, Results, export, one};
use decode::decode;
use encode::encode;

/// Levels of tables, whatever the settings say: each level costs stack.
const DEPTH_MAX: i64 = 128;
/// The largest `int` of C.
const INT_MAX: i64 = i32::MAX as i64;

/// Significant digits of numbers, unless a script says otherwise.
const DIGITS: i64 = 14;

/// The settings of the library.
#[derive(Debug, Clone)]
pub(super) struct JsonSettings {
    /// Sparse arrays become objects instead of errors.
    sparse_convert: bool,
    /// An array is sparse if its largest index exceeds this many times its number of elements; 0:
    /// never.
    sparse_ratio: i64,
    /// Largest index up to which arrays are not sparse.
    sparse_safe: i64,
    encode_depth_max: i64,
    decode_depth_max: i64,
    /// Significant digits of numbers.
    digits: i64,
    keeps_buffer: bool,
    encode_invalid: InvalidNumbers,
    decode_invalid: bool,
}

/// What becomes of numbers that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InvalidNumbers {
    Refused,
    Allowed,
    Null,
}

impl Default for JsonSettings {
    fn default() -> JsonSettings {
        JsonSettings {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth_max: 1000,
            decode_depth_max: 1000,
            digits: DIGITS,
            keeps_buffer: true,
            encode_invalid: InvalidNumbers::Refused,
            decode_invalid: true,
        }
    }
}

/// The library. `text_bytes_max` is the longest text that `encode` makes.
pub(super) fn library(lua: &Lua, shared: &Rc<Shared>, text_bytes_max: usize) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("_NAME", "cjson")?;
    library.raw_set("_VERSION", "2.1.0")?;
    library.raw_set("null", Value::NULL)?;
    let state = Rc::clone(shared);
    export(lua, shared, &library, "encode", move |call| {
        if call.len() != 1 {
            return Err(call.refuse(1, "expected 1 argument"));
        }
        let settings = state.json.borrow().clone();
        let text = encode(call.value(1), &settings, Budget::new(&state, text_bytes_max))?;
        one(call.lua, call.lua.create_string(text)?)
    })?;
    let state = Rc::clone(shared);
    export(lua, shared, &library, "decode", move |call| {
        if call.len() != 1 {
            return Err(call.refuse(1, "expected 1 argument"));
        }
        let settings = state.json.borrow().clone();
        one(call.lua, decode(call.lua, &call.bytes(1)?, &settings, Budget::new(&state, usize::MAX))?)
    })?;
    let setting = |name, set: fn(&Call<'_>, &mut JsonSettings) -> Results| {
        let state = Rc::clone(shared);
        export(lua, shared, &library, name, move |call| set(call, &mut state.json.borrow_mut()))
    };
    setting("encode_max_depth", |call, settings| integer(call, &mut settings.encode_depth_max, 1, INT_MAX))?;
    setting("decode_max_depth", |call, settings| integer(call, &mut settings.decode_depth_max, 1, INT_MAX))?;
    setting("encode_number_precision", |call, settings| integer(call, &mut settings.digits, 1, DIGITS))?;
    setting("encode_keep_buffer", |call, settings| {
        settings.keeps_buffer = switch(call, settings.keeps_buffer)?;
        one(call.lua, settings.keeps_buffer)
    })?;
    setting("decode_invalid_numbers", |call, settings| {
        settings.decode_invalid = switch(call, settings.decode_invalid)?;
        one(call.lua, settings.decode_invalid)
    })?;
    setting("encode_invalid_numbers", invalid_numbers)?;
    setting("encode_sparse_array", sparse_array)?;
    Ok(library)
}

fn integer(call: &Call<'_>, setting: &mut i64, min: i64, max: i64) -> Results {
    set_integer(call, 1, setting, min, max)?;
    one(call.lua, *setting)
}

fn set_integer(call: &Call<'_>, n: usize, setting: &mut i64, min: i64, max: i64) -> Result<(), Fault> {
    if !call.is_nil(n) {
        *setting = Some(call.integer_or(n, min)?)
            .filter(|value| (min..=max).contains(value))
            .ok_or_else(|| call.refuse(n, &format!("expected integer between {min} and {max}")))?;
    }
    Ok(())
}

fn switch(call: &Call<'_>, before: bool) -> Result<bool, Fault> {
    match call.value(1) {
        Value::Nil => Ok(before),
        Value::Boolean(is_on) => Ok(*is_on),
        _ => match &*call.bytes(1)? {
            b"on" => Ok(true),
            b"off" => Ok(false),
            other => Err(invalid_option(call, other)),
        },
    }
}

fn invalid_option(call: &Call<'_>, option: &[u8]) -> Fault {
    call.refuse(1, &format!("invalid option '{}'", String::from_utf8_lossy(option)))
}

fn invalid_numbers(call: &Call<'_>, settings: &mut JsonSettings) -> Results {
    settings.encode_invalid = match call.value(1) {
        Value::String(option) if option == "null" => InvalidNumbers::Null,
        _ => match switch(call, settings.encode_invalid == InvalidNumbers::Allowed)? {
            // Called without an argument, it only returns the setting.
            _ if call.is_nil(1) => settings.encode_invalid,
            true => InvalidNumbers::Allowed,
            false => InvalidNumbers::Refused,
        },
    };
    match settings.encode_invalid {
        InvalidNumbers::Refused => one(call.lua, false),
        InvalidNumbers::Allowed => one(call.lua, true),
        InvalidNumbers::Null => one(call.lua, "null"),
    }
}

fn sparse_array(call: &Call<'_>, settings: &mut JsonSettings) -> Results {
    settings.sparse_convert = switch(call, settings.sparse_convert)?;
    set_integer(call, 2, &mut settings.sparse_ratio, 0, INT_MAX)?;
    set_integer(call, 3, &mut settings.sparse_safe, 0, INT_MAX)?;
    Ok((settings.sparse_convert, settings.sparse_ratio, settings.sparse_safe).into_lua_multi(call.lua)?)
}
