//! `octostore completions` and `octostore man`: files for shells and for `man`, from the
//! description of the flags.

use std::io::{Write, stdout};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::{SERVE, SUBCOMMANDS, fail};
use crate::config;

pub(super) fn completions_command() -> Command {
    Command::new("completions")
        .about("Prints the completions for a shell: bash, elvish, fish, powershell or zsh")
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell)))
}

pub(super) fn man_command() -> Command {
    Command::new("man")
        .about("Prints the manual page of the server, or of a subcommand")
        .arg(Arg::new("subcommand").value_name("SUBCOMMAND"))
}

/// The program with all its subcommands.
fn program() -> Command {
    let serve = config::command().name(SERVE).about("Runs the server, as without a subcommand");
    config::command()
        .after_help(config::NOTES)
        .disable_help_subcommand(true)
        .subcommand(serve)
        .subcommands(SUBCOMMANDS.iter().map(|subcommand| (subcommand.command)()))
}

pub(super) fn completions(matches: &ArgMatches) -> ExitCode {
    let Some(shell) = matches.get_one::<Shell>("shell") else { return ExitCode::from(2) };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut program(), "octostore", &mut script);
    write(&script)
}

pub(super) fn man(matches: &ArgMatches) -> ExitCode {
    // The page of the program is that of the server.
    let mut program = program().mut_subcommand(SERVE, |serve| serve.hide(true));
    program.build();
    let page = match matches.get_one::<String>("subcommand") {
        None => Some(&program),
        Some(name) => program.find_subcommand(name),
    };
    let Some(page) = page else {
        let name = matches.get_one::<String>("subcommand").map_or("", String::as_str);
        return fail(2, format!("there is no subcommand {name:?}: see octostore --help"));
    };
    let mut text = Vec::new();
    let version = concat!("octostore ", env!("CARGO_PKG_VERSION"));
    match clap_mangen::Man::new(page.clone()).source(version).render(&mut text) {
        Ok(()) => write(&text),
        Err(error) => fail(1, error),
    }
}

fn write(text: &[u8]) -> ExitCode {
    match stdout().write_all(text).and_then(|()| stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, error),
    }
}
