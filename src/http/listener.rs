//! The HTTP side of the listener: limits, timeouts, and how connections end.
//!
//! Guarantees: at most `connections_max` at once; a request's head is bounded in bytes and time; a
//! client that reads none of a response for too long is disconnected; a client that is still
//! sending when its connection ends can read the last response; every refusal has the contract's
//! shape, also where hyper cannot parse the head; on shutdown requests are completed and streams
//! end. Not here: accepting, requests.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::error::ApiError;
use super::head::{self, Fault};
use super::metrics::Endpoint;
use super::overview::SAMPLE_S;
use super::router::{refusal, router};
use super::standing::{Overdue, Standing};
use super::unread::Lingers;
use super::users::Peer;
use super::{HttpState, times};
use crate::net::{self, AcceptLimits, Listeners, Protocol, Socket, Stream};

/// How long a connection may be idle, or take for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// How long a response may take when the time to authenticate is over.
const LAST_RESPONSE_TIME_MAX: Duration = Duration::from_secs(1);
/// How long connections get to end on shutdown: enough for commits under way. Clients that have
/// sent half a request must not keep the server running until a supervisor kills it.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Distinguishes the responses of the router from hyper's own.
const REQUEST_ID_LINE: &[u8] = b"\r\nx-request-id: ";
/// Time between two entries of the history.
const MINUTE: Duration = Duration::from_secs(60);

/// When a connection ends, input is discarded for this time and up to this length. Closing at once
/// would make the client's system drop the last response before the client has read it.
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: usize = 16 << 20;
/// Refusals at once. Each takes up to [`LINGER_TIME_MAX`].
const REFUSALS_MAX: usize = 64;

/// How connections of this protocol are accepted.
pub fn accept_limits(state: &HttpState) -> AcceptLimits {
    AcceptLimits {
        protocol: "http",
        connections_max: Arc::new(AtomicUsize::new(state.config.connections_max)),
        refusals_max: REFUSALS_MAX,
        drain_max: DRAIN_MAX,
    }
}

/// Serves connections until `shutdown`, then lets them finish the requests they have received.
pub async fn serve(listeners: Listeners, state: Arc<HttpState>, shutdown: impl Future<Output = ()>) {
    let limits = accept_limits(&state);
    let metrics = Arc::clone(&state.server_metrics.http);
    let http = Http::new(&state);
    tokio::select! {
        () = net::serve(listeners, http, limits, metrics, shutdown) => {}
        () = record_history(&state) => {}
    }
}

/// Adds to both histories.
pub async fn record_history(state: &HttpState) {
    let mut minutes = tokio::time::interval_at(Instant::now() + MINUTE, MINUTE);
    let mut samples = tokio::time::interval(Duration::from_secs(SAMPLE_S));
    loop {
        tokio::select! {
            _ = minutes.tick() => state.record_minute(),
            _ = samples.tick() => state.record_sample(),
        }
    }
}

/// The protocol, over the state of one server.
pub struct Http {
    state: Arc<HttpState>,
    router: RouterService,
    /// Changed on shutdown.
    stop: watch::Sender<()>,
}

impl Http {
    /// Connections see this state.
    pub fn new(state: &Arc<HttpState>) -> Http {
        let router = TowerToHyperService::new(router(state));
        Http { state: Arc::clone(state), router, stop: watch::Sender::new(()) }
    }

    /// A new connection.
    pub fn arrival(&self, socket: Socket, peer: SocketAddr) -> HttpArrival {
        let certificate = socket.client_name().filter(|_| self.state.config.users_from_certificates);
        let stream = Stream::new(socket, self.state.config.output_stall);
        HttpArrival { stream, input: Bytes::new(), peer, certificate }
    }

    /// Asks every connection to end after the request that it has received.
    pub fn stop(&self) {
        self.state.watchers.close();
        self.state.streams.close();
        self.stop.send_replace(());
    }

    /// Serves a connection until it ends.
    pub fn serve_arrival(&self, arrival: HttpArrival) -> impl Future<Output = ()> + Send + use<> {
        let (state, router, stopping) = (Arc::clone(&self.state), self.router.clone(), self.stop.subscribe());
        async move {
            let peer = arrival.peer;
            if let Err(error) = run(arrival, router, &state, stopping).await {
                tracing::debug!(client = %peer, %error, "HTTP connection lost");
            }
        }
    }
}

/// A connection that is to be served.
pub struct HttpArrival {
    /// The connection.
    pub stream: Stream,
    /// What has been read from it already.
    pub input: Bytes,
    /// The client's address.
    pub peer: SocketAddr,
    /// The name in the client's certificate, if it names the user.
    pub certificate: Option<String>,
}

impl Protocol for Http {
    fn serve(&self, socket: Socket, peer: SocketAddr) -> impl Future<Output = ()> + Send + 'static {
        self.serve_arrival(self.arrival(socket, peer))
    }

    fn refuse(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let state = Arc::clone(&self.state);
        async move {
            let stream = Stream::new(stream, LINGER_TIME_MAX);
            let mut stream = Guarded { stream, input: Bytes::new(), is_flushed: true };
            close_with(&mut stream, &state, ApiError::no_connection()).await;
        }
    }

    fn drain(self) {
        self.stop();
    }
}

