//! The thread that ends leases on time when no request does.
//!
//! Guarantees: it sleeps until the next deadline, and is woken when an earlier one is armed.
//! However many leases end together, it leaves half of its processor, and most of each commit, to
//! requests. Not here: what ends, and how.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::Engine;

/// Pause while the journal is down: what is due stays due until it is up.
const DOWN_PAUSE: Duration = Duration::from_millis(50);
/// Longest sleep. Arming a deadline further away than this does not wake the thread.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The running thread; it ends when this is dropped.
pub struct Expiry {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Expiry {
    /// Starts the thread.
    pub fn start(engine: &Arc<Engine>) -> std::io::Result<Expiry> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (engine, over) = (Arc::clone(engine), Arc::clone(&is_over));
        let thread = std::thread::Builder::new().name("octostore-expiry".into()).spawn(move || {
            let alarm = &engine.core.deadlines.alarm;
            alarm.sleeper_is(std::thread::current());
            while !over.load(Ordering::Acquire) {
                // Whatever is armed from here on cuts the sleep short, until it is known how long
                // that is.
                alarm.set(u64::MAX);
                let began = engine.core.clock.now();
                let next = engine.expire_due();
                let now = engine.core.clock.now();
                let mut sleep = Duration::from_nanos(next.nanos_since(now)).min(SLEEP_MAX);
                if engine.journal_down().is_some() {
                    sleep = sleep.max(DOWN_PAUSE);
                } else if sleep.is_zero() {
                    // There is more, and requests go before: what has ended has ended for them,
                    // swept or not. No alarm is needed meanwhile.
                    alarm.set(0);
                    engine.wait_for_commit();
                    std::thread::park_timeout(Duration::from_nanos(now.nanos_since(began)));
                    continue;
                }
                alarm.set(now.as_nanos() + sleep.as_nanos() as u64);
                std::thread::park_timeout(sleep);
            }
        })?;
        Ok(Expiry { is_over, thread: Some(thread) })
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}
