//! What a person at a terminal sees during a wait: the place in the queue, and who holds the lock.
//!
//! Guarantees: nothing is written unless stderr is a terminal. The line is gone when the wait is
//! over, and has no control characters of others.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::acquire::ANSWER_MAX;
use crate::cli::client::{Failure, Reply, Target, bytes, field, integer, items, text};
use crate::cli::{duration, output};

/// Between two looks at the queue.
const REFRESH: Duration = Duration::from_secs(1);

/// A line that is kept up to date until this is dropped.
pub(super) struct Progress {
    task: Option<JoinHandle<()>>,
    is_shown: Arc<AtomicBool>,
}

impl Progress {
    /// Shows how the wait of `owner` for `key` goes.
    pub(super) fn start(target: &Arc<Target>, key: &[u8], owner: &[u8]) -> Progress {
        let is_shown = Arc::new(AtomicBool::new(false));
        if !stderr().is_terminal() {
            return Progress { task: None, is_shown };
        }
        let (target, key, owner) = (Arc::clone(target), key.to_vec(), owner.to_vec());
        let shown = Arc::clone(&is_shown);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(REFRESH).await;
                // Without a connection, the request itself reports the error.
                let _ = follow(&target, &key, &owner, &shown).await;
            }
        });
        Progress { task: Some(task), is_shown }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if self.is_shown.load(Ordering::Relaxed) {
            output::erase_line();
        }
    }
}

async fn follow(target: &Target, key: &[u8], owner: &[u8], shown: &AtomicBool) -> Result<(), Failure> {
    let mut connection = target.connect(ANSWER_MAX).await?;
    loop {
        let info = connection.call_within(ANSWER_MAX, &[b"LOCKINFO", key]).await?;
        output::show_line(&describe(key, owner, &info));
        shown.store(true, Ordering::Relaxed);
        tokio::time::sleep(REFRESH).await;
    }
}

fn describe(key: &[u8], owner: &[u8], info: &Reply) -> String {
    let waiters = items(field(info, "waiters"));
    let is_own = |waiter: &Reply| field(waiter, "owner").is_some_and(|other| bytes(other) == owner);
    let total = integer(field(info, "waiters_total")).unwrap_or(0);
    let place = match waiters.iter().position(is_own) {
        Some(at) => format!("place {} of {total}", at + 1),
        None => format!("{total} waiting"),
    };
    let holders = match items(field(info, "holders")) {
        [] => "free".to_owned(),
        [first, others @ ..] => {
            let owner = output::printable(&field(first, "owner").map(text).unwrap_or_default());
            let millis = |name| field(first, name).and_then(|value| integer(Some(value)));
            let held = duration::format(u64::try_from(millis("held_ms").unwrap_or(0)).unwrap_or(0));
            let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            format!("held by {owner}{more} for {held}")
        }
    };
    format!("waiting for {}: {place}, {holders}", output::printable(&String::from_utf8_lossy(key)))
}
