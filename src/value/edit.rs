//! Changes to a value, recorded as they are made.
//!
//! Guarantees: the recorded elements are absolute states, in the order of the changes; applied in
//! that order to what was stored before, they give the elements of the value as it is now.
//! Not here: how elements are stored.

use super::{HashEdit, ListEdit, SetEdit, SortedSetEdit, Value};

/// The state of one element after a change.
///
/// | kind | field | value |
/// |---|---|---|
/// | hash | the field | its value |
/// | set | the member | empty |
/// | sorted set | the member | the score: the bits of a double in 8 bytes, big endian |
/// | list | the position: 8 bytes that sort as positions do | the item |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The name of the element, unique within its value.
    pub field: Box<[u8]>,
    /// The content; `None` if the element is gone.
    pub value: Option<Box<[u8]>>,
}

/// The changed elements of an edit.
#[derive(Debug, Default)]
pub(super) struct Changes {
    elements: Vec<Element>,
    is_touched: bool,
}

impl Changes {
    pub(super) fn put(&mut self, field: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) {
        self.elements.push(Element { field: field.into(), value: Some(value.into()) });
    }

    pub(super) fn gone(&mut self, field: impl Into<Box<[u8]>>) {
        self.elements.push(Element { field: field.into(), value: None });
    }

    /// Makes the edit a change even if all elements stay as they are.
    pub(super) fn touch(&mut self) {
        self.is_touched = true;
    }
}

/// Changes to one value. The method of the value's kind gives access to it, the others `None`.
#[derive(Debug)]
pub struct Edit<'a> {
    value: &'a mut Value,
    changes: Changes,
}

impl<'a> Edit<'a> {
    /// Starts to edit `value`.
    pub fn new(value: &'a mut Value) -> Edit<'a> {
        Edit { value, changes: Changes::default() }
    }

    /// The value as it is now.
    pub fn value(&self) -> &Value {
        self.value
    }

    /// Edits a hash.
    pub fn hash(&mut self) -> Option<HashEdit<'_>> {
        match self.value {
            Value::Hash(hash) => Some(HashEdit::new(hash, &mut self.changes)),
            _ => None,
        }
    }

    /// Edits a set.
    pub fn set(&mut self) -> Option<SetEdit<'_>> {
        match self.value {
            Value::Set(set) => Some(SetEdit::new(set, &mut self.changes)),
            _ => None,
        }
    }

    /// Edits a sorted set.
    pub fn sorted_set(&mut self) -> Option<SortedSetEdit<'_>> {
        match self.value {
            Value::SortedSet(sorted) => Some(SortedSetEdit::new(sorted, &mut self.changes)),
            _ => None,
        }
    }

    /// Edits a list.
    pub fn list(&mut self) -> Option<ListEdit<'_>> {
        match self.value {
            Value::List(list) => Some(ListEdit::new(list, &mut self.changes)),
            _ => None,
        }
    }

    /// Ends the edit. Returns the changed elements in the order of the changes; one that changed
    /// twice is in it twice. `None` if the edit is no change.
    pub fn into_changes(self) -> Option<Vec<Element>> {
        let Changes { elements, is_touched } = self.changes;
        (is_touched || !elements.is_empty()).then_some(elements)
    }
}
