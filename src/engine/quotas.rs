//! How many leases count toward each account.
//!
//! Guarantees: two requests at once never go beyond the limit together. An account without leases
//! costs nothing. Not here: who has an account.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

#[derive(Default)]
pub(super) struct Quotas {
    leases: Mutex<HashMap<Box<str>, u64>>,
}

impl Quotas {
    fn leases(&self) -> MutexGuard<'_, HashMap<Box<str>, u64>> {
        self.leases.lock()
    }

    /// Counts one more, unless there are `max` already.
    pub(super) fn reserve(&self, account: &str, max: u64) -> bool {
        let mut leases = self.leases();
        match leases.get_mut(account) {
            Some(count) if *count >= max => false,
            Some(count) => {
                *count += 1;
                true
            }
            None => {
                leases.insert(account.into(), 1);
                true
            }
        }
    }

    /// Counts one more, limit or not.
    pub(super) fn add(&self, account: &str) {
        self.reserve(account, u64::MAX);
    }

    /// Counts one less.
    pub(super) fn remove(&self, account: &str) {
        let mut leases = self.leases();
        if let Some(count) = leases.get_mut(account) {
            *count -= 1;
            if *count == 0 {
                leases.remove(account);
            }
        }
    }

    pub(super) fn clear(&self) {
        self.leases().clear();
    }
}
