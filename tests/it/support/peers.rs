//! Programs that tests compare with, and that a machine may lack.

/// Prints why a test, or a part of it, is skipped. Panics where nothing may be skipped: if
/// `PEERS_DEMANDED` is set.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("PEERS_DEMANDED").is_none(), "demanded, but {reason}");
    println!("skipped: {reason}");
}
