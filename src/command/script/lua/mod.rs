//! Lua: the interpreter of scripts, its sandbox and its libraries.
//!
//! Guarantees: a script sees nothing of the one before it. It stops when its time is over, and it
//! cannot take more memory than its limit. Only this folder knows Lua. Scripts that need no
//! interpreter run without one (`subset.rs`), with the same results.
//! Not here: where scripts are kept, commands.

mod bits;
mod convert;
mod expansion;
mod json;
mod msgpack;
mod native;
mod number;
mod packing;
mod pattern;
mod random;
mod redis;
mod strings;
mod subset;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use mlua::chunk::ChunkMode;
use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, VmState};
use rustc_hash::FxHashMap;

use self::convert::{ReplyBuilder, one_line};
use self::expansion::Budget;
use self::json::JsonSettings;
use self::native::Fault;
use self::random::Generator;
use self::subset::{Evaluation, Program};
use super::running::{RunningScript, Stop};
use crate::clock::Clock;
use crate::command::{Args, CommandError, OwnedArgs};
use crate::engine::{ScriptId, leave_other_tasks, run_long};
use crate::reply::Reply;

/// Instructions between two looks at the clock. Usually they take less than a microsecond, but each can
/// call a function of Lua's own whose work grows with a string or table, for example `table.insert`.
const HOOK_INSTRUCTIONS: u32 = 100;
/// Bytes of strings, or of a reply, that a function takes on in one step: it does not look at the clock
/// meanwhile. Such a step takes up to about a millisecond.
const STEP_BYTES_MAX: usize = 64 << 10;
/// Compiled scripts that each thread keeps, and the size of their texts.
const COMPILED_MAX: usize = 500;
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Garbage, in bytes, that may be left by a script.
const GARBAGE_MAX: usize = 1 << 20;
/// Bytes of arguments whose memory is kept for the next command.
const ARGS_KEPT: usize = 64 << 10;
/// The name of scripts in errors.
const CHUNK: &str = "@user_script";
/// The name of the prelude, which does not appear in errors.
const PRELUDE: &str = "=octostore";

const OUT_OF_MEMORY: CommandError =
    CommandError::fixed("ERR script memory limit reached (--script-bytes-max); what it has written stays");

/// What runs the commands of a script.
pub(super) trait Host {
    /// Runs a command.
    fn call(&mut self, args: &OwnedArgs) -> Result<Reply, CommandError>;

    /// Whether the user may run a command; `None`: there is no such command.
    fn may_call(&mut self, args: &OwnedArgs) -> Option<bool>;
}

/// A script that is to run.
pub(super) struct Invocation<'a> {
    pub(super) id: &'a ScriptId,
    /// The text, without a shebang.
    pub(super) text: &'a [u8],
    pub(super) keys: Args<'a>,
    pub(super) args: Args<'a>,
}

/// What the functions of the libraries share.
struct Shared {
    clock: Clock,
    running: Arc<RunningScript>,
    is_resp3: Cell<bool>,
    /// The running script has called a command.
    has_called: Cell<bool>,
    /// The memory of the arguments of the last command.
    args: Cell<OwnedArgs>,
    /// The size of the replies and arguments that the running script of the subset holds.
    held_bytes: Cell<usize>,
    generator: Generator,
    json: RefCell<JsonSettings>,
}

impl Shared {
    /// Whether the running script has to stop. Leaves the other tasks of this thread to another one
    /// if the script has become long.
    fn must_stop(&self) -> Option<Stop> {
        let found = self.running.look(self.clock.now());
        if found.has_become_long {
            leave_other_tasks();
        }
        found.stop
    }

    /// Comes before a step whose work grows with `bytes`. A long one begins without the other tasks of
    /// this thread, and fails if the script has to stop.
    fn before_step(&self, bytes: usize) -> mlua::Result<()> {
        if bytes > STEP_BYTES_MAX { self.before_long_step() } else { Ok(()) }
    }

    #[cold]
    fn before_long_step(&self) -> mlua::Result<()> {
        self.begin_long_work();
        self.must_stop().map_or(Ok(()), |_| Err(mlua::Error::runtime("stopped")))
    }

    /// Leaves the other tasks of this thread to another one, if that has not been done.
    fn begin_long_work(&self) {
        if self.running.become_long() {
            leave_other_tasks();
        }
    }

    /// Keeps the memory of arguments, unless it is much.
    fn keep_args(&self, args: OwnedArgs) {
        if args.size() <= ARGS_KEPT {
            self.args.set(args);
        }
    }

    /// Whether the running script may not call a command: it has to stop. Looks at the clock from the
    /// second call on; a command takes a few milliseconds at most.
    fn must_stop_before_command(&self) -> bool {
        match self.has_called.replace(true) {
            true => self.must_stop().is_some(),
            false => self.running.stop().is_some(),
        }
    }
}

