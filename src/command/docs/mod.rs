//! `COMMAND COUNT | INFO | DOCS | LIST | GETKEYS | GETKEYSANDFLAGS`, and `HELP` of every container.
//!
//! Guarantees: everything comes from the command table.

mod key_flags;
mod key_specs;
mod syntax;

use crate::command::steps::{KEY_WORK, RemainingArgs};
use crate::command::{
    Args, Categories, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, KeyVisitor, Progress,
    Steps, commands, commands_and_subcommands, options,
};
use crate::glob::Glob;
use crate::reply::{Bulks, Reply};
use key_flags::key_flags_of;
use key_specs::{flag_set, key_specs};
use syntax::{Argument, arguments_of};

pub(in crate::command) const COMMANDS: &[Command] = &[COMMAND];

const COMMAND: Command = Command::container(
    "command",
    -1,
    &[
        Command::new("command|info", -2, info)
            .group(Group::Server)
            .flags(Flags::ANY_NODE)
            .own_categories(Categories::CONNECTION)
            .syntax("[command-name [command-name ...]]")
            .summary("Returns information about one, several or all commands.")
            .example("COMMAND INFO LOCK UNLOCK"),
        Command::new("command|count", 2, |context, _| Ok(Reply::count(commands_of(context).count())))
            .group(Group::Server)
            .flags(Flags::ANY_NODE)
            .own_categories(Categories::CONNECTION)
            .summary("Returns the number of commands.")
            .example("COMMAND COUNT"),
        Command::new("command|docs", -2, docs)
            .group(Group::Server)
            .flags(Flags::ANY_NODE)
            .own_categories(Categories::CONNECTION)
            .syntax("[command-name [command-name ...]]")
            .summary("Returns documentation of one, several or all commands.")
            .example("COMMAND DOCS LOCK"),
        Command::new("command|list", -2, list)
            .group(Group::Server)
            .flags(Flags::ANY_NODE)
            .own_categories(Categories::CONNECTION)
            .syntax("[FILTERBY MODULE module-name | FILTERBY ACLCAT category | FILTERBY PATTERN pattern]")
            .summary("Returns the names of all commands, or of those that match.")
            .example("COMMAND LIST FILTERBY PATTERN *lock*"),
        Command::new("command|getkeys", -3, get_keys)
            .group(Group::Server)
            .flags(Flags::ANY_NODE)
            .own_categories(Categories::CONNECTION)
            .syntax("command-name [arg [arg ...]]")
            .summary("Returns the keys of a request.")
            .example("COMMAND GETKEYS DEL jobs:import jobs:export"),
        Command::new("command|getkeysandflags", -3, get_keys_and_flags)
            .group(Group::Server)
            .flags(Flags::ANY_NODE)
            .own_categories(Categories::CONNECTION)
            .syntax("command-name [arg [arg ...]]")
            .summary("Returns the keys of a request, each with what the command does with it, such as RO and access.")
            .example("COMMAND GETKEYSANDFLAGS DEL jobs:import jobs:export"),
    ],
)
.group(Group::Server)
.own_categories(Categories::CONNECTION)
.summary("Returns information about all commands.");

fn bulk(text: &str) -> Reply {
    Reply::bulk(text)
}

