//! The log of what users were refused, ACL LOG, and the line about a failed login in the server's
//! log.
//!
//! Guarantees: bounded; the same refusal again within a minute counts in its entry. Neither has
//! passwords. Not here: what is refused.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::Timestamp;

/// Entries kept.
const ENTRIES_MAX: usize = 128;
/// Longest object, in bytes.
const OBJECT_BYTES_MAX: usize = 256;
/// How long the same refusal counts in the same entry.
const GROUP_MS: u64 = 60_000;

/// How long the reply to a wrong password takes. What the client has sent after it on the same
/// connection waits, too, so trying very many passwords keeps others from little.
pub const WRONG_PASSWORD_DELAY: Duration = Duration::from_millis(50);

/// Logs a failed authentication, of Redis and HTTP clients alike. The log has at most one such line
/// a second, and after it the number of the others.
pub fn log_failed_login(client: impl Display) {
    tracing::warn!(%client, "wrong user or password");
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// Authentication.
    Auth,
    /// A command.
    Command,
    /// A key.
    Key,
    /// A channel.
    Channel,
}

impl DenialReason {
    /// The name in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            DenialReason::Auth => "auth",
            DenialReason::Command => "command",
            DenialReason::Key => "key",
            DenialReason::Channel => "channel",
        }
    }
}

/// What sent the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialContext {
    /// A connection.
    TopLevel,
    /// EXEC.
    Multi,
    /// A script.
    Lua,
}

impl DenialContext {
    /// The name in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            DenialContext::TopLevel => "toplevel",
            DenialContext::Multi => "multi",
            DenialContext::Lua => "lua",
        }
    }
}

/// An entry of the log.
#[derive(Debug, Clone)]
pub struct Denial {
    /// How often it happened.
    pub count: u64,
    /// What was refused.
    pub reason: DenialReason,
    /// What sent the request.
    pub context: DenialContext,
    /// The command, key or channel.
    pub object: Vec<u8>,
    /// The user.
    pub user: Arc<str>,
    /// When it happened last, on the engine's clock.
    pub at: Timestamp,
    /// The connection, as CLIENT LIST shows it.
    pub client: String,
}

/// The newest refusals.
#[derive(Debug, Default)]
pub struct DenialLog {
    entries: Mutex<VecDeque<Denial>>,
    /// How often commands, keys and channels were refused.
    totals: [AtomicU64; 3],
}

impl DenialLog {
    /// Adds an entry, or counts it in one of the last minute.
    pub fn add(&self, mut denial: Denial) {
        if let Some(total) = self.total_of(denial.reason) {
            total.fetch_add(1, Ordering::Relaxed);
        }
        denial.object.truncate(OBJECT_BYTES_MAX);
        let mut entries = self.entries.lock();
        let is_same = |other: &Denial| {
            (other.reason, other.context, &other.object, &other.user)
                == (denial.reason, denial.context, &denial.object, &denial.user)
                && denial.at.millis_since(other.at) < GROUP_MS
        };
        if let Some(known) = entries.iter().position(is_same).and_then(|place| entries.remove(place)) {
            denial.count += known.count;
        } else if entries.len() == ENTRIES_MAX {
            entries.pop_back();
        }
        entries.push_front(denial);
    }

    fn total_of(&self, reason: DenialReason) -> Option<&AtomicU64> {
        let [commands, keys, channels] = &self.totals;
        match reason {
            // Counted with those of HTTP.
            DenialReason::Auth => None,
            DenialReason::Command => Some(commands),
            DenialReason::Key => Some(keys),
            DenialReason::Channel => Some(channels),
        }
    }

    /// How often something was refused for this reason, other than authentication.
    pub fn total(&self, reason: DenialReason) -> u64 {
        self.total_of(reason).map_or(0, |total| total.load(Ordering::Relaxed))
    }

    /// The newest `count` entries, newest first.
    pub fn newest(&self, count: usize) -> Vec<Denial> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    /// Removes all entries.
    pub fn reset(&self) {
        self.entries.lock().clear();
    }
}
