//! Group commit: many requests, one transaction, one sync.
//!
//! Guarantees: sequence numbers follow the order of enqueueing; when one is durable, all before it
//! are; a barrier that resolves to `Ok` stands on synced storage, unless the durability mode asks
//! for less. Where another server can take over
//! ([`BackendTraits::reads_need_commit`]), what was read is revealed after a commit that began later.
//! After a failed commit nothing is accepted until the state was rebuilt from what is
//! durable. Not here: what records mean, async runtimes (barriers are plain futures).
//!
//! Who commits depends on the load:
//!
//! * **Small commits: the threads of the runtime.** A barrier parks its waker and schedules a
//!   commit on its thread. The runtime calls [`commit_before_park`] when a thread has no ready task
//!   left: the records of all its tasks become one commit, without the two thread switches that a
//!   commit thread costs. Where one task is all that a thread has to do, its barrier commits at once,
//!   without the detour through the runtime that parks the thread and wakes the task again.
//! * **Large commits: the commit thread**, so that requests are executed meanwhile. It also makes
//!   the small ones among them, until half the size of the last large one, a quarter of it, and so on
//!   is small, too. The first barrier yields once to the ready tasks of its thread, so that their records join the commit,
//!   and then requests it.
//! * **All commits: the commit thread**, while storage is slow or if the backend asks for it
//!   ([`BackendTraits::commit_on_caller`]). Storage that stalls therefore blocks a thread of the
//!   runtime once: all further commits are left to the commit thread until enough of them in a row
//!   have been fast.
//!
//! The commit thread also commits for threads without the hook, the records that no barrier waits
//! for and those of a thread that never parks. It waits for storage that another process has
//! locked, and it recovers from failures.
//!
//! | file | idea |
//! |---|---|
//! | `journal` | the handle that the engine holds |
//! | `queue` | records in order, open groups, what was taken and what failed |
//! | `batch_limit` | where the queue may be cut when a backend bounds its batches |
//! | `barrier` | futures that wait for a sequence number |
//! | `committer` | one commit: take a batch, write it, publish the result |
//! | `hook` | commits on the threads of the runtime |
//! | `thread` | the commit thread: timing, maintenance, recovery |
//! | `sync` | the primitives that all of these synchronise with |
//!
//! `tests/commit_model` compiles the same files with the primitives of a model checker.
//!
//! [`BackendTraits::commit_on_caller`]: crate::journal::BackendTraits::commit_on_caller
//! [`BackendTraits::reads_need_commit`]: crate::journal::BackendTraits::reads_need_commit

mod barrier;
mod batch_limit;
mod committer;
mod hook;
mod journal;
mod queue;
mod sync;
#[cfg(test)]
mod tests;
mod thread;

pub use barrier::{Barrier, OutcomeUnknown};
pub use committer::{Recover, Stopwatch};
pub use hook::{commit_before_park, leave_commits};
pub use journal::{Durability, Journal};
pub use queue::{CommitGroup, Seq};
