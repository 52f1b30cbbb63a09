//! Numbers that identify leases, sessions and waiting requests.

use super::limits::{Invalid, TOKEN_MAX};

/// A number that increases with every grant. A resource refuses writes with an older one, such as
/// those of a holder that was paused past its TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(i64);

impl FencingToken {
    /// The token `n`; fails outside 1…[`TOKEN_MAX`].
    pub fn new(n: i64) -> Result<FencingToken, Invalid> {
        if (1..=TOKEN_MAX).contains(&n) { Ok(FencingToken(n)) } else { Err(Invalid::Token) }
    }

    /// The token as a number.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// An unguessable 128-bit name of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// The id of these random bytes, with the version and variant bits of a random UUID.
    pub fn from_random(bytes: [u8; 16]) -> SessionId {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0x3 << 62;
        SessionId((u128::from_be_bytes(bytes) & !VERSION & !VARIANT) | (0x4 << 76) | (0x2 << 62))
    }
}

/// A blocked request, unique within a run of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);
