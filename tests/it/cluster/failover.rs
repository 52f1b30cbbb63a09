//! Leaders, etcd servers and links that fail, while clients lock over all servers.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Caller;
use super::clients::History;
use super::nodes::Nodes;
use crate::support::client::encode;
use crate::support::etcd::Etcd;
use crate::support::random::Random;
use crate::support::relay::Side;
use crate::support::until;

const CLIENTS: u8 = 4;
/// Grants between two faults.
const GRANTS: usize = 20;
/// Members of etcd.
const MEMBERS: usize = 3;

/// In this time after a fault, each client is answered.
const OUTAGE_MS_MAX: u64 = 5000;
/// The same if the leader has been asked to end.
const RESIGNATION_MS_MAX: u64 = 500;
/// The median of leaders that are killed.
const KILL_MS_MEDIAN_MAX: u64 = 2000;

/// These tests take times, so they leave each other the processors.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The leader is killed.
    Kill,
    /// The leader is asked to end.
    Terminate,
    /// The leader is stopped, and continues later.
    Stop,
    /// A member of etcd is killed.
    KillMember,
    /// A member of etcd is stopped, and continues later.
    StopMember,
    /// The leader loses its connections to etcd.
    CutStore,
    /// What the leader sends to etcd arrives late.
    HoldRequests,
    /// What etcd sends to the leader arrives late.
    HoldResponses,
    /// The standbys lose their connections to the leader.
    CutPeers,
    /// What the leader sends to the standbys arrives late.
    HoldPeers,
    /// What the standbys send to the leader arrives late.
    HoldPeerRequests,
    /// Clients lose their connections to the leader.
    CutClients,
    /// What the leader sends to clients arrives late.
    HoldClients,
    /// What clients send to the leader arrives late.
    HoldClientRequests,
}

impl Fault {
    const ALL: [Fault; 14] = [
        Fault::Kill,
        Fault::Terminate,
        Fault::Stop,
        Fault::KillMember,
        Fault::StopMember,
        Fault::CutStore,
        Fault::HoldRequests,
        Fault::HoldResponses,
        Fault::CutPeers,
        Fault::HoldPeers,
        Fault::HoldPeerRequests,
        Fault::CutClients,
        Fault::HoldClients,
        Fault::HoldClientRequests,
    ];

    /// Whether clients that connect to the leader get no answer at all.
    fn hangs_clients(self) -> bool {
        matches!(self, Fault::Stop | Fault::HoldClients | Fault::HoldClientRequests)
    }
}

/// A fault that is not mended.
struct Disturbance {
    fault: Fault,
    leader: usize,
    member: usize,
}

impl Nodes {
    fn disturb(&mut self, Disturbance { fault, leader, member }: &Disturbance) {
        let place = self.place(*leader);
        match fault {
            Fault::Kill => self.kill(*leader),
            Fault::Terminate => assert_eq!(self.terminate(*leader), Some(0)),
            Fault::Stop => self.signal(*leader, "-STOP"),
            Fault::KillMember => self.etcd.kill(*member),
            Fault::StopMember => self.etcd.signal(*member, "STOP"),
            Fault::CutStore => place.stores.iter().for_each(|relay| relay.cut()),
            Fault::HoldRequests => place.stores.iter().for_each(|relay| relay.hold(Side::Client)),
            Fault::HoldResponses => place.stores.iter().for_each(|relay| relay.hold(Side::Server)),
            Fault::CutPeers => place.peers.cut(),
            Fault::HoldPeers => place.peers.hold(Side::Server),
            Fault::HoldPeerRequests => place.peers.hold(Side::Client),
            Fault::CutClients => place.clients.cut(),
            Fault::HoldClients => place.clients.hold(Side::Server),
            Fault::HoldClientRequests => place.clients.hold(Side::Client),
        }
    }

    fn mend(&mut self, Disturbance { fault, leader, member }: &Disturbance) {
        match fault {
            Fault::Kill | Fault::Terminate => self.restart(*leader),
            Fault::Stop => self.signal(*leader, "-CONT"),
            Fault::KillMember => self.etcd.restart(*member),
            Fault::StopMember => self.etcd.signal(*member, "CONT"),
            _ => {
                let place = self.place(*leader);
                place.stores.iter().chain([&place.peers, &place.clients]).for_each(|relay| relay.mend());
            }
        }
    }

