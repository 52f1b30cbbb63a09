//! All keys that are not vacant, by a keyed hash of their names.
//!
//! Guarantees: guards of keys stay inside this folder; only the gate in front of the table is also
//! held outside, by transactions. Not here: the rules of locks and values, records, clocks.

mod content;
mod entry;
mod gate;
mod hash;
mod rules;
mod scan;
mod table;

pub use self::content::{Content, KeyKind, KeyedValue};
pub(super) use self::entry::Entry;
pub(super) use self::gate::*;
pub(super) use self::hash::NameHash;
pub(super) use self::rules::*;
pub use self::scan::*;
pub(super) use self::table::*;
