//! A network that a test cuts: passes bytes on until the test drops them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use octostore::clock::Clock;
use octostore::domain::Timestamp;

/// Which bytes are passed on.
#[derive(Default)]
struct State {
    drops_requests: AtomicBool,
    drops_replies: AtomicBool,
    /// When a request about the lease of a key was last passed on, by the boot-time clock.
    extended_at: Mutex<BTreeMap<Vec<u8>, Timestamp>>,
}

/// A relay in front of a server. Connections stay open while bytes are dropped, as in a network
/// that loses packets.
pub(super) struct Relay {
    pub(super) addr: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    pub(super) fn start(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (addr, state) = (listener.local_addr().expect("an address"), Arc::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (Ok(client_reader), Ok(server_reader)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                let (requests, replies) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || {
                    let clock = Clock::system();
                    let observe = |bytes: &[u8]| {
                        let mut extended_at = requests.extended_at.lock().expect("no panic");
                        extended_at.extend(leased(bytes).map(|key| (key.to_vec(), clock.now())));
                    };
                    pass(client_reader, server, &requests.drops_requests, observe);
                });
                std::thread::spawn(move || pass(server_reader, client, &replies.drops_replies, |_| {}));
            }
        });
        Relay { addr, state }
    }

    pub(super) fn set(&self, drops_requests: bool, drops_replies: bool) {
        self.state.drops_requests.store(drops_requests, Ordering::SeqCst);
        self.state.drops_replies.store(drops_replies, Ordering::SeqCst);
    }

    /// The server has not extended the lease of one of the keys after this time, plus what a request
    /// takes.
    pub(super) fn extended_at(&self) -> Timestamp {
        let extended_at = self.state.extended_at.lock().expect("no panic");
        extended_at.values().min().copied().expect("a lease")
    }
}

/// The keys whose leases are requested or renewed. Each write of the client is a whole request.
fn leased(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end()).collect();
    let is_lease = |word: &[u8]| word == b"LOCK" || word == b"RENEW";
    let keys: Vec<&[u8]> =
        lines.windows(3).filter(|lines| is_lease(lines[0])).map(|lines| lines[2]).collect();
    keys.into_iter()
}

fn pass(mut from: TcpStream, mut to: TcpStream, drops: &AtomicBool, observe: impl Fn(&[u8])) {
    let mut bytes = [0; 4096];
    let _ = to.set_nodelay(true);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        // Once something was dropped, the rest of a stream has no meaning.
        if drops.load(Ordering::SeqCst) {
            while from.read(&mut bytes).is_ok_and(|count| count > 0) {}
            break;
        }
        observe(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
