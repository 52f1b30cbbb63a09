//! Any text as a users file.
//!
//! Checks: nothing panics; the line of every user that was read is read back as the same user; a user
//! for whom nothing is checked passes every check.

use octostore::auth::{Uses, parse_users};
use octostore::command::catalog;

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(users) = parse_users(catalog(), &text) else { return };
    for user in users {
        // A pattern may have bytes that are no text, but a file that was read has none.
        let line = String::from_utf8(user.line()).expect("text");
        let read = parse_users(catalog(), &line).expect("a line that was written");
        assert_eq!(String::from_utf8(read[0].line()).expect("text"), line);
        let uses = Uses { every_key: true, channels: vec![(b"any", false)], ..Uses::default() };
        if user.allows_everything() {
            assert!(catalog().find("flushall").is_some_and(|command| user.check(command, &uses).is_ok()));
        }
    }
}
