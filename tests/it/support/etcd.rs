//! A real etcd, started by the test.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::{answers_with, free_port};

/// Asks for the names of the members.
const MEMBERS: &str = "POST /v3/cluster/member/list HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}";

/// An etcd server of one member with a directory of its own. Ends with the value.
pub(crate) struct Etcd {
    process: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Etcd {
    /// Starts a server. `None`, with a line that says why, if there is no etcd on this machine;
    /// that is a failure if `PEERS_DEMANDED` is set.
    pub(crate) fn start() -> Option<Etcd> {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let process = match spawn(port, dir.path()) {
            Ok(process) => process,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                assert!(std::env::var_os("PEERS_DEMANDED").is_none(), "etcd is demanded, and missing");
                println!("skipped: there is no etcd on this machine (Debian: etcd-server)");
                return None;
            }
            Err(error) => panic!("etcd: {error}"),
        };
        let mut etcd = Etcd { process, port, dir };
        // Another program may have taken the port.
        if etcd.becomes_ready() { Some(etcd) } else { Etcd::start() }
    }

    /// Kills the server and starts it again, on the same port and data.
    pub(crate) fn kill_and_restart(&mut self) {
        self.process.kill().expect("a child");
        self.process.wait().expect("a child");
        self.process = spawn(self.port, self.dir.path()).expect("an etcd");
        assert!(self.becomes_ready(), "etcd does not start again");
    }

    /// Sends the server a signal, as SIGSTOP.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().expect("kill").success());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address of a store in it.
    pub(crate) fn store(&self, prefix: &str) -> String {
        format!("etcd://127.0.0.1:{}/{prefix}", self.port)
    }

    #[allow(clippy::disallowed_methods)]
    fn becomes_ready(&mut self) -> bool {
        let name = name_in(self.dir.path());
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.process.try_wait().expect("a child").is_some() {
                return false;
            }
            if answers_with(self.port, MEMBERS, &name) {
                return true;
            }
            std::thread::yield_now();
        }
        panic!("etcd does not listen");
    }
}

/// The name of the member whose data is in this directory. No other has it.
fn name_in(dir: &Path) -> String {
    dir.file_name().expect("a name").to_string_lossy().trim_start_matches('.').to_owned()
}

fn spawn(port: u16, dir: &Path) -> io::Result<Child> {
    let name = name_in(dir);
    let client = format!("http://127.0.0.1:{port}");
    // The peers of a single member never connect, so that any free port is good.
    let peer = "http://127.0.0.1:0";
    Command::new("etcd")
        .args(["--name", &name, "--data-dir"])
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("{name}={peer}"), "--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
