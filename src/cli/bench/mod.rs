//! `octostore bench`: how many locks a server grants, and how long requests about them take.
//!
//! Guarantees: two servers work in turns, so that a machine that becomes slower is the same to
//! both. Keys have a prefix of their own, and are released at the end or end by themselves.

mod load;
mod report;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use self::load::{Side, Work};
use super::client::{self, Failure, Target};
use super::{block_on, duration, fail, fail_for, output, print};
use crate::clock::Clock;
use crate::entropy::Entropy;

/// How long one server works before it is the other's turn.
const TURN: Duration = Duration::from_secs(1);
/// Columns of the progress bar.
const BAR: usize = 30;

/// What is measured.
struct Plan {
    work: Work,
    clients: u32,
    /// The time of each server.
    time: Duration,
    /// The keys begin with this.
    prefix: String,
}

pub(super) fn command() -> Command {
    let works = PossibleValuesParser::new(Work::ALL.map(|(name, _)| name));
    Command::new("bench")
        .about("Measures how many locks a server grants, and how long requests take")
        .arg(Arg::new("work").long("work").value_name("WORK").default_value("cycle").value_parser(works).help(
            "cycle: each client takes and releases a lock of its own; contend: all the same lock; renew: each renews \
             its lock",
        ))
        .arg(
            Arg::new("clients")
                .long("clients")
                .short('c')
                .value_name("N")
                .default_value("50")
                .value_parser(value_parser!(u32).range(1..=10_000))
                .help("Connections to each server; each waits for a reply before its next request"),
        )
        .arg(
            Arg::new("time")
                .long("time")
                .value_name("TIME")
                .default_value("10s")
                .value_parser(duration::duration)
                .help("How long each server is measured"),
        )
        .arg(
            client::url("compare")
                .help("A second server, octostore or Redis, that takes turns of a second with the first"),
        )
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("PREFIX")
                .default_value("octostore-bench:")
                .help("Keys begin with this"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("One JSON object"))
        .args(client::arguments())
}

pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let prepared = Plan::from_arguments(matches).and_then(|plan| {
        let second = matches.contains_id("compare").then(|| Target::from_argument(matches, "compare"));
        let targets = [Some(Target::from_arguments(matches)), second];
        let targets = targets.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
        Ok((plan, targets))
    });
    let (plan, targets) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => return fail(2, reason),
    };
    block_on(async {
        match measure(&plan, &targets).await {
            Ok(sides) if matches.get_flag("json") => print(report::json(&plan, &sides)),
            Ok(sides) => print(report::text(&sides).trim_end()),
            Err(failure) => return fail_for(failure),
        }
        ExitCode::SUCCESS
    })
}

impl Plan {
    fn from_arguments(matches: &ArgMatches) -> Result<Plan, String> {
        let work = matches.get_one::<String>("work").and_then(|name| Work::named(name));
        // Benchmarks at the same time have locks of their own.
        let mut unique = [0; 4];
        Entropy::system().fill(&mut unique).map_err(|error| error.to_string())?;
        let prefix = matches.get_one::<String>("prefix").map_or("", String::as_str);
        Ok(Plan {
            work: work.unwrap_or(Work::Cycle),
            clients: matches.get_one::<u32>("clients").copied().unwrap_or(1),
            time: matches.get_one::<Duration>("time").copied().unwrap_or(TURN),
            prefix: format!("{prefix}{:08x}", u32::from_be_bytes(unique)),
        })
    }
}

/// Lets the servers work in turns.
async fn measure(plan: &Plan, targets: &[Target]) -> Result<Vec<Side>, Failure> {
    let clock = Clock::system();
    let mut sides = Vec::new();
    for target in targets {
        sides.push(Side::connect(target, plan).await?);
    }
    let began = clock.now();
    let total = plan.time * u32::try_from(targets.len()).unwrap_or(1);
    let watch = |server: &str, rate: f64| {
        let elapsed = Duration::from_nanos(clock.now().nanos_since(began));
        output::show_line(&progress(elapsed.div_duration_f64(total), server, rate));
    };
    let mut left = plan.time;
    while !left.is_zero() {
        let length = left.min(TURN);
        for side in &mut sides {
            let outcome = side.turn(plan.work, length, &clock, watch).await;
            output::erase_line();
            outcome?;
        }
        left -= length;
    }
    Ok(sides)
}

fn progress(done: f64, server: &str, rate: f64) -> String {
    let done = done.clamp(0.0, 1.0);
    let full = (done * BAR as f64) as usize;
    let percent = done * 100.0;
    format!("[{:<BAR$}] {percent:3.0}%  {server}: {rate:.0}/s", "=".repeat(full))
}
