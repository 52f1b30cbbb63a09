//! `bit`: operations on integers of 32 bits.

use std::rc::Rc;

use mlua::{Lua, Table};

use super::Shared;
use super::native::{Call, Fault, export, one};

/// The library.
pub(super) fn library(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let unary = |name, operation: fn(i32) -> i32| {
        export(lua, shared, &library, name, move |call| one(call.lua, operation(bits(call, 1)?)))
    };
    unary("tobit", |x| x)?;
    unary("bnot", |x| !x)?;
    unary("bswap", i32::swap_bytes)?;
    let variadic = |name, operation: fn(i32, i32) -> i32| {
        export(lua, shared, &library, name, move |call| {
            let mut result = bits(call, 1)?;
            for n in 2..=call.len() {
                result = operation(result, bits(call, n)?);
            }
            one(call.lua, result)
        })
    };
    variadic("band", |x, y| x & y)?;
    variadic("bor", |x, y| x | y)?;
    variadic("bxor", |x, y| x ^ y)?;
    let shift = |name, operation: fn(i32, u32) -> i32| {
        export(lua, shared, &library, name, move |call| {
            one(call.lua, operation(bits(call, 1)?, bits(call, 2)?.cast_unsigned() & 31))
        })
    };
    shift("lshift", |x, n| x << n)?;
    shift("rshift", |x, n| (x.cast_unsigned() >> n).cast_signed())?;
    shift("arshift", |x, n| x >> n)?;
    shift("rol", i32::rotate_left)?;
    shift("ror", i32::rotate_right)?;
    export(lua, shared, &library, "tohex", |call| {
        let value = bits(call, 1)?.cast_unsigned();
        let digits = if call.is_nil(2) { 8 } else { bits(call, 2)? };
        let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
        let kept = text.len() - text.len().min(digits.unsigned_abs() as usize);
        one(call.lua, &text[kept..])
    })?;
    Ok(library)
}

/// Argument number `n`, rounded to an integer, modulo 2^32.
fn bits(call: &Call<'_>, n: usize) -> Result<i32, Fault> {
    let rounded = call.number(n)?.round_ties_even();
    Ok((rounded.rem_euclid(4_294_967_296.0) as u32).cast_signed())
}
