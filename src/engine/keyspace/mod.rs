//! All locks that are not free, by a keyed hash of their names.
//!
//! Guarantees: guards stay inside this folder. Not here: rules of locks, records, clocks.

mod entry;
mod scan;
mod table;

pub use self::scan::*;
pub(super) use self::table::*;
