//! The module path of the library, so that the files of `commit` find what they import.

pub(crate) mod commit;

pub(crate) use octostore::journal::{Attempt, Backend, BackendTraits, JournalError, Loaded, Record};
