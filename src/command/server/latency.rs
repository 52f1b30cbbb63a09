//! `LATENCY LATEST | HISTORY | RESET | GRAPH | DOCTOR | HISTOGRAM`
//!
//! Not here: a monitor of latency spikes. Every spike of a command is in SLOWLOG, and the times of
//! all commands are in the histograms.

use crate::command::{Args, Command, CommandError, Context, Flags, options};
use crate::metrics::Observed;
use crate::reply::Reply;

const FLAGS: u16 = Flags::ADMIN | Flags::NOSCRIPT;

pub(super) const LATENCY: Command = Command::container(
    "latency",
    -2,
    &[
        Command::new("latency|latest", 2, |_, _| Ok(Reply::Array(vec![])))
            .flags(FLAGS)
            .summary("Returns nothing: latency spikes are not recorded. See SLOWLOG.")
            .example("LATENCY LATEST"),
        Command::new("latency|history", 3, |_, _| Ok(Reply::Array(vec![])))
            .flags(FLAGS)
            .syntax("event")
            .summary("Returns nothing: latency spikes are not recorded. See SLOWLOG.")
            .example("LATENCY HISTORY command"),
        Command::new("latency|reset", -2, |_, _| Ok(Reply::Integer(0)))
            .flags(FLAGS)
            .syntax("[event [event ...]]")
            .summary("Returns 0, the number of events whose spikes were discarded.")
            .example("LATENCY RESET"),
        Command::new("latency|graph", 3, graph)
            .flags(FLAGS)
            .syntax("event")
            .summary("Fails: latency spikes are not recorded.")
            .example("LATENCY GRAPH command"),
        Command::new("latency|doctor", 2, doctor)
            .flags(FLAGS)
            .summary("Returns where latency can be seen.")
            .example("LATENCY DOCTOR"),
        Command::new("latency|histogram", -2, histogram)
            .flags(FLAGS)
            .syntax("[command [command ...]]")
            .summary(
                "Returns for each command that was called the number of calls, and the cumulative \
                 histogram of the times until their replies were durable, in microseconds.",
            )
            .example("LATENCY HISTOGRAM set"),
    ],
)
.summary("A container for latency diagnostics commands.");

fn graph(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let event = String::from_utf8_lossy(args.at(2));
    Err(CommandError::new(format!("ERR No samples available for event '{event}'")))
}

fn doctor(_: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let advice = "Latency spikes are not recorded. SLOWLOG GET has the slow commands, LATENCY HISTOGRAM the times of \
                  all commands, and INFO persistence and /metrics those of commits.\n";
    Ok(Reply::Verbatim(*b"txt", advice.as_bytes().to_vec()))
}

/// Units of work to read the histogram of one command.
const HISTOGRAM_WORK: usize = 4;

fn histogram(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut found = Vec::new();
    for (name, times) in context.server.metrics.commands.times() {
        // A container's name stands for its subcommands.
        let own = name.split('|').next().unwrap_or(name);
        let is_wanted = |arg: &[u8]| options::is(arg, name) || options::is(arg, own);
        if args.len() == 2 || args.from(2).take(NAMES_MAX).any(is_wanted) {
            let times = times.read();
            if times.count > 0 {
                found.push((Reply::bulk(name), described(&times)));
            }
        }
    }
    context.spend(HISTOGRAM_WORK * context.server.metrics.commands.times().count() + args.len());
    Ok(Reply::Map(found))
}

/// Names of one request that are looked up.
const NAMES_MAX: usize = 64;

fn described(times: &Observed) -> Reply {
    let mut buckets = Vec::new();
    let mut total = 0;
    for (nanos, count) in &times.buckets {
        total += count;
        if *count > 0 {
            buckets.push((Reply::unsigned(nanos / 1000), Reply::unsigned(total)));
        }
    }
    Reply::Map(vec![
        (Reply::bulk("calls"), Reply::unsigned(times.count)),
        (Reply::bulk("histogram_usec"), Reply::Map(buckets)),
    ])
}
