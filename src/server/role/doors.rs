//! Where new connections go: to the service of this process that can serve them, or to the leader.
//!
//! Guarantees: a connection that another server has passed on is not passed on again. Not here: what a
//! service does, which server leads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{State, Term};
use crate::cluster::{Header, Knock, answer_pings, forward, receive};
use crate::command::ClientState;
use crate::domain::{HostPort, Leader};
use crate::http::is_for_any_node;
use crate::net::Protocol;
use crate::resp::{Arrival, send_refusal};

/// How long an HTTP client may take for the first line of its first request.
const LINE_TIME_MAX: Duration = Duration::from_secs(75);
/// The longest such line that is looked at.
const LINE_BYTES_MAX: usize = 8 << 10;
/// What a client gets whose request the leader does not accept.
const NO_LEADER: &[u8] = b"-LOADING no leader yet, try again\r\n";

/// Connections of Redis clients.
pub(super) struct RedisDoor(pub(super) Arc<State>);

/// Connections of HTTP clients.
pub(super) struct HttpDoor(pub(super) Arc<State>);

impl Protocol for RedisDoor {
    fn serve(&self, stream: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
        let state = Arc::clone(&self.0);
        async move {
            let (arrival, is_forwarded) = match state.receive(stream, peer).await {
                Some((stream, None)) => (Arrival::from(stream), false),
                Some((stream, Some(header))) => {
                    let client = serde_json::from_slice::<ClientState>(&header.client).ok();
                    (Arrival { client, ..Arrival::from(stream) }, true)
                }
                None => return,
            };
            state.serve_redis(arrival, is_forwarded).await;
        }
    }

    fn refuse(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        send_refusal(stream)
    }

    fn drain(self) {
        self.0.drain();
    }
}

impl Protocol for HttpDoor {
    fn serve(&self, stream: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
        let state = Arc::clone(&self.0);
        async move {
            let Some((stream, header)) = state.receive(stream, peer).await else { return };
            let client = header.as_ref().and_then(|header| header.addresses).map(|(client, _)| client);
            state.serve_http(stream, client.unwrap_or(peer), header.is_some()).await;
        }
    }

    fn refuse(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let refused = self.0.standby.http.as_ref().map(|http| http.refuse(stream));
        async move {
            if let Some(refused) = refused {
                refused.await;
            }
        }
    }

    fn drain(self) {
        self.0.drain();
    }
}

impl State {
    fn term(&self) -> Option<Arc<Term>> {
        self.term.borrow().clone()
    }

    /// Asks all connections to end.
    fn drain(&self) {
        self.stop.send_replace(true);
        let term = self.term();
        for doors in term.iter().map(|term| &term.doors).chain([&self.standby]) {
            doors.resp.stop();
            doors.http.iter().for_each(crate::http::Http::stop);
        }
    }

    /// Finds out whether a new connection is that of a client, or one that another server passes on.
    async fn receive(&self, stream: TcpStream, peer: SocketAddr) -> Option<(TcpStream, Option<Header>)> {
        let seen = self.election.seen().borrow().clone();
        let reason = match receive(stream, &seen.key).await {
            Ok(Knock::Client(stream)) => return Some((stream, None)),
            Ok(Knock::Forwarded(stream, header)) if seen.nodes.iter().any(|node| node.id == header.node) => {
                return Some((stream, Some(header)));
            }
            Ok(Knock::Pings(stream)) => {
                // Lives as long as the process: while the server drains its connections, it is not dead.
                tokio::spawn(answer_pings(stream));
                return None;
            }
            Ok(Knock::Forwarded(..)) => "PROXY header of a server that is not registered",
            Ok(Knock::Refused(reason)) => reason,
            Err(error) => {
                tracing::debug!(%peer, %error, "connection lost");
                return None;
            }
        };
        tracing::warn!(%peer, "connection refused: {reason}");
        None
    }

