//! Passwords, tokens and keys.
//!
//! Guarantees: compared in constant time; `Debug` does not show them, and there is no `Display`.
//! Not here: where they come from.

use std::fmt;
use std::hash::{Hash, Hasher};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// A password, a token or a key. Never empty.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// A secret of `text`; `None` if it is empty, which would be no protection.
    pub fn new(text: &str) -> Option<Secret> {
        (!text.is_empty()).then(|| Secret(text.as_bytes().into()))
    }

    /// Returns whether `given` is this secret. The time taken depends on the lengths only.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }

    /// The digest under `key`.
    pub fn digest(&self, key: &[u8; 32]) -> Digest {
        Digest::new(key, &self.0)
    }

    /// The hash by which users are stored.
    pub fn hash(&self) -> PasswordHash {
        PasswordHash::of(&self.0)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The SHA-256 hash of a password, as Redis keeps passwords.
#[derive(Clone, Copy)]
pub struct PasswordHash([u8; 32]);

impl PasswordHash {
    /// The hash of no password.
    pub(super) const NONE: PasswordHash = PasswordHash([0; 32]);

    /// The hash of `password`.
    pub fn of(password: &[u8]) -> PasswordHash {
        PasswordHash(Sha256::digest(password).into())
    }

    /// Parses 64 hexadecimal digits in lower case.
    pub(super) fn parse(text: &[u8]) -> Option<PasswordHash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        let (pairs, []) = text.as_chunks::<2>() else { return None };
        if pairs.len() != hash.len() {
            return None;
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(PasswordHash(hash))
    }

    pub(super) fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The digest under `key`.
    pub(super) fn digest(&self, key: &[u8; 32]) -> Digest {
        Digest::new(key, &self.0)
    }
}

/// In constant time.
impl PartialEq for PasswordHash {
    fn eq(&self, other: &PasswordHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PasswordHash {}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hash)")
    }
}

/// A keyed hash of a secret, by which a table can find its owner: clients do not know the key and
/// cannot choose digests, so the time of a look-up reveals nothing.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of what a client has sent.
    pub fn new(key: &[u8; 32], given: &[u8]) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(key)
            .unwrap_or_else(|_| unreachable!("HMAC accepts keys of any length"));
        mac.update(b"credential\0");
        mac.update(given);
        Digest(mac.finalize().into_bytes().into())
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(digest)")
    }
}

/// A proof that the sender of a message knows a key.
pub struct Proof([u8; 32]);

impl Proof {
    /// The size of a proof, in bytes.
    pub const BYTES: usize = 32;

    /// The proof for a message.
    pub fn new(key: &[u8; 32], message: &[u8]) -> Proof {
        let mut mac = Hmac::<Sha256>::new_from_slice(key)
            .unwrap_or_else(|_| unreachable!("HMAC accepts keys of any length"));
        mac.update(b"message\0");
        mac.update(message);
        Proof(mac.finalize().into_bytes().into())
    }

    /// The bytes to send.
    pub fn to_bytes(&self) -> [u8; Proof::BYTES] {
        self.0
    }

    /// Returns whether `given` is this proof, in constant time.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_only_and_is_not_printed() {
        assert_eq!(Secret::new(""), None);
        let secret = Secret::new("s3cret").unwrap();
        assert!(secret.matches(b"s3cret"));
        for other in [&b""[..], b"s3cre", b"s3cret0", b"S3cret"] {
            assert!(!secret.matches(other));
        }
        let debug = format!("{:?} {:?}", secret, secret.digest(&[1; 32]));
        assert_eq!(debug, "(secret) (digest)");
    }

    #[test]
    fn a_digest_depends_on_secret_and_key() {
        let secret = Secret::new("s3cret").unwrap();
        assert_eq!(secret.digest(&[1; 32]), Digest::new(&[1; 32], b"s3cret"));
        assert_ne!(secret.digest(&[1; 32]), Digest::new(&[2; 32], b"s3cret"));
        assert_ne!(secret.digest(&[1; 32]), Digest::new(&[1; 32], b"s3crets"));
    }
}
