//! `COMMAND COUNT | INFO | DOCS | LIST`, and `HELP` of every command that has subcommands: all from the table.

mod syntax;

use crate::command::glob::Glob;
use crate::command::steps::RemainingArgs;
use crate::command::{
    Args, COMMANDS, Command, CommandError, Context, Flags, Group, Progress, Run, Steps, options,
};
use crate::reply::Reply;
use syntax::{Argument, arguments_of};

const fn subcommand(
    name: &'static str,
    syntax: &'static str,
    arity: i8,
    summary: &'static str,
    run: crate::command::Handler,
) -> Command {
    let (group, keys) = (Group::Server, (0, 0, 0));
    Command { name, syntax, summary, group, arity, flags: Flags::NONE, keys, run: Run::Handler(run) }
}

pub(in crate::command) const COMMAND: Command = Command {
    name: "command",
    syntax: "",
    summary: "Returns information about all commands.",
    group: Group::Server,
    arity: -1,
    flags: Flags::NONE,
    keys: (0, 0, 0),
    run: Run::Subcommands(&[
        subcommand(
            "command|info",
            "[command-name [command-name ...]]",
            -2,
            "Returns information about one, several or all commands.",
            info,
        ),
        subcommand("command|count", "", 2, "Returns the number of commands.", |_, _| {
            Ok(Reply::count(COMMANDS.len()))
        }),
        subcommand(
            "command|docs",
            "[command-name [command-name ...]]",
            -2,
            "Returns documentation of one, several or all commands.",
            docs,
        ),
        subcommand(
            "command|list",
            "[FILTERBY PATTERN pattern]",
            -2,
            "Returns the names of all commands, or of those that match.",
            list,
        ),
    ]),
};

fn bulk(text: &str) -> Reply {
    Reply::bulk(text)
}

/// A command by the name that clients use, `client|id` for subcommands.
fn by_full_name(name: &[u8]) -> Option<&'static Command> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let command = Command::find(parts.next()?)?;
    match parts.next() {
        None => Some(command),
        Some(own) => command.subcommands().iter().find(|subcommand| options::is(own, subcommand.own_name())),
    }
}

fn info(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() <= 2 {
        context.spend(DESCRIBE_WORK * COMMANDS.len());
        return Ok(Reply::Array(COMMANDS.iter().map(describe).collect()));
    }
    let args = few_names(args)?;
    context.in_turns(Describing { args, found: Vec::new() })
}

/// Names in one request: each reply is some thousand times longer than a name.
const NAMES_MAX: usize = 1000;
/// What the description of a command costs, and its documentation.
const DESCRIBE_WORK: usize = 32;
const DOCUMENT_WORK: usize = 128;

fn few_names(args: Args<'_>) -> Result<RemainingArgs, CommandError> {
    match args.len() - 2 > NAMES_MAX {
        true => {
            Err(CommandError::new(format!("ERR at most {NAMES_MAX} names; omit them to list all commands")))
        }
        false => Ok(RemainingArgs::new(args, 2)),
    }
}

/// A COMMAND INFO with names.
struct Describing {
    args: RemainingArgs,
    found: Vec<Reply>,
}

impl Steps for Describing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.args.each(context, |context, name| {
            context.spend(DESCRIBE_WORK);
            self.found.push(by_full_name(name).map_or(Reply::Null, describe));
            Ok(())
        })?;
        Ok(if is_done {
            Progress::Done(Reply::Array(std::mem::take(&mut self.found)))
        } else {
            Progress::More
        })
    }
}

fn describe(command: &Command) -> Reply {
    let (first, last, step) = command.keys;
    let number = |n: i8| Reply::Integer(i64::from(n));
    let flags = Flags::names(command.flags).into_iter().map(Reply::Simple).collect();
    Reply::Array(vec![
        bulk(command.name),
        number(command.arity),
        Reply::Set(flags),
        number(first),
        number(last),
        number(step),
        Reply::Set(vec![]),
        Reply::Array(vec![]),
        Reply::Array(key_specs(command)),
        Reply::Array(command.subcommands().iter().map(describe).collect()),
    ])
}

