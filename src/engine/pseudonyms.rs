//! Pseudonyms: what is shown in place of a secret, such as a session's id.
//!
//! Guarantees: one-way, and the same after a restart: derived with a key that is kept with the
//! data. The secret, or another pseudonym, cannot be derived from one. Not here: state, and
//! who may see the secret itself.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::domain::SessionId;

/// Hexadecimal digits of a session's short pseudonym.
const SESSION_DIGITS: usize = 16;

/// Derives pseudonyms.
pub struct Pseudonyms {
    mac: Hmac<Sha256>,
}

impl Pseudonyms {
    /// With this key.
    pub fn new(secret: &[u8; 32]) -> Pseudonyms {
        Pseudonyms { mac: keyed(secret) }
    }

    /// The pseudonym of `what` among those of its kind. No kind may contain a NUL, so that no two
    /// inputs are the same.
    pub fn derive(&self, kind: &[u8], what: &[u8]) -> Uuid {
        let mut mac = self.mac.clone();
        mac.update(kind);
        mac.update(&[0]);
        mac.update(what);
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Uuid::new_v8(bytes)
    }

    /// The pseudonym of a session.
    pub fn session(&self, id: SessionId) -> Uuid {
        self.derive(b"session", &id.0.to_be_bytes())
    }

    /// The first digits of the pseudonym of a session: shorter than an id, so that it is not
    /// mistaken for one.
    pub fn short_session(&self, id: SessionId) -> String {
        let mut digits = self.session(id).as_simple().to_string();
        digits.truncate(SESSION_DIGITS);
        digits
    }
}

/// A keyed hash.
fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("a key of any length will do"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_pseudonym_of_a_session_begins_the_long_one_and_depends_on_the_secret() {
        let id = SessionId(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
        let short = Pseudonyms::new(&[1; 32]).short_session(id);
        assert_eq!(short.len(), SESSION_DIGITS);
        let long = Pseudonyms::new(&[1; 32]).session(id).as_simple().to_string();
        assert!(long.starts_with(&short), "{long} {short}");
        assert!(!format!("{:032x}", id.0).contains(&short));
        assert_ne!(short, Pseudonyms::new(&[2; 32]).short_session(id));
        assert_ne!(short, Pseudonyms::new(&[1; 32]).short_session(SessionId(id.0 + 1)));
    }
}
