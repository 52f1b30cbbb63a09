//! Frees the memory of large values on a thread of its own.
//!
//! Guarantees: dropping a value under a guard costs no more than dropping a small one. The thread
//! starts with the first large value. Not here: when a value ends.

use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};

use crate::engine::keyspace::KeyedValue;

/// Values with at most this number of elements are dropped at once.
const SMALL_ELEMENTS_MAX: usize = 64;

/// Takes values that are to be dropped.
#[derive(Default)]
pub(in crate::engine) struct Reclaimer {
    /// `None` inside: the thread did not start, so values are dropped where they end.
    queue: OnceLock<Option<Sender<Box<KeyedValue>>>>,
}

impl Reclaimer {
    pub(super) fn discard(&self, keyed: Box<KeyedValue>) {
        if keyed.value.len() <= SMALL_ELEMENTS_MAX {
            return;
        }
        if let Some(queue) = self.queue.get_or_init(start) {
            // It ends only after this queue does.
            let _ = queue.send(keyed);
        }
    }
}

/// The thread ends when the queue is dropped.
fn start() -> Option<Sender<Box<KeyedValue>>> {
    let (queue, discarded) = mpsc::channel();
    let thread = std::thread::Builder::new().name("octostore-reclaim".into());
    match thread.spawn(move || discarded.into_iter().for_each(drop)) {
        Ok(_) => Some(queue),
        Err(error) => {
            tracing::warn!("cannot start the thread that frees large values: {error}");
            None
        }
    }
}
