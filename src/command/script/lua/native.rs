//! Functions for scripts that are written in Rust.
//!
//! Guarantees: a fault becomes a Lua string with the place of the call in front, as an error of
//! Lua's own C functions has it. A function begins on long strings only if the script need not stop,
//! and without the other tasks of the thread. Not here: the functions.

use std::fmt;
use std::rc::Rc;

use mlua::{BorrowedBytes, IntoLua, IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value};

use super::{PRELUDE, Shared};

/// Why a function failed.
pub(super) enum Fault {
    /// An error of the script's, as a message.
    Text(String),
    /// Lua itself has failed, for example for want of memory.
    Lua(mlua::Error),
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Fault {
        Fault::Lua(error)
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Fault {
        Fault::Text(text.to_owned())
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Fault {
        Fault::Text(text)
    }
}

/// The arguments of one call.
pub(super) struct Call<'a> {
    pub(super) lua: &'a Lua,
    name: &'static str,
    args: Vec<Value>,
}

impl Call<'_> {
    /// The number of arguments.
    pub(super) fn len(&self) -> usize {
        self.args.len()
    }

    /// Argument number `n`, from 1; nil if there is none.
    pub(super) fn value(&self, n: usize) -> &Value {
        self.args.get(n - 1).unwrap_or(&Value::Nil)
    }

    /// Whether argument number `n` is missing or nil.
    pub(super) fn is_nil(&self, n: usize) -> bool {
        self.value(n).is_nil()
    }

    /// Argument number `n` as a string; numbers are converted.
    pub(super) fn string(&self, n: usize) -> Result<LuaString, Fault> {
        match self.value(n) {
            Value::String(string) => Ok(string.clone()),
            Value::Integer(_) | Value::Number(_) => {
                self.lua.coerce_string(self.value(n).clone())?.ok_or_else(|| self.mismatch(n, "string"))
            }
            _ => Err(self.mismatch(n, "string")),
        }
    }

    /// Argument number `n` as bytes; numbers are converted.
    pub(super) fn bytes(&self, n: usize) -> Result<BorrowedBytes, Fault> {
        Ok(self.string(n)?.as_bytes())
    }

    /// Argument number `n` as a number; strings are converted.
    pub(super) fn number(&self, n: usize) -> Result<f64, Fault> {
        match self.value(n) {
            Value::Number(number) => Ok(*number),
            Value::Integer(integer) => Ok(*integer as f64),
            Value::String(_) => {
                self.lua.coerce_number(self.value(n).clone())?.ok_or_else(|| self.mismatch(n, "number"))
            }
            _ => Err(self.mismatch(n, "number")),
        }
    }

    /// Argument number `n` as an integer, or `default` if there is none.
    pub(super) fn integer_or(&self, n: usize, default: i64) -> Result<i64, Fault> {
        match self.is_nil(n) {
            true => Ok(default),
            false => Ok(super::number::truncate(self.number(n)?)),
        }
    }

    /// The error for an argument of the wrong type.
    pub(super) fn mismatch(&self, n: usize, expected: &str) -> Fault {
        let found = if n > self.args.len() { "no value" } else { self.value(n).type_name() };
        let found = if found == "integer" { "number" } else { found };
        self.refuse(n, &format!("{expected} expected, got {found}"))
    }

    /// The error for an argument that makes no sense.
    pub(super) fn refuse(&self, n: usize, why: &str) -> Fault {
        Fault::Text(format!("bad argument #{n} to '{}' ({why})", self.name))
    }
}

/// The implementation of a function.
pub(super) type Results = Result<MultiValue, Fault>;

/// One result.
pub(super) fn one(lua: &Lua, value: impl IntoLua) -> Results {
    Ok(value.into_lua_multi(lua)?)
}

/// An error that a function raises. Scripts never see the Rust value: what catches errors turns it
/// into `value`.
#[derive(Debug)]
pub(super) struct Raised {
    text: String,
    /// Whether it is a table with the text as `err`, as for commands, or the text itself.
    is_table: bool,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Raised {}

impl Raised {
    /// An error as commands have it.
    pub(super) fn command(text: impl Into<String>) -> mlua::Error {
        mlua::Error::external(Raised { text: text.into(), is_table: true })
    }

    /// An error value as scripts see it.
    pub(super) fn value(lua: &Lua, error: Value) -> mlua::Result<Value> {
        let Value::Error(error) = error else { return Ok(error) };
        let mut cause = &*error;
        while let mlua::Error::CallbackError { cause: inner, .. } = cause {
            cause = inner;
        }
        let text = match (cause.downcast_ref::<Raised>(), cause) {
            (Some(raised), _) if raised.is_table => {
                let table = lua.create_table_with_capacity(0, 3)?;
                table.raw_set("err", lua.create_string(&raised.text)?)?;
                return Ok(Value::Table(table));
            }
            (Some(raised), _) => raised.text.clone(),
            (None, mlua::Error::MemoryError(_)) => "not enough memory".to_owned(),
            (None, other) => other.to_string(),
        };
        Ok(Value::String(lua.create_string(text)?))
    }
}

/// Adds a function to `library`.
pub(super) fn export(
    lua: &Lua,
    shared: &Rc<Shared>,
    library: &Table,
    name: &'static str,
    function: impl Fn(&Call<'_>) -> Results + 'static,
) -> mlua::Result<()> {
    export_as(lua, shared, library, name, name, function)
}

/// [`export`], for a function that has another name in errors.
pub(super) fn export_as(
    lua: &Lua,
    shared: &Rc<Shared>,
    library: &Table,
    key: &str,
    name: &'static str,
    function: impl Fn(&Call<'_>) -> Results + 'static,
) -> mlua::Result<()> {
    let shared = Rc::clone(shared);
    let function = lua.create_function(move |lua, args: MultiValue| {
        let call = Call { lua, name, args: args.into_vec() };
        shared.before_step(call.args.iter().map(string_bytes).sum())?;
        function(&call).map_err(|fault| match fault {
            Fault::Text(text) => {
                let text = format!("{}{text}", place_of_caller(lua));
                mlua::Error::external(Raised { text, is_table: false })
            }
            Fault::Lua(error) => error,
        })
    })?;
    library.raw_set(key, function)
}

/// The length of a string; 0 for other values.
pub(super) fn string_bytes(value: &Value) -> usize {
    match value {
        Value::String(string) => string.as_bytes().len(),
        _ => 0,
    }
}

/// The place of the call, as `luaL_where` writes it: the innermost function outside the prelude;
/// nothing if that is not written in Lua.
fn place_of_caller(lua: &Lua) -> String {
    for level in 1.. {
        let place = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            if source.source.as_deref() == Some(PRELUDE) || source.what == "tail" {
                return None;
            }
            let place = || Some(format!("{}:{}: ", source.short_src.as_deref()?, frame.current_line()?));
            Some(place().unwrap_or_default())
        });
        match place {
            Some(Some(place)) => return place,
            Some(None) => {}
            None => break,
        }
    }
    String::new()
}
