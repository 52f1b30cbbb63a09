//! Views that follow the state of the server: one JSON object, or a stream of them.
//!
//! Guarantees: a frame is made only when the reader has taken the one before it, so a slow reader
//! skips states, and at most one frame is kept for it. Credentials and permissions are checked again
//! before each frame. The number of streams is bounded. Not here: what the views show.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::error::ApiError;
use super::users::{Caller, KeptCaller, User};
use super::{HttpState, body};
use crate::engine::{Engine, Interest};

/// Streams at once.
const STREAMS_MAX: usize = 64;
/// Time between two looks at what a stream shows.
const TICK: Duration = Duration::from_millis(250);
/// A stream without changes has a comment after this time, so that both sides notice a loss.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The streams that are open.
pub(super) struct Streams {
    places: Arc<Semaphore>,
    stop: watch::Sender<bool>,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams { places: Arc::new(Semaphore::new(STREAMS_MAX)), stop: watch::Sender::new(false) }
    }
}

impl Streams {
    /// Number of open streams.
    pub(super) fn len(&self) -> usize {
        STREAMS_MAX - self.places.available_permits()
    }

    /// Ends all streams, and those that begin later.
    pub(super) fn close(&self) {
        self.stop.send_replace(true);
    }
}

/// The events of one frame.
#[derive(Default)]
pub(super) struct Frame(String);

impl Frame {
    /// Adds an event.
    pub(super) fn push(&mut self, event: &str, data: &impl Serialize) {
        // JSON can represent all views, and has no line breaks.
        let Ok(data) = serde_json::to_string(data) else { return };
        for text in ["event: ", event, "\ndata: ", &data, "\n\n"] {
            self.0.push_str(text);
        }
    }
}

/// Something that changes and is shown.
pub(super) trait View: Send + Sized + 'static {
    /// Adds what has changed since the frame before to `frame`.
    fn advance(
        &mut self,
        state: &Arc<HttpState>,
        user: &Arc<User>,
        frame: &mut Frame,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// The view once, as a JSON object.
    fn once(
        self,
        state: &Arc<HttpState>,
        user: &Arc<User>,
    ) -> impl Future<Output = Result<Response, ApiError>> + Send;
}

/// Answers a request for a view: with a stream if that is what it accepts.
pub(super) async fn answer(
    state: Arc<HttpState>,
    parts: &Parts,
    user: Arc<User>,
    view: impl View,
) -> Result<Response, ApiError> {
    let accepted = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !accepted.to_ascii_lowercase().contains("text/event-stream") {
        return view.once(&state, &user).await;
    }
    let place = Arc::clone(&state.streams.places).try_acquire_owned();
    let place = place.map_err(|_| {
        ApiError::no_capacity(&format!("at most {STREAMS_MAX} streams of keys are open at once"))
    })?;
    let (sender, receiver) = mpsc::channel(1);
    let caller = Caller::of(parts).keep();
    tokio::spawn(async move {
        let _place = place;
        let _listening = Listening::new(&state.engine);
        let mut stop = state.streams.stop.subscribe();
        tokio::select! {
            () = follow(&state, &caller, view, &sender) => {}
            () = sender.closed() => {}
            _ = stop.wait_for(|stops| *stops) => {}
        }
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((StatusCode::OK, headers, Body::from_stream(Frames(receiver))).into_response())
}

/// Sends frames until the reader is gone or may not see more.
async fn follow(
    state: &Arc<HttpState>,
    caller: &KeptCaller,
    mut view: impl View,
    sender: &mpsc::Sender<Bytes>,
) {
    let mut server = super::overview::Overview::default();
    let (mut last, mut is_available) = (Instant::now(), true);
    loop {
        let Ok(room) = sender.reserve().await else { return };
        let Ok(user) = state.users.authenticate(caller.caller()) else { return };
        let mut frame = Frame::default();
        server.advance(state, &user, &mut frame);
        match view.advance(state, &user, &mut frame).await {
            Ok(()) => is_available = true,
            Err(error) if error.is_internal() => {
                if is_available {
                    frame.push("unavailable", &error.body(""));
                }
                is_available = false;
            }
            // A new request tells the reader why.
            Err(_) => return,
        }
        if frame.0.is_empty() && last.elapsed() >= KEEP_ALIVE {
            frame.0.push_str(":\n\n");
        }
        if !frame.0.is_empty() {
            room.send(frame.0.into());
            last = Instant::now();
        }
        tokio::time::sleep(TICK).await;
    }
}

/// A view as the response to a request that wants it once.
pub(super) fn json(view: &impl Serialize) -> Response {
    body::json(StatusCode::OK, view)
}

/// While it exists, events of leases are made.
struct Listening(Arc<Engine>);

impl Listening {
    fn new(engine: &Arc<Engine>) -> Listening {
        engine.listen(Interest::Leases, true);
        Listening(Arc::clone(engine))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listen(Interest::Leases, false);
    }
}

/// The frames of one reader.
struct Frames(mpsc::Receiver<Bytes>);

impl Stream for Frames {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}
