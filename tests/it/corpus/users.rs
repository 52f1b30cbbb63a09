//! Any text as a users file.
//!
//! Checks: nothing panics; the line of every user that was read is read back as the same user; a user
//! for whom nothing is checked passes every check.

use octostore::auth::{KeyRights, Uses, parse_users};
use octostore::command::catalog;

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(users) = parse_users(catalog(), &text) else { return };
    for user in users {
        // A pattern may have bytes that are no text, but a file that was read has none.
        let line = String::from_utf8(user.line()).expect("text");
        let read = parse_users(catalog(), &line).expect("a line that was written");
        assert_eq!(String::from_utf8(read[0].line()).expect("text"), line);
        if user.allows_everything() {
            assert!(
                catalog().find("flushall").is_some_and(|command| user.check(command, &Everything).is_ok())
            );
        }
    }
}

/// Every key, and a channel.
struct Everything;

impl Uses for Everything {
    fn every_key(&self) -> bool {
        true
    }

    fn visit_keys(&self, _: &mut dyn FnMut(&[u8], KeyRights)) {}

    fn visit_channels(&self, visit: &mut dyn FnMut(&[u8], bool)) {
        visit(b"any", false);
    }
}
