//! `DEBUG`, `MODULE` and `SWAPDB`: what this server does not have, and the answers that clients know.

use crate::command::{Args, Command, CommandError, Context, Flags, Group, key, options};
use crate::reply::Reply;

pub(super) const DEBUG: Command = Command::new("debug", -2, debug)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT)
    .syntax("subcommand [argument ...]")
    .summary("Fails, as Redis does unless it is configured otherwise.")
    .example("DEBUG SLEEP 0");

fn debug(_: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Err(CommandError::fixed(
        "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from \
         a local connection, otherwise you need to set this option in the configuration file, and then restart the \
         server.",
    ))
}

pub(super) const MODULE: Command = Command::container(
    "module",
    -2,
    &[
        Command::new("module|list", 2, |_, _| Ok(Reply::Array(vec![])))
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .summary("Returns nothing: there are no modules.")
            .example("MODULE LIST"),
        Command::new("module|load", -3, refuse_module)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("path [arg [arg ...]]")
            .summary("Fails, as Redis does unless it is configured otherwise.")
            .example("MODULE LOAD module.so"),
        Command::new("module|unload", 3, refuse_module)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("name")
            .summary("Fails, as Redis does unless it is configured otherwise.")
            .example("MODULE UNLOAD module"),
    ],
)
.summary("A container for module commands.");

fn refuse_module(_: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Err(CommandError::fixed(
        "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run it \
         from a local connection, otherwise you need to set this option in the configuration file, and then restart \
         the server.",
    ))
}

pub(super) const SWAPDB: Command = Command::new("swapdb", 3, swapdb)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT)
    .syntax("index1 index2")
    .summary("Fails: the database is a part of the name of a lock.")
    .example("SWAPDB 0 1");

fn swapdb(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    for (arg, wrong) in [(1, "ERR invalid first DB index"), (2, "ERR invalid second DB index")] {
        options::integer(args.at(arg)).map_err(|_| CommandError::fixed(wrong))?;
    }
    let (first, second) = (key::database(args.at(1))?, key::database(args.at(2))?);
    match first == second {
        true => Ok(Reply::OK),
        false => Err(CommandError::fixed(
            "ERR databases cannot be swapped: the database is a part of the name of a lock",
        )),
    }
}
