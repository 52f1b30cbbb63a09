//! The program as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::client::Client;

/// A running octostore, killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) addr: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    /// Where it is nothing but a Sentinel.
    #[cfg_attr(not(feature = "etcd"), expect(dead_code, reason = "only members of a cluster have one"))]
    pub(crate) sentinel: Option<SocketAddr>,
    pub(crate) banner: Vec<String>,
}

pub(crate) fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
    command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Process {
    pub(crate) fn start(data: &Path, flags: &[&str]) -> Process {
        Process::spawn(command(data).args(flags)).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts the server, or returns its refusal.
    pub(crate) fn try_start(data: &Path) -> Result<Process, String> {
        Process::spawn(&mut command(data))
    }

    /// Starts the server with these environment variables.
    pub(crate) fn start_with(data: &Path, variables: &[(&str, &std::ffi::OsStr)]) -> Process {
        Process::spawn(command(data).envs(variables.iter().copied())).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts the server as the last arguments of another program.
    pub(crate) fn start_under(words: &[&str], data: &Path) -> Process {
        let program = command(data);
        let mut outer = Command::new(words[0]);
        outer.args(&words[1..]).arg(program.get_program()).args(program.get_args());
        // The variables of a test are none of the server's.
        outer.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        outer.stdout(Stdio::piped()).stderr(Stdio::piped());
        Process::spawn(&mut outer).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts the server as on a full disk: writing past the limit is an error, not a signal, and
    /// logging fails.
    pub(crate) fn start_on_full_disk(data: &Path) -> Process {
        let program = command(data);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\" 2>/dev/full"]);
        shell.arg(program.get_program()).args(program.get_args());
        shell.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
        Process::spawn(&mut shell).unwrap_or_else(|why| panic!("{why}"))
    }

    pub(crate) fn spawn(command: &mut Command) -> Result<Process, String> {
        let mut child = command.spawn().expect("the program");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let banner: Vec<String> = lines.by_ref().take(5).map_while(Result::ok).collect();
        // The first of the addresses at which it serves.
        let address = |side: &str| {
            banner
                .iter()
                .find_map(|line| line.trim().strip_prefix(side)?.split(',').next()?.trim().parse().ok())
        };
        let (addr, http, sentinel) = (address("redis"), address("http"), address("sentinel"));
        match addr {
            Some(addr) => Ok(Process { child, addr, http, sentinel, banner }),
            None => {
                child.wait().expect("its end");
                Err(format!("{banner:?}: {}", text(child.stderr.take())))
            }
        }
    }

    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("its log")
    }

    /// Waits for the end of the process. Returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("its end").code()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("its end");
    }

    /// Sends SIGTERM; returns the exit code and the log.
    pub(crate) fn terminate(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        let code = self.child.wait().expect("its end").code();
        (code, text(self.child.stderr.take()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(stderr: Option<ChildStderr>) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = stderr {
        stderr.read_to_string(&mut text).expect("text");
    }
    text
}

/// Runs the program where it must not start. Returns its exit code and its stderr.
pub(crate) fn refused(data: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let output = command(data).args(flags).output().expect("the program");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Sends a signal (`-TERM`, `-HUP`, …) to the server.
pub(crate) fn signal(server: &Process, name: &str) {
    assert!(Command::new("kill").args([name, &server.id().to_string()]).status().expect("kill").success());
}
