//! `/locks/{name}/watch`: a stream of the events of a lock.
//!
//! Guarantees: a snapshot, then every later change once, in order, each after it is durable. A
//! reader that falls behind a limit in bytes is disconnected; its queue is dropped at once, and
//! other readers are not delayed. Not here: replay.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::task::yield_now;

use super::error::ApiError;
use super::users::{Act, Caller, User};
use super::{HttpState, names, times};
use crate::domain::{FencingToken, LockName, Timestamp};
use crate::engine::{Engine, EventKind, Interest, LeaseEvent};

/// Size of the events queued for one reader, in bytes.
const BEHIND_BYTES_MAX: usize = 64 << 10;
/// Different names watched at once.
const NAMES_MAX: usize = 16_384;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Readers that are given an event before other tasks run.
const READERS_PER_STEP: usize = 128;

/// A frame and the number of its event.
type Frame = (u64, Arc<str>);
/// By id, which grows.
type Readers = BTreeMap<u64, Reader>;

/// The sending side of a reader's queue. The stream ends when this is dropped.
struct Reader(Arc<EventQueue>);

/// The frames queued for one reader.
#[derive(Default)]
struct EventQueue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    is_closed: bool,
    waker: Option<Waker>,
}

impl EventQueue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock()
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        let mut waiting = self.waiting();
        match waiting.frames.pop_front() {
            Some((number, text)) => {
                waiting.bytes -= size(&text);
                Poll::Ready(Some((number, text)))
            }
            None if waiting.is_closed => Poll::Ready(None),
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Bytes counted for a frame. Readers of the same lock share its text, but each counts it.
fn size(text: &Arc<str>) -> usize {
    text.len() + size_of::<Frame>()
}

impl Reader {
    /// Adds a frame. Without room, drops the queue and returns `false`.
    #[must_use]
    fn push(&self, number: u64, text: &Arc<str>) -> bool {
        let mut waiting = self.0.waiting();
        let has_room = waiting.bytes + size(text) <= BEHIND_BYTES_MAX;
        if has_room {
            waiting.bytes += size(text);
            waiting.frames.push_back((number, Arc::clone(text)));
        } else {
            waiting.frames = VecDeque::new();
            waiting.bytes = 0;
        }
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
        has_room
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.is_closed = true;
        let waker = waiting.waker.take();
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The readers of each watched lock.
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
        self.names.lock()
    }

    /// Number of readers.
    pub(super) fn len(&self) -> usize {
        self.names().as_ref().map_or(0, |names| names.values().map(BTreeMap::len).sum())
    }

    fn join(self: &Arc<Self>, name: &LockName) -> Result<(Place, Arc<EventQueue>), ApiError> {
        let mut names = self.names();
        let Some(watched) = names.as_mut() else { return Err(ApiError::internal()) };
        if watched.len() >= NAMES_MAX && !watched.contains_key(name) {
            return Err(ApiError::no_capacity("as many locks are watched as may be"));
        }
        let queue = Arc::new(EventQueue::default());
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        watched.entry(name.clone()).or_default().insert(id, Reader(Arc::clone(&queue)));
        self.engine.listen(Interest::Leases, true);
        Ok((Place { watchers: Arc::clone(self), name: name.clone(), id }, queue))
    }

    /// Gives an event to the readers of its lock; other tasks run in between.
    pub(super) async fn notify(&self, event: &LeaseEvent) {
        if !self.names().as_ref().is_some_and(|names| names.contains_key(&event.name)) {
            return;
        }
        let text: Arc<str> =
            event_json(&self.engine, &event.name, event.kind, Some((event.token, event.deadline))).into();
        let mut cut_off = 0;
        let mut next = Some(0);
        while let Some(first) = next {
            next = self.notify_some(event, &text, first, &mut cut_off);
            yield_now().await;
        }
        if cut_off > 0 {
            tracing::warn!(lock = ?event.name, watchers = cut_off, "watchers too slow: closing their streams");
        }
    }

    /// Gives an event to some readers, from the id `first` on, and adds the number of those without
    /// room to `cut_off`. Returns where to go on; `None`: that was all.
    fn notify_some(
        &self,
        event: &LeaseEvent,
        text: &Arc<str>,
        first: u64,
        cut_off: &mut usize,
    ) -> Option<u64> {
        let mut names = self.names();
        let readers = names.as_mut()?.get_mut(&event.name)?;
        let (mut last, mut without_room) = (first, Vec::new());
        for (id, reader) in readers.range(first..).take(READERS_PER_STEP) {
            last = *id;
            if !reader.push(event.number, text) {
                without_room.push(*id);
            }
        }
        for id in &without_room {
            readers.remove(id);
        }
        *cut_off += without_room.len();
        readers.range(last + 1..).next().map(|(id, _)| *id)
    }

    /// Ends all streams. Returns their number.
    pub(super) fn cut_off(&self) -> usize {
        let watched = self.names().as_mut().map(std::mem::take).unwrap_or_default();
        watched.values().map(BTreeMap::len).sum()
    }

    /// Ends all streams, and those that begin later.
    pub(super) fn close(&self) {
        self.names().take();
    }
}

/// A reader's registration; dropping it removes the reader.
struct Place {
    watchers: Arc<Watchers>,
    name: LockName,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.watchers.engine.listen(Interest::Leases, false);
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

fn event_json(
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
        // HTTP clients know no other event for an end that is not an expiry.
        EventKind::Released | EventKind::Forced | EventKind::Replaced => "released",
    };
    let lease = lease.filter(|_| matches!(kind, EventKind::Acquired | EventKind::Renewed));
    let change = Change {
        event,
        lock_name: &names::escape(name.key()),
        fencing_token: lease.map(|(token, _)| token.get()),
        expires_at: lease.map(|(_, deadline)| times::rfc3339(clock.wall_nanos_of(deadline))),
        observed_at: times::rfc3339(clock.wall_nanos_of(clock.now())),
    };
    // JSON can represent all texts and numbers.
    serde_json::to_string(&change).unwrap_or_default()
}

/// The frames of one reader.
struct Frames {
    queue: Arc<EventQueue>,
    snapshot: Option<String>,
    /// The snapshot includes the events up to this one.
    seen: u64,
    state: Arc<HttpState>,
    user: Arc<User>,
    /// The version of the users by which the user may watch.
    users_generation: u64,
    place: Place,
}

impl Frames {
    /// Whether the user may still watch. Asked before each event and keep-alive.
    fn is_allowed(&mut self) -> bool {
        let generation = self.state.users.generation();
        if generation == self.users_generation {
            return true;
        }
        self.users_generation = generation;
        self.state.users.still_may_inspect(&self.user, &self.place.name)
    }
}

impl Stream for Frames {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.is_allowed() {
            return Poll::Ready(None);
        }
        if let Some(snapshot) = self.snapshot.take() {
            return Poll::Ready(Some(Ok(sse::Event::default().data(snapshot))));
        }
        loop {
            match std::task::ready!(self.queue.poll(context)) {
                Some((number, _)) if number <= self.seen => {}
                Some((_, text)) => return Poll::Ready(Some(Ok(sse::Event::default().data(text)))),
                None => return Poll::Ready(None),
            }
        }
    }
}

