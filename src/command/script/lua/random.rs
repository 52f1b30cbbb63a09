//! `math.random`: the same numbers in every run of a script, as in Redis.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, Table};

use super::Shared;
use super::native::{Fault, Results, export, one};
use super::number::truncate;

/// The state of the generator: that of `lrand48`, which Redis has in place of C's `rand`.
#[derive(Debug, Default)]
pub(super) struct Generator(Cell<u64>);

impl Generator {
    /// Starts the sequence of a seed.
    pub(super) fn seed(&self, seed: i32) {
        self.0.set(u64::from(seed.cast_unsigned()) << 16 | 0x330e);
    }

    /// The next number of 31 bits.
    fn next(&self) -> u32 {
        let state = self.0.get().wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & 0xffff_ffff_ffff;
        self.0.set(state);
        (state >> 17) as u32
    }
}

/// The functions that replace those of Lua.
pub(super) fn library(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let state = Rc::clone(shared);
    export(lua, shared, &library, "random", move |call| -> Results {
        let max = f64::from(i32::MAX);
        let random = f64::from(state.generator.next() % i32::MAX.cast_unsigned()) / max;
        let bound = |n| -> Result<f64, Fault> { Ok(truncate(call.number(n)?) as f64) };
        let (low, high) = match call.len() {
            0 => return one(call.lua, random),
            1 => (1.0, bound(1)?),
            2 => (bound(1)?, bound(2)?),
            _ => return Err("wrong number of arguments".into()),
        };
        match low <= high {
            true => one(call.lua, (random * (high - low + 1.0)).floor() + low),
            false => Err(call.refuse(call.len(), "interval is empty")),
        }
    })?;
    let state = Rc::clone(shared);
    export(lua, shared, &library, "randomseed", move |call| {
        state.generator.seed(truncate(call.number(1)?) as i32);
        Ok(mlua::MultiValue::new())
    })?;
    Ok(library)
}
