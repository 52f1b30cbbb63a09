//! `CLIENT PAUSE`: requests that wait until the pause ends.
//!
//! Guarantees: a pause ends by itself. While there is none, a request costs one load. Not here:
//! connections, which do the waiting.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::{Args, Command, Flags, Group};
use crate::domain::Timestamp;

/// The requests that a pause stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PauseMode {
    /// Those that may change something.
    Write,
    /// All but those about the connection itself.
    All,
}

/// A pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    until: Timestamp,
    mode: PauseMode,
}

/// The pause of a server, if any.
pub struct Pauses {
    /// Whether there may be one.
    is_on: AtomicBool,
    current: watch::Sender<Option<Pause>>,
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses { is_on: AtomicBool::new(false), current: watch::channel(None).0 }
    }
}

impl Pauses {
    /// Starts a pause, or extends the current one. Neither its end nor its mode becomes less.
    pub(super) fn start(&self, until: Timestamp, mode: PauseMode) {
        self.current.send_modify(|current| {
            let (before, least) = current.map_or((until, mode), |pause| (pause.until, pause.mode));
            *current = Some(Pause { until: until.max(before), mode: mode.max(least) });
            self.is_on.store(true, Ordering::Release);
        });
    }

    /// Ends the pause.
    pub(super) fn end(&self) {
        self.current.send_modify(|current| {
            *current = None;
            self.is_on.store(false, Ordering::Release);
        });
    }

    /// Whether a request must wait now.
    pub(super) fn stops(&self, args: Args<'_>, now: impl FnOnce() -> Timestamp) -> bool {
        self.is_on.load(Ordering::Relaxed) && self.is_on_for(args, now())
    }

    #[cold]
    fn is_on_for(&self, args: Args<'_>, now: Timestamp) -> bool {
        let pause = *self.current.borrow();
        match pause {
            None => false,
            Some(pause) if pause.until <= now => {
                self.current.send_if_modified(|current| {
                    let is_over = *current == Some(pause);
                    if is_over {
                        *current = None;
                        self.is_on.store(false, Ordering::Release);
                    }
                    is_over
                });
                false
            }
            Some(pause) => Command::of_request(args).is_some_and(|command| pause.mode.stops(command)),
        }
    }

    /// Follows the pause: whether there is one, and when it ends.
    pub fn follow(&self) -> watch::Receiver<Option<Pause>> {
        self.current.subscribe()
    }
}

impl Pause {
    /// When it ends.
    pub fn until(&self) -> Timestamp {
        self.until
    }
}

impl PauseMode {
    fn stops(self, command: &Command) -> bool {
        match self {
            // What a transaction does is not known here.
            PauseMode::Write => command.is(Flags::WRITE | Flags::MAY_REPLICATE) || command.name == "exec",
            PauseMode::All => command.group != Group::Connection,
        }
    }
}
