//! The password.
//!
//! Promise: compared in constant time; never shown, not even by `Debug`. Absent: users, ACLs.

use std::fmt;

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

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(secret)")
    }
}
