//! The thread that runs long work: a script, or a read of very many elements.
//!
//! Guarantees: while the work runs, the other tasks of its thread are served, even if the runtime
//! has only this one. Not here: what they may do meanwhile.

use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::engine::leave_commits;

/// How long the work waits for another thread to take over the tasks of its own. Usually this takes
/// some ten microseconds, on a busy machine longer.
const TAKE_OVER: Duration = Duration::from_millis(200);

/// Leaves the other tasks of this thread to another thread, until the task that runs now returns to
/// the runtime.
#[cold]
pub(super) fn leave_other_tasks() {
    let Ok(runtime) = Handle::try_current() else { return };
    if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
        return;
    }
    // It will not park before the work has ended, and perhaps not then.
    leave_commits();
    block_in_place(|| {
        // The runtime takes the tasks back if no other thread has them at the end of this closure.
        let (served, is_served) = mpsc::sync_channel(1);
        runtime.spawn(async move { served.send(()) });
        // If no thread is free, the tasks have to wait.
        let _ = is_served.recv_timeout(TAKE_OVER);
    });
}
