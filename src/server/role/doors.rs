//! Where new connections go: to the service of this process that can serve them, or to the leader.
//!
//! Guarantees: a connection that another server has passed on is not passed on again. A client that
//! only wants to hear of new leaders keeps its connection when this server ceases to lead. Not here:
//! what a service does, which server leads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{State, Term, ended};
use crate::cluster::{Header, Knock, answer_pings, forward, receive};
use crate::domain::{HostPort, Leader, Node};
use crate::http::{Http, HttpArrival, is_for_any_node};
use crate::net::{Protocol, Socket, Stream};
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
    fn serve(&self, socket: Socket, peer: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
        let state = Arc::clone(&self.0);
        async move {
            let arrival = state.standby.resp.arrival(socket);
            let Some((stream, input, header)) = state.receive(arrival.stream, peer).await else { return };
            let client = header.as_ref().and_then(|header| serde_json::from_slice(&header.client).ok());
            state.serve_redis(Arrival { stream, input, client }, header.is_some()).await;
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
    fn serve(&self, socket: Socket, peer: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
        let state = Arc::clone(&self.0);
        async move {
            let Some(http) = &state.standby.http else { return };
            let arrival = http.arrival(socket, peer);
            let Some((stream, input, header)) = state.receive(arrival.stream, peer).await else { return };
            let input = input.freeze();
            let arrival = match &header {
                None => HttpArrival { stream, input, ..arrival },
                Some(header) => {
                    let peer = header.addresses.map_or(peer, |(client, _)| client);
                    let name = String::from_utf8_lossy(&header.client).into_owned();
                    let certificate = Some(name).filter(|name| !name.is_empty());
                    HttpArrival { stream, peer, certificate, ..arrival }
                }
            };
            state.serve_http(arrival, header.is_some()).await;
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
            doors.http.iter().for_each(Http::stop);
        }
    }

    /// Finds out whether a new connection is that of a client, or one that another server passes
    /// on.
    async fn receive(&self, stream: Stream, peer: SocketAddr) -> Option<(Stream, BytesMut, Option<Header>)> {
        let key = self.election.seen().borrow().key;
        let reason = match receive(stream, &key).await {
            Ok(Knock::Client(stream, input)) => return Some((stream, input, None)),
            Ok(Knock::Forwarded(stream, header)) if self.election.knows(&header.node).await => {
                return Some((stream, BytesMut::new(), Some(header)));
            }
            Ok(Knock::Pings(stream)) => {
                // Lives as long as the process: while the server drains its connections, it is not
                // dead. One that has lost the store is of no use as a leader.
                let election = Arc::clone(&self.election);
                tokio::spawn(answer_pings(stream, move || election.reaches_store()));
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
        loop {
            let mut last_term = None;
            if let Some(term) = self.term() {
                let (served, mut has_ended) =
                    (term.doors.resp.serve_arrival(arrival), term.has_ended.subscribe());
                drop(term);
                let left = tokio::select! {
                    // Before it is dropped, it can hand the connection over.
                    biased;
                    left = served => left,
                    () = ended(&mut has_ended) => None,
                };
                match left {
                    Some(left) => (arrival, last_term) = (left, Some(has_ended)),
                    None => return,
                }
            }
            let served = self.standby.resp.serve_arrival(arrival);
            // From here on, the client hears of the next leader.
            drop(last_term);
            match served.await {
                Some(left) => arrival = left,
                None => return,
            }
            if self.term().is_some() {
                continue;
            }
            let Arrival { stream, input, client } = arrival;
            let leader = self.leader_elsewhere(|node| node.redis.clone()).filter(|_| !is_forwarded);
            let unsent = match leader {
                // Another server took this one for the leader, or there is none any more.
                None => Some(stream),
                Some((leader, address)) => {
                    let client = client.and_then(|client| serde_json::to_vec(&client).ok());
                    self.forward(stream, &input, &leader, &address, client.unwrap_or_default()).await
                }
            };
            if let Some(mut stream) = unsent {
                // The connection ends in any case.
                let _ = stream.write_all(NO_LEADER).await;
                let _ = stream.flush().await;
            }
            return;
        }
    }

    async fn serve_http(&self, mut arrival: HttpArrival, is_forwarded: bool) {
        let mut input = BytesMut::from(arrival.input);
        if self.term().is_none() && !is_forwarded {
            let mut stop = self.stop.subscribe();
            let read = tokio::select! {
                read = timeout(LINE_TIME_MAX, read_line(&mut arrival.stream, &mut input)) => read,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if !matches!(read, Ok(Ok(()))) {
                return;
            }
        }
        let leader = self.leader_elsewhere(|node| node.http.clone());
        let leader = leader.filter(|_| !is_forwarded && !path_of(&input).is_some_and(is_for_any_node));
        arrival.input = input.freeze();
        if let Some(term) = self.term() {
            let Some(http) = &term.doors.http else { return };
            let (served, mut has_ended) = (http.serve_arrival(arrival), term.has_ended.subscribe());
            drop(term);
            tokio::select! {
                () = served => {}
                () = ended(&mut has_ended) => {}
            }
            return;
        }
        if let Some((leader, address)) = leader {
            let certificate = arrival.certificate.clone().unwrap_or_default().into_bytes();
            let forwarded = self.forward(arrival.stream, &arrival.input, &leader, &address, certificate);
            match forwarded.await {
                None => return,
                Some(unsent) => arrival.stream = unsent,
            }
        }
        if let Some(http) = &self.standby.http {
            http.serve_arrival(arrival).await;
        }
    }

    /// Passes a connection on until it ends, another server leads, or the process is to end.
    /// Returns the connection if the leader cannot be reached.
    async fn forward(
        &self,
        stream: Stream,
        input: &[u8],
        leader: &Leader,
        address: &HostPort,
        client: Vec<u8>,
    ) -> Option<Stream> {
        let unknown = |_: io::Error| SocketAddr::from(([0, 0, 0, 0], 0));
        let source = stream.peer_addr().unwrap_or_else(unknown);
        let destination = stream.local_addr().unwrap_or_else(unknown);
        let node = self.process.run_id.clone();
        self.process.metrics.cluster.iter().for_each(|metrics| metrics.forwarded.add(1));
        let header = Header { node, addresses: Some((source, destination)), client };
        let key = self.election.seen().borrow().key;
        let (mut leaders, mut stop) = (self.leader.subscribe(), self.stop.subscribe());
        // Both senders live as long as the process.
        let until = async {
            tokio::select! {
                _ = leaders.wait_for(|now| now.as_ref() != Some(leader)) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        };
        forward(stream, input, address, self.tls.as_deref(), &header, &key, until).await.err()
    }

    /// The leader and its address, if it is another server.
    fn leader_elsewhere(
        &self,
        address: impl FnOnce(&Node) -> Option<HostPort>,
    ) -> Option<(Leader, HostPort)> {
        let topology = self.topology.read();
        let leader = topology.leader.clone().filter(|leader| leader.id != topology.own)?;
        Some((leader, address(topology.leading_node()?)?))
    }
}

/// Reads until there is a whole line, or more than is looked at.
async fn read_line(stream: &mut Stream, input: &mut BytesMut) -> io::Result<()> {
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
