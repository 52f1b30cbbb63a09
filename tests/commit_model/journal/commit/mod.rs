//! The files of `src/journal/commit`, on other primitives.

#[path = "../../../../src/journal/commit/barrier.rs"]
mod barrier;
#[path = "../../../../src/journal/commit/batch_limit.rs"]
mod batch_limit;
#[path = "../../../../src/journal/commit/committer.rs"]
mod committer;
#[path = "../../../../src/journal/commit/hook.rs"]
mod hook;
#[path = "../../../../src/journal/commit/journal.rs"]
mod journal;
#[path = "../../../../src/journal/commit/queue.rs"]
mod queue;
mod sync;
#[path = "../../../../src/journal/commit/thread.rs"]
mod thread;

pub(crate) use barrier::Barrier;
pub(crate) use committer::{Recover, Stopwatch};
pub(crate) use hook::commit_before_park;
pub(crate) use journal::{Durability, Journal};
pub(crate) use queue::Seq;
