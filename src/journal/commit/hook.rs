//! Commits on the threads of the runtime, each when it has no ready task left, or at once where one
//! task is all that it has to do.
//!
//! Guarantees: a commit that was scheduled is made when its thread parks, by this thread or by the
//! one that is asked or already commits; threads that do not call the hook leave theirs to the
//! commit thread. Not here: the commit itself.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::committer::Committer;
use super::sync::thread_local;

thread_local! {
    /// The journal whose barriers wait on this thread.
    static SCHEDULED: RefCell<Option<Arc<Committer>>> = const { RefCell::new(None) };
    /// [`commit_before_park`] is called on this thread.
    static IS_HOOKED: Cell<bool> = const { Cell::new(false) };
    /// Barriers that had to wait and were polled on this thread since it last parked.
    static POLLS: Cell<u32> = const { Cell::new(u32::MAX) };
    /// At most one such barrier was polled between the last two parks.
    static IS_CALM: Cell<bool> = const { Cell::new(false) };
}

/// Commits the records that barriers polled on this thread wait for. May block for one commit. For
/// the runtime to call whenever a thread is about to park.
pub fn commit_before_park() {
    IS_HOOKED.with(|is_hooked| is_hooked.set(true));
    let polls = POLLS.with(|polls| polls.replace(0));
    IS_CALM.with(|is_calm| is_calm.set(polls <= 1));
    if let Some(committer) = SCHEDULED.with(RefCell::take) {
        committer.commit_on_caller();
    }
}

/// Leaves the commits that are scheduled on this thread, and those to come until the next
/// [`commit_before_park`], to the commit thread. For a thread that will not park for long.
pub fn leave_commits() {
    IS_HOOKED.with(|is_hooked| is_hooked.set(false));
    if let Some(committer) = SCHEDULED.with(RefCell::take) {
        committer.queue.request_commit();
    }
}

/// Notes that a barrier is polled that has to wait, or had to. Returns whether its task seems to be the
/// only one of this thread that is ready: it is the first since the thread parked, and there was at
/// most one between the two parks before. It may then commit at once: probably no other record would
/// join the commit before the thread parks. If it is wrong, the other tasks wait for one commit.
pub(super) fn note_poll() -> bool {
    let polls = POLLS.with(|polls| polls.replace(polls.get().saturating_add(1)));
    polls == 0 && is_hooked() && IS_CALM.with(Cell::get)
}

/// Schedules a commit: on this thread before it parks, else on the commit thread.
pub(super) fn schedule_commit(committer: &Arc<Committer>) {
    let is_scheduled_here = is_hooked()
        && SCHEDULED.with(|scheduled| {
            Arc::ptr_eq(scheduled.borrow_mut().get_or_insert_with(|| Arc::clone(committer)), committer)
        });
    if !is_scheduled_here {
        committer.queue.request_commit();
    }
}

/// Runs `work`, which calls [`commit_before_park`] before it parks the thread.
pub(super) fn with_hook<R>(work: impl FnOnce() -> R) -> R {
    let was_hooked = IS_HOOKED.with(|is_hooked| is_hooked.replace(true));
    let result = work();
    IS_HOOKED.with(|is_hooked| is_hooked.set(was_hooked));
    result
}

/// Whether this thread calls [`commit_before_park`].
pub(super) fn is_hooked() -> bool {
    IS_HOOKED.with(Cell::get)
}
