//! A TCP relay that can be cut, and that can keep back what one side sends.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// The side that bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A relay to a port of this machine. Ends with the process.
pub(crate) struct Relay {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    target: AtomicU16,
    link: Mutex<Link>,
    changed: Condvar,
}

#[derive(Default)]
struct Link {
    is_cut: bool,
    /// What comes from this side is kept back.
    held: Option<Side>,
    /// Number of the next stream.
    next: u64,
    open: HashMap<u64, TcpStream>,
}

impl Relay {
    /// Starts a relay to `port`; 0: a port that [`Relay::set_target`] names later.
    pub(crate) fn to(port: u16) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let relay = Relay { port: own, state: Arc::clone(&state) };
        relay.set_target(port);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = state.target.load(Ordering::SeqCst);
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                State::connect(&state, &client, &server);
            }
        });
        relay
    }

    /// Connects new clients to this port.
    pub(crate) fn set_target(&self, port: u16) {
        self.state.target.store(port, Ordering::SeqCst);
    }

    /// Closes all connections, and every new one. What was kept back is lost.
    pub(crate) fn cut(&self) {
        let mut link = self.state.link();
        link.is_cut = true;
        for stream in link.open.values() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.state.changed.notify_all();
    }

    /// Keeps back what one side sends, on connections that exist and on new ones.
    pub(crate) fn hold(&self, side: Side) {
        self.state.link().held = Some(side);
    }

    /// Ends what [`Relay::cut`] or [`Relay::hold`] began. What was kept back is passed on.
    pub(crate) fn mend(&self) {
        let mut link = self.state.link();
        (link.is_cut, link.held) = (false, None);
        self.state.changed.notify_all();
    }
}

impl State {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().expect("no panic under it")
    }

    fn connect(state: &Arc<State>, client: &TcpStream, server: &TcpStream) {
        let mut link = state.link();
        if link.is_cut {
            return;
        }
        for (side, from, to) in [(Side::Client, client, server), (Side::Server, server, client)] {
            let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
            let (from, to, state, number) = (clone(from), clone(to), Arc::clone(state), link.next);
            // A request is not to wait for the acknowledgement of the one before.
            let _ = to.set_nodelay(true);
            link.next += 1;
            link.open.insert(number, clone(&from));
            std::thread::spawn(move || {
                state.copy(side, from, to);
                state.link().open.remove(&number);
            });
        }
    }

    fn copy(&self, side: Side, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let is_held = |link: &mut Link| link.held == Some(side) && !link.is_cut;
            let link = self.changed.wait_while(self.link(), is_held).expect("no panic under it");
            if link.is_cut {
                break;
            }
            drop(link);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // The other side may be gone.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
