//! Deadlines: the index of what ends when, the sweep that frees it, and its thread.
//!
//! The rules are elsewhere: leases end in `lock/transition/expiry.rs`, values in
//! `engine/values/expiry.rs`.

mod index;
mod sweep;
mod thread;

pub(super) use self::index::*;
pub use self::thread::Expiry;
