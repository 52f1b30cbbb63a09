//! Bounds of requests: those that are fixed, and those that are configured.
//!
//! Guarantees: a configured limit cannot admit what the fixed bound refuses; the error names the
//! limit in force. Not here: the error codes of any protocol.

use std::fmt;

use super::{BorrowedName, BorrowedOwner, LockName, Owner, Ttl};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 65_534;
/// Longest owner, in bytes: the value of a string is one.
pub const OWNER_BYTES_MAX: usize = 64 << 20;
/// Longest TTL, in milliseconds. As in Redis, the largest signed integer.
pub const TTL_MS_MAX: u64 = i64::MAX as u64;
/// Longest TTL of the lock commands and of HTTP, in milliseconds: 30 days.
pub const LOCK_TTL_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Number of databases a client can `SELECT`.
pub const DATABASES: u8 = 16;
/// Largest fencing token: integers up to 2^53 - 1 are exact in every client's number type.
pub const TOKEN_MAX: i64 = (1 << 53) - 1;

/// The configured limits of requests. They bind every protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest TTL of the lock commands, in milliseconds; at most [`LOCK_TTL_MS_MAX`].
    pub ttl_ms_max: u64,
    /// Default TTL of LOCK and SESSION OPEN, in milliseconds; at most `ttl_ms_max`.
    pub ttl_ms_default: u64,
    /// Longest key, in bytes; at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// Longest key that can be locked, in bytes; at most [`KEY_BYTES_MAX`].
    pub lock_key_bytes_max: usize,
    /// Longest owner that the lock commands accept, in bytes; at most [`OWNER_BYTES_MAX`].
    pub owner_bytes_max: usize,
    /// Longest value of a string, in bytes; at most [`OWNER_BYTES_MAX`].
    pub value_bytes_max: usize,
    /// Longest META text, in bytes.
    pub meta_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ttl_ms_max: LOCK_TTL_MS_MAX,
            ttl_ms_default: 30_000,
            key_bytes_max: 16 << 10,
            lock_key_bytes_max: 1024,
            owner_bytes_max: 4096,
            value_bytes_max: 1 << 20,
            meta_bytes_max: 1024,
        }
    }
}

impl Limits {
    /// The name of `key` in `database`, for commands on keys of any kind.
    pub fn key(&self, database: u8, key: &[u8]) -> Result<LockName, Invalid> {
        if key.len() > self.key_bytes_max {
            return Err(Invalid::KeyLength { min: 0, max: self.key_bytes_max });
        }
        LockName::new(database, key)
    }

    /// The name of `key` in `database`, for the lock commands.
    pub fn lock_name<'a>(&self, database: u8, key: &'a [u8]) -> Result<BorrowedName<'a>, Invalid> {
        if key.is_empty() || key.len() > self.lock_key_bytes_max {
            return Err(Invalid::KeyLength { min: 1, max: self.lock_key_bytes_max });
        }
        BorrowedName::new(database, key)
    }

    /// The owner that a client has sent.
    pub fn owner<'a>(&self, bytes: &'a [u8]) -> Result<BorrowedOwner<'a>, Invalid> {
        if bytes.is_empty() || bytes.len() > self.owner_bytes_max {
            return Err(Invalid::OwnerLength { min: 1, max: self.owner_bytes_max });
        }
        BorrowedOwner::new(bytes)
    }

    /// The value of a string that a client has sent.
    pub fn value(&self, bytes: &[u8]) -> Result<Owner, Invalid> {
        if bytes.len() > self.value_bytes_max {
            return Err(Invalid::OwnerLength { min: 0, max: self.value_bytes_max });
        }
        Owner::new(bytes)
    }

    /// A TTL, delay or hold of `millis` milliseconds.
    pub fn ttl(&self, millis: u64) -> Result<Ttl, Invalid> {
        let ttl = Ttl::from_millis(millis).ok().filter(|ttl| ttl.as_millis() <= self.ttl_ms_max);
        ttl.ok_or(Invalid::Ttl { max: self.ttl_ms_max })
    }

    /// The TTL of a request that names none.
    pub fn ttl_default(&self) -> Result<Ttl, Invalid> {
        self.ttl(self.ttl_ms_default)
    }

    /// A TTL of `millis` milliseconds, or the longest one that is allowed.
    pub fn ttl_at_most(&self, millis: u64) -> Result<Ttl, Invalid> {
        self.ttl(millis.min(self.ttl_ms_max))
    }
}

/// Why bytes or a number did not become a value of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// A key of fewer than `min` or more than `max` bytes.
    KeyLength {
        /// Shortest key, in bytes.
        min: usize,
        /// Longest key, in bytes.
        max: usize,
    },
    /// An owner of fewer than `min` or more than `max` bytes.
    OwnerLength {
        /// Shortest owner, in bytes.
        min: usize,
        /// Longest owner, in bytes.
        max: usize,
    },
    /// A database number of [`DATABASES`] or more.
    Database,
    /// A TTL of 0 or more than `max`.
    Ttl {
        /// Longest TTL, in milliseconds.
        max: u64,
    },
    /// A token outside 1…[`TOKEN_MAX`].
    Token,
    /// A limit of 0 holders.
    Limit,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::KeyLength { min, max } => write!(f, "key must be {min} to {max} bytes"),
            Invalid::OwnerLength { min, max } => write!(f, "owner must be {min} to {max} bytes"),
            Invalid::Database => write!(f, "database must be 0 to {}", DATABASES - 1),
            Invalid::Ttl { max } => write!(f, "TTL must be 1 to {max} milliseconds"),
            Invalid::Token => write!(f, "fencing token must be 1 to {TOKEN_MAX}"),
            Invalid::Limit => write!(f, "limit must be at least 1"),
        }
    }
}

impl std::error::Error for Invalid {}
