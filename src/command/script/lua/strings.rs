//! The functions of `string` whose work grows with a string.
//!
//! Guarantees: as Lua's own, but searches can be interrupted, and the others do not begin if the
//! script has to stop. Not here: how patterns match.

use std::rc::Rc;

use memchr::memmem;
use mlua::{Lua, MultiValue, Table, Value};

use super::Shared;
use super::native::{Call, Fault, Results, export, export_as, one};
use super::pattern::{Captured, Matcher};

/// The functions that replace those of Lua, and those that the prelude makes others of.
pub(super) fn library(lua: &Lua, shared: &Rc<Shared>, bytes_max: usize) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let add = |key, name, function: fn(&Call<'_>, &dyn Fn() -> bool, usize) -> Results| {
        let state = Rc::clone(shared);
        export_as(lua, shared, &library, key, name, move |call| {
            function(call, &|| state.must_stop().is_some(), bytes_max)
        })
    };
    add("find", "find", find)?;
    add("match", "match", match_)?;
    add("gmatch_next", "gmatch", gmatch_next)?;
    add("gsub_next", "gsub", gsub_next)?;
    add("gsub_text", "gsub", gsub_text)?;
    let state = Rc::clone(shared);
    export(lua, shared, &library, "rep", move |call| rep(call, &state, bytes_max))?;
    let map = |name, function: fn(&[u8]) -> Vec<u8>| {
        export(lua, shared, &library, name, move |call| {
            one(call.lua, call.lua.create_string(function(&call.bytes(1)?))?)
        })
    };
    map("upper", <[u8]>::to_ascii_uppercase)?;
    map("lower", <[u8]>::to_ascii_lowercase)?;
    map("reverse", |bytes| bytes.iter().rev().copied().collect())?;
    Ok(library)
}

/// The start of a search, from 0, as argument number `n` says.
fn start(call: &Call<'_>, n: usize, length: usize) -> Result<usize, Fault> {
    let start = call.integer_or(n, 1)?;
    let length_signed = i64::try_from(length).unwrap_or(i64::MAX);
    let start = if start < 0 { start.saturating_add(length_signed).saturating_add(1) } else { start };
    Ok(usize::try_from(start.saturating_sub(1)).unwrap_or(0).min(length))
}

/// Adds the captures of a match.
fn push_captures(
    call: &Call<'_>,
    string: &[u8],
    matcher: &Matcher<'_>,
    whole: Option<(usize, usize)>,
    results: &mut MultiValue,
) -> Result<(), Fault> {
    let count = if whole.is_some() { matcher.captures().max(1) } else { matcher.captures() };
    for n in 0..count {
        results.push_back(match matcher.capture(n, whole.unwrap_or_default())? {
            Captured::Span(start, end) => Value::String(call.lua.create_string(&string[start..end])?),
            Captured::Position(at) => Value::Number((at + 1) as f64),
        });
    }
    Ok(())
}

fn find(call: &Call<'_>, must_stop: &dyn Fn() -> bool, _: usize) -> Results {
    let (string, pattern) = (call.bytes(1)?, call.bytes(2)?);
    let from = start(call, 3, string.len())?;
    let is_plain = !matches!(call.value(4), Value::Nil | Value::Boolean(false));
    if is_plain || !pattern.iter().any(|byte| b"^$*+?.([%-".contains(byte)) {
        let found = memmem::find(&string[from..], &pattern).map(|at| from + at);
        let ends = found.map(|at| [at + 1, at + pattern.len()]);
        return Ok(match ends {
            Some(ends) => ends.into_iter().map(|end| Value::Number(end as f64)).collect(),
            None => MultiValue::from_vec(vec![Value::Nil]),
        });
    }
    let mut matcher = Matcher::new(&string, &pattern, must_stop);
    let Some((begin, end)) = matcher.search(from)? else { return Ok(MultiValue::from_vec(vec![Value::Nil])) };
    let mut results: MultiValue = [begin + 1, end].into_iter().map(|end| Value::Number(end as f64)).collect();
    push_captures(call, &string, &matcher, None, &mut results)?;
    Ok(results)
}

fn match_(call: &Call<'_>, must_stop: &dyn Fn() -> bool, _: usize) -> Results {
    let (string, pattern) = (call.bytes(1)?, call.bytes(2)?);
    let from = start(call, 3, string.len())?;
    let mut matcher = Matcher::new(&string, &pattern, must_stop);
    let Some(whole) = matcher.search(from)? else { return Ok(MultiValue::from_vec(vec![Value::Nil])) };
    let mut results = MultiValue::new();
    push_captures(call, &string, &matcher, Some(whole), &mut results)?;
    Ok(results)
}

