//! Deadlines, and the thread that acts on them.

mod index;
mod thread;

pub(super) use self::index::*;
pub use self::thread::Expiry;
