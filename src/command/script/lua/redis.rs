//! The table `redis` with `redis.call`, and the clock of `os`.

use std::rc::Rc;

use mlua::{Lua, LuaString, MultiValue, Table, Value};
use scoped_tls_hkt::scoped_thread_local;

use super::native::{Raised, string_bytes};
use super::{Host, PRELUDE, STEP_BYTES_MAX, Shared, convert};
use crate::command::script::running::STOPPED;
use crate::command::{CommandError, OwnedArgs, REDIS_VERSION};
use crate::engine::ScriptId;
use crate::reply::Reply;

const NANOS_PER_S: f64 = 1e9;

/// The functions that the prelude builds the sandbox with.
pub(super) fn natives(lua: &Lua, shared: &Rc<Shared>, bytes_max: usize) -> mlua::Result<Table> {
    let natives = lua.create_table()?;
    let stop = Rc::clone(shared);
    natives.raw_set("caught", lua.create_function(move |lua, error| caught(lua, &stop, error))?)?;
    natives.raw_set("value", lua.create_function(Raised::value)?)?;
    let stop = Rc::clone(shared);
    let before_step = move |_: &Lua, bytes: f64| stop.before_step(bytes as usize);
    natives.raw_set("before_step", lua.create_function(before_step)?)?;
    natives.raw_set("place", lua.create_function(|lua, ()| Ok(place(lua)))?)?;
    natives.raw_set("redis", library(lua, shared, bytes_max)?)?;
    natives.raw_set("os", clock(lua, shared)?)?;
    Ok(natives)
}

scoped_thread_local! {
    /// What runs the commands of the script that this thread runs.
    static mut HOST: for<'a> &'a mut dyn Host
}

/// Does `work`, in which a script may run, whose commands `host` runs.
pub(super) fn with_host<R>(host: &mut dyn Host, work: impl FnOnce() -> R) -> R {
    HOST.set(host, work)
}

/// The table `redis`.
fn library(lua: &Lua, shared: &Rc<Shared>, bytes_max: usize) -> mlua::Result<Table> {
    let parts = REDIS_VERSION.split('.').map(|part| part.parse::<i64>().unwrap_or(0));
    let number = parts.fold(0, |number, part| number << 8 | part);
    let constants = [
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
        ("REDIS_VERSION_NUM", number),
    ];
    let library = lua.create_table_from(constants)?;
    library.raw_set("REDIS_VERSION", REDIS_VERSION)?;
    let stop = Rc::clone(shared);
    let hash = move |lua: &Lua, args: MultiValue| {
        stop.before_step(args.iter().map(string_bytes).sum())?;
        sha1hex(lua, args)
    };
    library.raw_set("sha1hex", lua.create_function(hash)?)?;
    library.raw_set("log", lua.create_function(log)?)?;
    library.raw_set("error_reply", lua.create_function(error_reply)?)?;
    library.raw_set("status_reply", lua.create_function(status_reply)?)?;
    library.raw_set("set_repl", lua.create_function(set_repl)?)?;
    let checks = Rc::clone(shared);
    let check = move |_: &Lua, args: MultiValue| acl_check_cmd(&checks, &args, bytes_max);
    library.raw_set("acl_check_cmd", lua.create_function(check)?)?;
    for (name, raises) in [("call", true), ("pcall", false)] {
        let shared = Rc::clone(shared);
        let run = move |lua: &Lua, args: MultiValue| call(lua, &shared, args, bytes_max, raises);
        library.raw_set(name, lua.create_function(run)?)?;
    }
    // Commands are always replicated by their effects.
    library.raw_set("replicate_commands", lua.create_function(|_, ()| Ok(true))?)?;
    // There is no debugger.
    library.raw_set("breakpoint", lua.create_function(|_, ()| Ok(false))?)?;
    library.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    let shared = Rc::clone(shared);
    let setresp = move |lua: &Lua, args: MultiValue| {
        let [version] = &args.into_vec()[..] else {
            return Err(Raised::command("ERR redis.setresp() requires one argument."));
        };
        match lua.coerce_number(version.clone())? {
            Some(version @ (2.0 | 3.0)) => shared.is_resp3.set(version == 3.0),
            _ => return Err(Raised::command("ERR RESP version must be 2 or 3.")),
        }
        Ok(())
    };
    library.raw_set("setresp", lua.create_function(setresp)?)?;
    Ok(library)
}

/// The only argument, if it is a string.
fn only_text(args: MultiValue) -> Option<LuaString> {
    match &args.into_vec()[..] {
        [Value::String(text)] => Some(text.clone()),
        _ => None,
    }
}

fn error_reply(lua: &Lua, args: MultiValue) -> mlua::Result<Table> {
    let Some(text) = only_text(args) else { return wrong_arguments(lua) };
    let text = text.as_bytes();
    let text = text.strip_prefix(b"-").unwrap_or(&text);
    let code: &[u8] = if text.contains(&b' ') { b"" } else { b"ERR " };
    lua.create_table_from([("err", lua.create_string([code, text].concat())?)])
}

fn status_reply(lua: &Lua, args: MultiValue) -> mlua::Result<Table> {
    match only_text(args) {
        Some(text) => lua.create_table_from([("ok", text)]),
        None => wrong_arguments(lua),
    }
}

fn wrong_arguments(lua: &Lua) -> mlua::Result<Table> {
    lua.create_table_from([("err", "ERR wrong number or type of arguments")])
}

