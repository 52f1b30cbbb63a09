//! Bounds of requests: those that are fixed, and those that are configured.
//!
//! Guarantees: a configured limit cannot admit what the fixed bound refuses; the error names the
//! limit in force. Not here: the error codes of any protocol.

use std::fmt;

use super::{LockName, Owner, Ttl};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest owner, in bytes.
pub const OWNER_BYTES_MAX: usize = 4096;
/// Longest TTL, in milliseconds: 30 days.
pub const TTL_MS_MAX: u32 = 30 * 24 * 3600 * 1000;
/// Number of databases a client can `SELECT`.
pub const DATABASES: u8 = 16;
/// Largest fencing token: integers up to 2^53 - 1 are exact in every client's number type.
pub const TOKEN_MAX: i64 = (1 << 53) - 1;

/// The configured limits of requests. They bind every protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest TTL, in milliseconds; at most [`TTL_MS_MAX`].
    pub ttl_ms_max: u32,
    /// Default TTL of LOCK and SESSION OPEN, in milliseconds; at most `ttl_ms_max`.
    pub ttl_ms_default: u32,
    /// Longest key, in bytes; at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// Longest owner that a client may choose, in bytes; at most [`OWNER_BYTES_MAX`].
    pub owner_bytes_max: usize,
    /// Longest META text, in bytes.
    pub meta_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ttl_ms_max: TTL_MS_MAX,
            ttl_ms_default: 30_000,
            key_bytes_max: KEY_BYTES_MAX,
            owner_bytes_max: OWNER_BYTES_MAX,
            meta_bytes_max: 1024,
        }
    }
}

impl Limits {
    /// The lock of `key` in `database`.
    pub fn lock_name(&self, database: u8, key: &[u8]) -> Result<LockName, Invalid> {
        if key.len() > self.key_bytes_max {
            return Err(Invalid::KeyLength { max: self.key_bytes_max });
        }
        LockName::new(database, key).map_err(|invalid| match invalid {
            Invalid::KeyLength { .. } => Invalid::KeyLength { max: self.key_bytes_max },
            other => other,
        })
    }

    /// The owner that a client has sent.
    pub fn owner(&self, bytes: &[u8]) -> Result<Owner, Invalid> {
        let invalid = Invalid::OwnerLength { max: self.owner_bytes_max };
        if bytes.len() > self.owner_bytes_max {
            return Err(invalid);
        }
        Owner::new(bytes).map_err(|_| invalid)
    }

    /// A TTL, delay or hold of `millis` milliseconds.
    pub fn ttl(&self, millis: u64) -> Result<Ttl, Invalid> {
        let ttl = Ttl::from_millis(millis).ok().filter(|ttl| ttl.as_millis() <= self.ttl_ms_max);
        ttl.ok_or(Invalid::Ttl { max: self.ttl_ms_max })
    }

    /// The TTL of a request that names none.
    pub fn ttl_default(&self) -> Result<Ttl, Invalid> {
        self.ttl(u64::from(self.ttl_ms_default))
    }

    /// A TTL of `millis` milliseconds, or the longest one that is allowed.
    pub fn ttl_at_most(&self, millis: u64) -> Result<Ttl, Invalid> {
        self.ttl(millis.min(u64::from(self.ttl_ms_max)))
    }
}

/// Why bytes or a number did not become a value of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// A key of 0 bytes or more than `max`.
    KeyLength {
        /// Longest key, in bytes.
        max: usize,
    },
    /// An owner of 0 bytes or more than `max`.
    OwnerLength {
        /// Longest owner, in bytes.
        max: usize,
    },
    /// A database number of [`DATABASES`] or more.
    Database,
    /// A TTL of 0 or more than `max`.
    Ttl {
        /// Longest TTL, in milliseconds.
        max: u32,
    },
    /// A token outside 1…[`TOKEN_MAX`].
    Token,
    /// A limit of 0 holders.
    Limit,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::KeyLength { max } => write!(f, "key must be 1 to {max} bytes"),
            Invalid::OwnerLength { max } => write!(f, "owner must be 1 to {max} bytes"),
            Invalid::Database => write!(f, "database must be 0 to {}", DATABASES - 1),
            Invalid::Ttl { max } => write!(f, "TTL must be 1 to {max} milliseconds"),
            Invalid::Token => write!(f, "fencing token must be 1 to {TOKEN_MAX}"),
            Invalid::Limit => write!(f, "limit must be at least 1"),
        }
    }
}

impl std::error::Error for Invalid {}
