//! Accepts connections.
//!
//! Guarantees: the number of connections is limited; one beyond the limit gets an error and is closed. Not here:
//! requests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::scan::ScanLimits;
use crate::command::ServerState;
use crate::net::Listeners;

/// What connections may do.
#[derive(Debug, Clone)]
pub struct ListenerLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// A connection that sends nothing for so long is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A connection that reads none of its replies for so long is closed.
    pub output_stall: Duration,
    /// What requests may be.
    pub scan: ScanLimits,
}

impl Default for ListenerLimits {
    fn default() -> ListenerLimits {
        ListenerLimits {
            connections_max: 10_000,
            idle_timeout: None,
            output_stall: Duration::from_secs(30),
            scan: ScanLimits::default(),
        }
    }
}

/// How long a peer may be silent before it is asked whether it is there, and how long between questions.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Pause after a failed accept, which is mostly a lack of file descriptors that a closing connection mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections get to end when the server does: enough for commits under way, and less than supervisors wait.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Serves connections until `shutdown`, then lets them finish the requests they have received.
pub async fn listen(
    mut listeners: Listeners,
    server: Arc<ServerState>,
    limits: ListenerLimits,
    shutdown: impl Future<Output = ()>,
) {
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, addr)) if connections.len() >= limits.connections_max => {
                server.metrics.redis.refuse();
                tracing::warn!(client = %addr, "connection refused: --connections-max reached");
                connections.spawn(refuse(stream));
            }
            Ok((stream, _)) => {
                prepare(&stream);
                let (server, limits) = (Arc::clone(&server), limits.clone());
                connections.spawn(async move { Connection::new(stream, server, limits).run().await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
    server.clients.kill_all();
    let drained = tokio::time::timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "drain timeout: closing remaining connections");
    }
}

async fn refuse(mut stream: TcpStream) {
    // Whether it is heard makes no difference.
    let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
}

fn prepare(stream: &TcpStream) {
    // A peer without these is served all the same: they only find dead ones sooner.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
}
