//! A budget for the request bodies of one caller.
//!
//! Guarantees: the charges never exceed the budget, and dropping a [`Charge`] returns all of it.
//! Not here: waiting; a caller whose budget is spent is refused.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that are left of a budget.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget { left: AtomicUsize::new(bytes) }
    }

    /// A charge of 0 bytes.
    pub(super) fn charge(&self) -> Charge<'_> {
        Charge { budget: self, bytes: 0 }
    }
}

/// Bytes of a budget that are in use.
#[derive(Debug)]
pub(super) struct Charge<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Charge<'_> {
    /// Raises the charge to `bytes`. Fails without a change if the budget does not have enough
    /// left.
    pub(super) fn raise_to(&mut self, bytes: usize) -> Result<(), Spent> {
        let more = bytes.saturating_sub(self.bytes);
        let take = |left: usize| left.checked_sub(more);
        match self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => {
                self.bytes += more;
                Ok(())
            }
            Err(_) => Err(Spent),
        }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}

/// The budget has too few bytes left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spent;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_can_be_spent_to_the_byte_and_is_returned() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.charge(), budget.charge());
        assert_eq!(one.raise_to(4), Ok(()));
        assert_eq!(one.raise_to(4), Ok(()), "a charge is a total");
        assert_eq!(two.raise_to(7), Err(Spent));
        assert_eq!(two.raise_to(6), Ok(()));
        assert_eq!(one.raise_to(5), Err(Spent));
        drop(two);
        assert_eq!(one.raise_to(10), Ok(()));
        drop(one);
        assert_eq!(budget.charge().raise_to(10), Ok(()));
        assert_eq!(budget.charge().raise_to(11), Err(Spent));
    }
}
