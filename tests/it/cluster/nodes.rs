//! The processes of a cluster.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::Caller;
use crate::support::client::Client;
use crate::support::etcd::Etcd;
use crate::support::process::{Process, signal};
use crate::support::until;

/// Short enough for tests, long enough for a busy machine.
const LEADER_SILENT_MS: &str = "700";

/// Three servers on one etcd.
pub(super) struct Nodes {
    /// Ends with the servers.
    _etcd: Etcd,
    store: String,
    flags: Vec<String>,
    running: Vec<Option<Process>>,
}

/// A server of a cluster, on ports of its own.
pub(super) fn start_node(store: &str, flags: &[String]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
    command.args(["--store", store, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.args(flags).env_clear().stdout(Stdio::piped()).stderr(Stdio::null());
    Process::spawn(&mut command).unwrap_or_else(|why| panic!("{why}"))
}

impl Nodes {
    /// `None`: there is no etcd here.
    pub(super) fn start() -> Option<Nodes> {
        let etcd = Etcd::start()?;
        let store = etcd.store("locks");
        let flags = vec!["--leader-silent-ms".to_owned(), LEADER_SILENT_MS.to_owned()];
        let running = (0..3).map(|_| Some(start_node(&store, &flags))).collect();
        let nodes = Nodes { _etcd: etcd, store, flags, running };
        nodes.leader();
        until(|| nodes.addresses().into_iter().all(|addr| knows_servers(addr, nodes.running.len())));
        Some(nodes)
    }

    /// Those that run.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.running.iter().flatten().map(|node| node.addr).collect()
    }

    pub(super) fn node(&self, number: usize) -> &Process {
        self.running[number].as_ref().expect("a process")
    }

    /// Waits until a running server leads, and all running ones know. Returns its number.
    pub(super) fn leader(&self) -> usize {
        let found = RefCell::new(None);
        until(|| {
            let named: Vec<_> = self.addresses().into_iter().map(leader_port).collect();
            let is_agreed = named.iter().all(|port| port.is_some() && *port == named[0]);
            let number = |port| {
                let is_it =
                    |node: &Option<Process>| node.as_ref().is_some_and(|node| node.addr.port() == port);
                self.running.iter().position(is_it)
            };
            *found.borrow_mut() = named[0].filter(|_| is_agreed).and_then(number);
            found.borrow().is_some()
        });
        found.into_inner().expect("a leader")
    }

    /// The number of a server that does not lead.
    pub(super) fn standby(&self) -> usize {
        let leader = self.leader();
        (0..self.running.len()).find(|number| *number != leader).expect("three servers")
    }

    pub(super) fn signal(&self, number: usize, name: &str) {
        signal(self.node(number), name);
    }

    /// Kills a server, and forgets it.
    pub(super) fn kill(&mut self, number: usize) {
        self.running[number].take().expect("a process").kill();
    }

    /// Ends a server with SIGTERM. Returns its exit code.
    pub(super) fn terminate(&mut self, number: usize) -> Option<i32> {
        self.running[number].take().expect("a process").terminate().0
    }

    /// Starts a server in the place of one that has ended.
    pub(super) fn restart(&mut self, number: usize) {
        self.running[number] = Some(start_node(&self.store, &self.flags));
    }

    pub(super) fn connect(&self, number: usize) -> Client {
        self.node(number).connect()
    }
}

/// Whether a server knows this number of servers.
fn knows_servers(addr: SocketAddr, number: usize) -> bool {
    let expected = format!("+OK {number} usable Sentinels");
    let call = |mut caller: Caller| caller.call(&["SENTINEL", "CKQUORUM", "octostore"]);
    Caller::connect(addr).and_then(call).is_some_and(|reply| reply.starts_with(&expected))
}

/// The port of the leader, as a server names it.
fn leader_port(addr: SocketAddr) -> Option<u16> {
    let mut caller = Caller::connect(addr)?;
    caller.send(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "octostore"])?;
    // An array of two bulk strings.
    caller.line().filter(|line| line == "*2")?;
    let mut lines = (0..4).map_while(|_| caller.line());
    lines.nth(3)?.parse().ok()
}
