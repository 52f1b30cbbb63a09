//! The change log: what each commit did to leases and values, one row of text a commit.
//!
//! Guarantees: replaying the rows on top of the compacted tables gives the state after the last
//! commit. Not here: where rows and tables are stored.

pub(in crate::journal) mod bytes;
pub(in crate::journal) mod columns;
pub(in crate::journal) mod compaction;
pub(in crate::journal) mod entry;
pub(in crate::journal) mod replay;
mod values;