    async fn serve_redis(&self, mut arrival: Arrival, is_forwarded: bool) {
        let mut stop = self.stop.subscribe();
        loop {
            if let Some(term) = self.term() {
                let (served, ended) = (term.doors.resp.serve_arrival(arrival), term.ended());
                drop(term);
                tokio::select! {
                    _ = served => {}
                    () = ended => {}
                }
                return;
            }
            match self.standby.resp.serve_arrival(arrival).await {
                Some(left) => arrival = left,
                None => return,
            }
            if self.term().is_some() {
                continue;
            }
            let leader = (!is_forwarded).then(|| self.leader_elsewhere(|node| node.redis.clone())).flatten();
            let Some((leader, address)) = leader else {
                // Another server took this one for the leader, or there is none any more.
                let _ = arrival.stream.write_all(NO_LEADER).await;
                return;
            };
            let client = arrival.client.as_ref().and_then(|client| serde_json::to_vec(client).ok());
            let header = self.header(&arrival.stream, client.unwrap_or_default());
            let key = self.election.seen().borrow().key;
            let until = async {
                tokio::select! {
                    () = self.changes_from(&leader) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            };
            if let Err(mut stream) =
                forward(arrival.stream, &arrival.input, &address, &header, &key, until).await
            {
                // The connection ends in any case.
                let _ = stream.write_all(NO_LEADER).await;
            }
            return;
        }
    }

    async fn serve_http(&self, mut stream: TcpStream, peer: SocketAddr, is_forwarded: bool) {
        let mut stop = self.stop.subscribe();
        let mut input = BytesMut::new();
        if self.term().is_none() && !is_forwarded {
            let read = tokio::select! {
                read = timeout(LINE_TIME_MAX, read_line(&mut stream, &mut input)) => read,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if !matches!(read, Ok(Ok(()))) {
                return;
            }
        }
        if let Some(term) = self.term() {
            let Some(http) = &term.doors.http else { return };
            let (served, ended) = (http.serve_with(stream, input.freeze(), peer), term.ended());
            drop(term);
            tokio::select! {
                () = served => {}
                () = ended => {}
            }
            return;
        }
        let leader = self.leader_elsewhere(|node| node.http.clone());
        let leader = leader.filter(|_| !is_forwarded && !path_of(&input).is_some_and(is_for_any_node));
        let input = input.freeze();
        if let Some((leader, address)) = leader {
            let header = self.header(&stream, Vec::new());
            let key = self.election.seen().borrow().key;
            let until = async {
                tokio::select! {
                    () = self.changes_from(&leader) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            };
            match forward(stream, &input, &address, &header, &key, until).await {
                Ok(()) => return,
                Err(unsent) => stream = unsent,
            }
        }
        self.serve_http_as_standby(stream, input, peer).await;
    }

    async fn serve_http_as_standby(&self, stream: TcpStream, input: Bytes, peer: SocketAddr) {
        if let Some(http) = &self.standby.http {
            http.serve_with(stream, input, peer).await;
        }
    }

    /// The leader and its address, if it is another server.
    fn leader_elsewhere(
        &self,
        address: impl FnOnce(&crate::domain::Node) -> Option<HostPort>,
    ) -> Option<(Leader, HostPort)> {
        let topology = self.topology.read();
        let leader = topology.leader.clone().filter(|leader| leader.id != topology.own)?;
        Some((leader, address(topology.leading_node()?)?))
    }

    /// Completes when another server leads, or none.
    async fn changes_from(&self, leader: &Leader) {
        // The sender lives as long as the process.
        let _ = self.leader.subscribe().wait_for(|now| now.as_ref() != Some(leader)).await;
    }

    /// The header of a client's connection.
    fn header(&self, stream: &TcpStream, client: Vec<u8>) -> Header {
        let unknown = |_: io::Error| SocketAddr::from(([0, 0, 0, 0], 0));
        let source = stream.peer_addr().unwrap_or_else(unknown);
        let destination = stream.local_addr().unwrap_or_else(unknown);
        Header { node: self.process.run_id.clone(), addresses: Some((source, destination)), client }
    }
}

/// Reads until there is a whole line, or more than is looked at.
async fn read_line(stream: &mut TcpStream, input: &mut BytesMut) -> io::Result<()> {
    while !input.contains(&b'\n') && input.len() < LINE_BYTES_MAX {
        if stream.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The path in the first line of a request.
fn path_of(input: &[u8]) -> Option<&str> {
    let line = input.split(|byte| *byte == b'\n').next()?;
    let target = std::str::from_utf8(line).ok()?.split(' ').nth(1)?;
    Some(target.split('?').next().unwrap_or(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_request_is_that_of_its_first_line() {
        for (line, expected) in [
            ("GET /health HTTP/1.1\r\n", Some("/health")),
            ("GET /health?x=1 HTTP/1.1\r\n", Some("/health")),
            ("GET\r\n", None),
            ("\r\n", None),
        ] {
            assert_eq!(path_of(line.as_bytes()), expected, "{line:?}");
        }
    }
}
