//! The keys below the prefix, and what the small ones contain.
//!
//! | key | value |
//! |---|---|
//! | `schema` | the version of this layout, and the secret of the data: [`Schema`] |
//! | `leader` | who leads; its `create_revision` is the leader's epoch. Only read here |
//! | `head` | the last entry of the log, the marker, the clock era: [`Head`] |
//! | `tokens` | the highest token that may be issued, as far as the log is folded |
//! | `log/<n>` | a batch of records, or a part of one: see `log` |
//! | `rows/…` | a state that the folded part of the log has left: see `rows` |
//!
//! Guarantees: what is written is read again; anything else is damage, not a panic. Not here: when
//! keys are written.

use serde::{Deserialize, Serialize};

use super::transport::KeyValue;
use crate::journal::JournalError;

/// The version of the layout.
pub(super) const VERSION: i64 = 1;

/// The value of `schema`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Schema {
    /// The version of the layout.
    pub(super) octostore: i64,
    /// 32 random bytes in hexadecimal digits.
    pub(super) secret: String,
}

/// The value of `head`, which every write replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Head {
    /// The last entry of the log. Entries behind it are not part of it.
    pub(super) last: u64,
    /// The marker: the rows have everything up to this entry.
    pub(super) folded: u64,
    /// By which clock deadlines are.
    pub(super) era: Era,
}

/// The deadlines written since a leader began, by the clock of its machine. What older entries say
/// is by another clock, so the deadlines in them are worth their TTL only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Era {
    /// The epoch of the leader.
    pub(super) epoch: i64,
    /// The boot of its machine; `None`: unknown.
    pub(super) boot: Option<String>,
    /// When it began, by its clock: the full TTL of everything older counts from here.
    pub(super) began_ns: Option<i64>,
    /// The last entry of the log that is older.
    pub(super) after: u64,
}

/// The names of keys below a prefix.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    prefix: String,
    pub(super) schema: String,
    pub(super) leader: String,
    pub(super) head: String,
    pub(super) tokens: String,
}

impl Layout {
    /// The keys below `prefix`, which ends without a slash.
    pub(super) fn below(prefix: &str) -> Layout {
        let key = |name: &str| format!("{prefix}/{name}");
        Layout {
            prefix: prefix.to_owned(),
            schema: key("schema"),
            leader: key("leader"),
            head: key("head"),
            tokens: key("tokens"),
        }
    }

    /// The key of an entry of the log.
    pub(super) fn log(&self, number: u64) -> String {
        format!("{}/log/{number:016x}", self.prefix)
    }

    /// The key of a row.
    pub(super) fn row(&self, name: &str) -> String {
        format!("{}/rows/{name}", self.prefix)
    }

    /// The name of a row, from its key.
    pub(super) fn row_name<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)?.strip_prefix("/rows/")
    }

    /// All rows, as a range.
    pub(super) fn rows(&self) -> (String, String) {
        (format!("{}/rows/", self.prefix), format!("{}/rows0", self.prefix))
    }

    /// All keys, as a range.
    pub(super) fn all(&self) -> (String, String) {
        (format!("{}/", self.prefix), format!("{}0", self.prefix))
    }

    /// Whether a key is one of those that servers write before there is any data.
    pub(super) fn is_of_servers(&self, key: &str) -> bool {
        let name = key.strip_prefix(&self.prefix).unwrap_or_default();
        ["/leader", "/shards"].contains(&name) || name.starts_with("/nodes/") || name.starts_with("/peers/")
    }
}

/// A value as JSON.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("texts and numbers are valid JSON"))
}

/// A value from JSON.
pub(super) fn from_json<T: for<'de> Deserialize<'de>>(found: &KeyValue) -> Result<T, JournalError> {
    serde_json::from_slice(&found.value)
        .map_err(|error| JournalError::corrupt(format!("{}: {error}", found.key)))
}
