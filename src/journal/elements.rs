//! The elements of one value, in the order in which they were added.
//!
//! Guarantees: an element that is overwritten keeps its place; one that is removed and added again
//! is the last. Not here: what elements mean.

use std::collections::HashMap;

/// What identifies an element within its value, and what belongs to it.
pub(super) type FieldAndValue = (Box<[u8]>, Box<[u8]>);

/// Elements in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct OrderedElements {
    /// By place; `None` where an element was removed.
    slots: Vec<Option<FieldAndValue>>,
    places: HashMap<Box<[u8]>, usize>,
}

impl OrderedElements {
    /// Puts an element, or removes it.
    pub(super) fn set(&mut self, field: Box<[u8]>, value: Option<Box<[u8]>>) {
        let place = self.places.get(&field).copied();
        match (place, value) {
            (Some(place), Some(value)) => self.slots[place] = Some((field, value)),
            (None, Some(value)) => {
                self.places.insert(field.clone(), self.slots.len());
                self.slots.push(Some((field, value)));
            }
            (Some(place), None) => {
                self.places.remove(&field);
                self.slots[place] = None;
                self.drop_empty_slots();
            }
            (None, None) => {}
        }
    }

    /// Keeps the number of empty slots below that of elements.
    fn drop_empty_slots(&mut self) {
        const EMPTY_SLOTS_MIN: usize = 16;
        if self.slots.len() <= 2 * self.places.len() + EMPTY_SLOTS_MIN {
            return;
        }
        self.slots.retain(Option::is_some);
        for (place, slot) in self.slots.iter().enumerate() {
            if let Some(known) = slot.as_ref().and_then(|(field, _)| self.places.get_mut(field)) {
                *known = place;
            }
        }
    }

    /// All elements.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.slots.iter().flatten().map(|(field, value)| (&**field, &**value))
    }

    /// All elements.
    pub(super) fn into_elements(self) -> impl Iterator<Item = FieldAndValue> {
        self.slots.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwritten_elements_keep_their_place_and_removed_ones_lose_it() {
        let mut elements = OrderedElements::default();
        for number in 0..200u8 {
            elements.set([number].into(), Some([0].into()));
        }
        for number in (0..200).filter(|number| number % 10 != 3) {
            elements.set([number].into(), None);
        }
        elements.set([13].into(), Some([1].into()));
        elements.set([3].into(), None);
        elements.set([3].into(), Some([2].into()));
        elements.set([5].into(), None);
        assert!(elements.slots.len() < 60);
        let found: Vec<_> = elements.iter().map(|(field, value)| (field[0], value[0])).collect();
        let mut expected: Vec<_> = (1..20).map(|number| (number * 10 + 3, u8::from(number == 1))).collect();
        expected.push((3, 2));
        assert_eq!(found, expected);
        assert_eq!(elements.into_elements().count(), 20);
    }
}