fn set_repl(lua: &Lua, args: MultiValue) -> mlua::Result<()> {
    let [flags] = &args.into_vec()[..] else {
        return Err(Raised::command("ERR redis.set_repl() requires two arguments."));
    };
    match lua.coerce_number(flags.clone())?.unwrap_or(0.0) {
        0.0..4.0 => Ok(()),
        _ => Err(Raised::command(
            "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        )),
    }
}

/// Whether the user may run a command, which is not run.
fn acl_check_cmd(shared: &Shared, values: &MultiValue, bytes_max: usize) -> mlua::Result<bool> {
    let may_call = with_args(shared, values, bytes_max, |host, args| Ok(host.may_call(args)));
    may_call
        .map_err(|error| Raised::command(error.text()))?
        .ok_or_else(|| Raised::command("ERR Invalid command passed to redis.acl_check_cmd()"))
}

fn sha1hex(lua: &Lua, args: MultiValue) -> mlua::Result<String> {
    let [value] = &args.into_vec()[..] else {
        return Err(Raised::command("ERR wrong number of arguments"));
    };
    let id = match lua.coerce_string(value.clone())? {
        Some(string) => ScriptId::of(&string.as_bytes()),
        None => ScriptId::of(b""),
    };
    Ok(id.to_string())
}

fn log(lua: &Lua, args: MultiValue) -> mlua::Result<()> {
    let args = args.into_vec();
    let (level, values) = match &args[..] {
        [] | [_] => return Err(Raised::command("ERR redis.log() requires two arguments or more.")),
        [Value::Integer(level @ 0..=3), values @ ..] => (*level, values),
        [Value::Integer(_) | Value::Number(_), ..] => {
            return Err(Raised::command("ERR Invalid debug level."));
        }
        _ => return Err(Raised::command("ERR First argument must be a number (log level).")),
    };
    let mut parts = Vec::new();
    for value in values {
        if let Some(string) = lua.coerce_string(value.clone())? {
            parts.push(convert::one_line(&string.to_string_lossy()));
        }
    }
    let text = parts.join(" ");
    match level {
        3 => tracing::warn!("script: {text}"),
        2 => tracing::info!("script: {text}"),
        _ => tracing::debug!("script: {text}"),
    }
    Ok(())
}

/// `os.clock`, all there is of that library.
fn clock(lua: &Lua, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let state = Rc::clone(shared);
    super::native::export(lua, shared, &library, "clock", move |call| {
        super::native::one(call.lua, state.clock.now().as_nanos() as f64 / NANOS_PER_S)
    })?;
    Ok(library)
}

/// An error that a script has caught, as the script may see it. Raises it again if the script has
/// to stop.
fn caught(lua: &Lua, shared: &Shared, error: Value) -> mlua::Result<Value> {
    match shared.must_stop() {
        Some(_) => Err(mlua::Error::runtime("stopped")),
        None => Raised::value(lua, error),
    }
}

/// The source and line of the innermost function that is a script's own.
fn place(lua: &Lua) -> (Option<String>, Option<usize>) {
    for level in 1.. {
        let found = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let text = source.source.as_deref().unwrap_or_default();
            let is_own = matches!(source.what, "Lua" | "main") && text != PRELUDE;
            is_own.then(|| (text.to_owned(), frame.current_line()))
        });
        match found {
            Some(Some((source, line))) => return (Some(source), line),
            Some(None) => {}
            None => break,
        }
    }
    (None, None)
}

/// Does `work` with what runs commands, and with the arguments of a command.
fn with_args<R>(
    shared: &Shared,
    values: &MultiValue,
    bytes_max: usize,
    work: impl FnOnce(&mut dyn Host, &OwnedArgs) -> Result<R, CommandError>,
) -> Result<R, CommandError> {
    let mut args = shared.args.take();
    let done = convert::set_args(&mut args, values, bytes_max).and_then(|()| {
        if args.size() > STEP_BYTES_MAX {
            shared.before_long_step().map_err(|_| STOPPED)?;
        }
        HOST.with(|host| work(host, &args))
    });
    shared.keep_args(args);
    done
}

/// Runs a command for the script by `run`. `None`: the script has to stop.
pub(super) fn run_command(
    shared: &Shared,
    bytes_max: usize,
    run: impl FnOnce() -> Result<Reply, CommandError>,
) -> Option<Reply> {
    if shared.must_stop_before_command() {
        return None;
    }
    let reply = run().unwrap_or_else(Reply::from);
    if reply.is_larger_than(bytes_max) {
        let text = format!("ERR reply exceeds {bytes_max} bytes (--script-bytes-max)");
        return Some(Reply::Error(text.into()));
    }
    Some(reply)
}

/// Runs a command for the script. `raises`: an error of the command is raised, not returned.
fn call(
    lua: &Lua,
    shared: &Shared,
    values: MultiValue,
    bytes_max: usize,
    raises: bool,
) -> mlua::Result<Value> {
    let run = || with_args(shared, &values, bytes_max, |host, args| host.call(args));
    let reply = run_command(shared, bytes_max, run).ok_or_else(|| mlua::Error::runtime("stopped"))?;
    match reply {
        Reply::Error(text) if raises => Err(Raised::command(text)),
        reply => {
            if reply.is_larger_than(STEP_BYTES_MAX) {
                shared.before_long_step()?;
            }
            without_limit(lua, || convert::to_lua(lua, reply, shared.is_resp3.get()))
        }
    }
}

/// Does `work`, which takes a bounded amount of memory, without the limit of the script: under it,
/// each allocation is a protected call. Fails if the limit is exceeded afterwards.
fn without_limit<R>(lua: &Lua, work: impl FnOnce() -> mlua::Result<R>) -> mlua::Result<R> {
    let limit = lua.set_memory_limit(0)?;
    let result = work();
    lua.set_memory_limit(limit)?;
    match lua.used_memory() > limit {
        true => Err(mlua::Error::MemoryError("not enough memory".to_owned())),
        false => result,
    }
}
