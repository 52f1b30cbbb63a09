//! The queues of blocked pops: which requests wait for which keys, and which keys have something.
//!
//! Guarantees: a request is in the queue of each of its keys, in order of arrival, until it is
//! claimed once. Every wait ends at its time. Costs one atomic load a change while nothing waits.
//! Not here: elements, outcomes.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Waiters;
use super::pop::PopRequest;
use crate::domain::{LockName, Timestamp, WaiterId};
use crate::value::Kind;

/// Keys for which one request can wait.
pub const WAITED_KEYS_MAX: usize = 1024;

/// Memory of a waiter and of each of its places in queues, besides the names of its keys.
const WAITER_BYTES: usize = 256;
const PLACE_BYTES: usize = 128;

/// The queues of all keys.
#[derive(Default)]
pub(in crate::engine) struct PopQueues {
    /// The number of waiters.
    count: AtomicUsize,
    bytes: AtomicU64,
    /// Whether [`State::ready`] has keys.
    has_ready: AtomicBool,
    /// A thread takes keys from [`State::ready`] and serves them.
    is_serving: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiters: HashMap<WaiterId, Waiter>,
    queues: HashMap<LockName, Queue>,
    timeouts: BTreeSet<(Timestamp, WaiterId)>,
    /// Keys that have got something for their queues, in the order in which they got it.
    ready: VecDeque<LockName>,
}

struct Waiter {
    request: Arc<PopRequest>,
    until: Timestamp,
}

/// Those who wait for one key. Ids ascend, so their order is that of arrival.
#[derive(Default)]
struct Queue {
    lists: BTreeSet<WaiterId>,
    sorted_sets: BTreeSet<WaiterId>,
    /// The key is in [`State::ready`].
    is_ready: bool,
}

/// The first request in a queue.
pub(super) enum First {
    /// There is none.
    None,
    /// It moves an element to another key.
    Move,
    /// It has left all its queues.
    Claimed(WaiterId, Arc<PopRequest>),
}

/// The right to serve, until it is dropped.
pub(super) struct Serving<'a>(&'a PopQueues);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.is_serving.store(false, Ordering::SeqCst);
    }
}

impl Queue {
    fn of(&mut self, kind: Kind) -> &mut BTreeSet<WaiterId> {
        match kind {
            Kind::SortedSet => &mut self.sorted_sets,
            _ => &mut self.lists,
        }
    }

    fn len(&self) -> usize {
        self.lists.len() + self.sorted_sets.len()
    }
}

impl Waiter {
    fn bytes(&self) -> u64 {
        let names: usize = self.request.keys.iter().map(|name| PLACE_BYTES + 2 * name.as_bytes().len()).sum();
        (WAITER_BYTES + names) as u64
    }
}

impl PopQueues {
    /// The number of requests that wait.
    pub(in crate::engine) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// About how many bytes of memory they take.
    pub(in crate::engine) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Puts a request at the end of the queue of each of its keys. Returns `false` if one of them
    /// has `max` waiters. Call it under the guards of these keys.
    pub(super) fn join(&self, id: WaiterId, request: &Arc<PopRequest>, until: Timestamp, max: usize) -> bool {
        let mut state = self.state.lock();
        let State { waiters, queues, timeouts, .. } = &mut *state;
        if request.keys.iter().any(|name| queues.get(name).is_some_and(|queue| queue.len() >= max)) {
            return false;
        }
        for name in &request.keys {
            queues.entry(name.clone()).or_default().of(request.kind()).insert(id);
        }
        if until != Timestamp::NEVER {
            timeouts.insert((until, id));
        }
        let waiter = Waiter { request: Arc::clone(request), until };
        self.bytes.fetch_add(waiter.bytes(), Ordering::Relaxed);
        waiters.insert(id, waiter);
        self.count.store(waiters.len(), Ordering::SeqCst);
        true
    }

    /// Takes a request out of all its queues. Returns `None` if it was claimed before.
    pub(super) fn remove(&self, id: WaiterId) -> Option<Arc<PopRequest>> {
        self.take(&mut self.state.lock(), id)
    }

    fn take(&self, state: &mut State, id: WaiterId) -> Option<Arc<PopRequest>> {
        let waiter = state.waiters.remove(&id)?;
        for name in &waiter.request.keys {
            // A key that the request names twice is gone the second time.
            let Some(queue) = state.queues.get_mut(name) else { continue };
            queue.of(waiter.request.kind()).remove(&id);
            if queue.len() == 0 {
                state.queues.remove(name);
            }
        }
        state.timeouts.remove(&(waiter.until, id));
        self.bytes.fetch_sub(waiter.bytes(), Ordering::Relaxed);
        self.count.store(state.waiters.len(), Ordering::SeqCst);
        Some(waiter.request)
    }

