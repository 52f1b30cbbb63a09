//! The latest events of leases, so that a view of one key can show them.
//!
//! Guarantees: bounded in number and bytes. Has only events that were made: those since the first
//! view, watch or subscription was opened. Not here: who may see them.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::domain::LockName;
use crate::engine::LeaseEvent;

/// Events that are kept, of all keys together.
const EVENTS_MAX: usize = 2048;
/// Bytes of their names.
const BYTES_MAX: usize = 1 << 20;

/// The latest events, each with its wall time in milliseconds.
#[derive(Default)]
pub(super) struct Recent(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    events: VecDeque<(LeaseEvent, u64)>,
    bytes: usize,
}

impl Recent {
    /// Adds an event.
    pub(super) fn record(&self, event: &LeaseEvent, wall_millis: u64) {
        let mut ring = self.0.lock();
        ring.bytes += event.name.as_bytes().len();
        ring.events.push_back((event.clone(), wall_millis));
        while ring.events.len() > EVENTS_MAX || ring.bytes > BYTES_MAX {
            let Some((oldest, _)) = ring.events.pop_front() else { break };
            ring.bytes -= oldest.name.as_bytes().len();
        }
    }

    /// The latest `max` events of a key, the newest first.
    pub(super) fn of(&self, name: &LockName, max: usize) -> Vec<(LeaseEvent, u64)> {
        let ring = self.0.lock();
        ring.events.iter().rev().filter(|(event, _)| event.name == *name).take(max).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FencingToken, Timestamp};
    use crate::engine::EventKind;

    #[test]
    fn only_the_latest_events_are_kept() {
        let recent = Recent::default();
        let event = |number: u64, key: &[u8]| LeaseEvent {
            number,
            name: LockName::new(0, key).expect("a name"),
            kind: EventKind::Acquired,
            token: FencingToken::new(1).expect("a token"),
            deadline: Timestamp::NEVER,
        };
        recent.record(&event(0, b"b"), 7);
        for number in 1..=EVENTS_MAX as u64 {
            recent.record(&event(number, b"a"), 7);
        }
        let name = |key: &[u8]| LockName::new(0, key).expect("a name");
        let numbers: Vec<_> = recent.of(&name(b"a"), 2).iter().map(|(event, _)| event.number).collect();
        assert_eq!(numbers, [EVENTS_MAX as u64, EVENTS_MAX as u64 - 1]);
        assert!(recent.of(&name(b"b"), 2).is_empty());
    }
}
