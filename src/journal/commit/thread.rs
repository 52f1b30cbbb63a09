//! The commit thread.
//!
//! Guarantees: it makes every commit that is requested, and those that nothing else makes; while
//! nothing is committed, the backend is verified and does its maintenance; after a failure it
//! rebuilds the state until that works, unless no retry can help. It ends only when the journal is
//! closed. Not here: how a commit is made.

use std::time::Duration;

use super::committer::{Committer, log_failure};
use super::journal::Durability;
use super::queue::{CommitQueue, QueueState};
use super::sync::MutexGuard;

/// First pause between two attempts to recover from a failed commit; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How often the commit thread looks for records that no other thread commits, while there are any.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// After this time without a commit, the backend does its maintenance.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// How often the backend verifies itself while nothing is committed.
const VERIFY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Commit,
    Maintain,
    Verify,
    Recover,
    End,
}

impl Committer {
    /// Runs the commit thread.
    pub(super) fn run(&self, durability: Durability) {
        let mut is_idle = false;
        loop {
            let work = self.queue.wait_for_work(durability, is_idle);
            is_idle = work == Work::Verify;
            match work {
                Work::Commit => self.commit(),
                Work::Maintain => self.maintain(),
                Work::Verify => self.verify(),
                Work::Recover => self.recover(),
                Work::End if self.is_at_rest() => return,
                Work::End => {}
            }
        }
    }

    /// Waits for the commit of a caller, which may put its batch back. Returns whether nothing is
    /// left to commit.
    fn is_at_rest(&self) -> bool {
        let _writer = self.writer.lock();
        !self.queue.lock().has_records()
    }

    fn verify(&self) {
        let mut writer = self.writer.lock();
        if let Err(error) = writer.backend.verify() {
            self.fail(0, error);
        }
        drop(writer);
        self.wake_next();
    }

    fn maintain(&self) {
        let mut writer = self.writer.lock();
        let has_more = match writer.backend.maintain() {
            Ok(has_more) => has_more,
            Err(error) if !error.is_retryable() => {
                // Fenced, or the database is damaged: what is committed from here on could be lost.
                self.fail(0, error);
                false
            }
            Err(error) => {
                // It changes nothing; the next commit allows another attempt.
                tracing::warn!(%error, "maintenance of the database failed; nothing is lost, it is tried again");
                false
            }
        };
        // Before another commit, which allows maintenance again.
        self.queue.lock().has_maintenance = has_more;
        drop(writer);
        self.wake_next();
    }

    /// Rebuilds the state from what is durable until that works, or the journal is closed.
    fn recover(&self) {
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        let epoch = self.queue.lock().epoch;
        let mut pause = RETRY_MIN;
        while let Some(error) = self.queue.down() {
            writer.state.suspend();
            if error.is_retryable() {
                match writer.state.rebuild(writer.backend.as_mut(), epoch) {
                    Ok(()) => {
                        self.queue.reopen();
                        tracing::info!("storage works again; every lock is as it was last committed");
                        return;
                    }
                    Err(now) => {
                        if now != error {
                            log_failure(&now);
                        }
                        self.queue.lock().down = Some(now);
                    }
                }
            }
            let mut queue = self.queue.lock();
            self.queue.changed.wait_while_for(&mut queue, |queue| !queue.is_closing, pause);
            if queue.is_closing {
                return;
            }
            drop(queue);
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

/// What the commit thread saw when it last looked at the queue.
struct LastLook {
    batches: u64,
    has_records: bool,
    /// How long there has been nothing to commit.
    quiet_for: Duration,
}

impl CommitQueue {
    fn wait_for_work(&self, durability: Durability, is_idle: bool) -> Work {
        let poll_interval = match durability {
            Durability::Interval(interval) => interval,
            Durability::Always | Durability::Memory => POLL_INTERVAL,
        };
        let mut queue = self.lock();
        let quiet_for = if is_idle { IDLE_AFTER } else { Duration::ZERO };
        let mut look = LastLook { batches: queue.batches, has_records: false, quiet_for };
        loop {
            if let Some(work) = look.work_in(&queue, durability) {
                return work;
            }
            look.update(&queue);
            if look.quiet_for < IDLE_AFTER {
                self.changed.wait_while_for(&mut queue, |queue| !queue.has_work(), poll_interval);
                look.quiet_for += poll_interval;
            } else if queue.has_maintenance {
                return Work::Maintain;
            } else if self.sleeps_through(&mut queue) {
                return Work::Verify;
            } else {
                look.quiet_for = Duration::ZERO;
            }
        }
    }

    /// Sleeps until something happens, or until it is time to verify. Returns whether nothing
    /// happened.
    fn sleeps_through(&self, queue: &mut MutexGuard<'_, QueueState>) -> bool {
        let nothing_happens =
            |queue: &QueueState| queue.is_asleep && !queue.is_closing && queue.down.is_none();
        queue.is_asleep = true;
        self.changed.wait_while_for(queue, |queue| nothing_happens(queue), VERIFY_INTERVAL);
        let is_quiet = nothing_happens(queue);
        queue.is_asleep = false;
        is_quiet
    }
}

impl QueueState {
    /// Whether the commit thread has to act now, whatever it saw before.
    fn has_work(&self) -> bool {
        let is_over = self.is_closing && !self.has_records();
        let is_requested = self.may_commit() && (self.is_urgent || self.is_closing);
        self.down.is_some() || is_over || is_requested
    }
}

impl LastLook {
    /// What is to be done now.
    fn work_in(&self, queue: &QueueState, durability: Durability) -> Option<Work> {
        if queue.down.is_some() {
            return Some(if queue.is_closing { Work::End } else { Work::Recover });
        }
        if queue.is_closing && !queue.has_records() {
            return Some(Work::End);
        }
        let is_due = match durability {
            // The records have been there since the last look: no barrier waits for them.
            Durability::Always | Durability::Memory => self.has_records && queue.batches == self.batches,
            Durability::Interval(interval) => self.quiet_for >= interval,
        };
        (queue.may_commit() && (is_due || queue.has_work())).then_some(Work::Commit)
    }

    /// Remembers what there is now.
    fn update(&mut self, queue: &QueueState) {
        let has_records = queue.has_records();
        if has_records || queue.batches != self.batches {
            self.quiet_for = Duration::ZERO;
        }
        (self.batches, self.has_records) = (queue.batches, has_records);
    }
}