fn key_specs(command: &Command) -> Vec<Reply> {
    let (first, last, step) = command.keys;
    if first == 0 {
        return vec![];
    }
    let pair = |key: &str, value: Reply| (bulk(key), value);
    let is_write = command.flags & Flags::WRITE != 0;
    let flags = vec![Reply::Simple(if is_write { "RW" } else { "RO" })];
    // Relative to the first key.
    let last = if last > 0 { last - first } else { last };
    vec![Reply::Map(vec![
        pair("flags", Reply::Set(flags)),
        pair(
            "begin_search",
            Reply::Map(vec![
                pair("type", bulk("index")),
                pair("spec", Reply::Map(vec![pair("index", Reply::Integer(i64::from(first)))])),
            ]),
        ),
        pair(
            "find_keys",
            Reply::Map(vec![
                pair("type", bulk("range")),
                pair(
                    "spec",
                    Reply::Map(vec![
                        pair("lastkey", Reply::Integer(i64::from(last))),
                        pair("keystep", Reply::Integer(i64::from(step))),
                        pair("limit", Reply::Integer(0)),
                    ]),
                ),
            ]),
        ),
    ])]
}

fn docs(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() == 2 {
        context.spend(DOCUMENT_WORK * COMMANDS.len());
        return Ok(Reply::Map(
            COMMANDS.iter().map(|command| (bulk(command.name), document(command))).collect(),
        ));
    }
    let args = few_names(args)?;
    context.in_turns(Documenting { args, found: Vec::new() })
}

/// A COMMAND DOCS with names.
struct Documenting {
    args: RemainingArgs,
    found: Vec<(Reply, Reply)>,
}

impl Steps for Documenting {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.args.each(context, |context, name| {
            context.spend(DOCUMENT_WORK);
            let found = by_full_name(name).map(|command| (bulk(command.name), document(command)));
            self.found.extend(found);
            Ok(())
        })?;
        Ok(if is_done { Progress::Done(Reply::Map(std::mem::take(&mut self.found))) } else { Progress::More })
    }
}

fn document(command: &Command) -> Reply {
    let mut fields = vec![
        (bulk("summary"), bulk(command.summary)),
        (bulk("since"), bulk("0.1.0")),
        (bulk("group"), bulk(command.group.as_str())),
    ];
    let arguments = arguments_of(command.syntax);
    if !arguments.is_empty() {
        fields.push((bulk("arguments"), Reply::Array(arguments.iter().map(Argument::reply).collect())));
    }
    if !command.subcommands().is_empty() {
        let all = command.subcommands().iter();
        let all = all.map(|subcommand| (bulk(subcommand.name), document(subcommand)));
        fields.push((bulk("subcommands"), Reply::Map(all.collect())));
    }
    Reply::Map(fields)
}

fn list(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let pattern = match args.len() {
        2 => b"*".to_vec(),
        5 if options::is(args.at(2), "filterby") && options::is(args.at(3), "pattern") => {
            args.at(4).to_ascii_lowercase()
        }
        _ => return Err(CommandError::SYNTAX),
    };
    let pattern = Glob::new(&pattern)?;
    let names = COMMANDS.iter().map(|command| command.name);
    Ok(Reply::Array(names.filter(|name| pattern.matches(name.as_bytes())).map(bulk).collect()))
}

/// The lines of `HELP`.
pub(in crate::command) fn help(command: &Command) -> Reply {
    let name = command.name.to_ascii_uppercase();
    let mut lines = vec![bulk(&format!("{name} <subcommand> [<arg> ...]. Subcommands are:"))];
    for subcommand in command.subcommands() {
        let own = subcommand.own_name().to_ascii_uppercase();
        lines.push(bulk(format!("{own} {}", subcommand.syntax).trim_end()));
        lines.push(bulk(&format!("    {}", subcommand.summary)));
    }
    lines.extend([bulk("HELP"), bulk("    Returns this help.")]);
    Reply::Array(lines)
}
