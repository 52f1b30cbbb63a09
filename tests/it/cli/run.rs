use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use octostore::clock::Clock;
use octostore::domain::Timestamp;
use rustix::process::{Pid, test_kill_process_group};

use super::relay::Relay;
use super::{call, code, octostore, result};
use crate::support::process::{Process, signal};
use crate::support::server::TestServer;
use crate::support::until;

/// A command under a lease, which has printed the id of its process group.
pub(crate) struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    group: Pid,
}

impl Running {
    /// Runs lines of a shell, and waits until they have begun.
    pub(crate) fn start(addr: SocketAddr, flags: &[&str], script: &str) -> Running {
        let script = format!("echo $$; {script}");
        let arguments = [&["run"], flags, &["--", "sh", "-c", &script]].concat();
        let mut child = octostore(addr, &arguments).spawn().expect("the program");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("text");
        let group = line.trim().parse().ok().and_then(Pid::from_raw);
        Running { child, output, group: group.unwrap_or_else(|| panic!("no group: {line}")) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill").success());
    }

    fn is_gone(&self) -> bool {
        test_kill_process_group(self.group).is_err()
    }

    /// Waits until no process of the group is left. Returns the time.
    pub(super) fn until_gone(&self) -> Timestamp {
        let clock = Clock::system();
        let began = clock.now();
        while !self.is_gone() {
            assert!(clock.now().millis_since(began) < 60_000, "the group does not end");
            // Leaves the processor to the program, whose times this is about.
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        clock.now()
    }

    /// Waits for the end of the program. Returns its exit code and its messages.
    pub(crate) fn wait(self) -> (i32, String) {
        let group = self.group;
        let (code, _, messages) = result(self.child.wait_with_output().expect("its end"));
        assert!(test_kill_process_group(group).is_err(), "a process is left");
        (code, messages)
    }
}

#[test]
fn the_command_finds_its_locks_and_its_code_is_the_code() {
    let server = TestServer::real(&[]);
    let script = "echo $OCTOSTORE_KEY $OCTOSTORE_TOKEN $OCTOSTORE_OWNER; exit 7";
    let (code, output, _) = call(server.addr, &["run", "k", "--owner", "me", "--", "sh", "-c", script]);
    assert!(code == 7 && output.starts_with("k 1 me:"), "{code} {output}");
    assert_eq!(call(server.addr, &["run", "k", "--", "true"]).0, 0);
    assert_eq!(call(server.addr, &["run", "k", "--shell", "--", "exit 3; :"]).0, 3);
    assert_eq!(call(server.addr, &["run", "k", "--", "sh", "-c", "kill -TERM $$"]).0, 128 + 15);
    assert_eq!(call(server.addr, &["run", "k", "--", "/nowhere"]).0, 127);
    assert_eq!(call(server.addr, &["run", "k", "--", "/"]).0, 126);
    assert_eq!(call(server.addr, &["run", "k"]).0, 2);
    assert_eq!(call(server.addr, &["run", "k", "--ttl", "999ms", "--", "true"]).0, 2);
    assert_eq!(server.engine.lock_stats().leases(), 0);
}

#[test]
fn a_lock_that_is_held_is_waited_for_as_long_as_asked() {
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    assert_eq!(client.line("LOCK k other EX 1000"), ":1");
    assert_eq!(call(server.addr, &["run", "k", "--try", "--", "true"]).0, 75);
    let (code, _, message) = call(server.addr, &["run", "k", "--wait", "50ms", "--", "true"]);
    assert!(code == 75 && message.contains("k is held by another owner"), "{code} {message}");
    let changed = ["run", "k", "--try", "--not-acquired-code", "9", "--", "true"];
    assert_eq!(call(server.addr, &changed).0, 9);
    let waiting = octostore(server.addr, &["run", "k", "--", "echo", "ran"]).spawn().expect("the program");
    server.until_waiting(1);
    assert_eq!(client.line("UNLOCK k other"), ":1");
    let (code, output, _) = result(waiting.wait_with_output().expect("its end"));
    assert_eq!((code, output.as_str()), (0, "ran\n"));
    client.line("HSET hash f v");
    let (code, _, message) = call(server.addr, &["run", "hash", "--", "true"]);
    assert!(code == 69 && message.contains("WRONGTYPE"), "{code} {message}");
    assert_eq!(message.lines().count(), 1, "nothing is tried again: {message}");
    assert_eq!(call("127.0.0.1:1".parse().expect("an address"), &["run", "k", "--", "true"]).0, 69);
}

#[test]
fn a_wait_that_is_interrupted_leaves_the_queue() {
    let server = TestServer::real(&[]);
    assert_eq!(server.connect().line("LOCK b other EX 1000"), ":1");
    let waiting = octostore(server.addr, &["run", "b", "a", "--", "true"]).spawn().expect("the program");
    server.until_waiting(1);
    assert_eq!(server.engine.lock_stats().leases(), 2, "a comes before b");
    let id = waiting.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    assert_eq!(result(waiting.wait_with_output().expect("its end")).0, 128 + 2);
    until(|| server.waiting() == 0 && server.engine.lock_stats().leases() == 1);
}

#[test]
fn runs_with_the_same_owner_exclude_each_other() {
    let server = TestServer::real(&[]);
    let running = Running::start(server.addr, &["k", "--owner", "me"], "sleep 1000");
    assert_eq!(call(server.addr, &["run", "k", "--owner", "me", "--try", "--", "true"]).0, 75);
    let waiting = octostore(server.addr, &["run", "k", "--owner", "me", "--", "true"]).spawn();
    let waiting = waiting.expect("the program");
    server.until_waiting(1);
    let id = waiting.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    assert_eq!(result(waiting.wait_with_output().expect("its end")).0, 128 + 2);
    assert_eq!(server.engine.lock_stats().leases(), 1, "the wait that ended has released nothing");
    running.signal("-TERM");
    assert_eq!(running.wait().0, 128 + 15);
}

#[test]
fn locks_are_shared_and_limited() {
    let server = TestServer::real(&[]);
    let one = Running::start(server.addr, &["s", "--shared"], "sleep 1000");
    assert_eq!(call(server.addr, &["run", "s", "--try", "--shared", "--", "true"]).0, 0);
    assert_eq!(call(server.addr, &["run", "s", "--try", "--", "true"]).0, 75);
    let two = Running::start(server.addr, &["n", "--limit", "2"], "sleep 1000");
    assert_eq!(call(server.addr, &["run", "n", "--try", "--limit", "2", "--", "true"]).0, 0);
    let three = Running::start(server.addr, &["n", "--limit", "2"], "sleep 1000");
    assert_eq!(call(server.addr, &["run", "n", "--try", "--limit", "2", "--", "true"]).0, 75);
    for running in [one, two, three] {
        running.signal("-TERM");
        assert_eq!(running.wait().0, 128 + 15);
    }
    assert_eq!(server.engine.lock_stats().leases(), 0);
}

#[test]
fn several_locks_are_taken_in_one_order_and_all_released() {
    let server = TestServer::real(&[]);
    let script = "echo $OCTOSTORE_KEY $OCTOSTORE_TOKEN $OCTOSTORE_KEY_2 $OCTOSTORE_TOKEN_2";
    let (_, output, _) = call(server.addr, &["run", "b", "a", "--", "sh", "-c", script]);
    assert_eq!(output, "b 2 a 1\n");
    // Runs that name them in another order do not wait for each other.
    let runs: Vec<Child> = (0..8)
        .map(|n| {
            let keys = if n % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
            octostore(server.addr, &["run", keys[0], keys[1], "--", "true"]).spawn().expect("the program")
        })
        .collect();
    for run in runs {
        assert_eq!(result(run.wait_with_output().expect("its end")).0, 0);
    }
    assert_eq!(server.engine.lock_stats().leases(), 0);
}

#[test]
fn signals_reach_the_whole_group() {
    let server = TestServer::real(&[]);
    let script =
        "trap 'echo got' USR1; trap 'echo end; exit 4' TERM; echo ready; while :; do sleep 0.01; done";
    let mut running = Running::start(server.addr, &["k"], script);
    assert_eq!(running.line(), "ready");
    running.signal("-USR1");
    assert_eq!(running.line(), "got");
    running.signal("-TERM");
    assert_eq!(running.line(), "end");
    assert_eq!(running.wait().0, 4);
    assert_eq!(server.engine.lock_stats().leases(), 0);
}

/// What asks to end also ends the program, so that a shell sees a signal. The rest is an exit code.
#[test]
fn the_program_ends_by_the_signal_that_has_ended_the_command() {
    let server = TestServer::real(&[]);
    let end_of = |script: &str, signal: &str| {
        let mut running = Running::start(server.addr, &["k"], script);
        assert_eq!(running.line(), "ready");
        running.signal(signal);
        running.child.wait().expect("its end")
    };
    for (name, number) in [("-INT", 2), ("-QUIT", 3), ("-TERM", 15)] {
        let status = end_of("ulimit -c 0; echo ready; exec sleep 1000", name);
        assert_eq!(status.signal(), Some(number), "{status}");
        assert!(!status.core_dumped(), "{status}");
    }
    let status = end_of("trap 'exit 130' INT; echo ready; while :; do sleep 0.01; done", "-INT");
    assert_eq!(status.code(), Some(130), "{status}");
    let status = end_of("trap 'kill -KILL $$' INT; echo ready; while :; do sleep 0.01; done", "-INT");
    assert_eq!(status.code(), Some(128 + 9), "{status}");
    assert_eq!(server.engine.lock_stats().leases(), 0);
}

#[test]
fn nohup_ignores_the_end_of_a_terminal() {
    let server = TestServer::real(&[]);
    let mut outer = Command::new("nohup");
    let inner = octostore(server.addr, &["run", "k", "--", "sh", "-c", "echo ready; sleep 1000"]);
    outer.arg(inner.get_program()).args(inner.get_args());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = outer.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("nohup");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    output.read_line(&mut line).expect("text");
    let send = |name: &str| {
        let id = child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill").success());
    };
    // The first would end both, and is not even seen.
    send("-HUP");
    send("-TERM");
    assert_eq!(code(child.wait().expect("its end")), 128 + 15);
}

#[test]
fn what_a_command_leaves_behind_ends_before_the_release() {
    let server = TestServer::real(&[]);
    let running =
        Running::start(server.addr, &["k", "--grace", "50ms"], "(trap '' TERM; sleep 1000) & exit 5");
    assert_eq!(running.wait().0, 5);
    assert_eq!(server.engine.lock_stats().leases(), 0);
}

#[test]
fn a_lease_is_renewed_across_a_restart_of_the_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    let addr = server.addr.to_string();
    let mut running = Running::start(server.addr, &["k", "--ttl", "6s"], "read line; exit 0");
    // Its stdin is /dev/null, so it has ended; one that goes on:
    assert_eq!(running.line(), "");
    assert_eq!(running.wait().0, 0);
    let running = Running::start(server.addr, &["k", "--ttl", "6s"], "sleep 1000");
    server.kill();
    let server =
        Process::spawn(crate::support::process::command(&data).args(["--listen", &addr])).expect("a server");
    let mut client = server.connect();
    until(|| client_renewals(&server) > 0);
    assert!(client.line("LOCKINFO k").contains("exclusive"));
    running.signal("-TERM");
    assert_eq!(running.wait().0, 128 + 15);
    assert_eq!(client.line("FENCE k"), "(nil)");
}

fn client_renewals(server: &Process) -> u64 {
    let info = server.connect().line("LOCKINFO k");
    let behind = info.split("\"renewals\"\n").nth(1).unwrap_or_default();
    behind.trim_start().trim_start_matches(':').split('\n').next().unwrap_or_default().parse().unwrap_or(0)
}

/// A script that ignores SIGTERM, as does its child.
pub(super) const STUBBORN: &str = "trap '' TERM; (sleep 1000; sleep 1000) & sleep 1000; sleep 1000";

#[test]
fn a_stopped_server_ends_the_whole_group_before_the_lease() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Process::start(&dir.path().join("octostore.db"), &[]);
    let relay = Relay::start(server.addr);
    let running = Running::start(relay.addr, &["k", "--ttl", "2s", "--grace", "200ms"], STUBBORN);
    let began = relay.extended_at();
    signal(&server, "-STOP");
    let gone = running.until_gone();
    let lasted = gone.millis_since(began);
    assert!(lasted < 2_000, "{lasted}");
    let (code, messages) = running.wait();
    assert!(code == 76 && messages.contains("could not be renewed"), "{code} {messages}");
    signal(&server, "-CONT");
}

