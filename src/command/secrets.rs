//! Which arguments of a request are secrets, for everything that shows requests to other clients.
//!
//! Guarantees: passwords and session ids are among them, also in requests that are not valid. Not
//! here: what shows requests.

use super::{Args, options};

/// Shown in place of a secret, as in Redis.
pub(super) const REDACTED: &[u8] = b"(redacted)";

/// Settings whose values are secrets, those of Redis that do not exist here included.
const SECRET_SETTINGS: [&str; 6] = [
    "requirepass",
    "masterauth",
    "tls-key-file-pass",
    "tls-client-key-file-pass",
    "http-token",
    "http-admin-key",
];

/// The argument number `n` as it may be shown.
pub(super) fn shown(args: Args<'_>, n: usize) -> &[u8] {
    if is_secret(args, n) { REDACTED } else { args.at(n) }
}

fn is_secret(args: Args<'_>, n: usize) -> bool {
    let is_command = |name| options::is(args.at(0), name);
    if n == 0 {
        return false;
    }
    if is_command("auth") {
        return true;
    }
    if is_command("acl") {
        return n > 1;
    }
    if is_command("session") {
        return n > 1 && !options::is(args.at(1), "open");
    }
    if is_command("hello") {
        return args.from(0).take(n).skip(1).any(|arg| options::is(arg, "auth"));
    }
    if is_command("config") {
        let is_set = n > 2 && options::is(args.at(1), "set");
        return is_set && SECRET_SETTINGS.iter().any(|name| options::is(args.at(n - 1), name));
    }
    // The option of LOCK.
    options::is(args.at(n - 1), "session")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::OwnedArgs;

    #[test]
    fn secrets_are_not_shown() {
        for (request, expected) in [
            ("GET auth", "GET auth"),
            ("auth secret", "auth (redacted)"),
            ("AUTH default secret more", "AUTH (redacted) (redacted) (redacted)"),
            ("HELLO 3 AUTH default secret", "HELLO 3 AUTH (redacted) (redacted)"),
            ("HELLO AUTH default secret", "HELLO AUTH (redacted) (redacted)"),
            ("CONFIG SET maxmemory 0 requirepass secret", "CONFIG SET maxmemory 0 requirepass (redacted)"),
            ("CONFIG GET requirepass masterauth", "CONFIG GET requirepass masterauth"),
            ("ACL SETUSER alice >secret", "ACL SETUSER (redacted) (redacted)"),
            ("ACL GENPASS", "ACL GENPASS"),
            ("HELLO 3 SETNAME auth", "HELLO 3 SETNAME auth"),
            ("SESSION OPEN EX 10", "SESSION OPEN EX 10"),
            ("SESSION CLOSE 1234", "SESSION CLOSE (redacted)"),
            ("LOCK key me SESSION 1234 EX 1", "LOCK key me SESSION (redacted) EX 1"),
        ] {
            let owned = OwnedArgs::of(request.split(' '));
            let args = owned.as_args();
            let shown: Vec<_> = (0..args.len()).map(|n| String::from_utf8_lossy(shown(args, n))).collect();
            assert_eq!(shown.join(" "), expected);
        }
    }
}
