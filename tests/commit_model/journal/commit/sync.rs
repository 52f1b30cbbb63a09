//! What `src/journal/commit/sync.rs` offers, with the primitives of loom.
//!
//! A wait never times out here, so a wake-up that is lost is not hidden by the next look of the
//! commit thread: it is a deadlock, which loom reports.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64};
pub(super) use loom::thread::{Builder, JoinHandle};

macro_rules! loom_thread_local {
    ($($(#[$doc:meta])* static $name:ident: $type:ty = const { $initial:expr };)+) => {
        loom::thread_local! { $($(#[$doc])* static $name: $type = $initial;)+ }
    };
}
pub(super) use loom_thread_local as thread_local;

/// A handle that wakes a thread. The threads of loom forget that they were unparked when they wait
/// for a mutex before they park; these do not.
#[derive(Clone)]
pub(super) struct Thread(Arc<Token>);

struct Token {
    is_unparked: Mutex<bool>,
    changed: Condvar,
}

loom::thread_local! {
    static THREAD: Thread = Thread(Arc::new(Token { is_unparked: Mutex::new(false), changed: Condvar::new() }));
}

pub(super) fn current() -> Thread {
    THREAD.with(Thread::clone)
}

pub(super) fn park() {
    let Thread(token) = current();
    let mut is_unparked = token.is_unparked.lock();
    token.changed.wait_while_for(&mut is_unparked, |is_unparked| !*is_unparked, Duration::MAX);
    *is_unparked = false;
}

impl Thread {
    pub(super) fn unpark(&self) {
        *self.0.is_unparked.lock() = true;
        self.0.changed.notify_one();
    }
}

#[derive(Debug)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().expect("loom poisons no mutex")))
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(|guard| MutexGuard(Some(guard)))
    }
}

/// Empty only while [`Condvar`] waits.
pub(super) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("not waiting")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("not waiting")
    }
}

#[derive(Debug)]
pub(super) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(super) fn new() -> Condvar {
        Condvar(loom::sync::Condvar::new())
    }

    pub(super) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        _timeout: Duration,
    ) {
        while condition(&mut *guard) {
            let held = guard.0.take().expect("not waiting");
            guard.0 = Some(self.0.wait(held).expect("loom poisons no mutex"));
        }
    }

    pub(super) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(super) fn notify_all(&self) {
        self.0.notify_all();
    }
}
