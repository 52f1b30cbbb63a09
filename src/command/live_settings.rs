//! The settings of a running server: what `CONFIG GET` shows and `CONFIG SET` may change.
//!
//! Guarantees: reading a setting that can change costs one load. A change is checked as a whole
//! before any part of it applies. Not here: where settings come from, and secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::KeyspaceEvents;
use crate::engine::Engine;

/// Most entries of the slow log.
pub const SLOWLOG_LEN_MAX: usize = 10_000;
/// Longest idle timeout, in seconds.
pub const IDLE_TIMEOUT_S_MAX: u64 = i32::MAX as u64;

/// The settings of a running server.
#[derive(Debug)]
pub struct LiveSettings {
    shown: Mutex<Vec<(&'static str, String)>>,
    idle_timeout_s: AtomicU64,
    /// Commands that take more microseconds are logged; none if negative.
    slowlog_micros: AtomicI64,
    slowlog_len_max: AtomicUsize,
    keyspace_events: AtomicU16,
    connections_max: Arc<AtomicUsize>,
    /// The number of connections that the process can have.
    connections_allowed: usize,
}

/// A change to one setting that was checked.
enum Change {
    IdleTimeout(u64),
    SlowlogMicros(i64),
    SlowlogLength(usize),
    KeyspaceEvents(KeyspaceEvents),
    Connections(usize),
    /// The setting has this value already.
    None,
}

/// Why settings are not changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such setting.
    Unknown,
    /// This is wrong with the setting, or with its value.
    Because(String),
}

/// Settings that cannot change here but can in Redis: the value they have is accepted.
const FIXED: [&str; 7] = [
    "maxmemory",
    "maxmemory-policy",
    "save",
    "appendonly",
    "appendfsync",
    "proto-max-bulk-len",
    "replica-read-only",
];

impl LiveSettings {
    /// The settings that the server starts with. Those that can change are taken from the texts.
    pub fn new(shown: Vec<(&'static str, String)>) -> LiveSettings {
        let settings = LiveSettings {
            shown: Mutex::default(),
            idle_timeout_s: AtomicU64::new(0),
            slowlog_micros: AtomicI64::new(-1),
            slowlog_len_max: AtomicUsize::new(0),
            keyspace_events: AtomicU16::new(0),
            connections_max: Arc::default(),
            connections_allowed: usize::MAX,
        };
        for (name, text) in &shown {
            // Others have texts that no command changes.
            if let Ok(change) = settings.check(name, text) {
                settings.apply(&change);
            }
        }
        let connections_allowed = settings.connections_max.load(Ordering::Relaxed);
        LiveSettings { shown: Mutex::new(shown), connections_allowed, ..settings }
    }

    /// A connection that sends nothing for this time is closed; `None`: never.
    pub fn idle_timeout(&self) -> Option<Duration> {
        let seconds = self.idle_timeout_s.load(Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Commands that take longer are put into the slow log; `None`: no commands.
    pub(super) fn slowlog_time(&self) -> Option<Duration> {
        u64::try_from(self.slowlog_micros.load(Ordering::Relaxed)).ok().map(Duration::from_micros)
    }

    /// Entries of the slow log that are kept.
    pub(super) fn slowlog_len_max(&self) -> usize {
        self.slowlog_len_max.load(Ordering::Relaxed)
    }

    /// The keyspace notifications that are sent.
    pub fn keyspace_events(&self) -> KeyspaceEvents {
        KeyspaceEvents::from_bits(self.keyspace_events.load(Ordering::Relaxed))
    }

    /// The number of connections of Redis clients at once.
    pub fn connections_max(&self) -> &Arc<AtomicUsize> {
        &self.connections_max
    }

    /// All settings.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        self.shown.lock().clone()
    }

    /// Changes settings, all or none. Otherwise returns the name that is at fault.
    pub(super) fn change<'a>(
        &self,
        pairs: &[(&'a str, &str)],
        engine: &Engine,
    ) -> Result<(), (&'a str, Refused)> {
        let mut shown = self.shown.lock();
        let is_known = |name: &str| shown.iter().any(|(known, _)| *known == name);
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !is_known(name)) {
            return Err((name, Refused::Unknown));
        }
        for (n, (name, _)) in pairs.iter().enumerate() {
            if pairs[..n].iter().any(|(other, _)| other == name) {
                return Err((name, Refused::Because("duplicate parameter".to_owned())));
            }
        }
        let mut changes = Vec::new();
        for (name, text) in pairs {
            let has_it = shown.iter().any(|(known, value)| known == name && value == text);
            let change = match FIXED.contains(name) && has_it {
                true => Change::None,
                false => self.check(name, text).map_err(|why| (*name, Refused::Because(why)))?,
            };
            changes.push(change);
        }
        for change in changes {
            for (name, text) in self.apply(&change) {
                if let Some((_, old)) = shown.iter_mut().find(|(known, _)| *known == name) {
                    *old = text;
                }
            }
        }
        // Under the mutex, so that of two changes the last one counts.
        engine.notify_of(self.keyspace_events());
        Ok(())
    }

    fn check(&self, name: &str, text: &str) -> Result<Change, String> {
        let number = |min: i64, max: i64| {
            let number = text.parse::<i64>().map_err(|_| "argument couldn't be parsed into an integer")?;
            match (min..=max).contains(&number) {
                true => Ok(number),
                false => Err(format!("argument must be between {min} and {max} inclusive")),
            }
        };
        let bound = |max: usize| i64::try_from(max).unwrap_or(i64::MAX);
        Ok(match name {
            "timeout" | "idle-timeout-s" => {
                Change::IdleTimeout(number(0, IDLE_TIMEOUT_S_MAX.cast_signed())?.unsigned_abs())
            }
            "slowlog-log-slower-than" => Change::SlowlogMicros(number(-1, i64::MAX)?),
            "slowlog-max-len" => {
                Change::SlowlogLength(number(0, bound(SLOWLOG_LEN_MAX))?.unsigned_abs() as usize)
            }
            "notify-keyspace-events" => match KeyspaceEvents::parse(text) {
                Some(events) => Change::KeyspaceEvents(events),
                None => return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned()),
            },
            "maxclients" | "connections-max" => {
                Change::Connections(number(1, bound(self.connections_allowed))?.unsigned_abs() as usize)
            }
            _ => return Err("can't set immutable config".to_owned()),
        })
    }

    /// Returns how the settings are shown then, each under all of its names.
    fn apply(&self, change: &Change) -> Vec<(&'static str, String)> {
        match change {
            Change::IdleTimeout(seconds) => {
                self.idle_timeout_s.store(*seconds, Ordering::Relaxed);
                ["timeout", "idle-timeout-s"].map(|name| (name, seconds.to_string())).into()
            }
            Change::SlowlogMicros(micros) => {
                self.slowlog_micros.store(*micros, Ordering::Relaxed);
                vec![("slowlog-log-slower-than", micros.to_string())]
            }
            Change::SlowlogLength(length) => {
                self.slowlog_len_max.store(*length, Ordering::Relaxed);
                vec![("slowlog-max-len", length.to_string())]
            }
            Change::KeyspaceEvents(events) => {
                self.keyspace_events.store(events.bits(), Ordering::Relaxed);
                vec![("notify-keyspace-events", events.text())]
            }
            Change::Connections(connections) => {
                self.connections_max.store(*connections, Ordering::Relaxed);
                ["maxclients", "connections-max"].map(|name| (name, connections.to_string())).into()
            }
            Change::None => vec![],
        }
    }
}
