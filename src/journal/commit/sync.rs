//! The primitives that group commit synchronises with.
//!
//! Not here: anything else. `tests/commit_model` replaces this file by the primitives of loom,
//! which tries every interleaving.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64};
pub(super) use std::thread::{Builder, JoinHandle, Thread, current, park};
pub(super) use std::thread_local;

pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
