//! `CONFIG GET pattern ...`, `CONFIG SET parameter value ...`, `CONFIG RESETSTAT`, `CONFIG REWRITE`

use crate::command::live_settings::Refused;
use crate::command::steps::RemainingArgs;
use crate::command::{Args, Command, CommandError, Context, Flags, Group, Progress, Steps};
use crate::glob::Glob;
use crate::reply::Reply;

const FLAGS: u16 = Flags::ADMIN | Flags::NOSCRIPT;

pub(super) const CONFIG: Command = Command::container(
    "config",
    -2,
    &[
        Command::new("config|get", -3, get)
            .group(Group::Server)
            .flags(FLAGS)
            .syntax("pattern [pattern ...]")
            .summary(
                "Returns the settings whose names match. Flags, environment variables, the \
                 configuration file and CONFIG SET set them.",
            )
            .example("CONFIG GET ttl-ms-*"),
        Command::new("config|set", -4, set)
            .group(Group::Server)
            .flags(FLAGS)
            .syntax("parameter value [parameter value ...]")
            .summary("Changes settings of the running server until it stops: all of them, or none.")
            .example("CONFIG SET slowlog-max-len 256"),
        Command::new("config|resetstat", 2, reset_stat)
            .group(Group::Server)
            .flags(FLAGS)
            .summary("Restarts the totals of INFO stats and INFO commandstats at 0.")
            .example("CONFIG RESETSTAT"),
        Command::new("config|rewrite", 2, rewrite)
            .group(Group::Server)
            .flags(FLAGS)
            .summary("Fails: the server never writes its configuration file.")
            .example("CONFIG REWRITE"),
    ],
)
.group(Group::Server)
.summary("A container for server configuration commands.");

fn get(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let settings = context.server.settings.shown();
    let is_wanted = vec![false; settings.len()];
    context.in_turns(Matching { patterns: RemainingArgs::new(args, 2), settings, is_wanted })
}

/// A CONFIG GET in progress.
struct Matching {
    patterns: RemainingArgs,
    settings: Vec<(&'static str, String)>,
    /// Whether each setting matches.
    is_wanted: Vec<bool>,
}

impl Steps for Matching {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.patterns.each(context, |context, pattern| {
            let pattern = Glob::new(&pattern.to_ascii_lowercase())?;
            for ((name, _), is_wanted) in self.settings.iter().zip(&mut self.is_wanted) {
                context.spend(pattern.work(name.len()));
                *is_wanted |= pattern.matches(name.as_bytes());
            }
            Ok(())
        })?;
        if !is_done {
            return Ok(Progress::More);
        }
        let found = self.settings.iter().zip(&self.is_wanted).filter(|(_, is_wanted)| **is_wanted);
        let found = found.map(|((name, value), _)| (Reply::bulk(name), Reply::bulk(value)));
        Ok(Progress::Done(Reply::Map(found.collect())))
    }
}

/// Settings that one request may change: more than there are.
const PAIRS_MAX: usize = 64;

fn set(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if !args.len().is_multiple_of(2) || args.len() > 2 * PAIRS_MAX {
        return Err(CommandError::SYNTAX);
    }
    let texts: Vec<String> = args.from(2).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    let names: Vec<String> = texts.iter().step_by(2).map(|name| name.to_ascii_lowercase()).collect();
    let values = texts.iter().skip(1).step_by(2).map(String::as_str);
    let pairs: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
    context.server.settings.change(&pairs, &context.server.engine).map_err(|(name, why)| {
        CommandError::new(match why {
            Refused::Unknown => {
                format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            Refused::Because(why) => {
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
            }
        })
    })?;
    for (name, value) in pairs {
        tracing::info!(client = %context.client.info().addr, name, value, "CONFIG SET");
    }
    Ok(Reply::OK)
}

fn reset_stat(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.spend(super::stats::STATS_WORK);
    context.server.stats.reset(context.server);
    Ok(Reply::OK)
}

fn rewrite(_: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Err(CommandError::fixed("ERR the server never writes its configuration file; change it by hand"))
}
