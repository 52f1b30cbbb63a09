//! Accepts connections.
//!
//! Guarantees: at most `connections_max` at once; a request's head is bounded in bytes and time; a reader that takes nothing
//! of its answers for too long is cut off; a client that is still sending when its connection ends can read the last answer;
//! every refusal has the contract's shape, those of heads that hyper cannot read included; on shutdown requests are finished
//! and streams end. Not here: requests.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::error::ApiError;
use super::head::{self, Fault};
use super::metrics::Endpoint;
use super::router::{refusal, router};
use super::unread::Lingers;
use super::{HttpState, times};
use crate::net::Listeners;

/// How long a connection may be idle, or take for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// Pause after a failed accept, which is mostly a lack of file descriptors that a closing connection mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections get to end when the server does: enough for commits under way. Whoever has sent half a request
/// must not keep the server from ending before a supervisor loses patience.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// By which the answers of the router are told from hyper's own.
const REQUEST_ID_LINE: &[u8] = b"\r\nx-request-id: ";
/// Time between two entries of the history.
const MINUTE: Duration = Duration::from_secs(60);

/// How long a client that is still sending is listened to when its connection ends, and how much it may send: closing at
/// once would make its system drop the last answer before the client has read it.
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: usize = 16 << 20;
/// Refused connections that are closed slowly at once; more are closed immediately.
const REFUSED_MAX: usize = 64;

/// Serves connections until `shutdown`, then lets them finish the requests they have received.
pub async fn serve(mut listeners: Listeners, state: Arc<HttpState>, shutdown: impl Future<Output = ()>) {
    let router = TowerToHyperService::new(router(&state));
    let metrics = Arc::clone(&state.server_metrics);
    let config = &state.config;
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut minutes = tokio::time::interval_at(tokio::time::Instant::now() + MINUTE, MINUTE);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            _ = minutes.tick() => {
                state.record_minute();
                continue;
            }
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, addr)) if connections.len() >= config.connections_max => {
                metrics.http.refuse();
                tracing::warn!(client = %addr, "HTTP connection refused: --connections-max reached");
                if connections.len() < config.connections_max + REFUSED_MAX {
                    connections.spawn(refuse(stream, Arc::clone(&state)));
                }
            }
            Ok((stream, addr)) => {
                // Without it answers only come later.
                let _ = stream.set_nodelay(true);
                let (router, stopping, state) = (router.clone(), stopping.clone(), Arc::clone(&state));
                connections.spawn(async move {
                    state.server_metrics.http.open();
                    if let Err(error) = run(stream, router, &state, stopping).await {
                        tracing::debug!(client = %addr, %error, "HTTP connection lost");
                    }
                    state.server_metrics.http.close();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
    state.watchers.close();
    drop(stop);
    let drained = tokio::time::timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "HTTP drain timeout: closing remaining connections");
    }
}

type RouterService = TowerToHyperService<axum::Router>;

/// The router, for the requests of one connection.
struct Requests {
    router: RouterService,
    lingers: Lingers,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = TowerToHyperServiceFuture<axum::Router, hyper::Request<Incoming>>;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.lingers.clone());
        self.router.call(request)
    }
}

/// Serves a connection; once the server stops, only to the end of its request.
async fn run(
    stream: TcpStream,
    router: RouterService,
    state: &HttpState,
    mut stopping: watch::Receiver<()>,
) -> hyper::Result<()> {
    let stream = Guarded::new(stream, state.config.output_stall);
    let lingers = Lingers::default();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    builder.max_buf_size(head::HEAD_BYTES_MAX).max_headers(head::HEADERS_MAX);
    let requests = Requests { router, lingers: lingers.clone() };
    let mut connection = builder.serve_connection(TokioIo::new(stream), requests);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopping.changed() => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
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
        Err(_) => return ended,
        Ok(()) => {
            if lingers.is_set() {
                linger(&mut stream).await;
            }
            return ended;
        }
    };
    state.metrics.record(Endpoint::Other, 0, true);
    close_with(&mut stream, state, head::refusal(fault, &read_buf)).await;
    ended
}

/// Refuses a connection beyond the limit.
async fn refuse(stream: TcpStream, state: Arc<HttpState>) {
    let mut stream = Guarded::new(stream, LINGER_TIME_MAX);
    close_with(&mut stream, &state, ApiError::no_connection()).await;
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
    // A client that is gone needs neither the answer nor the time to read it.
    if stream.stream.write_all(&text).await.is_ok() {
        linger(stream).await;
    }
}

/// Ends the stream of answers, and reads on for a while, until the client ends its side, too.
async fn linger(stream: &mut Guarded) {
    let stream = &mut stream.stream;
    let drained = async {
        stream.shutdown().await?;
        let (mut dropped, mut buffer) = (0, [0; 4096]);
        while dropped < LINGER_BYTES_MAX {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => dropped += read,
            }
        }
        Ok::<_, io::Error>(())
    };
    // The connection ends in any case.
    let _ = tokio::time::timeout(LINGER_TIME_MAX, drained).await;
}

/// A stream that fails when nothing can be written for too long, and that withholds what hyper answers by itself.
///
/// When hyper cannot read a head it sends a bare status and ends the connection with an error. Each answer of the router has
/// a request id, and hyper sends one in whole before it reads the next head. So a head of status 4xx without a request id,
/// at the beginning of what is sent between two flushes, is hyper's own; the listener answers in its place.
struct Guarded {
    stream: TcpStream,
    stall: Duration,
    waits: Option<Pin<Box<Sleep>>>,
    is_flushed: bool,
}

impl Guarded {
    fn new(stream: TcpStream, stall: Duration) -> Guarded {
        Guarded { stream, stall, waits: None, is_flushed: true }
    }

    /// Whether what is about to be sent, of which this is the beginning, is to be withheld.
    fn withholds(&mut self, bytes: &[u8]) -> bool {
        std::mem::replace(&mut self.is_flushed, false)
            && bytes.starts_with(b"HTTP/1.")
            && bytes.get(9) == Some(&b'4')
            && !bytes.windows(REQUEST_ID_LINE.len()).any(|window| window == REQUEST_ID_LINE)
    }

    fn watch<R>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waits = None;
            return written;
        }
        let stall = self.stall;
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(stall)));
        match waits.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.withholds(parts.first().map_or(&[], |part| part)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_flushed = true;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Does nothing: what is still to be sent, and how the connection is closed, is the listener's to say.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