pub(super) async fn watch(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let name = names::segment(&parts)?;
    let users_generation = state.users.generation();
    let user = state.users.authenticate(Caller::of(&parts))?;
    let name = user.lock(&state, &name, Act::INSPECT)?;
    // Join first, then take the snapshot: a change in between is in both and is sent once.
    let (place, queue) = state.watchers.join(&name)?;
    let (held, seen) = state
        .decide(|txn| {
            txn.read(&name, |slot, _| {
                let held = slot.newest().map(|lease| (lease.token, lease.deadline));
                (held, state.engine.last_event())
            })
        })
        .await?;
    let kind = if held.is_some() { EventKind::Acquired } else { EventKind::Released };
    let snapshot = Some(event_json(&state.engine, &name, kind, held));
    let frames = Frames { queue, snapshot, seen, state, user, users_generation, place };
    Ok(Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_of_a_reader_is_bounded_in_bytes_and_dropped_beyond() {
        let queue = Arc::new(EventQueue::default());
        let reader = Reader(Arc::clone(&queue));
        let text: Arc<str> = "x".repeat(1000 - size_of::<Frame>()).into();
        let fitting = BEHIND_BYTES_MAX / 1000;
        assert!((0..fitting).all(|number| reader.push(number as u64, &text)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(queue.poll(&mut context), Poll::Ready(Some((0, _)))));
        assert!(reader.push(0, &text), "what was read makes room");
        assert!(!reader.push(0, &text));
        let left = {
            let waiting = queue.waiting();
            (waiting.frames.len(), waiting.bytes)
        };
        assert_eq!(left, (0, 0));
        assert!(queue.poll(&mut context).is_pending());
        drop(reader);
        assert!(matches!(queue.poll(&mut context), Poll::Ready(None)));
    }
}
