//! Fixed bounds of requests, and the error for a value outside them.

use std::fmt;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 65_534;
/// Longest owner, in bytes: the value of a string is one.
pub const OWNER_BYTES_MAX: usize = 64 << 20;
/// Longest TTL, in milliseconds. As in Redis, the largest signed integer.
pub const TTL_MS_MAX: u64 = i64::MAX as u64;
/// Longest key of the native lock commands, in bytes.
pub const LOCK_KEY_BYTES_MAX: usize = 1024;
/// Longest owner of the native lock commands, in bytes.
pub const LOCK_OWNER_BYTES_MAX: usize = 4096;
/// Longest TTL of the native lock commands, in milliseconds: 30 days.
pub const LOCK_TTL_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Number of databases a client can `SELECT`.
pub const DATABASES: u8 = 16;
/// Largest token a fencing counter may reach: integers up to 2^53 - 1 survive every client's number type.
pub const TOKEN_MAX: i64 = (1 << 53) - 1;

/// Why bytes did not become a value of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// A key of more than [`KEY_BYTES_MAX`] bytes.
    KeyLength,
    /// An owner of more than [`OWNER_BYTES_MAX`] bytes.
    OwnerLength,
    /// A database number of [`DATABASES`] or more.
    Database,
    /// A TTL of 0 or more than [`TTL_MS_MAX`].
    Ttl,
    /// A token outside 1…[`TOKEN_MAX`].
    Token,
    /// A limit of 0 holders.
    Limit,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::KeyLength => write!(f, "a key has at most {KEY_BYTES_MAX} bytes"),
            Invalid::OwnerLength => write!(f, "an owner has at most {OWNER_BYTES_MAX} bytes"),
            Invalid::Database => write!(f, "a database is 0 to {}", DATABASES - 1),
            Invalid::Ttl => write!(f, "a TTL is 1 to {TTL_MS_MAX} milliseconds"),
            Invalid::Token => write!(f, "a fencing token is 1 to {TOKEN_MAX}"),
            Invalid::Limit => write!(f, "a limit is at least 1"),
        }
    }
}

impl std::error::Error for Invalid {}
