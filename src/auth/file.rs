//! The users file, and files with secrets in general.
//!
//! Guarantees: a file that other users of the machine may read or change is refused. An error names
//! the line and the reason, never a password. A saved file is complete or unchanged.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::catalog::Catalog;
use super::user::{User, join_selectors};

/// Reads a file that holds secrets. Refuses one that other users may access.
pub fn read_private(path: &str) -> Result<String, String> {
    check_private(path)?;
    fs::read_to_string(path).map(without_mark).map_err(|error| format!("cannot read {path}: {error}"))
}

/// Refuses a file with secrets that other users of the machine may read or change.
pub fn check_private(path: &str) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if is_private(metadata.uid(), mode) {
        Ok(())
    } else {
        Err(format!("{path} is accessible to other users (mode {mode:o}); run chmod 600 on it"))
    }
}

/// Only its owner may use the file. Its group may read it if it belongs to root: so packages and
/// Kubernetes hand files to a service that must not change them.
fn is_private(owner: u32, mode: u32) -> bool {
    let allowed = if owner == 0 { 0o740 } else { 0o700 };
    mode & !allowed == 0
}

/// Removes the byte order mark that some editors put in front of a text.
pub fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

/// The users in the file at `path`.
pub fn read_users(catalog: &Catalog, path: &str) -> Result<Vec<User>, String> {
    parse_users(catalog, &read_private(path)?).map_err(|problem| format!("{path}: {problem}"))
}

/// The users in the text of a file: one `user <name> <rules…>` per line; empty lines and lines that
/// start with `#` are skipped.
pub fn parse_users(catalog: &Catalog, text: &str) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut names = HashSet::new();
    for (at, line) in text.lines().enumerate() {
        // Other white space may be a part of a password.
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let user = parse_user(catalog, line).map_err(|problem| format!("line {}: {problem}", at + 1))?;
        if !names.insert(Arc::clone(user.name())) {
            return Err(format!("line {}: user '{}' is defined twice", at + 1, user.name()));
        }
        users.push(user);
    }
    Ok(users)
}

fn parse_user(catalog: &Catalog, line: &str) -> Result<User, String> {
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("user") {
        return Err("should start with the word 'user'".to_owned());
    }
    let name = words.next().ok_or("the name of the user is missing")?;
    let mut user = User::new(name.as_bytes()).ok_or("the name of the user is not valid")?;
    let rules =
        join_selectors(words.map(str::as_bytes)).map_err(|_| "a selector has no closing parenthesis")?;
    user.apply_all(catalog, rules.iter().map(Vec::as_slice)).map_err(|(error, rule)| match rule {
        [b'~' | b'%' | b'&' | b'+' | b'-', ..] => format!("rule '{}': {error}", rule.escape_ascii()),
        // A password that lacks its `>`, or has a space, looks like a rule that does not exist.
        _ => {
            let at = rules.iter().position(|other| other == rule).map_or(0, |at| at + 1);
            format!("rule {at} of user '{name}': {error}")
        }
    })?;
    Ok(user)
}

/// Replaces the file at `path` by one with these users.
pub(super) fn write_users<'u>(path: &str, users: impl Iterator<Item = &'u User>) -> io::Result<()> {
    let path = Path::new(path);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    // What is there may be a link, or have the rights of another file.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    for user in users {
        file.write_all(&user.line())?;
        file.write_all(b"\n")?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_saved_whatever_an_earlier_attempt_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("users"), folder.path().join("other"));
        let temporary = folder.path().join("users.tmp");
        fs::write(&other, "other").unwrap();
        let saved = || {
            write_users(file.to_str().unwrap(), std::iter::empty()).unwrap();
            let found = fs::symlink_metadata(&file).unwrap();
            assert!(found.is_file() && found.mode() & 0o777 == 0o600, "{found:?}");
        };
        fs::write(&temporary, "shared with others").unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o666)).unwrap();
        saved();
        std::os::unix::fs::symlink(&other, &temporary).unwrap();
        saved();
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
    }

    #[test]
    fn a_group_may_read_files_of_root_only() {
        assert!(is_private(1000, 0o600) && is_private(0, 0o600) && is_private(1000, 0o400));
        assert!(is_private(0, 0o640) && is_private(0, 0o440));
        assert!(!is_private(1000, 0o640) && !is_private(1000, 0o440));
        for shared in [0o660, 0o644, 0o604, 0o602, 0o650] {
            assert!(!is_private(0, shared) && !is_private(1000, shared), "{shared:o}");
        }
    }
}
