//! The RESP side of the listener: limits, refusals, and the end of connections.
//!
//! Guarantees: a connection beyond a limit is refused with an error. Not here: accepting, requests.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::requests::ScanLimits;
use super::unauthenticated::Unauthenticated;
use crate::command::{Client, ServerState};
use crate::net::{self, AcceptLimits, Listeners, Protocol, Socket, Stream};

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

/// Serves connections until `shutdown`, then lets them finish the requests they have received.
pub async fn listen(
    listeners: Listeners,
    server: Arc<ServerState>,
    limits: ListenerLimits,
    shutdown: impl Future<Output = ()>,
) {
    let accept = AcceptLimits {
        protocol: "redis",
        connections_max: Arc::clone(server.settings.connections_max()),
        refusals_max: REFUSALS_MAX,
        drain_max: DRAIN_MAX,
    };
    let metrics = Arc::clone(&server.metrics.redis);
    let resp = Resp { server, limits, unauthenticated: Unauthenticated::default() };
    net::serve(listeners, resp, accept, metrics, shutdown).await;
}

struct Resp {
    server: Arc<ServerState>,
    limits: ListenerLimits,
    unauthenticated: Unauthenticated,
}

impl Protocol for Resp {
    fn serve(&self, socket: Socket, _: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
        let (server, limits) = (Arc::clone(&self.server), self.limits.clone());
        let unauthenticated = self.unauthenticated.clone();
        async move {
            let stream = Stream::new(socket, limits.output_stall);
            let mut client = Client::new(&server, text(stream.peer_addr()), text(stream.local_addr()));
            if let Some(name) = stream.client_name().filter(|_| limits.users_from_certificates) {
                client.accept_certificate(&name);
            }
            let connections_max = server.settings.connections_max().load(Ordering::Relaxed);
            if !client.is_authenticated() && unauthenticated.are_full(connections_max) {
                server.metrics.redis.refuse();
                return send_refusal(stream).await;
            }
            Connection::new(stream, client, server, limits, unauthenticated).run().await;
        }
    }

    fn refuse(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        send_refusal(stream)
    }

    fn drain(self) {
        self.server.clients.kill_all();
    }
}

fn text(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "?".to_owned(), |address| address.to_string())
}

async fn send_refusal(mut stream: impl AsyncWrite + Unpin) {
    // The connection ends whether or not the client gets the error.
    let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
    let _ = stream.flush().await;
}
