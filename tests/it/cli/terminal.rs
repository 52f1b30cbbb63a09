//! Subcommands on a terminal: `script` of util-linux provides one, and the tests type.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use nix::sys::signal::SigSet;

use super::{PROGRAM, code};
use crate::support::server::TestServer;
use crate::support::until;

/// What Ctrl-C and Ctrl-Z send.
const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

/// A terminal on which a shell runs.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    /// What was written on it since the last text that was found.
    unread: String,
}

impl Terminal {
    /// Runs lines of a shell, in which `$program` is the program. With `set -m`, the shell has jobs.
    fn start(addr: SocketAddr, lines: &str) -> Terminal {
        Terminal::start_by(&[], addr, lines)
    }

    /// Has this command run what provides the terminal.
    fn start_by(outer: &[&str], addr: SocketAddr, lines: &str) -> Terminal {
        // What has started the tests may have ignored or blocked the signals of terminals.
        SigSet::all().thread_unblock().expect("a set of signals");
        let mut command = Command::new("env");
        command.args(["--default-signal", "timeout", "--foreground", "60"]).args(outer);
        command.args(["script", "--quiet", "--return", "--flush", "--command", lines]);
        command.arg("/dev/null").env_clear().env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/bash");
        command.env("TERM", "xterm").env("OCTOSTORE_URL", format!("redis://{addr}")).env("program", PROGRAM);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
        let (keys, screen) =
            (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        Terminal { child, keys, screen, unread: String::new() }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Reads until this text appears. Returns what came before it.
    fn until_shows(&mut self, text: &str) -> String {
        let found = self.look_for(text);
        found.unwrap_or_else(|| panic!("{text} is missing: {}", self.unread))
    }

    /// Returns nothing if this text does not appear before the end.
    fn look_for(&mut self, text: &str) -> Option<String> {
        let mut bytes = [0; 1024];
        loop {
            if let Some(at) = self.unread.find(text) {
                let before = self.unread[..at].to_owned();
                self.unread.drain(..at + text.len());
                return Some(before);
            }
            let count = self.screen.read(&mut bytes).expect("a terminal");
            if count == 0 {
                return None;
            }
            self.unread.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// The exit code of the shell, and the rest of what it has written.
    fn end(mut self) -> (i32, String) {
        let mut rest = Vec::new();
        self.screen.read_to_end(&mut rest).expect("a terminal");
        self.unread.push_str(&String::from_utf8_lossy(&rest));
        (code(self.child.wait().expect("its end")), self.unread)
    }
}

/// Whether Ctrl-Z works on this machine: for a shell that, as `octostore run` does, lends the
/// terminal and is itself a job of a shell, or not. Terminals of sandboxes may be incomplete.
fn ctrl_z_stops_jobs() -> bool {
    static STOPS: LazyLock<bool> = LazyLock::new(|| {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let read = "sh -c \"echo ready; read line\"";
        let job = format!("set -m; bash -mc '{read}; kill -STOP 0; fg'; echo stopped; fg; exit $?");
        let first = format!("exec bash -mc '{read}; fg'");
        [(job, Some("stopped\r")), (first, None)].iter().all(|(lines, shown)| {
            let mut terminal = Terminal::start(nowhere, lines);
            if terminal.look_for("ready").is_none() {
                return false;
            }
            terminal.type_keys(CTRL_Z);
            if shown.is_some_and(|text| terminal.look_for(text).is_none()) {
                return false;
            }
            terminal.type_keys("\n");
            terminal.end().0 == 0
        })
    });
    if !*STOPS {
        println!("skipped: Ctrl-Z does not stop jobs of shells on this machine");
    }
    *STOPS
}

#[test]
fn the_command_has_the_terminal_and_gives_it_back() {
    let server = TestServer::real(&[]);
    let lines = "$program run k -- sh -c 'read line; echo \"<$line>\"'; read line; echo \"[$line]\"";
    let mut terminal = Terminal::start(server.addr, lines);
    terminal.type_keys("one\n");
    terminal.until_shows("<one>");
    terminal.type_keys("two\n");
    terminal.until_shows("[two]");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn ctrl_c_ends_the_command_and_releases_the_lock() {
    let server = TestServer::real(&[]);
    for lines in [
        "$program run k -- cat",
        // Jobs of a shell, alone and in a pipeline.
        "set -m; $program run k -- cat; exit $?",
        "set -m; $program run k -- cat | cat; exit ${PIPESTATUS[0]}",
    ] {
        let mut terminal = Terminal::start(server.addr, lines);
        terminal.type_keys("text\n");
        // The terminal shows what is typed, and cat repeats it.
        terminal.until_shows("text");
        terminal.until_shows("text");
        terminal.type_keys(CTRL_C);
        assert_eq!(terminal.end().0, 128 + 2, "{lines}");
        assert_eq!(server.engine.lock_stats().leases(), 0, "{lines}");
    }
}

/// The shell, too, has to see the signal, or a loop goes on for ever.
#[test]
fn ctrl_c_ends_a_script_unless_the_command_has_handled_it() {
    let server = TestServer::real(&[]);
    server.connect().line("LOCK held other EX 1000");
    for (command, shown, is_handled) in [
        ("k -- sh -c 'echo ready; exec sleep 1000'", "ready", false),
        // It asks for the terminal, whose signals then do not reach the script.
        ("k -- sh -c 'read go; echo ready; exec sleep 1000'", "ready", false),
        ("k -- sh -c 'read go; echo ready; exec sleep 1000' | cat", "ready", false),
        ("held -- true", "waiting for held", false),
        ("k -- sh -c 'trap \"exit 0\" INT; echo ready; while :; do sleep 0.01; done'", "ready", true),
    ] {
        for shell in ["bash", "dash"] {
            let script = format!("$program run {command}; echo went on");
            let mut terminal = Terminal::start(server.addr, &format!("{shell} -c '{}'", quoted(&script)));
            terminal.type_keys("go\n");
            terminal.until_shows(shown);
            terminal.type_keys(CTRL_C);
            let (code, rest) = terminal.end();
            // dash ends at any Ctrl-C that it has seen.
            let goes_on = is_handled && shell == "bash";
            assert_eq!(rest.contains("went on"), goes_on, "{shell}: {script}: {rest}");
            assert_eq!(code, if goes_on { 0 } else { 128 + 2 }, "{shell}: {script}: {rest}");
            until(|| server.engine.lock_stats().leases() == 1);
        }
    }
}

/// Text between single quotes of a shell.
fn quoted(text: &str) -> String {
    text.replace('\'', r"'\''")
}

#[test]
fn a_wait_shows_the_place_and_the_holder_until_ctrl_c() {
    let server = TestServer::real(&[]);
    server.connect().line("LOCK k some\u{1b}one EX 1000");
    let mut terminal = Terminal::start(server.addr, "$program run k -- true");
    terminal.until_shows("waiting for k: place 1 of 1, held by some\\u{1b}one for ");
    terminal.type_keys(CTRL_C);
    let (code, rest) = terminal.end();
    assert_eq!(code, 128 + 2);
    assert!(rest.ends_with("\r\u{1b}[K"), "the line is gone: {rest:?}");
    until(|| server.waiting() == 0);
}

#[test]
fn ctrl_z_stops_both_and_the_shell_continues_both() {
    if !ctrl_z_stops_jobs() {
        return;
    }
    let server = TestServer::real(&[]);
    for run in [
        "$program run k -- sh -c 'read go; echo ready; read line; echo \"<$line>\"; exit 3'; code=$?",
        "$program run k -- sh -c 'read go </dev/tty; echo ready; read line </dev/tty; echo \"<$line>\"; exit 3' | cat",
    ] {
        let lines = format!("set -m; {run}; echo stopped; fg; exit $?");
        let mut terminal = Terminal::start(server.addr, &lines);
        // What it reads shows that it has the terminal.
        terminal.type_keys("go\n");
        terminal.until_shows("ready");
        terminal.type_keys(CTRL_Z);
        terminal.until_shows("stopped");
        assert_eq!(server.engine.lock_stats().leases(), 1);
        terminal.type_keys("text\n");
        terminal.until_shows("<text>");
        let code = terminal.end().0;
        assert_eq!(code, if run.contains("cat") { 0 } else { 3 }, "{run}");
    }
}

#[test]
fn a_command_that_was_stopped_past_its_lease_is_killed_before_it_continues() {
    if !ctrl_z_stops_jobs() {
        return;
    }
    let server = TestServer::real(&[]);
    let script = "trap 'echo continued' CONT; read go; echo ready; while :; do read line; done";
    let lines = format!("set -m; $program run k --ttl 2s -- sh -c \"{script}\"; read line; fg; exit $?");
    let mut terminal = Terminal::start(server.addr, &lines);
    terminal.type_keys("go\n");
    terminal.until_shows("ready");
    terminal.type_keys(CTRL_Z);
    until(|| server.engine.lock_stats().leases() == 0);
    terminal.type_keys("\n");
    let (code, rest) = terminal.end();
    assert!(code == 76 && !rest.contains("\ncontinued"), "{code} {rest}");
}

#[test]
fn a_background_job_asks_for_the_terminal_as_others_do() {
    let server = TestServer::real(&[]);
    let lines = "set -m; $program run k -- sh -c 'read line </dev/tty; echo \"<$line>\"' & \
                 until jobs | grep -q Stopped; do sleep 0.01; done; echo stopped; fg; exit $?";
    let mut terminal = Terminal::start(server.addr, lines);
    terminal.until_shows("stopped");
    terminal.type_keys("text\n");
    terminal.until_shows("<text>");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn without_a_shell_ctrl_z_is_ignored() {
    if !ctrl_z_stops_jobs() {
        return;
    }
    let server = TestServer::real(&[]);
    let mut terminal =
        Terminal::start(server.addr, "exec $program run k -- sh -c 'read go; echo ready; read line'");
    terminal.type_keys("go\n");
    terminal.until_shows("ready");
    terminal.type_keys(CTRL_Z);
    terminal.type_keys("\n");
    let (code, rest) = terminal.end();
    assert_eq!(code, 0, "{rest}");
}

#[test]
fn the_session_and_the_group_may_be_of_another_pid_namespace() {
    let namespace = ["unshare", "--pid", "--fork"];
    if !Command::new(namespace[0]).args(&namespace[1..]).arg("true").status().is_ok_and(|end| end.success()) {
        println!("skipped: this user may not make PID namespaces");
        return;
    }
    let server = TestServer::real(&[]);
    // The session of the parent, and then also that of `octostore run` and its group.
    let run = "$program run k -- sh -c 'read line; echo \"<$line>\"'";
    let mut terminal = Terminal::start_by(&namespace, server.addr, &format!("exec {run}"));
    terminal.type_keys("text\n");
    terminal.until_shows("<text>");
    assert_eq!(terminal.end().0, 0);
    let run = "$program run k -- echo done";
    let mut terminal = Terminal::start(server.addr, &format!("unshare --pid --fork {run}; exit $?"));
    terminal.until_shows("done");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn force_unlock_asks_first() {
    let server = TestServer::real(&[]);
    server.connect().line("LOCK k me EX 1000");
    for (answer, code, leases) in [("n\n", 1, 1), ("y\n", 0, 0)] {
        let mut terminal = Terminal::start(server.addr, "$program force-unlock k");
        terminal.until_shows("[y/N]");
        terminal.type_keys(answer);
        assert_eq!(terminal.end().0, code);
        assert_eq!(server.engine.lock_stats().leases(), leases);
    }
}

#[test]
fn a_benchmark_shows_its_progress() {
    let server = TestServer::real(&[]);
    let mut terminal = Terminal::start(server.addr, "$program bench --time 50s");
    terminal.until_shows("%  ");
    terminal.until_shows("/s");
    terminal.type_keys(CTRL_C);
    assert_eq!(terminal.end().0, 128 + 2);
}

#[test]
fn headers_are_bold_unless_no_colours_are_wanted() {
    let server = TestServer::real(&[]);
    let bold = "\u{1b}[1m";
    assert!(Terminal::start(server.addr, "$program locks").end().1.contains(bold));
    assert!(!Terminal::start(server.addr, "NO_COLOR=1 $program locks").end().1.contains(bold));
    assert!(!Terminal::start(server.addr, "$program locks | cat").end().1.contains(bold));
}
