//! The name of a key: its database and its bytes.

use std::fmt;

use super::limits::{DATABASES, Invalid, KEY_BYTES_MAX};
use super::short_bytes::ShortBytes;

/// The name of a lock: a database number and a binary-safe key of up to [`KEY_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockName(ShortBytes);

/// The parts of a [`LockName`], borrowed. Checked before the name is made, so that a request that is
/// refused copies nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BorrowedName<'a> {
    database: u8,
    key: &'a [u8],
}

impl<'a> BorrowedName<'a> {
    /// Fails on a length or database out of range.
    #[inline]
    pub fn new(database: u8, key: &'a [u8]) -> Result<BorrowedName<'a>, Invalid> {
        if database >= DATABASES {
            return Err(Invalid::Database);
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(Invalid::KeyLength { min: 0, max: KEY_BYTES_MAX });
        }
        Ok(BorrowedName { database, key })
    }

    /// Copies the name.
    pub fn to_owned(self) -> LockName {
        LockName(ShortBytes::of(&[self.database], self.key))
    }
}

impl LockName {
    /// Copies `key`; fails on a length or database out of range.
    #[inline]
    pub fn new(database: u8, key: &[u8]) -> Result<LockName, Invalid> {
        BorrowedName::new(database, key).map(BorrowedName::to_owned)
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
