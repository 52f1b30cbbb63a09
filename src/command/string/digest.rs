//! The digest by which `IFDEQ`, `IFDNE` and `DIGEST` compare values: XXH3 with 64 bits, as 16 hexadecimal digits.
//!
//! The only file that names xxhash-rust.

use super::CommandError;

/// Digits of a digest.
const DIGITS: usize = 16;

/// The digest of a value.
pub(super) fn of(value: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(value))
}

/// Checks that an argument can be a digest.
pub(super) fn check(digest: &[u8]) -> Result<(), CommandError> {
    if digest.len() == DIGITS && digest.iter().all(u8::is_ascii_hexdigit) {
        return Ok(());
    }
    Err(CommandError::fixed("ERR digest must be exactly 16 hexadecimal characters"))
}
