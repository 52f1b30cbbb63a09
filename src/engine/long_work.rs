//! Long work on a thread that also serves other tasks: a script, or work on very many elements.
//!
//! Guarantees: while the work runs, the other tasks of its thread are served by another one, even
//! if the runtime has only this one. Not here: what they may do meanwhile.

use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::journal::leave_commits;

/// Elements of a value that are visited at once: under the guard of the key, and on a thread that
/// serves other connections, too. This takes about a millisecond.
pub const ELEMENTS_AT_ONCE_MAX: usize = 16_384;

/// How long a script waits for another thread to take over the tasks of its own. Usually this takes
/// some ten microseconds, on a busy machine longer.
const TAKE_OVER: Duration = Duration::from_millis(200);

/// Runs work that takes long. Another thread can take over the tasks of this one until its end.
#[cold]
pub fn run_long<R>(work: impl FnOnce() -> R) -> R {
    if !has_tasks_to_leave() {
        return work();
    }
    // This thread does not park before the work has ended, and perhaps not then.
    leave_commits();
    block_in_place(work)
}

/// Runs work that visits this many elements, with [`run_long`] if they are very many.
pub fn visit_elements<R>(elements: usize, work: impl FnOnce() -> R) -> R {
    if elements > ELEMENTS_AT_ONCE_MAX { run_long(work) } else { work() }
}

/// Leaves the other tasks of this thread to another thread until the task that runs now returns to
/// the runtime. For work that is found to be long only when it is half done: where that is known
/// before, [`run_long`] waits for nothing.
#[cold]
pub fn leave_other_tasks() {
    if !has_tasks_to_leave() {
        return;
    }
    run_long(|| {
        // The runtime takes the tasks back if no other thread has them at the end of this closure.
        let (served, is_served) = mpsc::sync_channel(1);
        tokio::spawn(async move { served.send(()) });
        // If no thread is free, the tasks have to wait.
        let _ = is_served.recv_timeout(TAKE_OVER);
    });
}

/// Whether this thread belongs to a runtime that can give its tasks to another one.
fn has_tasks_to_leave() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn the_only_thread_of_a_runtime_serves_others_until_long_work_ends() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let worked = runtime.spawn(async {
            let (serve, served) = mpsc::channel();
            let other = tokio::spawn(async move { serve.send(()).unwrap() });
            // The work waits for the other task.
            let found = visit_elements(ELEMENTS_AT_ONCE_MAX + 1, || {
                run_long(|| served.recv_timeout(Duration::from_secs(60)))
            });
            other.await.unwrap();
            found
        });
        assert_eq!(runtime.block_on(worked).unwrap(), Ok(()));
    }

    #[test]
    fn without_another_thread_long_work_runs_where_it_is() {
        assert_eq!(run_long(|| 1), 1);
        let runtime = Builder::new_current_thread().build().unwrap();
        let worked = runtime.block_on(async {
            leave_other_tasks();
            run_long(|| std::thread::current().id())
        });
        assert_eq!(worked, std::thread::current().id());
    }
}