/// A script that has been compiled.
#[derive(Clone)]
enum Compiled {
    /// It is in the subset that needs no interpreter.
    Subset(Rc<Program>),
    Lua(Function),
}

/// An interpreter with the libraries of Redis.
pub(super) struct Interpreter {
    lua: Lua,
    shared: Rc<Shared>,
    run: Function,
    /// Nothing that the last script could change is left as it has left it.
    is_clean: bool,
    compiled: FxHashMap<ScriptId, Compiled>,
    compiled_bytes: usize,
    /// Memory in use when nothing runs, compiled scripts included.
    memory_at_rest: usize,
    bytes_max: usize,
}

impl Interpreter {
    /// A new interpreter, whose scripts may take `bytes_max` bytes of memory each.
    pub(super) fn new(
        clock: &Clock,
        running: &Arc<RunningScript>,
        bytes_max: usize,
    ) -> Result<Interpreter, CommandError> {
        Interpreter::build(clock, running, bytes_max).map_err(|error| broken(&error))
    }

    fn build(clock: &Clock, running: &Arc<RunningScript>, bytes_max: usize) -> mlua::Result<Interpreter> {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::new())?;
        let shared = Rc::new(Shared {
            clock: clock.clone(),
            running: Arc::clone(running),
            is_resp3: Cell::default(),
            has_called: Cell::default(),
            args: Cell::default(),
            held_bytes: Cell::default(),
            generator: Generator::default(),
            json: RefCell::default(),
        });
        let native = redis::natives(&lua, &shared, bytes_max)?;
        native.raw_set("math", random::library(&lua, &shared)?)?;
        native.raw_set("string", strings::library(&lua, &shared, bytes_max)?)?;
        native.raw_set("bit", bits::library(&lua, &shared)?)?;
        native.raw_set("struct", packing::library(&lua, &shared, bytes_max)?)?;
        native.raw_set("cjson", json::library(&lua, &shared, bytes_max)?)?;
        native.raw_set("cmsgpack", msgpack::library(&lua, &shared, bytes_max)?)?;
        let globals = lua.create_table()?;
        let prelude = lua.load(include_str!("prelude.lua")).set_name(PRELUDE);
        let (environment, run) = prelude.call::<(Table, Function)>((native, globals))?;
        lua.set_globals(environment)?;
        // The parser relies on the name of a chunk staying alive.
        lua.set_named_registry_value("chunk name", CHUNK)?;
        let hook = Rc::clone(&shared);
        let triggers = HookTriggers::new().every_nth_instruction(HOOK_INSTRUCTIONS);
        lua.set_global_hook(triggers, move |_, _| match hook.must_stop() {
            Some(_) => Err(mlua::Error::runtime("stopped")),
            None => Ok(VmState::Continue),
        })?;
        lua.gc_collect()?;
        let memory_at_rest = lua.used_memory();
        let compiled = FxHashMap::default();
        Ok(Interpreter {
            lua,
            shared,
            run,
            is_clean: true,
            compiled,
            compiled_bytes: 0,
            memory_at_rest,
            bytes_max,
        })
    }

    /// Whether it is an interpreter for the script that `running` says.
    pub(super) fn is_of(&self, running: &Arc<RunningScript>) -> bool {
        Arc::ptr_eq(&self.shared.running, running)
    }

    /// Compiles a script, unless it is compiled already.
    pub(super) fn compile(&mut self, id: &ScriptId, text: &[u8]) -> Result<(), CommandError> {
        if self.compiled.contains_key(id) {
            return Ok(());
        }
        if self.compiled.len() >= COMPILED_MAX || self.compiled_bytes + text.len() > COMPILED_BYTES_MAX {
            self.compiled.clear();
            self.compiled_bytes = 0;
        }
        let parse = || match Program::parse(text) {
            Some(program) => Ok(Compiled::Subset(Rc::new(program))),
            None => self.compile_lua(text).map(Compiled::Lua),
        };
        let compiled = if text.len() > STEP_BYTES_MAX { run_long(parse) } else { parse() }?;
        self.compiled.insert(*id, compiled);
        self.compiled_bytes += text.len();
        self.memory_at_rest = self.lua.used_memory();
        Ok(())
    }

    fn compile_lua(&self, text: &[u8]) -> Result<Function, CommandError> {
        let chunk = self.lua.load(text).set_name(CHUNK).set_mode(ChunkMode::Text);
        self.within_limit(|| chunk.into_function()).map_err(|error| match error {
            mlua::Error::MemoryError(_) => OUT_OF_MEMORY,
            mlua::Error::SyntaxError { message, .. } => CommandError::new(format!(
                "ERR Error compiling script (new function): {}",
                one_line(&message)
            )),
            other => broken(&other),
        })
    }

    /// Runs a script. [`Interpreter::reset`] says whether another one can follow.
    pub(super) fn run(
        &mut self,
        script: &Invocation<'_>,
        host: &mut dyn Host,
    ) -> Result<Reply, CommandError> {
        self.compile(script.id, script.text)?;
        self.shared.has_called.set(false);
        if script.keys.size().max(script.args.size()) > STEP_BYTES_MAX {
            self.shared.begin_long_work();
        }
        let reply = match self.compiled.get(script.id).cloned() {
            Some(Compiled::Subset(program)) => {
                Evaluation::run(&program, &self.shared, script, host, self.bytes_max)
            }
            Some(Compiled::Lua(function)) => {
                self.run_function(&function, script, host).unwrap_or_else(|error| Err(failure(&error)))
            }
            None => Err(OUT_OF_MEMORY),
        };
        match self.shared.running.stop() {
            Some(stop) => {
                // Anywhere, so that nothing is known about what it has left.
                self.is_clean = false;
                Err(stopped(stop))
            }
            None => reply,
        }
    }

    fn run_function(
        &mut self,
        function: &Function,
        script: &Invocation<'_>,
        host: &mut dyn Host,
    ) -> mlua::Result<Result<Reply, CommandError>> {
        self.is_clean = false;
        self.shared.is_resp3.set(false);
        self.shared.generator.seed(0);
        self.shared.json.take();
        let (keys, args) = (self.strings(script.keys)?, self.strings(script.args)?);
        let call = || self.within_limit(|| self.run.call::<(bool, Value)>((function, keys, args)));
        let (ok, result) = redis::with_host(host, call)?;
        self.is_clean = true;
        if !ok {
            return Ok(Err(self.error(script.id, &result)));
        }
        let is_resp3 = self.shared.is_resp3.get();
        match ReplyBuilder::new(is_resp3, Budget::new(&self.shared, self.bytes_max)).reply(&result) {
            Ok(reply) => Ok(Ok(reply)),
            Err(Fault::Text(text)) => Ok(Err(CommandError::new(format!("ERR {text}")))),
            Err(Fault::Lua(error)) => Err(error),
        }
    }

    /// Whether the interpreter can run another script.
    pub(super) fn reset(&mut self) -> bool {
        if !self.is_clean {
            return false;
        }
        if self.lua.used_memory() > self.memory_at_rest + GARBAGE_MAX {
            return self.lua.gc_collect().is_ok();
        }
        true
    }

    /// Gives `work` the memory that a script may take, beside what is in use. Only scripts have a
    /// limit: under one, whatever else allocates is several times slower.
    fn within_limit<R>(&self, work: impl FnOnce() -> mlua::Result<R>) -> mlua::Result<R> {
        self.lua.set_memory_limit(self.lua.used_memory() + self.bytes_max)?;
        let result = work();
        self.lua.set_memory_limit(0)?;
        result
    }

    fn strings(&self, strings: Args<'_>) -> mlua::Result<Table> {
        self.lua.create_sequence_from(strings.from(0).map(convert::text))
    }

    /// The error of a script that raised `error`, as `describe` in the prelude completes it.
    fn error(&self, id: &ScriptId, error: &Value) -> CommandError {
        let Value::Table(table) = error else {
            return match error {
                Value::String(text) if text == "not enough memory" => OUT_OF_MEMORY,
                Value::String(text) => {
                    CommandError::new(format!("ERR {} script: {id}", one_line(&text.to_string_lossy())))
                }
                Value::Error(error) => failure(error),
                _ => CommandError::new(format!("ERR execution failure script: {id}")),
            };
        };
        let field = |name| match table.raw_get(name) {
            Ok(Value::String(text)) => text.to_string_lossy(),
            Ok(Value::Integer(n)) => n.to_string(),
            _ => String::new(),
        };
        located(&field("err"), id, &field("source"), &field("line"))
    }
}

/// The error `text` of a script, with the line of the source that it comes from, if that is known.
fn located(text: &str, id: &ScriptId, source: &str, line: &str) -> CommandError {
    let text = if text.is_empty() { "ERR unknown error" } else { &one_line(text) };
    match source.is_empty() {
        true => CommandError::new(format!("{text} script: {id}")),
        false => CommandError::new(format!("{text} script: {id}, on {}:{line}.", one_line(source))),
    }
}

fn stopped(stop: Stop) -> CommandError {
    CommandError::fixed(match stop {
        Stop::Killed => "ERR Script killed by user with SCRIPT KILL.",
        Stop::TimedOut => "ERR script time limit reached (--script-ms-max); what it has written stays",
    })
}

/// The error for a failure of Lua outside the script's own code.
fn failure(error: &mlua::Error) -> CommandError {
    match error {
        mlua::Error::MemoryError(_) => OUT_OF_MEMORY,
        mlua::Error::CallbackError { cause, .. } => failure(cause),
        other => broken(other),
    }
}

fn broken(error: &mlua::Error) -> CommandError {
    CommandError::new(format!("ERR script engine: {}", one_line(&error.to_string())))
}
