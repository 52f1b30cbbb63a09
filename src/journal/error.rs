//! Why the journal could not do what was asked.
//!
//! Guarantees: the text of an error names the cause and the operator's next step, and the error
//! knows whether a retry can help. Not here: the texts that clients get, and when to retry.

use std::fmt;

/// An error of a backend. Its text names the cause and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalError {
    /// Another server has taken over; this one must not write.
    Fenced,
    /// No space is left.
    Full,
    /// The file is write-protected.
    ReadOnly,
    /// Another process keeps the database locked.
    Locked,
    /// Another server serves this database.
    InUse {
        /// Its process id, if it is known.
        process: Option<u32>,
    },
    /// The file is damaged.
    Corrupt {
        /// What was found.
        what: String,
    },
    /// Commits that were durable cannot be read any more.
    DamagedLog {
        /// What was found.
        what: String,
        /// How many commits, as far as they can be counted.
        commits: u64,
    },
    /// The open files are no longer those at their paths.
    Replaced {
        /// Which file, and what happened to it.
        what: String,
    },
    /// The file is a database of another program.
    Foreign,
    /// The database was written by a newer version.
    Newer {
        /// The schema version found.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// The path cannot hold a database.
    Path {
        /// Why.
        what: String,
    },
    /// The store of a cluster did not answer, or not in time.
    Unreachable {
        /// Which one, and why.
        what: String,
    },
    /// The store of a cluster cannot be used as it is configured.
    Store {
        /// Why, and what to do.
        what: String,
    },
    /// Any other error of the system.
    Io {
        /// What failed, and the error of the system.
        what: String,
    },
}

impl JournalError {
    /// Stored data that no server wrote; `what` was found.
    pub(crate) fn corrupt(what: impl ToString) -> JournalError {
        JournalError::Corrupt { what: what.to_string() }
    }

    /// Whether the same call can succeed later, without a restart of the server: once there is
    /// space, the file is back, or the other process has ended. The journal keeps retrying such
    /// errors; after any other it must stay down, because retrying would hide the error or harm
    /// another server.
    pub fn is_retryable(&self) -> bool {
        match self {
            JournalError::Full
            | JournalError::ReadOnly
            | JournalError::Locked
            | JournalError::InUse { .. }
            | JournalError::Replaced { .. }
            | JournalError::Unreachable { .. }
            | JournalError::Io { .. } => true,
            JournalError::Fenced
            | JournalError::Corrupt { .. }
            | JournalError::DamagedLog { .. }
            | JournalError::Foreign
            | JournalError::Newer { .. }
            | JournalError::Path { .. }
            | JournalError::Store { .. } => false,
        }
    }

    /// What was found, without what to do about it.
    pub fn what(&self) -> String {
        match self {
            JournalError::Corrupt { what } => what.clone(),
            other => other.to_string(),
        }
    }

    /// The request is about a state that a rebuild has replaced.
    pub fn rebuilt() -> JournalError {
        JournalError::Io { what: "the state was rebuilt meanwhile".into() }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Fenced => write!(f, "another server has taken over this database; stop this one"),
            JournalError::Full => {
                write!(
                    f,
                    "no space left for the database; free some, a running server then goes on by itself"
                )
            }
            JournalError::ReadOnly => {
                write!(f, "the database is read-only; make its file and directory writable")
            }
            JournalError::Locked => {
                write!(f, "the database is locked by another process; end that one, or its transaction")
            }
            JournalError::InUse { process } => {
                let process = process.map_or(String::new(), |process| format!(" (process {process})"));
                write!(f, "another server{process} serves this database; stop that one, or name another file")
            }
            JournalError::Corrupt { what } => {
                write!(
                    f,
                    "the database is damaged ({what}); restore a backup, or salvage it with sqlite3's .recover"
                )
            }
            JournalError::DamagedLog { what, commits } => {
                let commits = match commits {
                    1 => "1 commit".to_owned(),
                    commits => format!("{commits} commits"),
                };
                write!(
                    f,
                    "{what}, and {commits} from there on cannot be read; copy the database and its -wal file, then \
                     restore a backup, or start once with --accept-damaged-log to go on without these commits: \
                     what they locked is free, what they released is held until its TTL ends, and no token is \
                     issued twice"
                )
            }
            JournalError::Replaced { what } => {
                write!(
                    f,
                    "{what} while the server runs, so another server may grant the same locks; put the file back, \
                     or stop this server"
                )
            }
            JournalError::Foreign => {
                write!(f, "the file is not a database of octostore; name another file")
            }
            JournalError::Newer { found, known } => write!(
                f,
                "the database has schema version {found}, this server knows {known}; use a newer octostore"
            ),
            JournalError::Path { what } | JournalError::Store { what } => write!(f, "{what}"),
            JournalError::Unreachable { what } => {
                write!(f, "{what}; check the etcd servers, and the network to them")
            }
            JournalError::Io { what } => {
                write!(f, "{what}; check the disk, and the permissions of the file and its directory")
            }
        }
    }
}

impl std::error::Error for JournalError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_can_pass_by_themselves_are_retryable() {
        let what = || "x".to_owned();
        for (error, expected) in [
            (JournalError::Full, true),
            (JournalError::ReadOnly, true),
            (JournalError::Locked, true),
            (JournalError::InUse { process: None }, true),
            (JournalError::Replaced { what: what() }, true),
            (JournalError::Io { what: what() }, true),
            (JournalError::rebuilt(), true),
            (JournalError::Fenced, false),
            (JournalError::corrupt("x"), false),
            (JournalError::DamagedLog { what: what(), commits: 1 }, false),
            (JournalError::Foreign, false),
            (JournalError::Newer { found: 4, known: 3 }, false),
            (JournalError::Path { what: what() }, false),
            (JournalError::Unreachable { what: what() }, true),
            (JournalError::Store { what: what() }, false),
        ] {
            assert_eq!(error.is_retryable(), expected, "{error}");
        }
    }
}
