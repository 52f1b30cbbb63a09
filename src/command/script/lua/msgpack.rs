//! `cmsgpack`: MessagePack as the library of that name writes and reads it.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::Shared;
use super::expansion::Budget;
use super::native::{Call, Fault, Results, export, one};

/// Levels of tables that are packed; deeper ones become nil.
const DEPTH_MAX: usize = 16;
/// Levels of arrays and maps that are unpacked. Each level costs stack.
const UNPACK_DEPTH_MAX: usize = 128;

/// The library. `bytes_max` is the longest string that `pack` makes.
pub(super) fn library(lua: &Lua, shared: &Rc<Shared>, bytes_max: usize) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("_NAME", "cmsgpack")?;
    library.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    library.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    library.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    let state = Rc::clone(shared);
    export(lua, shared, &library, "pack", move |call| {
        if call.len() == 0 {
            return Err(call.refuse(0, "MessagePack pack needs input."));
        }
        let mut packer = Packer { bytes: Vec::new(), budget: Budget::new(&state, bytes_max) };
        for n in 1..=call.len() {
            packer.value(call.value(n), 0)?;
        }
        one(call.lua, call.lua.create_string(packer.bytes)?)
    })?;
    let unpacking = |name, range: fn(&Call<'_>) -> Result<(i64, i64), Fault>| {
        let state = Rc::clone(shared);
        export(lua, shared, &library, name, move |call| {
            unpack(call, range(call)?, Budget::new(&state, usize::MAX))
        })
    };
    unpacking("unpack", |_| Ok((0, 0)))?;
    unpacking("unpack_one", |call| Ok((1, call.integer_or(2, 0)?)))?;
    unpacking("unpack_limit", |call| Ok((super::number::truncate(call.number(2)?), call.integer_or(3, 0)?)))?;
    Ok(library)
}

struct Packer<'a> {
    bytes: Vec<u8>,
    budget: Budget<'a>,
}

