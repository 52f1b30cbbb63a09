//! All locks that are not free, by a keyed hash of their names.
//!
//! Guarantees: guards stay inside this folder. Not here: rules of locks, records, clocks.

mod entry;
mod hash;
mod scan;
mod table;

pub(super) use self::hash::NameHash;
pub use self::scan::*;
pub(super) use self::table::*;
