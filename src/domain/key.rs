//! The name of a key: its database and its bytes.

use std::fmt;

use super::limits::{DATABASES, Invalid, KEY_BYTES_MAX};
use super::short_bytes::ShortBytes;

/// The name of a lock: a database number and a binary-safe key of up to [`KEY_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockName(ShortBytes);

impl LockName {
    /// Copies `key`; fails on a length or database out of range.
    #[inline]
    pub fn new(database: u8, key: &[u8]) -> Result<LockName, Invalid> {
        if database >= DATABASES {
            return Err(Invalid::Database);
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(Invalid::KeyLength { min: 0, max: KEY_BYTES_MAX });
        }
        Ok(LockName(ShortBytes::of(&[database], key)))
    }

    /// The database, 0…15.
    pub fn database(&self) -> u8 {
        self.as_bytes()[0]
    }

    /// The key as the client sent it.
    pub fn key(&self) -> &[u8] {
        &self.as_bytes()[1..]
    }

    /// Database and key as one byte string, for hashing.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.database(), self.key().escape_ascii())
    }
}