    /// Makes and mends faults while clients run. Returns the milliseconds until each client was
    /// answered again.
    fn survive(&mut self, faults: &[Fault], random: &mut Random) -> Vec<(Fault, u64)> {
        let history = History::new(self.addresses(None));
        let mut outages = Vec::new();
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let history = &history;
                scope.spawn(move || history.serve_client(client));
            }
            // The clients end with the scope, also when this fails.
            let end = EndOnDrop(&history);
            for (number, &fault) in faults.iter().enumerate() {
                history.until_granted(GRANTS);
                let (leader, member) = (self.leader(), random.below(MEMBERS as u64) as usize);
                let disturbance = Disturbance { fault, leader, member };
                let since_ms = history.now_ms();
                self.disturb(&disturbance);
                let since_ms = if fault == Fault::Terminate { since_ms } else { history.now_ms() };
                history.reach(self.addresses(Some(leader).filter(|_| fault.hangs_clients())));
                let (granted_ms, answered_ms) = history.until_each_answered(CLIENTS, since_ms);
                println!("{number} {fault:?}: {granted_ms} ms to a grant, {answered_ms} ms to all clients");
                assert!(answered_ms < OUTAGE_MS_MAX, "{fault:?}: {answered_ms} ms");
                outages.push((fault, granted_ms));
                history.until_granted(GRANTS);
                self.mend(&disturbance);
                self.leader();
                history.reach(self.addresses(None));
                if number % 2 == 1 {
                    history.end_round();
                }
            }
            history.until_granted(GRANTS);
            drop(end);
        });
        history.check_all();
        outages
    }
}

/// Ends the clients of a history.
struct EndOnDrop<'a>(&'a History);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The number in an environment variable, for longer runs.
fn number_in(variable: &str, default: usize) -> usize {
    let number = std::env::var(variable).ok();
    number.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text}")))
}

/// The faults with the number of their outages, the median and the longest, one per line.
fn summary(outages: &[(Fault, u64)]) -> String {
    let mut text = String::from("milliseconds to the next grant\n");
    for fault in Fault::ALL {
        let mut of: Vec<u64> = outages.iter().filter(|(of, _)| *of == fault).map(|(_, ms)| *ms).collect();
        of.sort_unstable();
        if let Some(longest) = of.last() {
            let (times, median) = (of.len(), of[of.len() / 2]);
            let _ = writeln!(text, "{fault:?}: {times} times, median {median}, longest {longest}");
        }
    }
    text
}

#[test]
fn locks_are_mutexes_whatever_fails() {
    let _alone = alone();
    let Some(mut nodes) = Etcd::start_with(MEMBERS, |_| Vec::new()).and_then(Nodes::start_on) else { return };
    let mut random = Random::new(number_in("OCTOSTORE_TEST_SEED", 1) as u64);
    let number = number_in("OCTOSTORE_TEST_FAULTS", Fault::ALL.len());
    let only = std::env::var("OCTOSTORE_TEST_FAULT").ok();
    let kinds =
        Fault::ALL.into_iter().filter(|kind| only.as_ref().is_none_or(|only| format!("{kind:?}") == *only));
    // Each kind equally often, in a random order.
    let mut faults: Vec<Fault> = kinds.cycle().take(number).collect();
    assert_eq!(faults.len(), number, "OCTOSTORE_TEST_FAULT: {only:?}");
    for place in (1..faults.len()).rev() {
        faults.swap(place, random.below(place as u64 + 1) as usize);
    }
    println!("{}", summary(&nodes.survive(&faults, &mut random)));
}

#[test]
fn leaders_change_and_servers_start_while_the_first_etcd_server_is_lost() {
    let _alone = alone();
    let Some(mut nodes) = Etcd::start_with(MEMBERS, |_| Vec::new()).and_then(Nodes::start_on) else { return };
    // It accepts connections, and answers nothing.
    nodes.etcd.signal(0, "STOP");
    let leader = nodes.leader();
    nodes.kill(leader);
    assert_ne!(nodes.leader(), leader);
    nodes.restart(leader);
    let next = nodes.leader();
    assert!(nodes.connect(next).line("LOCK k me EX 600").starts_with(':'));
}

