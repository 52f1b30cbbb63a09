//! The owner of a lease.

use std::fmt;

use super::limits::{Invalid, OWNER_BYTES_MAX};
use super::short_bytes::ShortBytes;

/// The opaque, secret text by which a client proves that a lease is its own, or the value of a string:
/// up to [`OWNER_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(ShortBytes);

/// The bytes of an [`Owner`], borrowed and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BorrowedOwner<'a>(&'a [u8]);

impl<'a> BorrowedOwner<'a> {
    /// Fails on a length out of range.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<BorrowedOwner<'a>, Invalid> {
        if bytes.len() > OWNER_BYTES_MAX {
            return Err(Invalid::OwnerLength { min: 0, max: OWNER_BYTES_MAX });
        }
        Ok(BorrowedOwner(bytes))
    }

    /// Copies the owner.
    pub fn to_owned(self) -> Owner {
        Owner(ShortBytes::of(&[], self.0))
    }
}

impl Owner {
    /// Copies `bytes`; fails on a length out of range.
    #[inline]
    pub fn new(bytes: &[u8]) -> Result<Owner, Invalid> {
        BorrowedOwner::new(bytes).map(BorrowedOwner::to_owned)
    }

    /// The owner as the client sent it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}
