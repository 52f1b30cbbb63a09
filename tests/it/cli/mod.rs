//! Subcommands that talk to a server, as a person or a script runs them.

mod bench;
mod connect;
mod inspect;
mod relay;
pub(crate) mod run;
mod schedules;
mod terminal;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_octostore");

/// A subcommand for the server at this address.
fn octostore(addr: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("OCTOSTORE_URL", format!("redis://{addr}"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The exit code as a shell shows it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| Some(128 + status.signal()?)).expect("an end")
}

/// The exit code as a shell shows it, the output and the messages.
fn result(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (code(output.status), text(output.stdout), text(output.stderr))
}

pub(crate) fn call(addr: SocketAddr, arguments: &[&str]) -> (i32, String, String) {
    result(octostore(addr, arguments).output().expect("the program"))
}