    /// Claims the first request that waits for an element of a `kind` of value at a key, unless it
    /// moves the element elsewhere and `moves` is false. Requests whose clients are gone leave.
    pub(super) fn claim_first(&self, name: &LockName, kind: Kind, waiters: &Waiters, moves: bool) -> First {
        let mut state = self.state.lock();
        loop {
            let queue = state.queues.get_mut(name);
            let Some(id) = queue.and_then(|queue| queue.of(kind).first().copied()) else {
                return First::None;
            };
            let is_there = waiters.is_there(id);
            if is_there
                && !moves
                && state.waiters.get(&id).is_some_and(|waiter| waiter.request.moves_elsewhere())
            {
                return First::Move;
            }
            match self.take(&mut state, id) {
                Some(request) if is_there => return First::Claimed(id, request),
                _ => {}
            }
        }
    }

    /// Whether requests wait for an element of a `kind` of value at a key.
    pub(super) fn is_awaited(&self, name: &LockName, kind: Kind) -> bool {
        self.len() > 0
            && self.state.lock().queues.get_mut(name).is_some_and(|queue| !queue.of(kind).is_empty())
    }

    /// Notes that a key has something for its queue, if it has one. Call it under the guard of the
    /// key.
    pub(in crate::engine) fn signal(&self, name: &LockName, kind: Kind) {
        if self.len() == 0 || !matches!(kind, Kind::List | Kind::SortedSet) {
            return;
        }
        let mut state = self.state.lock();
        let State { queues, ready, .. } = &mut *state;
        if let Some(queue) = queues.get_mut(name)
            && !queue.of(kind).is_empty()
            && !std::mem::replace(&mut queue.is_ready, true)
        {
            ready.push_back(name.clone());
            self.has_ready.store(true, Ordering::SeqCst);
        }
    }

    /// Whether a key has something for its queue.
    pub(in crate::engine) fn has_ready(&self) -> bool {
        self.has_ready.load(Ordering::SeqCst)
    }

    /// Takes the right to serve; `None` if another thread has it.
    pub(super) fn begin_serving(&self) -> Option<Serving<'_>> {
        (!self.is_serving.swap(true, Ordering::SeqCst)).then(|| Serving(self))
    }

    /// The next key to serve.
    pub(super) fn next_ready(&self) -> Option<LockName> {
        let mut state = self.state.lock();
        let name = state.ready.pop_front();
        if let Some(queue) = name.as_ref().and_then(|name| state.queues.get_mut(name)) {
            queue.is_ready = false;
        }
        self.has_ready.store(!state.ready.is_empty(), Ordering::SeqCst);
        name
    }

    /// Puts a key that was not served to the end back to the front.
    pub(super) fn put_back(&self, name: LockName) {
        let mut state = self.state.lock();
        let State { queues, ready, .. } = &mut *state;
        if let Some(queue) = queues.get_mut(&name)
            && !std::mem::replace(&mut queue.is_ready, true)
        {
            ready.push_front(name);
            self.has_ready.store(true, Ordering::SeqCst);
        }
    }

    /// Takes out at most `max` of the requests whose time is over.
    pub(super) fn take_due(&self, now: Timestamp, max: usize) -> Vec<WaiterId> {
        if self.len() == 0 {
            return Vec::new();
        }
        let mut state = self.state.lock();
        let is_due = |(until, _): &&(Timestamp, WaiterId)| *until <= now;
        let due: Vec<WaiterId> =
            state.timeouts.iter().take_while(is_due).take(max).map(|(_, id)| *id).collect();
        due.into_iter().filter(|id| self.take(&mut state, *id).is_some()).collect()
    }

    /// When the next wait is over.
    pub(super) fn next_timeout(&self) -> Timestamp {
        if self.len() == 0 {
            return Timestamp::NEVER;
        }
        self.state.lock().timeouts.first().map_or(Timestamp::NEVER, |(until, _)| *until)
    }

    /// Empties all queues.
    pub(in crate::engine) fn clear(&self) {
        let mut state = self.state.lock();
        *state = State::default();
        self.count.store(0, Ordering::SeqCst);
        self.bytes.store(0, Ordering::Relaxed);
        self.has_ready.store(false, Ordering::SeqCst);
    }
}

/// Removes keys that are named again, which are waited for once.
pub(super) fn without_repetitions(keys: Vec<LockName>) -> Vec<LockName> {
    if keys.len() < 2 {
        return keys;
    }
    let mut seen = HashSet::new();
    keys.into_iter().filter(|name| seen.insert(name.clone())).collect()
}
