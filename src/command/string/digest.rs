//! The digest by which `IFDEQ`, `IFDNE` and `DIGEST` compare values: XXH3 with 64 bits, as 16
//! hexadecimal digits.
//!
//! The only file that names xxhash-rust.

use super::CommandError;

/// Number of digits of a digest.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_xxh3_with_its_default_seed() {
        for (value, digest) in
            [("", "2d06800538d394c2"), ("a", "e6c632b61e964e1f"), ("abc", "78af5f94892f3950")]
        {
            assert_eq!(of(value.as_bytes()), digest, "{value:?}");
            assert_eq!(check(digest.to_uppercase().as_bytes()), Ok(()));
        }
        for bad in ["", "2d06800538d394c", "2d06800538d394c2a", "2d06800538d394cg"] {
            assert!(check(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
