//! Accepts connections.
//!
//! Promise: at most so many at once; a request's head takes no longer than a time limit, and a reader that takes nothing
//! of its answers for so long is cut off; on shutdown requests are finished and streams end. Absent: requests.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::Adapter;
use super::router::router;
use crate::net::Listeners;

/// How long a connection may be idle, or take for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// Pause after a failed accept, which is mostly a lack of file descriptors that a closing connection mends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections get to end when the server does: enough for commits under way. Whoever has sent half a request
/// must not keep the server from ending before a supervisor loses patience.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Time between two entries of the history.
const MINUTE: Duration = Duration::from_secs(60);

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves connections until `shutdown`, then lets them finish the requests they have received.
pub async fn serve(mut listeners: Listeners, adapter: Arc<Adapter>, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router(&adapter));
    let metrics = Arc::clone(&adapter.server_metrics);
    let config = &adapter.config;
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut minutes = tokio::time::interval_at(tokio::time::Instant::now() + MINUTE, MINUTE);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            _ = minutes.tick() => {
                adapter.note_minute();
                continue;
            }
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, addr)) if connections.len() >= config.connections_max => {
                metrics.http.refuse();
                tracing::warn!(client = %addr, "HTTP connection refused: --connections-max reached");
                connections.spawn(refuse(stream));
            }
            Ok((stream, addr)) => {
                // Without it answers only come later.
                let _ = stream.set_nodelay(true);
                let (service, stopping, metrics) = (service.clone(), stopping.clone(), Arc::clone(&metrics));
                let stream = Stalling { stream, stall: config.output_stall, waits: None };
                connections.spawn(async move {
                    metrics.http.open();
                    let mut builder = http1::Builder::new();
                    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    if let Err(error) = run(connection, stopping).await {
                        tracing::debug!(client = %addr, %error, "HTTP connection lost");
                    }
                    metrics.http.close();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
    adapter.watchers.close();
    drop(stop);
    let drained = tokio::time::timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "HTTP connections cut off: they did not end in time");
    }
}

type Connection = http1::Connection<TokioIo<Stalling>, TowerToHyperService<axum::Router>>;

/// Serves a connection; once the server stops, only to the end of its request.
async fn run(connection: Connection, mut stopping: watch::Receiver<()>) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    tokio::select! {
        done = connection.as_mut() => return done,
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn refuse(mut stream: TcpStream) {
    // Whether it is heard makes no difference.
    let _ = stream.write_all(REFUSAL).await;
}

/// A stream that fails when nothing can be written for too long.
struct Stalling {
    stream: TcpStream,
    stall: Duration,
    waits: Option<Pin<Box<Sleep>>>,
}

impl Stalling {
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

impl AsyncRead for Stalling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
