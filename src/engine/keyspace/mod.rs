//! All keys that are not vacant, by a keyed hash of their names.
//!
//! Guarantees: guards stay inside this folder. Not here: the rules of locks and values, records,
//! clocks.

mod content;
mod entry;
mod gate;
mod hash;
mod rules;
mod scan;
mod table;

pub use self::content::{Content, KeyKind, KeyedValue};
pub(super) use self::gate::*;
pub(super) use self::hash::NameHash;
pub(super) use self::rules::*;
pub use self::scan::*;
pub(super) use self::table::*;
