//! The ids that HTTP clients see for leases, owners, users and sessions.
//!
//! Guarantees: one-way, and stable across restarts: derived with a key that is stored with the
//! data. A lease id is known to its holder only and cannot be derived from what other clients see.
//! Not here: state.

use uuid::Uuid;

use crate::domain::{FencingToken, LockName, Owner, SessionId};
use crate::engine::Pseudonyms;

/// Derives ids.
pub(super) struct Ids {
    pseudonyms: Pseudonyms,
}

impl Ids {
    pub(super) fn new(secret: &[u8; 32]) -> Ids {
        Ids { pseudonyms: Pseudonyms::new(secret) }
    }

    fn derive(&self, kind: &[u8], what: &[u8]) -> Uuid {
        self.pseudonyms.derive(kind, what)
    }

    /// The proof of a lease.
    pub(super) fn lease(&self, name: &LockName, token: FencingToken) -> Uuid {
        let mut what = token.get().to_be_bytes().to_vec();
        what.extend_from_slice(name.as_bytes());
        self.derive(b"lease", &what)
    }

    /// The public name of an owner.
    pub(super) fn holder(&self, owner: &Owner) -> Uuid {
        self.derive(b"holder", owner.as_bytes())
    }

    /// The id of a user.
    pub(super) fn user(&self, name: &str) -> Uuid {
        self.derive(b"user", name.as_bytes())
    }

    /// The pseudonym of a session, whose id is secret.
    pub(super) fn session(&self, id: SessionId) -> Uuid {
        self.pseudonyms.session(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_differ_by_kind_secret_and_input() {
        let ids = Ids::new(&[1; 32]);
        let name = |key: &str| LockName::new(0, key.as_bytes()).unwrap();
        let token = |n| FencingToken::new(n).unwrap();
        let lease = ids.lease(&name("a"), token(1));
        assert_eq!(lease, Ids::new(&[1; 32]).lease(&name("a"), token(1)));
        assert_eq!((lease.get_version_num(), lease.get_variant()), (8, uuid::Variant::RFC4122));
        assert_ne!(lease, ids.lease(&name("a"), token(2)));
        assert_ne!(lease, ids.lease(&name("b"), token(1)));
        assert_ne!(lease, Ids::new(&[2; 32]).lease(&name("a"), token(1)));
        assert_ne!(ids.user("x"), ids.holder(&Owner::new(b"x").unwrap()));
    }
}
