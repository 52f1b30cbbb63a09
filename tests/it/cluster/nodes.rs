//! The processes of a cluster, and the links between them.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use super::Caller;
use crate::support::client::Client;
use crate::support::etcd::{Etcd, store_at};
use crate::support::process::{Process, signal};
use crate::support::relay::Relay;
use crate::support::until;

/// Short enough for tests, long enough for a busy machine.
const LEADER_SILENT_MS: &str = "700";

/// Three servers on one store.
pub(super) struct Nodes {
    /// Ends after the servers.
    places: Vec<Place>,
    pub(super) etcd: Etcd,
    flags: Vec<String>,
}

/// The place of a server: what stays when the process is replaced.
pub(super) struct Place {
    /// From the server to each member of etcd.
    pub(super) stores: Vec<Relay>,
    /// From the other servers to this one: what it advertises.
    pub(super) peers: Relay,
    /// From the clients of a history to the server.
    pub(super) clients: Relay,
    /// `None`: it has ended.
    process: Option<Process>,
}

/// A server of a cluster, on ports of its own.
pub(super) fn start_node(store: &str, flags: &[String]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octostore"));
    command.args(["--store", store, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.args(flags).env_clear().stdout(Stdio::piped()).stderr(Stdio::null());
    Process::spawn(&mut command).unwrap_or_else(|why| panic!("{why}"))
}

impl Place {
    fn new(etcd: &Etcd) -> Place {
        let stores = etcd.ports().into_iter().map(Relay::to).collect();
        Place { stores, peers: Relay::to(0), clients: Relay::to(0), process: None }
    }

    fn start(&mut self, flags: &[String]) {
        let ports: Vec<u16> = self.stores.iter().map(|relay| relay.port).collect();
        let advertised = ["--advertise".to_owned(), format!("127.0.0.1:{}", self.peers.port)];
        let process = start_node(&store_at(&ports, "locks"), &[flags, &advertised].concat());
        self.peers.set_target(process.addr.port());
        self.clients.set_target(process.addr.port());
        self.process = Some(process);
    }
}

impl Nodes {
    /// Starts the servers on an etcd of one member. `None`: there is no etcd here.
    pub(super) fn start() -> Option<Nodes> {
        Nodes::start_on(Etcd::start()?)
    }

    pub(super) fn start_on(etcd: Etcd) -> Option<Nodes> {
        let flags = ["--leader-silent-ms", LEADER_SILENT_MS, "--sentinel-listen", "127.0.0.1:0"];
        let flags: Vec<String> = flags.map(str::to_owned).into();
        let mut places: Vec<Place> = (0..3).map(|_| Place::new(&etcd)).collect();
        places.iter_mut().for_each(|place| place.start(&flags));
        let nodes = Nodes { places, etcd, flags };
        nodes.leader();
        nodes.until_all_know_all();
        Some(nodes)
    }

    /// Waits until every server knows every server.
    fn until_all_know_all(&self) {
        let running: Vec<SocketAddr> = self.running().map(|(_, process)| process.addr).collect();
        until(|| running.iter().all(|addr| Seen::by(*addr).servers == running.len()));
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Process)> {
        let processes = self.places.iter().map(|place| place.process.as_ref()).enumerate();
        processes.filter_map(|(number, process)| Some((number, process?)))
    }

    /// Where the clients of a history reach those servers that run, but `without` one.
    pub(super) fn addresses(&self, without: Option<usize>) -> Vec<SocketAddr> {
        let numbers = self.running().map(|(number, _)| number).filter(|number| Some(*number) != without);
        let port = |number: usize| self.places[number].clients.port;
        numbers.map(|number| SocketAddr::from((Ipv4Addr::LOCALHOST, port(number)))).collect()
    }

    pub(super) fn place(&self, number: usize) -> &Place {
        &self.places[number]
    }

    pub(super) fn node(&self, number: usize) -> &Process {
        self.places[number].process.as_ref().expect("a process")
    }

    /// The port at which the others reach a server.
    pub(super) fn advertised_port(&self, number: usize) -> u16 {
        self.places[number].peers.port
    }

    /// Waits until a running server leads, and all running ones know. Returns its number.
    pub(super) fn leader(&self) -> usize {
        let found = RefCell::new(None);
        until(|| {
            let named: Vec<_> =
                self.running().map(|(_, process)| Seen::by(process.addr).leader_port).collect();
            let is_agreed = named.iter().all(|port| port.is_some() && *port == named[0]);
            let running = || self.running().map(|(number, _)| number);
            let number = |port| running().find(|number| self.advertised_port(*number) == port);
            *found.borrow_mut() = named[0].filter(|_| is_agreed).and_then(number);
            found.borrow().is_some()
        });
        found.into_inner().expect("a leader")
    }

    /// The number of a server that does not lead.
    pub(super) fn standby(&self) -> usize {
        let leader = self.leader();
        (0..self.places.len()).find(|number| *number != leader).expect("three servers")
    }

    pub(super) fn signal(&self, number: usize, name: &str) {
        signal(self.node(number), name);
    }

    /// Kills a server, and forgets it.
    pub(super) fn kill(&mut self, number: usize) {
        self.places[number].process.take().expect("a process").kill();
    }

    /// Ends a server with SIGTERM. Returns its exit code.
    pub(super) fn terminate(&mut self, number: usize) -> Option<i32> {
        self.places[number].process.take().expect("a process").terminate().0
    }

    /// Starts a server in the place of one that has ended.
    pub(super) fn restart(&mut self, number: usize) {
        self.places[number].start(&self.flags);
    }

    pub(super) fn connect(&self, number: usize) -> Client {
        self.node(number).connect()
    }

    /// The port at which a server is nothing but a Sentinel.
    pub(super) fn sentinel_port(&self, number: usize) -> u16 {
        self.node(number).sentinel.expect("an address").port()
    }

    /// Connects to that port.
    pub(super) fn connect_to_sentinel(&self, number: usize) -> Client {
        Client::connect(self.node(number).sentinel.expect("an address"))
    }
}

/// What a server says about its cluster.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The number of servers.
    pub(super) servers: usize,
    /// The port of the leader.
    pub(super) leader_port: Option<u16>,
}

impl Seen {
    /// Asks a server. One that does not answer has seen nothing.
    pub(super) fn by(addr: SocketAddr) -> Seen {
        let Some(mut caller) = Caller::connect(addr) else { return Seen::default() };
        let usable = caller.call(&["SENTINEL", "CKQUORUM", "octostore"]);
        let servers = usable.and_then(|text| text.strip_prefix("+OK ")?.split(' ').next()?.parse().ok());
        Seen { servers: servers.unwrap_or(0), leader_port: Seen::leader(&mut caller) }
    }

    fn leader(caller: &mut Caller) -> Option<u16> {
        caller.send(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "octostore"])?;
        // An array of two bulk strings.
        caller.line().filter(|line| line == "*2")?;
        let mut lines = (0..4).map_while(|_| caller.line());
        lines.nth(3)?.parse().ok()
    }
}
