//! Why the journal could not do what was asked, with the operator's next step.

use std::fmt;

/// A fault of a backend. Its text names the cause and what to do.
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
    /// The file is a database of some other program.
    Foreign,
    /// The database was written by a newer version.
    Newer {
        /// The schema version found.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// The path cannot be that of a database.
    Path {
        /// Why.
        what: String,
    },
    /// Anything else the system said.
    Io {
        /// What was being done, and what the system said.
        what: String,
    },
}

impl JournalError {
    /// What was asked for concerns a state that is no more.
    pub(crate) fn rebuilt() -> JournalError {
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
            JournalError::Foreign => {
                write!(f, "the file is not a database of octostore; name another file")
            }
            JournalError::Newer { found, known } => write!(
                f,
                "the database has schema version {found}, this server knows {known}; use a newer octostore"
            ),
            JournalError::Path { what } => write!(f, "{what}"),
            JournalError::Io { what } => write!(f, "{what}; check the disk and the file's permissions"),
        }
    }
}

impl std::error::Error for JournalError {}
