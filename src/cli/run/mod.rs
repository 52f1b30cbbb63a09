//! `octostore run`: runs a command while it holds locks.
//!
//! Guarantees: the command starts once every lock is held. With `--on-lost kill`, its process group
//! is dead before a lease can have ended, by the boot-time clock, counted from before the request
//! for it was sent. The locks are released when the group is gone. Not here: the times
//! (`schedule.rs`).

mod acquire;
mod end;
mod group;
mod options;
mod progress;
mod renewer;
mod schedule;
mod signals;
mod supervise;
mod terminal;

use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;

pub(super) use options::command;

use acquire::{Acquired, NotAcquired, acquire};
use options::Options;
use renewer::{Lock, Release};
use schedule::OnLost;
use signals::Signals;
use supervise::{Outcome, supervise};

use super::client::Target;
use super::{fail, output};
use crate::clock::Clock;
use crate::domain::Timestamp;

/// Exit codes of shells for a command that cannot be run, and one that does not exist.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Longest sleep. Timers stand still while the machine is suspended, the boot-time clock does not.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// How often a release is tried if the server does not answer.
const RELEASE_ATTEMPTS: u32 = 3;

pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let options = Options::from_arguments(matches);
    let prepared = options.and_then(|options| Ok((options, Target::from_arguments(matches)?)));
    let (options, target) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => return fail(2, reason),
    };
    super::block_on(run_under_locks(&options, &Arc::new(target)))
}

async fn run_under_locks(options: &Options, target: &Arc<Target>) -> ExitCode {
    let clock = Clock::system();
    let mut signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => return fail(1, error),
    };
    let codes = options.codes;
    let acquired = match acquire(options, target, &clock, &mut signals).await {
        Ok(acquired) => acquired,
        Err(NotAcquired::Held(key)) => {
            return fail(codes.not_acquired, format!("{} is held by another owner", printable(&key)));
        }
        // Not as if another held it: a script that passes over a held lock must not pass over this.
        Err(NotAcquired::Refused(reason) | NotAcquired::Unavailable(reason)) => {
            return fail(codes.no_server, reason);
        }
        Err(NotAcquired::Interrupted(signal)) => return end::end_by(signal),
    };
    let mut command = command_of(options, &acquired.locks);
    let Acquired { locks, lease, mut renewer } = acquired;
    let outcome = supervise(&mut command, lease, options, &locks, &mut renewer, &clock, &mut signals).await;
    let attempts = if matches!(outcome, Outcome::Lost(_)) { 1 } else { RELEASE_ATTEMPTS };
    let was_lost = release(&mut renewer, &locks, attempts).await;
    match outcome {
        Outcome::NotStarted(error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
            fail(code, format!("{}: {error}", options.program.display()))
        }
        Outcome::Ended(end) | Outcome::Lost(end) if options.on_lost == OnLost::Ignore => end.repeat(),
        Outcome::Lost(_) => ExitCode::from(codes.lost),
        Outcome::Ended(_) if was_lost => ExitCode::from(codes.lost),
        Outcome::Ended(end) => end.repeat(),
    }
}

/// The command, with the keys and tokens in its environment.
fn command_of(options: &Options, locks: &[Lock]) -> Command {
    let mut command = Command::new(&options.program);
    command.args(&options.arguments);
    command.env("OCTOSTORE_OWNER", std::ffi::OsStr::from_bytes(&options.owner));
    for (n, lock) in options.as_given.iter().filter_map(|position| locks.get(*position)).enumerate() {
        let suffix = if n == 0 { String::new() } else { format!("_{}", n + 1) };
        command.env(format!("OCTOSTORE_KEY{suffix}"), std::ffi::OsStr::from_bytes(&lock.key));
        command.env(format!("OCTOSTORE_TOKEN{suffix}"), lock.token.to_string());
    }
    command
}

/// Releases the locks. Returns whether one was not held any more.
async fn release(renewer: &mut renewer::Renewer, locks: &[Lock], attempts: u32) -> bool {
    for attempt in 1..=attempts {
        match renewer.release(locks).await {
            Release::Released => return false,
            // An attempt whose reply was lost may have released it.
            Release::WasLost(_) if attempt > 1 => return false,
            Release::WasLost(key) => {
                say(format_args!("{} was not held any more when the command ended", printable(&key)));
                return true;
            }
            Release::Unconfirmed(reason) if attempt == attempts => {
                say(format_args!("not released: {reason}; the lease ends by itself"));
            }
            Release::Unconfirmed(_) => {}
        }
    }
    false
}

fn printable(key: &[u8]) -> String {
    output::printable(&String::from_utf8_lossy(key))
}

/// Prints a message to stderr.
fn say(message: impl Display) {
    fail(0, message);
}

/// Completes at a time of the clock.
async fn until(clock: &Clock, time: Timestamp) {
    loop {
        let left = time.nanos_since(clock.now());
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_nanos(left).min(SLEEP_MAX)).await;
    }
}
