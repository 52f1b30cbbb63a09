//! `octostore check`: verifies a database that no server uses.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{data, fail, path, print, summary};
use crate::engine::examine;
use crate::journal::check;

pub(super) fn command() -> Command {
    Command::new("check")
        .about("Verifies a database that no server uses; exit code 1 if there is a finding")
        .arg(data())
}

pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let database = path(matches, "data");
    let checked = match check(&database) {
        Ok(checked) => checked,
        Err(error) => return fail(2, format!("cannot check {}: {error}", database.display())),
    };
    let mut findings = checked.findings;
    let examined = checked.state.map(|state| examine(state.records, &state.loaded));
    findings.extend(examined.iter().flat_map(|examined| examined.findings.iter().cloned()));
    findings.iter().for_each(print);
    if !findings.is_empty() {
        return ExitCode::from(1);
    }
    let found = match (examined, checked.older_version) {
        (Some(examined), _) => summary(&examined),
        (None, version) => format!(
            "the file is intact; the next start migrates it from schema version {}",
            version.unwrap_or_default()
        ),
    };
    print(format!("{}: {found}", database.display()));
    ExitCode::SUCCESS
}
