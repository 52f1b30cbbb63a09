//! Leaders that are killed, stopped and asked to end, while clients lock over all servers.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::clients::History;
use super::nodes::Nodes;
use crate::support::client::encode;

const CLIENTS: u8 = 4;
/// Grants between two faults.
const GRANTS: usize = 20;

/// Far more than a change of the leader takes.
const OUTAGE_MS_MAX: u64 = 5000;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Terminate,
    Stop,
}

impl Nodes {
    /// Disturbs the leader. Returns the time when it was gone for the clients.
    fn disturb(&mut self, fault: Fault, history: &History) -> u64 {
        let leader = self.leader();
        match fault {
            Fault::Kill => self.kill(leader),
            Fault::Terminate => assert_eq!(self.terminate(leader), Some(0)),
            Fault::Stop => self.signal(leader, "-STOP"),
        }
        let gone_ms = history.now_ms();
        let all = self.addresses();
        let is_other = |number: &usize| !matches!(fault, Fault::Stop) || *number != leader;
        let others = (0..all.len()).filter(is_other).map(|number| all[number]).collect();
        *history.addresses.lock().expect("no panic under it") = others;
        gone_ms
    }

    /// Ends the disturbance of this server.
    fn mend(&mut self, fault: Fault, number: usize, history: &History) {
        match fault {
            Fault::Kill | Fault::Terminate => self.restart(number),
            Fault::Stop => self.signal(number, "-CONT"),
        }
        self.leader();
        *history.addresses.lock().expect("no panic under it") = self.addresses();
    }
}

#[test]
fn locks_are_mutexes_whatever_happens_to_the_leaders() {
    let Some(mut nodes) = Nodes::start() else { return };
    let history = History::new(nodes.addresses());
    let mut outages = Vec::new();
    std::thread::scope(|scope| {
        for owner in 0..CLIENTS {
            let history = &history;
            scope.spawn(move || history.serve_client(owner));
        }
        for fault in [Fault::Kill, Fault::Stop, Fault::Terminate, Fault::Stop, Fault::Kill] {
            history.until_granted(GRANTS);
            let leader = nodes.leader();
            let gone_ms = nodes.disturb(fault, &history);
            history.until_granted(GRANTS);
            outages.push((history.first_grant_after(gone_ms), fault));
            nodes.mend(fault, leader, &history);
        }
        history.until_granted(GRANTS);
        history.end();
    });
    println!("milliseconds to the next grant: {outages:?}");
    assert!(outages.iter().all(|(took, _)| *took < OUTAGE_MS_MAX), "{outages:?}");
    history.check();
}

#[test]
fn a_leader_that_was_stopped_answers_nothing_once_another_one_has_led() {
    let Some(nodes) = Nodes::start() else { return };
    let old = nodes.leader();
    assert_eq!(nodes.connect(old).call(&["LOCK", "k", "first", "EX", "600"]), ":1");
    let requests: [&[&str]; 4] =
        [&["FENCE", "k"], &["GET", "k"], &["UNLOCK", "k", "first"], &["LOCK", "k2", "first"]];
    let address = nodes.node(old).addr;
    let connect = |_| TcpStream::connect(address).expect("a connection");
    let mut streams = [0, 1, 2, 3].map(connect);
    for stream in &mut streams {
        stream.write_all(b"PING\r\n").expect("a server that reads");
        stream.read_exact(&mut [0; 7]).expect("a reply");
    }
    nodes.signal(old, "-STOP");
    for (stream, request) in streams.iter_mut().zip(requests) {
        stream.write_all(&encode(request)).expect("room in the socket");
    }
    // Asks only the others, because this one does not answer.
    let others = (0..3).filter(|number| *number != old).map(|number| nodes.node(number).addr);
    let history = History::new(others.collect());
    std::thread::scope(|scope| {
        scope.spawn(|| history.serve_client(7));
        history.until_granted(1);
        history.end();
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
