//! The password of Redis clients.
//!
//! Guarantees: it can be replaced while clients connect. Not here: users, ACLs.

use parking_lot::RwLock;

use super::Secret;

/// The password in force. Each method locks for a comparison or a copy.
#[derive(Debug, Default)]
pub struct CurrentPassword(RwLock<Option<Secret>>);

impl CurrentPassword {
    /// Starts with `password`; `None`: clients need none.
    pub fn new(password: Option<Secret>) -> CurrentPassword {
        CurrentPassword(RwLock::new(password))
    }

    /// Returns whether clients need no password.
    pub fn is_none(&self) -> bool {
        self.0.read().is_none()
    }

    /// Returns whether `given` is the password, or none is needed.
    pub fn admits(&self, given: &[u8]) -> bool {
        self.0.read().as_ref().is_none_or(|password| password.matches(given))
    }

    /// Replaces the password. Returns whether it differs. Authenticated clients stay authenticated.
    pub fn replace(&self, password: Option<Secret>) -> bool {
        let mut current = self.0.write();
        let differs = *current != password;
        *current = password;
        differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_password_is_no_longer_accepted() {
        let current = CurrentPassword::default();
        assert!(current.is_none() && current.admits(b"anything"));
        assert!(current.replace(Secret::new("first")));
        assert!(!current.replace(Secret::new("first")), "unchanged");
        assert!(current.admits(b"first") && !current.admits(b"") && !current.admits(b"firs"));
        assert!(current.replace(Secret::new("second")));
        assert!(!current.admits(b"first") && current.admits(b"second"));
    }
}
