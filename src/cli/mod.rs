//! Subcommands: what the program does besides serving.
//!
//! Guarantees: every run ends with an exit code; 0 is success, 1 a failure or finding, 2 a command
//! line that cannot be understood or a database that cannot be checked, 69 a server that cannot be
//! reached. Not here: the work itself.

mod backup;
mod bench;
mod check;
mod client;
mod duration;
mod health;
mod locks;
mod output;
mod restore;
mod run;
mod shell;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use self::client::Failure;
use crate::engine::{Examination, examine};
use crate::journal::StoredState;
use crate::server::logging;

/// The subcommand that runs the server, as the program without a subcommand does.
const SERVE: &str = "serve";

/// The exit code of a client whose server cannot be reached: EX_UNAVAILABLE of sysexits.h.
const NO_SERVER: u8 = 69;

/// A subcommand.
struct Subcommand {
    command: fn() -> Command,
    run: fn(&ArgMatches) -> ExitCode,
    /// Whether it works on the files of a server.
    has_files: bool,
}

const fn on_files(command: fn() -> Command, run: fn(&ArgMatches) -> ExitCode) -> Subcommand {
    Subcommand { command, run, has_files: true }
}

const fn client(command: fn() -> Command, run: fn(&ArgMatches) -> ExitCode) -> Subcommand {
    Subcommand { command, run, has_files: false }
}

/// All subcommands but `serve`, which takes the options of the server.
const SUBCOMMANDS: [Subcommand; 11] = [
    client(run::command, run::run),
    client(locks::locks_command, locks::locks),
    client(locks::info_command, locks::info),
    client(locks::force_unlock_command, locks::force_unlock),
    client(bench::command, bench::run),
    client(health::command, health::run),
    on_files(backup::command, backup::run),
    on_files(restore::command, restore::run),
    on_files(check::command, check::run),
    client(shell::completions_command, shell::completions),
    client(shell::man_command, shell::man),
];

/// The arguments of the server: those without the subcommand that stands for it.
pub fn server_arguments(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = with_help_as_flag(arguments);
    if arguments.get(1).is_some_and(|first| first == SERVE) {
        arguments.remove(1);
    }
    arguments
}

/// `octostore help run` is `octostore run --help`.
fn with_help_as_flag(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|first| first == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}

/// The names of all subcommands but `serve`.
pub fn names() -> Vec<String> {
    SUBCOMMANDS.iter().map(|subcommand| (subcommand.command)().get_name().to_owned()).collect()
}

/// The flags of all subcommands, without dashes.
pub fn flags() -> Vec<String> {
    let commands = SUBCOMMANDS.iter().map(|subcommand| (subcommand.command)());
    let flags = commands.flat_map(|command| command.get_arguments().cloned().collect::<Vec<_>>());
    flags.filter_map(|flag| flag.get_long().map(str::to_owned)).collect()
}

/// Runs a subcommand if the first argument names one other than `serve`.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let arguments = with_help_as_flag(arguments);
    let wanted = arguments.get(1)?;
    let named = |subcommand: &&Subcommand| (subcommand.command)().get_name() == wanted;
    let subcommand = SUBCOMMANDS.iter().find(named)?;
    // The help names it by its whole name.
    let name = format!("octostore {}", wanted.to_string_lossy());
    let command = (subcommand.command)().bin_name(name).max_term_width(110);
    let matches = match command.try_get_matches_from(&arguments[1..]) {
        Ok(matches) => matches,
        Err(error) => {
            // If the output is closed, the exit code is all there is.
            let _ = error.print();
            return Some(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    if !subcommand.has_files {
        return Some((subcommand.run)(&matches));
    }
    // Files are as private as those of the server. Warnings go where its log goes.
    crate::server::keep_files_private();
    let log = logging::to_stderr(tracing::Level::WARN);
    let code = (subcommand.run)(&matches);
    drop(log);
    Some(code)
}

/// Runs a subcommand that talks to a server.
fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => fail(1, format!("cannot start: {error}")),
    }
}

/// The argument for the database.
fn data() -> Arg {
    Arg::new("data")
        .long("data")
        .env("OCTOSTORE_DATA")
        .value_name("FILE")
        .default_value("./octostore.db")
        .help("Database file")
}

fn path(matches: &ArgMatches, name: &str) -> PathBuf {
    matches.get_one::<String>(name).map(PathBuf::from).unwrap_or_default()
}

/// Prints a line of the result.
fn print(line: impl Display) {
    // If the output is closed, the exit code is all there is.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn fail(code: u8, reason: impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "octostore: {reason}");
    ExitCode::from(code)
}

/// Prints why a request has no reply, and returns the exit code.
fn fail_for(failure: Failure) -> ExitCode {
    match failure {
        Failure::Unavailable(reason) => fail(NO_SERVER, reason),
        Failure::Refused(reason) => fail(1, reason),
    }
}

/// Examines a state for [`crate::journal::back_up`] and [`crate::journal::restore`]; leaves the
/// result in `examined`.
fn approve(state: StoredState, examined: &mut Option<Examination>) -> Result<(), String> {
    let examination = examine(state.records, &state.loaded);
    match examination.findings.first() {
        Some(finding) => Err(finding.clone()),
        None => {
            *examined = Some(examination);
            Ok(())
        }
    }
}

/// What a database holds, for people.
fn summary(examination: &Examination) -> String {
    let Examination { keys, sessions, tokens_reserved, .. } = examination;
    format!("keys {keys}, sessions {sessions}, highest token {tokens_reserved}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_help_lists_every_subcommand_with_its_summary() {
        let summary = |command: &Command| command.get_about().map(ToString::to_string).unwrap_or_default();
        let own = SUBCOMMANDS.iter().map(|subcommand| (subcommand.command)());
        let own: Vec<(String, String)> =
            own.map(|command| (command.get_name().to_owned(), summary(&command))).collect();
        let listed: Vec<(String, String)> = config::SUBCOMMANDS
            .iter()
            .map(|(name, summary)| ((*name).to_owned(), (*summary).to_owned()))
            .collect();
        assert_eq!(listed, own);
        let help = config::command().render_help().to_string();
        for (name, summary) in own {
            assert!(help.contains(&format!("  {name:<14}{summary}\n")), "{name} is not in {help}");
        }
    }
}
