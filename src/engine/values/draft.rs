//! New values that are made before their key is locked.
//!
//! Guarantees: a draft has the records of all of its elements, so that storing it visits none of
//! them again. Not here: keys.

use crate::value::{Edit, Element, Kind, Value};

/// A new value and its elements as they are stored.
pub struct Draft {
    pub(super) value: Value,
    pub(super) elements: Vec<Element>,
}

impl Draft {
    /// The value that `fill` makes of an empty one, and what it returns.
    pub fn new<R>(kind: Kind, fill: impl FnOnce(&mut Edit<'_>) -> R) -> (Draft, R) {
        let mut value = Value::new(kind);
        let (result, elements) = edited(&mut value, fill);
        (Draft { value, elements: elements.unwrap_or_default() }, result)
    }

    /// A copy of a value.
    pub fn copy_of(value: &Value) -> Draft {
        Draft::new(value.kind(), |edit| fill(edit, value)).0
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether there are no elements. A key that takes such a value is gone.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }
}

/// Runs `edit`. Returns its result and the elements that it changed; `None` if it is no change.
pub(super) fn edited<R>(
    value: &mut Value,
    edit: impl FnOnce(&mut Edit<'_>) -> R,
) -> (R, Option<Vec<Element>>) {
    let mut edits = Edit::new(value);
    let result = edit(&mut edits);
    (result, edits.into_changes())
}

/// Adds all elements of `source`, in order, to an empty value of its kind.
fn fill(edit: &mut Edit<'_>, source: &Value) {
    match source {
        Value::Hash(hash) => {
            let Some(mut copy) = edit.hash() else { return };
            for (field, value) in hash.iter() {
                copy.insert(field, value);
            }
        }
        Value::Set(set) => {
            let Some(mut copy) = edit.set() else { return };
            for member in set.iter() {
                copy.insert(member);
            }
        }
        Value::SortedSet(sorted) => {
            let Some(mut copy) = edit.sorted_set() else { return };
            for (member, score) in sorted.range(0..sorted.len()) {
                copy.insert(member, score);
            }
        }
        Value::List(list) => {
            let Some(mut copy) = edit.list() else { return };
            for item in list.range(0..list.len()) {
                copy.push_back(item);
            }
        }
    }
}
