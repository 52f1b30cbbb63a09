//! Scripts: `EVAL`, `EVALSHA`, `EVAL_RO`, `EVALSHA_RO`, `SCRIPT` and `FUNCTION`.
//!
//! Guarantees: nothing else runs while a script does, its changes are in one commit, and its reply
//! waits for that. A script that has been seen once can be called by its hash until SCRIPT FLUSH,
//! also after a restart, unless it was evicted because too many others were used since.
//! Not here: the interpreter (`lua`), the check of the limit of time (`running`).

mod function;
mod lua;
mod running;
mod shebang;

use std::cell::Cell;
use std::sync::Arc;

use self::lua::{Host, Interpreter, Invocation};
use self::running::{RunningScript, STOPPED, Stop};
use self::shebang::Shebang;
use super::context::name_or_none;
use super::parts::Join;
use super::{
    Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, OwnedArgs, ServerState, options,
};
use crate::domain::{LockName, Ttl};
use crate::engine::ScriptId;
use crate::reply::Reply;

pub(in crate::command) const COMMANDS: &[Command] =
    &[EVAL, EVALSHA, EVAL_RO, EVALSHA_RO, SCRIPT, function::FUNCTION];

const KEYS: KeySpec = KeySpec::Counted { count: 2, access: KeyAccess::ReadWrite };
const READ_KEYS: KeySpec = KeySpec::Counted { count: 2, access: KeyAccess::Read };
const SYNTAX: &str = "script numkeys [key [key ...]] [arg [arg ...]]";
const SHA_SYNTAX: &str = "sha1 numkeys [key [key ...]] [arg [arg ...]]";

const EVAL: Command = Command::new("eval", -3, |context, args| eval(context, args, true))
    .takes_many()
    .group(Group::Scripting)
    .flags(Flags::NOSCRIPT | Flags::MAY_REPLICATE)
    .keys(KEYS)
    .syntax(SYNTAX)
    .summary("Runs a Lua script. Its commands are atomic and happen at one instant.")
    .example("EVAL return(redis.call('GET',KEYS[1])) 1 jobs:import");

const EVALSHA: Command = Command::new("evalsha", -3, |context, args| evalsha(context, args, true))
    .takes_many()
    .group(Group::Scripting)
    .flags(Flags::NOSCRIPT | Flags::MAY_REPLICATE)
    .keys(KEYS)
    .syntax(SHA_SYNTAX)
    .summary("Runs a Lua script that the server knows, by the SHA-1 hash of its text.")
    .example("EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0");

const EVAL_RO: Command = Command::new("eval_ro", -3, |context, args| eval(context, args, false))
    .takes_many()
    .group(Group::Scripting)
    .flags(Flags::NOSCRIPT | Flags::READONLY)
    .keys(READ_KEYS)
    .syntax(SYNTAX)
    .summary("Runs a Lua script that may not call commands that write.")
    .example("EVAL_RO return(redis.call('GET',KEYS[1])) 1 jobs:import");

const EVALSHA_RO: Command = Command::new("evalsha_ro", -3, |context, args| evalsha(context, args, false))
    .takes_many()
    .group(Group::Scripting)
    .flags(Flags::NOSCRIPT | Flags::READONLY)
    .keys(READ_KEYS)
    .syntax(SHA_SYNTAX)
    .summary("Runs a Lua script that the server knows and that may not call commands that write.")
    .example("EVALSHA_RO e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0");