#[test]
fn a_cut_network_ends_the_whole_group_before_the_lease() {
    let server = TestServer::real(&[]);
    for (drops_requests, drops_replies) in [(true, false), (false, true), (true, true)] {
        let relay = Relay::start(server.addr);
        let running = Running::start(relay.addr, &["k", "--ttl", "1s"], STUBBORN);
        // Replies that are lost do not count: the server renews, and the command ends all the same.
        let began = relay.extended_at();
        relay.set(drops_requests, drops_replies);
        let lasted = running.until_gone().millis_since(began);
        assert!(lasted < 1_000, "{lasted}");
        let (code, messages) = running.wait();
        assert_eq!(code, 76, "{messages}");
        server.connect().line("FORCEUNLOCK k");
    }
}

#[test]
fn a_lease_that_an_operator_ends_kills_at_the_next_renewal() {
    let server = TestServer::real(&[]);
    let running = Running::start(server.addr, &["k", "--ttl", "1s", "--lost-code", "11"], STUBBORN);
    assert_eq!(server.connect().line("FORCEUNLOCK k"), ":1");
    let (code, messages) = running.wait();
    assert!(code == 11 && messages.contains("the server has ended the lease of k"), "{code} {messages}");
}

#[test]
fn a_lost_lease_may_only_terminate_or_be_ignored() {
    let server = TestServer::real(&[]);
    let script = "trap 'exit 3' TERM; while :; do sleep 0.01; done";
    let running = Running::start(server.addr, &["k", "--ttl", "1s", "--on-lost", "term"], script);
    server.connect().line("FORCEUNLOCK k");
    assert_eq!(running.wait().0, 76);
    let relay = Relay::start(server.addr);
    let running =
        Running::start(relay.addr, &["k", "--ttl", "1s", "--on-lost", "ignore"], "sleep 1.5; exit 3");
    relay.set(true, true);
    assert_eq!(running.wait().0, 3);
}
