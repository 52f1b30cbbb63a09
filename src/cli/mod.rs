//! Subcommands: what the program does besides serving.
//!
//! Guarantees: every run ends with an exit code; 0 is success, 1 a failure or finding, 2 a command
//! line that cannot be understood or a database that cannot be checked. Not here: the work itself.

mod backup;
mod check;
mod health;
mod restore;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use crate::engine::{Examination, examine};
use crate::journal::StoredState;
use crate::server::logging;

/// What a subcommand does with its arguments.
type Run = fn(&ArgMatches) -> ExitCode;

/// Runs a subcommand if the first argument names one.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let wanted = arguments.get(1)?;
    let subcommands: [(Command, Run); 4] = [
        (backup::command(), backup::run),
        (restore::command(), restore::run),
        (check::command(), check::run),
        (health::command(), health::run),
    ];
    let (command, run) = subcommands.into_iter().find(|(command, _)| command.get_name() == wanted)?;
    // The help names it by its whole name.
    let command = command.bin_name(format!("octostore {}", wanted.to_string_lossy())).max_term_width(110);
    let matches = match command.try_get_matches_from(&arguments[1..]) {
        Ok(matches) => matches,
        Err(error) => {
            // If the output is closed, the exit code is all there is.
            let _ = error.print();
            return Some(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    // Files are as private as those of the server. Warnings go where its log goes.
    crate::server::keep_files_private();
    let log = logging::to_stderr(tracing::Level::WARN);
    let code = run(&matches);
    drop(log);
    Some(code)
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
