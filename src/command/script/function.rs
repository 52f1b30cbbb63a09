//! `FUNCTION LIST`, `FUNCTION FLUSH`, …: a library of functions that is always empty.

use super::check_flush_mode;
use crate::command::error::printable;
use crate::command::options;
use crate::command::{Args, Command, CommandError, Context, Flags, Group};
use crate::reply::Reply;

pub(super) const FUNCTION: Command = Command::container(
    "function",
    -2,
    &[
        Command::new("function|list", -2, list)
            .group(Group::Scripting)
            .flags(Flags::NOSCRIPT)
            .syntax("[LIBRARYNAME pattern] [WITHCODE]")
            .summary("Returns an empty array: there are no functions.")
            .example("FUNCTION LIST"),
        Command::new("function|flush", -2, flush)
            .group(Group::Scripting)
            .flags(Flags::NOSCRIPT)
            .syntax("[ASYNC | SYNC]")
            .summary("Returns OK: there are no functions to remove.")
            .example("FUNCTION FLUSH"),
    ],
)
.group(Group::Scripting)
.flags(Flags::NOSCRIPT)
.summary("A container for commands about functions, of which there are none.");

fn list(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let options = [options::value("LIBRARYNAME"), options::flag("WITHCODE")];
    let is_repeated = args.from(2).filter(|arg| options::is(arg, "libraryname")).count() > 1;
    args.options_or(2, &options::once(options), |arg| {
        if options::is(arg, "libraryname") && !is_repeated {
            return CommandError::fixed("ERR library name argument was not given");
        }
        CommandError::new(format!("ERR Unknown argument {}", printable(arg, 128)))
    })?;
    Ok(Reply::Array(Vec::new()))
}

fn flush(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() > 3 {
        return Err(CommandError::subcommand_arity(args));
    }
    check_flush_mode(args, "FUNCTION FLUSH only supports")?;
    Ok(Reply::OK)
}
