//! The command from its start to the end of its process group: carries out the schedule.
//!
//! Guarantees: returns when no process of the group is left. Not here: when what is due.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::end::End;
use super::group::Group;
use super::options::Options;
use super::renewer::{Lock, Renewal, Renewer};
use super::schedule::{Lease, Schedule, Step};
use super::signals::Signals;
use super::terminal::Terminal;
use super::{printable, say, until};
use crate::clock::Clock;
use crate::domain::{Timestamp, Ttl};

/// How often a group is looked at whose end is near: not every end is reported by a signal.
const LOOK_MS: u64 = 10;

/// How the command has ended.
pub(super) enum Outcome {
    /// It was not started.
    NotStarted(std::io::Error),
    /// By itself, or by a signal that was passed on.
    Ended(End),
    /// The lease was lost, or could not be renewed in time.
    Lost(End),
}

/// Runs the command. Returns when no process of its group is left.
pub(super) async fn supervise(
    command: &mut Command,
    lease: Lease,
    options: &Options,
    locks: &[Lock],
    renewer: &mut Renewer,
    clock: &Clock,
    signals: &mut Signals,
) -> Outcome {
    let mut group = match Group::start(command) {
        Ok(group) => group,
        Err(error) => return Outcome::NotStarted(error),
    };
    let mut terminal = Terminal::new();
    terminal.lend(&group);
    let mut schedule = Schedule::new(lease, options.on_lost);
    let mut reason = String::new();
    let (mut is_ending, mut has_outlived) = (false, false);
    let status = loop {
        group.observe();
        if let Some(status) = group.end() {
            if group.is_gone() {
                break status;
            }
            is_ending = true;
            schedule.ended();
        }
        // The lease may end while this process is stopped, too.
        let must_resume = group.take_stop().is_some_and(|signal| terminal.stopped(&mut group, signal));
        let now = clock.now();
        if schedule.has_lost_lease() && now >= schedule.lease().end() && !has_outlived {
            has_outlived = true;
            say("the lease has ended and the command still runs");
        }
        let step = schedule.next(now);
        if must_resume && step != Step::Kill {
            terminal.resume(&mut group);
        }
        match step {
            Step::Renew => renewer.begin(locks, now),
            Step::Terminate => {
                if schedule.has_lost_lease() {
                    say(lost_message(&schedule, now, &reason));
                    is_ending = true;
                }
                group.signal(Signal::TERM);
                // A stopped process cannot end.
                group.signal(Signal::CONT);
            }
            Step::Kill => {
                if !is_ending {
                    say(lost_message(&schedule, now, &reason));
                }
                is_ending = true;
                group.signal(Signal::KILL);
            }
            Step::Wait(time) => {
                let look_at = if is_ending { now.after(Ttl::from_millis(LOOK_MS).ok()) } else { time };
                tokio::select! {
                    (sent, renewal) = renewer.done() => match renewal {
                        Renewal::Confirmed => schedule.renewed(sent),
                        Renewal::Unconfirmed(why) => {
                            schedule.not_renewed(clock.now());
                            reason = why;
                        }
                        Renewal::Lost(key) => {
                            reason = format!("the server has ended the lease of {}", printable(&key));
                            schedule.lost();
                        }
                    },
                    signal = signals.next() => if signal != Signal::CHILD {
                        group.signal(signal);
                    },
                    () = until(clock, time.min(look_at)) => {}
                }
            }
        }
    };
    let end = End { status, has_terminal: terminal.is_lent() };
    if schedule.has_lost_lease() { Outcome::Lost(end) } else { Outcome::Ended(end) }
}

fn lost_message(schedule: &Schedule, now: Timestamp, reason: &str) -> String {
    let left = Duration::from_nanos(schedule.lease().end().nanos_since(now));
    match (left, reason) {
        (Duration::ZERO, "") => "the lease has ended".to_owned(),
        (Duration::ZERO, reason) => reason.to_owned(),
        (left, reason) => {
            let left = left.as_secs_f64();
            format!("the lease could not be renewed and ends in {left:.1} s: {reason}")
        }
    }
}