type RouterService = TowerToHyperService<axum::Router>;

/// The router, for the requests of one connection.
struct Requests {
    router: RouterService,
    lingers: Lingers,
    peer: Peer,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = TowerToHyperServiceFuture<axum::Router, hyper::Request<Incoming>>;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.lingers.clone());
        request.extensions_mut().insert(self.peer.clone());
        self.router.call(request)
    }
}

/// Serves a connection. Once the server stops, it ends after the current request.
async fn run(
    arrival: HttpArrival,
    router: RouterService,
    state: &HttpState,
    mut stopping: watch::Receiver<()>,
) -> hyper::Result<()> {
    let certificate = arrival.certificate.map(Arc::<str>::from);
    let standing = Arc::new(match state.users.demand_credentials(certificate.as_deref()) {
        true => Standing::unauthenticated(state, arrival.peer),
        false => Standing::default(),
    });
    let peer = Peer { addr: arrival.peer, certificate, standing: Arc::clone(&standing) };
    let stream = Guarded { stream: arrival.stream, input: arrival.input, is_flushed: true };
    let lingers = Lingers::default();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    builder.max_buf_size(head::HEAD_BYTES_MAX).max_headers(head::HEADERS_MAX);
    let requests = Requests { router, lingers: lingers.clone(), peer };
    let mut connection = builder.serve_connection(TokioIo::new(stream), requests);
    let mut is_late = false;
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopping.changed() => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
        overdue = standing.overdue() => {
            if overdue == Overdue::GivesWay {
                return Ok(());
            }
            Pin::new(&mut connection).graceful_shutdown();
            match timeout(LAST_RESPONSE_TIME_MAX, &mut connection).await {
                Ok(ended) => ended,
                Err(_) if standing.is_authenticated() => (&mut connection).await,
                Err(_) => {
                    is_late = true;
                    Ok(())
                }
            }
        }
    };
    let http1::Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner();
    let words;
    let fault = match &ended {
        Err(error) if error.is_parse_too_large() => Fault::TooLarge,
        Err(error) if error.is_parse() => {
            words = error.to_string();
            Fault::Malformed(&words)
        }
        Err(error) if error.is_timeout() && !read_buf.is_empty() => Fault::TooSlow,
        Ok(()) if is_late && !read_buf.is_empty() => Fault::TooSlow,
        Err(_) => return ended,
        Ok(()) => {
            if lingers.is_set() {
                stream.linger().await;
            }
            return ended;
        }
    };
    state.metrics.record(Endpoint::Other, 0, true);
    close_with(&mut stream, state, head::refusal(fault, &read_buf)).await;
    ended
}

/// Sends a refusal that answers no request, and closes the connection.
async fn close_with(stream: &mut Guarded, state: &HttpState, error: ApiError) {
    let (parts, body) = refusal(error).into_parts();
    let Ok(body) = body.collect().await else { return };
    let body = body.to_bytes();
    let date = times::http_date(state.engine.clock().wall_millis());
    let mut text = format!("HTTP/1.1 {}\r\ndate: {date}\r\nconnection: close\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(piece);
        }
    }
    text.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    text.extend_from_slice(&body);
    // If the client is gone, there is no need to wait for it.
    if stream.stream.write_all(&text).await.is_ok() {
        stream.linger().await;
    }
}

/// A stream that withholds what hyper answers by itself.
///
/// When hyper cannot parse a head it sends a bare status and ends the connection with an error.
/// Every response of the router has a request id, and hyper sends a response in whole before it
/// parses the next head. So a head of status 4xx without a request id, at the start of what is sent
/// between two flushes, is hyper's own; the listener responds in its place.
struct Guarded {
    stream: Stream,
    /// What has been read already, and comes first.
    input: Bytes,
    is_flushed: bool,
}

impl Guarded {
    /// Whether to withhold output that begins with `bytes`.
    fn withholds(&mut self, bytes: &[u8]) -> bool {
        std::mem::replace(&mut self.is_flushed, false)
            && bytes.starts_with(b"HTTP/1.")
            && bytes.get(9) == Some(&b'4')
            && !bytes.windows(REQUEST_ID_LINE.len()).any(|window| window == REQUEST_ID_LINE)
    }

    /// Closes the connection slowly, so that a client that is still sending can read the last
    /// response.
    async fn linger(&mut self) {
        self.stream.linger(LINGER_TIME_MAX, LINGER_BYTES_MAX).await;
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.input.is_empty() {
            let taken = self.input.len().min(buffer.remaining());
            buffer.put_slice(&self.input.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.withholds(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.withholds(parts.first().map_or(&[], |part| part)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_flushed = true;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Does nothing: the listener sends the rest and closes the connection.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