#[test]
fn without_a_majority_of_etcd_every_request_ends_and_nothing_is_lost() {
    let _alone = alone();
    let Some(mut nodes) = Etcd::start_with(MEMBERS, |_| Vec::new()).and_then(Nodes::start_on) else { return };
    let call = |nodes: &Nodes, words: &[&str]| -> Vec<String> {
        let reply = |number| Caller::connect(nodes.node(number).addr)?.call(words);
        (0..3).map(|number| reply(number).unwrap_or_default()).collect()
    };
    assert_eq!(call(&nodes, &["LOCK", "k", "me", "EX", "600"]), [":1", ":1", ":1"]);
    nodes.etcd.kill(0);
    nodes.etcd.kill(1);
    // Until they know, requests have an unknown outcome.
    let is_refusal = |reply: &String| reply.starts_with("-LOADING no leader yet");
    until(|| {
        let replies = call(&nodes, &["FENCE", "k"]);
        assert!(replies.iter().all(|reply| !reply.starts_with(':')), "{replies:?}");
        replies.iter().all(is_refusal)
    });
    nodes.etcd.restart(0);
    nodes.etcd.restart(1);
    until(|| call(&nodes, &["FENCE", "k"]) == [":1", ":1", ":1"]);
    assert!(nodes.connect(nodes.leader()).line("LOCK other me EX 600").starts_with(':'));
}

#[test]
fn a_leader_that_ends_is_replaced_at_once() {
    let _alone = alone();
    let Some(mut nodes) = Nodes::start() else { return };
    let kills = number_in("OCTOSTORE_TEST_KILLS", 3);
    let mut faults = vec![Fault::Kill; kills];
    faults.extend([Fault::Terminate, Fault::Terminate]);
    let outages = nodes.survive(&faults, &mut Random::new(1));
    println!("{}", summary(&outages));
    let (mut killed, resigned) = outages.split_at(kills);
    let mut killed: Vec<u64> = std::mem::take(&mut killed).iter().map(|(_, ms)| *ms).collect();
    killed.sort_unstable();
    assert!(killed[kills / 2] < KILL_MS_MEDIAN_MAX, "{killed:?}");
    assert!(resigned.iter().all(|(_, ms)| *ms < RESIGNATION_MS_MAX), "{resigned:?}");
}

#[test]
fn a_leader_that_was_stopped_answers_nothing_once_another_one_has_led() {
    let _alone = alone();
    let Some(nodes) = Nodes::start() else { return };
    let old = nodes.leader();
    assert_eq!(nodes.connect(old).call(&["LOCK", "k", "first", "EX", "600"]), ":1");
    let requests: [&[&str]; 5] =
        [&["FENCE", "k"], &["GET", "k"], &["UNLOCK", "k", "first"], &["LOCK", "k2", "first"], &["ROLE"]];
    let address = nodes.node(old).addr;
    let connect = |_| TcpStream::connect(address).expect("a connection");
    let mut streams = [0, 1, 2, 3, 4].map(connect);
    for stream in &mut streams {
        stream.write_all(b"PING\r\n").expect("a server that reads");
        stream.read_exact(&mut [0; 7]).expect("a reply");
    }
    nodes.signal(old, "-STOP");
    for (stream, request) in streams.iter_mut().zip(requests) {
        stream.write_all(&encode(request)).expect("room in the socket");
    }
    // Asks only the others, because this one does not answer.
    let history = History::new(nodes.addresses(Some(old)));
    std::thread::scope(|scope| {
        scope.spawn(|| history.serve_client(7));
        let end = EndOnDrop(&history);
        history.until_granted(1);
        drop(end);
    });
    nodes.signal(old, "-CONT");
    for (stream, request) in streams.iter_mut().zip(requests) {
        let mut answer = Vec::new();
        // A reset ends the connection, too.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer.escape_ascii().to_string(), "", "{request:?}");
    }
    assert_ne!(nodes.leader(), old);
}
