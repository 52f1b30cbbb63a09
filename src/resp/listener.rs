//! The RESP side of the listener: limits, refusals, and the end of connections.
//!
//! Guarantees: a connection beyond a limit is refused with an error. Not here: accepting, requests.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::requests::ScanLimits;
use crate::command::{Client, ClientState, ServerState};
use crate::net::{self, AcceptLimits, Listeners, Protocol, Socket, Stream, Unauthenticated};

/// The limits of connections.
#[derive(Debug, Clone)]
pub struct ListenerLimits {
    /// Connections at once, when the server starts.
    pub connections_max: usize,
    /// A connection that takes less than 1 MiB of a pending reply in this time is closed.
    pub output_stall: Duration,
    /// A connection that has not authenticated in this time is closed.
    pub auth_timeout: Duration,
    /// The limits of requests.
    pub scan: ScanLimits,
    /// Whether the certificate of a client names its user.
    pub users_from_certificates: bool,
}

impl Default for ListenerLimits {
    fn default() -> ListenerLimits {
        ListenerLimits {
            connections_max: 10_000,
            output_stall: Duration::from_secs(30),
            auth_timeout: Duration::from_secs(10),
            scan: ScanLimits::default(),
            users_from_certificates: false,
        }
    }
}

/// Refusals at once. One takes no longer than a write, so this is more than a burst needs.
const REFUSALS_MAX: usize = 1024;
/// How long connections get to end on shutdown: enough for commits under way, and less than a
/// supervisor waits.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How connections of this protocol are accepted.
pub fn accept_limits(server: &ServerState) -> AcceptLimits {
    AcceptLimits {
        protocol: "redis",
        connections_max: Arc::clone(server.settings.connections_max()),
        refusals_max: REFUSALS_MAX,
        drain_max: DRAIN_MAX,
    }
}

/// Serves connections until `shutdown`, then lets them finish the requests they have received.
pub async fn listen(
    listeners: Listeners,
    server: Arc<ServerState>,
    limits: ListenerLimits,
    shutdown: impl Future<Output = ()>,
) {
    let accept = accept_limits(&server);
    let metrics = Arc::clone(&server.metrics.redis);
    net::serve(listeners, Resp::new(server, limits), accept, metrics, shutdown).await;
}

/// A connection that is to be served.
pub struct Arrival {
    /// The connection.
    pub stream: Stream,
    /// What has been read from it and not been executed.
    pub input: BytesMut,
    /// What the connection has done so far; `None`: it is new.
    pub client: Option<ClientState>,
}

/// The protocol, over the state of one server.
pub struct Resp {
    server: Arc<ServerState>,
    limits: ListenerLimits,
    unauthenticated: Unauthenticated,
    /// New connections are answered as by Redis Sentinel.
    is_sentinel: bool,
}

impl Resp {
    /// Connections see this state.
    pub fn new(server: Arc<ServerState>, limits: ListenerLimits) -> Resp {
        Resp { server, limits, unauthenticated: Unauthenticated::default(), is_sentinel: false }
    }

    /// Connections are answered as by Redis Sentinel, from this state.
    pub fn sentinel(server: Arc<ServerState>, limits: ListenerLimits) -> Resp {
        Resp { is_sentinel: true, ..Resp::new(server, limits) }
    }

    /// A new connection.
    pub fn arrival(&self, socket: Socket) -> Arrival {
        Arrival {
            stream: Stream::new(socket, self.limits.output_stall),
            input: BytesMut::new(),
            client: None,
        }
    }

    /// Asks every connection to end after the requests that it has received.
    pub fn stop(&self) {
        self.server.clients.kill_all();
    }

    /// Asks every connection that another service can go on with to go there.
    pub fn hand_over(&self) {
        self.server.clients.hand_over_all();
    }

    /// Serves a connection until it ends, or another service goes on with it: the leader's if it sends
    /// a request that only the leader executes, or else the one that follows this one.
    ///
    /// A connection that another service has served so far has its subscriptions when this returns.
    pub fn serve_arrival(&self, arrival: Arrival) -> impl Future<Output = Option<Arrival>> + Send + use<> {
        let (server, limits) = (Arc::clone(&self.server), self.limits.clone());
        let (unauthenticated, is_sentinel) = (self.unauthenticated.clone(), self.is_sentinel);
        let Arrival { stream, input, client } = arrival;
        let resumed = client.map(|state| Client::resume(&server, &state, text(stream.local_addr())));
        async move {
            let client = resumed.unwrap_or_else(|| {
                let addresses = (text(stream.peer_addr()), text(stream.local_addr()));
                let mut client = Client::new(&server, addresses.0, addresses.1);
                if let Some(name) = stream.client_name().filter(|_| limits.users_from_certificates) {
                    client.accept_certificate(&name);
                }
                if is_sentinel {
                    client.expect_sentinel();
                }
                client
            });
            Connection::new(stream, input, client, server, limits, unauthenticated).run().await
        }
    }
}

impl Protocol for Resp {
    fn serve(&self, socket: Socket, _: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
        let served = self.serve_arrival(self.arrival(socket));
        async move {
            // No other service goes on with connections that come here.
            let _ = served.await;
        }
    }

    fn refuse(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        send_refusal(stream)
    }

    fn drain(self) {
        self.stop();
    }
}

fn text(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "?".to_owned(), |address| address.to_string())
}

/// Tells a client beyond the limit of connections that it is not served.
pub async fn send_refusal(mut stream: impl AsyncWrite + Unpin) {
    // The connection ends whether or not the client gets the error.
    let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
    let _ = stream.flush().await;
}