impl Packer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Fault> {
        let length = self.bytes.len();
        match value {
            Value::String(string) => {
                self.budget.before_string(string.as_bytes().len())?;
                self.string(&string.as_bytes());
            }
            Value::Boolean(boolean) => self.bytes.push(if *boolean { 0xc3 } else { 0xc2 }),
            Value::Integer(n) => self.integer(*n),
            // 2^63 has no i64, though a cast would make one of it.
            Value::Number(number) if (*number as i64) as f64 == *number && *number < 9.2e18 => {
                self.integer(*number as i64);
            }
            Value::Number(number) => self.double(*number),
            Value::Table(_) if depth == DEPTH_MAX => self.bytes.push(0xc0),
            Value::Table(table) => self.table(table, depth + 1)?,
            _ => self.bytes.push(0xc0),
        }
        // What is in a table has been counted already.
        let is_table = matches!(value, Value::Table(_));
        self.budget.take(if is_table { 5 } else { self.bytes.len() - length })
    }

    fn string(&mut self, string: &[u8]) {
        let length = string.len();
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ 0..32), _) => self.bytes.push(0xa0 | length),
            (Ok(length), _) => self.bytes.extend_from_slice(&[0xd9, length]),
            (_, Ok(length)) => self.tagged(0xda, &length.to_be_bytes()),
            _ => self.tagged(0xdb, &(length as u32).to_be_bytes()),
        }
        self.bytes.extend_from_slice(string);
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(bytes);
    }

    fn integer(&mut self, n: i64) {
        match n {
            0..=127 => self.bytes.push(n as u8),
            -32..0 => self.bytes.push(n as u8),
            128..=0xff => self.tagged(0xcc, &(n as u8).to_be_bytes()),
            0x100..=0xffff => self.tagged(0xcd, &(n as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.tagged(0xce, &(n as u32).to_be_bytes()),
            0x1_0000_0000.. => self.tagged(0xcf, &(n as u64).to_be_bytes()),
            -0x80..-32 => self.tagged(0xd0, &(n as i8).to_be_bytes()),
            -0x8000..-0x80 => self.tagged(0xd1, &(n as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.tagged(0xd2, &(n as i32).to_be_bytes()),
            ..-0x8000_0000 => self.tagged(0xd3, &n.to_be_bytes()),
        }
    }

    fn double(&mut self, number: f64) {
        let single = number as f32;
        match f64::from(single) == number {
            true => self.tagged(0xca, &single.to_be_bytes()),
            false => self.tagged(0xcb, &number.to_be_bytes()),
        }
    }

    fn table(&mut self, table: &Table, depth: usize) -> Result<(), Fault> {
        let mut entries = Vec::new();
        let mut max = 0;
        let mut is_array = true;
        for pair in table.pairs::<Value, Value>() {
            self.budget.take(0)?;
            let (key, value) = pair?;
            match key {
                Value::Integer(n) if n > 0 => max = max.max(n),
                _ => is_array = false,
            }
            entries.push((key, value));
        }
        let length = entries.len();
        if is_array && usize::try_from(max) == Ok(length) {
            self.header(length, 0x90, [0xdc, 0xdd]);
            for n in 1..=max {
                self.value(&table.raw_get::<Value>(n)?, depth)?;
            }
            return Ok(());
        }
        self.header(length, 0x80, [0xde, 0xdf]);
        for (key, value) in entries {
            self.value(&key, depth)?;
            self.value(&value, depth)?;
        }
        Ok(())
    }

    /// Starts an array or a map.
    fn header(&mut self, length: usize, short: u8, [medium, long]: [u8; 2]) {
        match u16::try_from(length) {
            Ok(length @ 0..16) => self.bytes.push(short | length as u8),
            Ok(length) => self.tagged(medium, &length.to_be_bytes()),
            Err(_) => self.tagged(long, &(length as u32).to_be_bytes()),
        }
    }
}

/// Unpacks at most `limit` values from `offset` on; 0: all. With a limit, the first result is the
/// offset of the next value, or -1 at the end.
fn unpack(call: &Call<'_>, (limit, offset): (i64, i64), budget: Budget<'_>) -> Results {
    let bytes = call.bytes(1)?;
    if offset < 0 || limit < 0 {
        return Err(Fault::Text(format!(
            "Invalid request to unpack with offset of {offset} and limit of {}.",
            bytes.len()
        )));
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    if start > bytes.len() {
        return Err(Fault::Text(format!("Start offset {offset} greater than input length {}.", bytes.len())));
    }
    let mut unpacker = Unpacker { lua: call.lua, bytes: &bytes[start..], budget };
    let mut values = MultiValue::new();
    let limit_values = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    while !unpacker.bytes.is_empty() && values.len() < limit_values {
        if values.len() >= RESULTS_MAX {
            return Err(Fault::from("too many results to unpack"));
        }
        values.push_back(unpacker.value(0)?);
    }
    if limit > 0 {
        let next = bytes.len() - unpacker.bytes.len();
        let next = if unpacker.bytes.is_empty() { -1 } else { i64::try_from(next).unwrap_or(i64::MAX) };
        values.push_front(Value::Number(next as f64));
    }
    Ok(values)
}

/// Results of one call; Lua's stack has no room for many more.
const RESULTS_MAX: usize = 7000;

struct Unpacker<'a> {
    lua: &'a Lua,
    bytes: &'a [u8],
    budget: Budget<'a>,
}

impl<'a> Unpacker<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or("Missing bytes in input.")?;
        self.bytes = rest;
        Ok(taken)
    }

    /// An unsigned integer of `length` bytes.
    fn unsigned(&mut self, length: usize) -> Result<u64, Fault> {
        Ok(self.take(length)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn length(&mut self, length: usize) -> Result<usize, Fault> {
        Ok(usize::try_from(self.unsigned(length)?).unwrap_or(usize::MAX))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        if depth > UNPACK_DEPTH_MAX {
            return Err(Fault::from("stack overflow (too many nested values)"));
        }
        self.budget.take(0)?;
        let number = |number: f64| Ok(Value::Number(number));
        match self.take(1)?[0] {
            byte @ 0..=0x7f => number(f64::from(byte)),
            byte @ 0xe0..=0xff => number(f64::from(byte.cast_signed())),
            0xcc => number(self.unsigned(1)? as f64),
            0xcd => number(self.unsigned(2)? as f64),
            0xce => number(self.unsigned(4)? as f64),
            // Large ones wrap around, as in Redis.
            0xcf | 0xd3 => number(self.unsigned(8)?.cast_signed() as f64),
            0xd0 => number(f64::from(self.unsigned(1)? as i8)),
            0xd1 => number(f64::from(self.unsigned(2)? as i16)),
            0xd2 => number(f64::from(self.unsigned(4)? as i32)),
            0xca => number(f64::from(f32::from_bits(self.unsigned(4)? as u32))),
            0xcb => number(f64::from_bits(self.unsigned(8)?)),
            0xc0 => Ok(Value::Nil),
            0xc2 => Ok(Value::Boolean(false)),
            0xc3 => Ok(Value::Boolean(true)),
            byte @ 0xa0..=0xbf => self.string(usize::from(byte & 31)),
            0xd9 => self.length(1).and_then(|length| self.string(length)),
            0xda => self.length(2).and_then(|length| self.string(length)),
            0xdb => self.length(4).and_then(|length| self.string(length)),
            byte @ 0x90..=0x9f => self.array(usize::from(byte & 15), depth + 1),
            0xdc => self.length(2).and_then(|length| self.array(length, depth + 1)),
            0xdd => self.length(4).and_then(|length| self.array(length, depth + 1)),
            byte @ 0x80..=0x8f => self.map(usize::from(byte & 15), depth + 1),
            0xde => self.length(2).and_then(|length| self.map(length, depth + 1)),
            0xdf => self.length(4).and_then(|length| self.map(length, depth + 1)),
            _ => Err(Fault::from("Bad data format in input.")),
        }
    }

    fn string(&mut self, length: usize) -> Result<Value, Fault> {
        Ok(Value::String(self.lua.create_string(self.take(length)?)?))
    }

    fn array(&mut self, length: usize, depth: usize) -> Result<Value, Fault> {
        let table = self.lua.create_table()?;
        for n in 1..=length {
            table.raw_set(n, self.value(depth)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<Value, Fault> {
        let table = self.lua.create_table()?;
        for _ in 0..length {
            let key = self.value(depth)?;
            let value = self.value(depth)?;
            match key {
                Value::Nil => return Err(Fault::from("table index is nil")),
                Value::Number(number) if number.is_nan() => return Err(Fault::from("table index is NaN")),
                key => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }
}