/// The commands that exist for the connection.
fn commands_of(context: &Context<'_>) -> impl Iterator<Item = &'static Command> {
    commands().filter(|command| context.has_command(command.name.as_bytes()))
}

/// A command by the name that clients use, `client|id` for subcommands.
fn by_full_name(context: &Context<'_>, name: &[u8]) -> Option<&'static Command> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let command = Command::find(parts.next().filter(|name| context.has_command(name))?)?;
    match parts.next() {
        None => Some(command),
        Some(own) => command.subcommand(own),
    }
}

fn info(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() <= 2 {
        context.spend(DESCRIBE_WORK * commands().count());
        return Ok(Reply::Array(commands_of(context).map(describe).collect()));
    }
    let args = few_names(args)?;
    context.in_turns(Describing { args, found: Vec::new() })
}

/// Maximum number of names in one request. The reply is some thousand times longer than the names.
const NAMES_MAX: usize = 1000;
/// Units of work to describe a command, and to document it.
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

/// A COMMAND INFO with names, in progress.
struct Describing {
    args: RemainingArgs,
    found: Vec<Reply>,
}

impl Steps for Describing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.args.each(context, |context, name| {
            context.spend(DESCRIBE_WORK);
            self.found.push(by_full_name(context, name).map_or(Reply::Null, describe));
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
    let (first, last, step) = command.keys.positions();
    let mut flags = Flags::names(command.flags);
    flags.extend(command.keys.is_movable().then_some("movablekeys"));
    Reply::Array(vec![
        bulk(command.name),
        Reply::Integer(i64::from(command.arity)),
        Reply::Set(flags.into_iter().map(Reply::Simple).collect()),
        Reply::Integer(i64::from(first)),
        Reply::Integer(i64::from(last)),
        Reply::Integer(i64::from(step)),
        Reply::Set(command.categories().names().map(Reply::Simple).collect()),
        Reply::Array(vec![]),
        Reply::Array(key_specs(command)),
        Reply::Array(command.subcommands().iter().map(describe).collect()),
    ])
}

fn docs(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() == 2 {
        context.spend(DOCUMENT_WORK * commands().count());
        let documented = commands_of(context).map(|command| (bulk(command.name), document(command)));
        return Ok(Reply::Map(documented.collect()));
    }
    let args = few_names(args)?;
    context.in_turns(Documenting { args, found: Vec::new() })
}

/// A COMMAND DOCS with names, in progress.
struct Documenting {
    args: RemainingArgs,
    found: Vec<(Reply, Reply)>,
}

impl Steps for Documenting {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.args.each(context, |context, name| {
            context.spend(DOCUMENT_WORK);
            let found = by_full_name(context, name).map(|command| (bulk(command.name), document(command)));
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

fn list(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (filter, value) = (args.at(3), args.at(4));
    let is = |name| options::is(filter, name);
    let filter: Box<dyn Fn(&Command) -> bool> = match args.len() {
        2 => Box::new(|_| true),
        5 if !options::is(args.at(2), "filterby") => return Err(CommandError::SYNTAX),
        5 if is("pattern") => {
            let pattern = Glob::new(&value.to_ascii_lowercase())?;
            context.spend(commands_and_subcommands().count() * pattern.work(NAME_BYTES));
            Box::new(move |command| pattern.matches(command.name.as_bytes()))
        }
        5 if is("aclcat") => {
            let category = Categories::find(value);
            Box::new(move |command| category.is_some_and(|category| command.categories().contains(category)))
        }
        // There are no modules.
        5 if is("module") => Box::new(|_| false),
        _ => return Err(CommandError::SYNTAX),
    };
    let mut names = Bulks::default();
    let all = commands_of(context).flat_map(|command| std::iter::once(command).chain(command.subcommands()));
    let found = all.filter(|command| filter(command));
    found.for_each(|command| names.push(command.name.as_bytes()));
    Ok(Reply::Bulks(names))
}

/// Length of a command's name, for estimates.
const NAME_BYTES: usize = 16;

fn get_keys(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend(KEY_WORK * args.len());
    let mut keys = Bulks::default();
    let request = args.skip(2);
    visit_keys(command_with_keys(request)?, request, &mut |key, _| keys.push(key))?;
    Ok(Reply::Bulks(keys))
}

fn get_keys_and_flags(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend(KEY_WORK * args.len());
    let mut keys = Vec::new();
    let request = args.skip(2);
    let command = command_with_keys(request)?;
    let [read, write, read_write] = [KeyAccess::Read, KeyAccess::Write, KeyAccess::ReadWrite]
        .map(|access| key_flags_of(command, request, access));
    visit_keys(command, request, &mut |key, access| {
        let flags = match access {
            KeyAccess::Read => read,
            KeyAccess::Write => write,
            KeyAccess::ReadWrite => read_write,
        };
        keys.push(Reply::Array(vec![Reply::bulk(key), flag_set(flags)]));
    })?;
    Ok(Reply::Array(keys))
}

/// The command of a request that has keys, or Redis' errors.
fn command_with_keys(request: Args<'_>) -> Result<&'static Command, CommandError> {
    let command = Command::of_request(request).ok_or(CommandError::fixed("ERR Invalid command specified"))?;
    if matches!(command.keys, KeySpec::None) {
        return Err(CommandError::fixed("ERR The command has no key arguments"));
    }
    if !command.accepts(request.len()) {
        return Err(CommandError::fixed("ERR Invalid number of arguments specified for command"));
    }
    Ok(command)
}

fn visit_keys<'a>(
    command: &Command,
    request: Args<'a>,
    visit: KeyVisitor<'_, 'a>,
) -> Result<(), CommandError> {
    let invalid = |_| CommandError::fixed("ERR Invalid arguments specified for command");
    command.visit_keys(request, visit).map_err(invalid)
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
