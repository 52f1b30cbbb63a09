//! `CONFIG GET pattern ...`

use super::glob::Glob;
use super::{Args, Command, CommandError, Context, Flags, Group, Run};
use crate::reply::Reply;

pub(super) const CONFIG: Command = Command {
    name: "config",
    syntax: "",
    summary: "Shows how the server is set up.",
    group: Group::Server,
    arity: -2,
    flags: Flags::ADMIN,
    keys: (0, 0, 0),
    run: Run::Subcommands(&[Command {
        name: "config|get",
        syntax: "pattern [pattern ...]",
        summary: "Answers the settings whose names match. They are set by flags, variables or a file.",
        group: Group::Server,
        arity: -3,
        flags: Flags::ADMIN,
        keys: (0, 0, 0),
        run: Run::Handler(get),
    }]),
};

fn get(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let patterns: Result<Vec<Glob>, _> =
        words.from(2).map(|pattern| Glob::new(&pattern.to_ascii_lowercase())).collect();
    let patterns = patterns?;
    let is_wanted = |name: &str| patterns.iter().any(|pattern| pattern.matches(name.as_bytes()));
    let found = context.service.settings.iter().filter(|(name, _)| is_wanted(name));
    Ok(Reply::Map(found.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect()))
}