/// The C function adds empty strings one by one.
fn rep(call: &Call<'_>, shared: &Shared, bytes_max: usize) -> Results {
    let string = call.bytes(1)?;
    let count = usize::try_from(super::number::truncate(call.number(2)?)).unwrap_or(0);
    match string.len().checked_mul(count) {
        Some(0) => one(call.lua, ""),
        Some(length) if length <= bytes_max => {
            shared.before_step(length)?;
            one(call.lua, call.lua.create_string(string.repeat(count))?)
        }
        _ => Err("not enough memory".into()),
    }
}

/// The next match of `gmatch` from a place on: where to continue, then the captures. No results:
/// none is left.
fn gmatch_next(call: &Call<'_>, must_stop: &dyn Fn() -> bool, _: usize) -> Results {
    let (string, pattern) = (call.bytes(1)?, call.bytes(2)?);
    let from = usize::try_from(call.integer_or(3, 0)?).unwrap_or(0);
    let mut matcher = Matcher::new(&string, &pattern, must_stop);
    let Some((begin, end)) = matcher.search_unanchored(from)? else { return Ok(MultiValue::new()) };
    let next = if begin == end { end + 1 } else { end };
    let mut results = MultiValue::from_vec(vec![Value::Number(next as f64)]);
    push_captures(call, &string, &matcher, Some((begin, end)), &mut results)?;
    Ok(results)
}

/// The next match of `gsub` from a place on: its start and end, from 0, then the captures. No
/// results: none is left.
fn gsub_next(call: &Call<'_>, must_stop: &dyn Fn() -> bool, _: usize) -> Results {
    let (string, pattern) = (call.bytes(1)?, call.bytes(2)?);
    let from = usize::try_from(call.integer_or(3, 0)?).unwrap_or(0);
    let mut matcher = Matcher::new(&string, &pattern, must_stop);
    let Some(whole) = matcher.search(from)? else { return Ok(MultiValue::new()) };
    let mut results: MultiValue = [whole.0, whole.1].into_iter().map(|at| Value::Number(at as f64)).collect();
    push_captures(call, &string, &matcher, Some(whole), &mut results)?;
    Ok(results)
}

/// `gsub` with a text as replacement.
fn gsub_text(call: &Call<'_>, must_stop: &dyn Fn() -> bool, bytes_max: usize) -> Results {
    let (string, pattern) = (call.bytes(1)?, call.bytes(2)?);
    if !matches!(call.value(3), Value::String(_) | Value::Number(_) | Value::Integer(_)) {
        return Err(call.refuse(3, "string/function/table expected"));
    }
    let replacement = call.bytes(3)?;
    let max = call.integer_or(4, i64::MAX)?;
    let mut matcher = Matcher::new(&string, &pattern, must_stop);
    let is_anchored = pattern.first() == Some(&b'^');
    let (mut text, mut at, mut count) = (Vec::new(), 0, 0);
    while count < max {
        let Some((begin, end)) = matcher.search(at)? else { break };
        count += 1;
        text.extend_from_slice(&string[at..begin]);
        replace(&mut text, &string, &replacement, &matcher, (begin, end))?;
        at = end;
        if begin == end {
            let Some(byte) = string.get(end) else { break };
            text.push(*byte);
            at += 1;
        }
        if text.len() > bytes_max {
            return Err("not enough memory".into());
        }
        if is_anchored {
            break;
        }
    }
    text.extend_from_slice(&string[at.min(string.len())..]);
    let text = Value::String(call.lua.create_string(text)?);
    Ok(MultiValue::from_vec(vec![text, Value::Number(count as f64)]))
}

/// Adds a replacement, in which `%1` is the first capture.
fn replace(
    text: &mut Vec<u8>,
    string: &[u8],
    replacement: &[u8],
    matcher: &Matcher<'_>,
    whole: (usize, usize),
) -> Result<(), Fault> {
    let mut bytes = replacement.iter();
    while let Some(&byte) = bytes.next() {
        // A % at the end takes the NUL behind the string, as in C.
        let escaped = if byte == b'%' { Some(bytes.next().copied().unwrap_or(0)) } else { None };
        match escaped {
            None => text.push(byte),
            Some(b'0') => text.extend_from_slice(&string[whole.0..whole.1]),
            Some(digit @ b'1'..=b'9') => match matcher.capture(usize::from(digit - b'1'), whole)? {
                Captured::Span(start, end) => text.extend_from_slice(&string[start..end]),
                Captured::Position(at) => text.extend_from_slice((at + 1).to_string().as_bytes()),
            },
            Some(other) => text.push(other),
        }
    }
    Ok(())
}
