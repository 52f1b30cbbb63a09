//! The password.
//!
//! Guarantees: compared in constant time; never shown, not even by `Debug`. It can be replaced while clients connect.
//! Not here: users, ACLs.

use std::fmt;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;

/// What a client must know.
#[derive(Clone)]
pub struct Password(Vec<u8>);

impl Password {
    /// From what was configured; `None` for an empty text, which would be no protection.
    pub fn new(text: &str) -> Option<Password> {
        (!text.is_empty()).then(|| Password(text.as_bytes().to_vec()))
    }

    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Password) -> bool {
        self.is(&other.0)
    }
}

/// The password at this time. Each method locks for a comparison or a copy.
#[derive(Debug, Default)]
pub struct CurrentPassword(RwLock<Option<Password>>);

impl CurrentPassword {
    /// Starts with this one; `None`: clients need none.
    pub fn new(password: Option<Password>) -> CurrentPassword {
        CurrentPassword(RwLock::new(password))
    }

    /// Whether clients need none.
    pub fn is_none(&self) -> bool {
        self.0.read().is_none()
    }

    /// Whether a client that gives this may do everything.
    pub(super) fn admits(&self, given: &[u8]) -> bool {
        let current = self.0.read();
        current.as_ref().is_none_or(|password| password.is(given))
    }

    /// Sets another one. Returns whether it differs. Clients that are connected stay authenticated.
    pub fn replace(&self, password: Option<Password>) -> bool {
        let mut current = self.0.write();
        let differs = *current != password;
        *current = password;
        differs
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(secret)")
    }
}
