//! `/locks/{name}/watch`: what happens to a lock, as it happens.
//!
//! Promise: a snapshot, then every later change once, in order, each after it is durable; a reader that falls behind is cut
//! off, and costs the others nothing. Absent: replay.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;
use tokio::sync::mpsc;

use super::error::ApiError;
use super::{Adapter, names, times};
use crate::engine::{Engine, Event, EventKind};
use crate::lock::{FencingToken, LockName, Timestamp};

/// Events that wait for a reader before it is cut off.
const BEHIND_MAX: usize = 100;
/// Different names watched at once.
const NAMES_MAX: usize = 16_384;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A frame, and the number of the event it tells of.
type Frame = (u64, Arc<str>);
type Readers = HashMap<u64, mpsc::Sender<Frame>>;

/// Who watches what.
pub(super) struct Watchers {
    engine: Arc<Engine>,
    last_id: AtomicU64,
    /// `None` once the server stops.
    names: Mutex<Option<HashMap<LockName, Readers>>>,
}

impl Watchers {
    pub(super) fn new(engine: &Arc<Engine>) -> Arc<Watchers> {
        let names = Mutex::new(Some(HashMap::new()));
        Arc::new(Watchers { engine: Arc::clone(engine), last_id: AtomicU64::new(0), names })
    }

    fn names(&self) -> MutexGuard<'_, Option<HashMap<LockName, Readers>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many watch.
    pub(super) fn len(&self) -> usize {
        self.names().as_ref().map_or(0, |names| names.values().map(HashMap::len).sum())
    }

    fn join(self: &Arc<Self>, name: &LockName) -> Result<(Place, mpsc::Receiver<Frame>), ApiError> {
        let mut names = self.names();
        let Some(watched) = names.as_mut() else { return Err(ApiError::internal()) };
        if watched.len() >= NAMES_MAX && !watched.contains_key(name) {
            return Err(ApiError::no_capacity("as many locks are watched as may be"));
        }
        let (sender, receiver) = mpsc::channel(BEHIND_MAX);
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        watched.entry(name.clone()).or_default().insert(id, sender);
        self.engine.listen(true);
        Ok((Place { watchers: Arc::clone(self), name: name.clone(), id }, receiver))
    }

    pub(super) fn tell(&self, event: &Event) {
        let mut names = self.names();
        let Some(readers) = names.as_mut().and_then(|names| names.get_mut(&event.name)) else { return };
        let text: Arc<str> =
            frame(&self.engine, &event.name, event.kind, Some((event.token, event.deadline))).into();
        // Whoever has no room is behind; without a sender its stream ends.
        readers.retain(|_, reader| match reader.try_send((event.number, Arc::clone(&text))) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(lock = ?event.name, "watcher cut off: it does not read its events");
                false
            }
        });
    }

    /// Ends the streams of all who watch now. Returns how many there were.
    pub(super) fn cut_off(&self) -> usize {
        let watched = self.names().as_mut().map(std::mem::take).unwrap_or_default();
        watched.values().map(HashMap::len).sum()
    }

    /// Ends all streams, those to come included.
    pub(super) fn close(&self) {
        self.names().take();
    }
}

/// One reader's place among the watchers; it leaves when this is dropped.
struct Place {
    watchers: Arc<Watchers>,
    name: LockName,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.watchers.engine.listen(false);
        let mut names = self.watchers.names();
        let Some(names) = names.as_mut() else { return };
        if let Some(readers) = names.get_mut(&self.name) {
            readers.remove(&self.id);
            if readers.is_empty() {
                names.remove(&self.name);
            }
        }
    }
}

#[derive(Serialize)]
struct Change<'a> {
    event: &'static str,
    lock_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing_token: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    observed_at: String,
}

fn frame(
    engine: &Engine,
    name: &LockName,
    kind: EventKind,
    lease: Option<(FencingToken, Timestamp)>,
) -> String {
    let clock = engine.clock();
    let event = match kind {
        EventKind::Acquired => "acquired",
        EventKind::Renewed => "renewed",
        EventKind::Expired => "expired",
        EventKind::Released | EventKind::Forced => "released",
    };
    let lease = lease.filter(|_| matches!(kind, EventKind::Acquired | EventKind::Renewed));
    let change = Change {
        event,
        lock_name: &names::shown(name.key()),
        fencing_token: lease.map(|(token, _)| token.get()),
        expires_at: lease.map(|(_, deadline)| times::rfc3339(clock.wall_nanos_of(deadline))),
        observed_at: times::rfc3339(clock.wall_nanos_of(clock.now())),
    };
    // Texts and numbers only: JSON holds them all.
    serde_json::to_string(&change).unwrap_or_default()
}

/// The frames of one reader.
struct Frames {
    receiver: mpsc::Receiver<Frame>,
    snapshot: Option<String>,
    /// Events up to this one are in the snapshot.
    seen: u64,
    _place: Place,
}

impl Stream for Frames {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(snapshot) = self.snapshot.take() {
            return Poll::Ready(Some(Ok(sse::Event::default().data(snapshot))));
        }
        loop {
            match std::task::ready!(self.receiver.poll_recv(context)) {
                Some((number, _)) if number <= self.seen => {}
                Some((_, text)) => return Poll::Ready(Some(Ok(sse::Event::default().data(text)))),
                None => return Poll::Ready(None),
            }
        }
    }
}

pub(super) async fn watch(
    State(adapter): State<Arc<Adapter>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let name = names::segment(&parts)?;
    let user = adapter.users.authenticate(&parts.headers)?;
    let name = user.lock(&name)?;
    // First a place, then the snapshot: what happens between is in both, and told once.
    let (place, receiver) = adapter.watchers.join(&name)?;
    let (held, seen) = adapter
        .decide(|access| {
            access.read(&name, |slot, _| {
                let held = slot.newest().map(|lease| (lease.token, lease.deadline));
                (held, adapter.engine.last_event())
            })
        })
        .await?;
    let kind = if held.is_some() { EventKind::Acquired } else { EventKind::Released };
    let snapshot = Some(frame(&adapter.engine, &name, kind, held));
    let frames = Frames { receiver, snapshot, seen, _place: place };
    Ok(Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}