const SCRIPT: Command = Command::container(
    "script",
    -2,
    &[
        Command::new("script|load", 3, load)
            .group(Group::Scripting)
            .flags(Flags::NOSCRIPT)
            .syntax("script")
            .summary("Stores a script and returns the SHA-1 hash of its text.")
            .example("SCRIPT LOAD return(1)"),
        Command::new("script|exists", -3, exists)
            .in_parts(|_| 2, 1, Join::Append)
            .group(Group::Scripting)
            .flags(Flags::NOSCRIPT)
            .syntax("sha1 [sha1 ...]")
            .summary("Returns for each hash whether the server knows the script: 1 or 0.")
            .example("SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
        Command::new("script|flush", -2, flush)
            .group(Group::Scripting)
            .flags(Flags::NOSCRIPT)
            .syntax("[ASYNC | SYNC]")
            .summary("Removes all stored scripts.")
            .example("SCRIPT FLUSH"),
        Command::new("script|kill", 2, kill)
            .group(Group::Scripting)
            .flags(Flags::NOSCRIPT)
            .summary("Stops the running script, unless it has written something.")
            .example("SCRIPT KILL"),
        Command::new("script|debug", 3, debug)
            .group(Group::Scripting)
            .flags(Flags::NOSCRIPT)
            .syntax("YES | SYNC | NO")
            .summary(
                "Fails, and so does the next script of the connection: there is no debugger. NO is accepted.",
            )
            .example("SCRIPT DEBUG NO"),
    ],
)
.group(Group::Scripting)
.flags(Flags::NOSCRIPT)
.summary("A container for commands about scripts.");

/// Milliseconds after which the transaction of a script no longer occupies a thread that serves
/// others.
const LONG_MS: u64 = 2;

/// The limits of a script.
#[derive(Debug, Clone)]
pub struct ScriptLimits {
    /// Memory that a script may take, in bytes.
    pub bytes_max: usize,
    /// Time that a script may take, in milliseconds.
    pub ms_max: u64,
}

impl Default for ScriptLimits {
    fn default() -> ScriptLimits {
        ScriptLimits { bytes_max: 64 << 20, ms_max: 1000 }
    }
}

/// What runs scripts: one at a time, in the interpreter of the thread.
pub struct ScriptEngine {
    limits: ScriptLimits,
    running: Arc<RunningScript>,
}

thread_local! {
    /// The interpreter of this thread, which needs no locks as it stays here. Made when the first
    /// script runs, and again after a script that had to be stopped.
    static INTERPRETER: Cell<Option<Interpreter>> = const { Cell::new(None) };
}

impl ScriptEngine {
    /// A script engine that has run nothing yet.
    pub fn new(limits: ScriptLimits) -> ScriptEngine {
        ScriptEngine { limits, running: Arc::default() }
    }

    /// Notes that the running script is about to run a command that writes.
    pub(super) fn write(&self) -> Result<(), CommandError> {
        self.running.write().map_err(|_: Stop| STOPPED)
    }

    /// Runs `work` with the interpreter. For transactions that keep all others out, so that only one
    /// script runs at a time.
    fn with_interpreter<R>(
        &self,
        server: &ServerState,
        work: impl FnOnce(&mut Interpreter) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        // A thread that has served another server has the interpreter of that one.
        let own = INTERPRETER.take().filter(|interpreter| interpreter.is_of(&self.running));
        let mut interpreter = match own {
            Some(interpreter) => interpreter,
            None => Interpreter::new(server.engine.clock(), &self.running, self.limits.bytes_max)?,
        };
        let result = work(&mut interpreter);
        if interpreter.reset() {
            INTERPRETER.set(Some(interpreter));
        }
        self.running.end();
        result
    }
}

/// Runs the commands of a script in the context of its request.
struct Commands<'c, 'a>(&'c mut Context<'a>);

impl Host for Commands<'_, '_> {
    fn call(&mut self, args: &OwnedArgs) -> Result<Reply, CommandError> {
        self.0.dispatch(args.as_args())
    }

    fn may_call(&mut self, args: &OwnedArgs) -> Option<bool> {
        self.0.may_call(args.as_args())
    }
}

fn eval(context: &mut Context<'_>, args: Args<'_>, may_write: bool) -> Result<Reply, CommandError> {
    let text = args.at(1);
    let id = ScriptId::of(text);
    run(context, args, may_write, &id, |context| {
        // A script that does not compile is not stored.
        let shebang = Shebang::parse(text)?;
        let compiled = context
            .server
            .scripts
            .with_interpreter(context.server, |interpreter| interpreter.compile(&id, shebang.text));
        compiled?;
        Ok(context.txn.put_script(&id, text)?)
    })
}

fn evalsha(context: &mut Context<'_>, args: Args<'_>, may_write: bool) -> Result<Reply, CommandError> {
    let id = ScriptId::parse(args.at(1)).ok_or(NO_SCRIPT)?;
    run(context, args, may_write, &id, |context| context.txn.script(&id)?.ok_or(NO_SCRIPT))
}

const NO_SCRIPT: CommandError = CommandError::fixed("NOSCRIPT No matching script. Please use EVAL.");

/// Runs the script whose text `find` returns.
fn run(
    context: &mut Context<'_>,
    args: Args<'_>,
    may_write: bool,
    id: &ScriptId,
    find: impl FnOnce(&mut Context<'_>) -> Result<Arc<[u8]>, CommandError>,
) -> Result<Reply, CommandError> {
    if std::mem::take(&mut context.client.wants_debugger) {
        return Err(NO_DEBUGGER);
    }
    let count = key_count(args)?;
    let keys = args.range(3, 3 + count);
    let names: Vec<LockName> =
        keys.from(0).filter_map(|key| name_or_none(context, key).ok().flatten()).collect();
    let args = args.skip(3 + count);
    context.run_script(&names, may_write, |context| {
        let text = find(context)?;
        let shebang = Shebang::parse(&text)?;
        if !may_write && text.starts_with(b"#!") && !shebang.is_read_only {
            return Err(CommandError::fixed(
                "ERR Can not execute a script with write flag using *_ro command.",
            ));
        }
        if shebang.is_read_only {
            context.caller = super::Caller::Script { may_write: false };
        }
        let server = context.server;
        let scripts = &server.scripts;
        let script = Invocation { id, text: shebang.text, keys, args };
        scripts.with_interpreter(server, |interpreter| {
            // Of all scripts of an EXEC together: the instant at which it began.
            let began = context.txn.now();
            let after = |millis| began.after(Ttl::from_millis(millis).ok());
            scripts.running.begin(after(LONG_MS), after(scripts.limits.ms_max));
            interpreter.run(&script, &mut Commands(context))
        })
    })
}

/// The number of keys of a request.
fn key_count(args: Args<'_>) -> Result<usize, CommandError> {
    let count = options::integer(args.at(2))?;
    let count =
        usize::try_from(count).map_err(|_| CommandError::fixed("ERR Number of keys can't be negative"))?;
    if count > args.len() - 3 { Err(CommandError::KEY_COUNT) } else { Ok(count) }
}

fn load(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let text = args.at(2);
    let id = ScriptId::of(text);
    let shebang = Shebang::parse(text)?;
    context.atomically(&[], |context| {
        let server = context.server;
        server.scripts.with_interpreter(server, |interpreter| interpreter.compile(&id, shebang.text))?;
        Ok(context.txn.put_script(&id, text)?)
    })?;
    Ok(Reply::bulk(id.to_string()))
}

fn exists(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut known = Vec::with_capacity(args.len() - 2);
    for arg in args.from(2) {
        let is_known = match ScriptId::parse(arg) {
            Some(id) => context.txn.has_script(&id)?,
            None => false,
        };
        known.push(Reply::Integer(i64::from(is_known)));
    }
    Ok(Reply::Array(known))
}

fn flush(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    check_flush_mode(args, "SCRIPT FLUSH only support")?;
    context.txn.flush_scripts()?;
    Ok(Reply::OK)
}

/// Checks the mode of a FLUSH, which makes no difference.
fn check_flush_mode(args: Args<'_>, refusal: &str) -> Result<(), CommandError> {
    let is_mode = |arg| options::is(arg, "async") || options::is(arg, "sync");
    match args.len() {
        2 => Ok(()),
        3 if is_mode(args.at(2)) => Ok(()),
        _ => Err(CommandError::new(format!("ERR {refusal} SYNC|ASYNC option"))),
    }
}

fn kill(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.server.scripts.running.kill()?;
    Ok(Reply::OK)
}

const NO_DEBUGGER: CommandError = CommandError::fixed("ERR SCRIPT DEBUG is not supported");

/// Refuses the next script, too: `redis-cli --ldb` sends it whatever the reply, and its user expects
/// that nothing is changed.
fn debug(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mode = args.at(2);
    let wants_debugger = options::is(mode, "yes") || options::is(mode, "sync");
    context.client.wants_debugger = wants_debugger;
    match mode {
        _ if wants_debugger => Err(NO_DEBUGGER),
        mode if options::is(mode, "no") => Ok(Reply::OK),
        _ => Err(CommandError::fixed("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    }
}
