//! A real etcd, started by the test.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::{answers_with, free_port};

/// Asks for the names of the members.
const MEMBERS: &str = "POST /v3/cluster/member/list HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}";

/// An etcd cluster, with a directory for each member. Ends with the value.
pub(crate) struct Etcd {
    members: Vec<Member>,
}

/// A server of the cluster.
struct Member {
    /// `None`: killed.
    process: Option<Child>,
    port: u16,
    dir: tempfile::TempDir,
    /// The flags of the member.
    flags: Vec<String>,
}

impl Etcd {
    /// Starts a cluster of one member. `None`, with a line that says why, if there is no etcd on
    /// this machine; that is a failure if `PEERS_DEMANDED` is set.
    pub(crate) fn start() -> Option<Etcd> {
        Etcd::start_with(1, |_| Vec::new())
    }

    /// [`Etcd::start`] with this number of members, and with more flags for the one at a port.
    pub(crate) fn start_with(members: usize, flags: impl Fn(u16) -> Vec<String>) -> Option<Etcd> {
        loop {
            let places = (0..members).map(|_| Member::place()).collect::<Vec<_>>();
            // The peers of a single member never connect, so that any free port is good.
            let peer_port = || if members == 1 { 0 } else { free_port() };
            let peers: Vec<String> =
                (0..members).map(|_| format!("http://127.0.0.1:{}", peer_port())).collect();
            let named = places.iter().zip(&peers).map(|(place, peer)| format!("{}={peer}", place.name()));
            let cluster = named.collect::<Vec<_>>().join(",");
            let mut etcd = Etcd { members: Vec::new() };
            for (mut member, peer) in places.into_iter().zip(&peers) {
                member.flags = member.flags_for(peer, &cluster);
                member.flags.extend(flags(member.port));
                match member.spawn() {
                    Ok(()) => etcd.members.push(member),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let is_demanded = std::env::var_os("PEERS_DEMANDED").is_some();
                        assert!(!is_demanded, "etcd is demanded, and missing");
                        println!("skipped: there is no etcd on this machine (Debian: etcd-server)");
                        return None;
                    }
                    Err(error) => panic!("etcd: {error}"),
                }
            }
            // Another program may have taken a port.
            if etcd.members.iter_mut().all(Member::becomes_ready) {
                return Some(etcd);
            }
        }
    }

    /// Kills a member.
    pub(crate) fn kill(&mut self, number: usize) {
        self.members[number].kill();
    }

    /// Starts a member that was killed, on the same port and data.
    pub(crate) fn restart(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.spawn().expect("an etcd");
        assert!(member.becomes_ready(), "etcd does not start again");
    }

    /// Kills the only member and starts it again.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill(0);
        self.restart(0);
    }

    /// Sends a member a signal, as SIGSTOP.
    pub(crate) fn signal(&self, number: usize, name: &str) {
        let id = self.members[number].process.as_ref().expect("a process").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().expect("kill").success());
    }

    /// The ports of the members.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.port).collect()
    }

    /// The address of a store in it.
    pub(crate) fn store(&self, prefix: &str) -> String {
        store_at(&self.ports(), prefix)
    }
}

/// The address of a store at these ports.
pub(crate) fn store_at(ports: &[u16], prefix: &str) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("etcd://{}/{prefix}", hosts.join(","))
}

impl Member {
    fn place() -> Member {
        let dir = tempfile::tempdir().expect("a directory");
        Member { process: None, port: free_port(), dir, flags: Vec::new() }
    }

    /// No other member has it.
    fn name(&self) -> String {
        self.dir.path().file_name().expect("a name").to_string_lossy().trim_start_matches('.').to_owned()
    }

    fn flags_for(&self, peer: &str, cluster: &str) -> Vec<String> {
        let (name, client) = (self.name(), format!("http://127.0.0.1:{}", self.port));
        let data = self.dir.path().join("etcd").to_string_lossy().into_owned();
        let flags = [
            ("name", name.as_str()),
            ("data-dir", &data),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", peer),
            ("initial-advertise-peer-urls", peer),
            ("initial-cluster", cluster),
            ("log-level", "error"),
        ];
        flags.iter().map(|(name, value)| format!("--{name}={value}")).collect()
    }

    fn spawn(&mut self) -> io::Result<()> {
        let mut command = Command::new("etcd");
        command.args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn()?);
        Ok(())
    }

    #[allow(clippy::disallowed_methods)]
    fn becomes_ready(&mut self) -> bool {
        let name = self.name();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let process = self.process.as_mut().expect("a process");
            if process.try_wait().expect("a child").is_some() {
                return false;
            }
            if answers_with(self.port, MEMBERS, &name) {
                return true;
            }
            std::thread::yield_now();
        }
        panic!("etcd does not listen");
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
