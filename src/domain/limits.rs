//! Fixed bounds of requests, and the error for a value outside them.

use std::fmt;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest owner, in bytes.
pub const OWNER_BYTES_MAX: usize = 4096;
/// Longest TTL, in milliseconds: 30 days.
pub const TTL_MS_MAX: u32 = 30 * 24 * 3600 * 1000;
/// Number of databases a client can `SELECT`.
pub const DATABASES: u8 = 16;
/// Largest token a fencing counter may reach: integers up to 2^53 - 1 survive every client's number type.
pub const TOKEN_MAX: i64 = (1 << 53) - 1;

/// Why bytes did not become a value of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// A key of 0 bytes or more than [`KEY_BYTES_MAX`].
    KeyLength,
    /// An owner of 0 bytes or more than [`OWNER_BYTES_MAX`].
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
            Invalid::KeyLength => write!(f, "a key has 1 to {KEY_BYTES_MAX} bytes"),
            Invalid::OwnerLength => write!(f, "an owner has 1 to {OWNER_BYTES_MAX} bytes"),
            Invalid::Database => write!(f, "a database is 0 to {}", DATABASES - 1),
            Invalid::Ttl => write!(f, "a TTL is 1 to {TTL_MS_MAX} milliseconds"),
            Invalid::Token => write!(f, "a fencing token is 1 to {TOKEN_MAX}"),
            Invalid::Limit => write!(f, "a limit is at least 1"),
        }
    }
}

impl std::error::Error for Invalid {}
