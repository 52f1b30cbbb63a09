//! Accepts connections and ends them.
//!
//! Guarantees: the number of connections is limited; one beyond the limit is refused by its
//! protocol. TLS handshakes are limited in number and time, and delay nothing else. On shutdown no
//! connection is accepted any more, and those that exist get a limited time to end. Not here: what
//! connections do.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::open_connection::{OpenConnection, Served};
use super::sockets::{Accepted, Encryption};
use super::{Listeners, Socket, tls};
use crate::metrics::ConnectionMetrics;

/// What happens to the connections of a listener.
pub trait Protocol {
    /// Serves a connection until it ends.
    fn serve(&self, socket: Socket, peer: SocketAddr) -> impl Future<Output = ()> + Send + 'static;

    /// Tells a client beyond the limit that it is not served. Not called for TLS, where that would
    /// need a handshake first.
    fn refuse(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static;

    /// Asks every connection to end. No other follows.
    fn drain(self);
}

/// The limits of a listener.
#[derive(Debug, Clone)]
pub struct AcceptLimits {
    /// The name of the protocol in the log.
    pub protocol: &'static str,
    /// Connections at once.
    pub connections_max: Arc<AtomicUsize>,
    /// Refusals at once; the connections beyond this are closed without one.
    pub refusals_max: usize,
    /// How long connections get to end on shutdown.
    pub drain_max: Duration,
}

/// How long a peer may be silent before TCP probes it, the time between probes, and their number.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Pause after a failed accept. The usual cause is a lack of file descriptors, which ends when a
/// connection does.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client may take for a TLS handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Serves connections until `shutdown`, then waits for those that exist to end.
pub async fn serve<P: Protocol>(
    mut listeners: Listeners,
    protocol: P,
    limits: AcceptLimits,
    metrics: Arc<ConnectionMetrics>,
    shutdown: impl Future<Output = ()>,
) {
    let mut accepting = Accepting {
        protocol,
        limits,
        metrics,
        served: Served::default(),
        connections: JoinSet::new(),
        handshakes: JoinSet::new(),
        oldest_handshakes: VecDeque::new(),
        refusals: JoinSet::new(),
    };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            Some(_) = accepting.connections.join_next() => continue,
            Some(done) = accepting.handshakes.join_next() => {
                accepting.end_handshake(done);
                continue;
            }
            Some(_) = accepting.refusals.join_next() => continue,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok(accepted) => accepting.accept(accepted),
            Err(error) => {
                tracing::warn!(protocol = accepting.limits.protocol, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
    accepting.drain().await;
}

/// The connections of a listener.
struct Accepting<P> {
    protocol: P,
    limits: AcceptLimits,
    metrics: Arc<ConnectionMetrics>,
    served: Served,
    connections: JoinSet<()>,
    handshakes: JoinSet<Option<Handshaken>>,
    /// Those under way, by age, and some that are done.
    oldest_handshakes: VecDeque<AbortHandle>,
    refusals: JoinSet<()>,
}

/// A connection after its TLS handshake.
struct Handshaken {
    socket: Socket,
    peer: SocketAddr,
    open: OpenConnection,
}

impl<P: Protocol> Accepting<P> {
    fn accept(&mut self, Accepted { tcp, peer, encryption }: Accepted) {
        let connections_max = self.limits.connections_max.load(Ordering::Relaxed);
        if self.served.count() + self.handshakes.len() >= connections_max && self.open() >= connections_max {
            self.metrics.refuse();
            tracing::warn!(
                protocol = self.limits.protocol, client = %peer,
                "connection refused: --connections-max reached"
            );
            if encryption.is_none() && self.refusals.len() < self.limits.refusals_max {
                self.refusals.spawn(self.protocol.refuse(tcp));
            }
            return;
        }
        set_options(&tcp);
        let Some(encryption) = encryption else {
            let open = OpenConnection::new(&self.metrics);
            return self.serve(tcp.into(), peer, open);
        };
        self.limit_handshakes((connections_max / 2).max(1));
        let open = OpenConnection::new(&self.metrics);
        let handshake = self.handshakes.spawn(handshake(tcp, peer, encryption, open));
        self.oldest_handshakes.push_back(handshake);
    }

    /// Counts connections and handshakes without those that have ended or were given up.
    fn open(&mut self) -> usize {
        while let Some(done) = self.handshakes.try_join_next() {
            self.end_handshake(done);
        }
        self.oldest_handshakes.retain(|handshake| !handshake.is_finished());
        self.served.count() + self.oldest_handshakes.len()
    }

    /// Serves the client if its handshake has succeeded.
    fn end_handshake(&mut self, done: Result<Option<Handshaken>, JoinError>) {
        if let Ok(Some(Handshaken { socket, peer, open })) = done {
            self.serve(socket, peer, open);
        }
    }

    /// Makes room for one more handshake. The oldest gives way: honest clients take milliseconds,
    /// and those that never complete one must not keep them out.
    fn limit_handshakes(&mut self, max: usize) {
        while self.oldest_handshakes.front().is_some_and(AbortHandle::is_finished) {
            self.oldest_handshakes.pop_front();
        }
        if self.oldest_handshakes.len() < max {
            return;
        }
        self.oldest_handshakes.retain(|handshake| !handshake.is_finished());
        if self.oldest_handshakes.len() >= max
            && let Some(oldest) = self.oldest_handshakes.pop_front()
        {
            oldest.abort();
            self.metrics.refuse();
            tracing::warn!(
                protocol = self.limits.protocol,
                "TLS handshake given up for a newer one: half of --connections-max are in handshakes"
            );
        }
    }

    fn serve(&mut self, socket: Socket, peer: SocketAddr, open: OpenConnection) {
        let socket = socket.counted(open.serve(&self.served));
        self.connections.spawn(self.protocol.serve(socket, peer));
    }

    /// Waits for all connections to end, for a limited time.
    async fn drain(mut self) {
        drop(self.handshakes);
        self.protocol.drain();
        let ended = async { while self.connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limits.drain_max, ended).await.is_err() {
            tracing::warn!(
                protocol = self.limits.protocol,
                connections = self.connections.len(),
                "drain timeout: closing remaining connections"
            );
        }
    }
}

/// Makes a handshake. `None`: it has failed, or took too long.
async fn handshake(
    tcp: TcpStream,
    peer: SocketAddr,
    Encryption { tls, protocol }: Encryption,
    open: OpenConnection,
) -> Option<Handshaken> {
    let made = tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(tcp, protocol)).await;
    match made.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(socket) => Some(Handshaken { socket, peer, open }),
        Err(error) => {
            open.fail_handshake();
            // Probes and scanners fail all the time; a client with another certificate wants to be served.
            match tls::is_refusal(&error) {
                true => tracing::warn!(client = %peer, %error, "TLS handshake refused"),
                false => tracing::debug!(client = %peer, %error, "TLS handshake failed"),
            }
            None
        }
    }
}

/// Makes a connection send at once, and find a dead peer. Ignores failures: without these options,
/// replies take longer and a dead peer is found later.
pub fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, watch};

    use super::super::{ListenAddress, Stream};
    use super::*;

    /// Sends each client a letter: `s` if it is served, `r` if not. Connections end after `drain`,
    /// except for those whose client never sends anything if `is_stubborn`.
    struct Letters {
        stop: watch::Sender<()>,
        is_stubborn: bool,
    }

    impl Protocol for Letters {
        fn serve(&self, socket: Socket, _: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
            let mut stream = Stream::new(socket, Duration::from_secs(60));
            let (mut stopped, is_stubborn) = (self.stop.subscribe(), self.is_stubborn);
            async move {
                stream.write_all(b"s").await.unwrap();
                let mut byte = [0];
                tokio::select! {
                    _ = stopped.changed(), if !is_stubborn => {}
                    _ = stream.read(&mut byte) => {}
                }
            }
        }

        fn refuse(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
            refuse_until_closed(stream)
        }

        fn drain(self) {}
    }

    async fn refuse_until_closed(mut stream: TcpStream) {
        stream.write_all(b"r").await.unwrap();
        // Lasts until the client ends.
        let _ = stream.read(&mut [0]).await;
    }

    struct Running {
        address: SocketAddr,
        metrics: Arc<ConnectionMetrics>,
        shutdown: Arc<Notify>,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(connections_max: usize, is_stubborn: bool) -> Running {
        start_with(Letters { stop: watch::channel(()).0, is_stubborn }, connections_max)
    }

    fn start_with(protocol: impl Protocol + Send + 'static, connections_max: usize) -> Running {
        let address = ListenAddress { address: "127.0.0.1:0".parse().unwrap(), is_required: true };
        let listeners = Listeners::bind(&[address]).unwrap();
        let address = listeners.addresses()[0];
        let metrics = Arc::new(ConnectionMetrics::default());
        let shutdown = Arc::new(Notify::new());
        let limits = AcceptLimits {
            protocol: "test",
            connections_max: Arc::new(AtomicUsize::new(connections_max)),
            refusals_max: 1,
            drain_max: Duration::from_secs(5),
        };
        let stop = Arc::clone(&shutdown);
        let served = serve(listeners, protocol, limits, Arc::clone(&metrics), async move {
            stop.notified().await;
        });
        Running { address, metrics, shutdown, task: tokio::spawn(served) }
    }

    impl Running {
        /// Connects and returns the stream with the letter that was sent, if any.
        async fn connect(&self) -> (TcpStream, Option<u8>) {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let mut letter = [0];
            let read = stream.read(&mut letter).await.unwrap();
            (stream, (read == 1).then_some(letter[0]))
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_refused_until_one_ends() {
        let server = start(2, false);
        let (first, letter) = server.connect().await;
        assert_eq!(letter, Some(b's'));
        let (_second, letter) = server.connect().await;
        assert_eq!(letter, Some(b's'), "at the limit");
        let (_third, letter) = server.connect().await;
        assert_eq!(letter, Some(b'r'), "one past it");
        let (_, letter) = server.connect().await;
        assert_eq!(letter, None, "refusals are limited, too");
        assert_eq!((server.metrics.opened(), server.metrics.refused()), (2, 2));
        drop(first);
        while server.metrics.open_now() == 2 {
            tokio::task::yield_now().await;
        }
        let (_fourth, letter) = server.connect().await;
        assert_eq!(letter, Some(b's'), "a refusal under way takes no one's place");
        server.shutdown.notify_one();
        server.task.await.unwrap();
    }

    /// Closes each connection at once, and has something left to do then.
    struct Slow;

    impl Protocol for Slow {
        fn serve(&self, socket: Socket, _: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
            drop(socket);
            std::future::pending()
        }

        fn refuse(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
            refuse_until_closed(stream)
        }

        fn drain(self) {}
    }

    #[tokio::test]
    async fn a_connection_that_its_client_sees_closed_takes_no_place() {
        let server = start_with(Slow, 1);
        for _ in 0..3 {
            let (_client, letter) = server.connect().await;
            assert_eq!(letter, None, "closed, not refused");
            assert_eq!(server.metrics.open_now(), 0);
        }
        assert_eq!((server.metrics.opened(), server.metrics.refused()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_connections_within_a_limit() {
        for is_stubborn in [false, true] {
            let server = start(1, is_stubborn);
            let (_client, letter) = server.connect().await;
            assert_eq!(letter, Some(b's'));
            let asked = tokio::time::Instant::now();
            server.shutdown.notify_one();
            server.task.await.unwrap();
            assert_eq!(asked.elapsed() >= Duration::from_secs(5), is_stubborn);
            assert_eq!(server.metrics.open_now(), 0);
            assert!(TcpStream::connect(server.address).await.is_err(), "no longer listening");
        }
    }
}
