//! `CONFIG GET pattern ...`

use crate::command::glob::Glob;
use crate::command::steps::RemainingArgs;
use crate::command::{Args, Command, CommandError, Context, Flags, Group, Progress, Steps};
use crate::reply::Reply;

pub(super) const CONFIG: Command = Command::container(
    "config",
    -2,
    &[Command::new("config|get", -3, get)
        .group(Group::Server)
        .flags(Flags::ADMIN | Flags::NOSCRIPT)
        .syntax("pattern [pattern ...]")
        .summary(
            "Returns the settings whose names match. Flags, environment variables and the \
             configuration file set them.",
        )
        .example("CONFIG GET ttl-ms-*")],
)
.group(Group::Server)
.summary("A container for server configuration commands.");

fn get(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let is_wanted = vec![false; context.server.settings.len()];
    context.in_turns(Matching { patterns: RemainingArgs::new(args, 2), is_wanted })
}

/// A CONFIG GET in progress.
struct Matching {
    patterns: RemainingArgs,
    /// Whether each setting matches.
    is_wanted: Vec<bool>,
}

impl Steps for Matching {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let settings = &context.server.settings;
        let is_done = self.patterns.each(context, |context, pattern| {
            let pattern = Glob::new(&pattern.to_ascii_lowercase())?;
            for ((name, _), is_wanted) in settings.iter().zip(&mut self.is_wanted) {
                context.spend(pattern.work(name.len()));
                *is_wanted |= pattern.matches(name.as_bytes());
            }
            Ok(())
        })?;
        if !is_done {
            return Ok(Progress::More);
        }
        let found = settings.iter().zip(&self.is_wanted).filter(|(_, is_wanted)| **is_wanted);
        let found = found.map(|((name, value), _)| (Reply::bulk(name), Reply::bulk(value)));
        Ok(Progress::Done(Reply::Map(found.collect())))
    }
}
