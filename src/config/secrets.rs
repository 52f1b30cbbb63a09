//! Passwords, tokens and keys: given directly or in private files.
//!
//! Guarantees: a file that other users may read or change is refused. No error repeats a secret.
//! Not here: what they authenticate.

use std::os::unix::fs::PermissionsExt;

use super::ConfigError;
use super::sources::Settings;
use crate::auth::{Secret, UserConfig, UsersConfig};
use crate::http;

/// A secret given directly in the setting `name`, or in the first line of the file `file` names.
fn secret(
    settings: &Settings,
    name: &'static str,
    file: &'static str,
) -> Result<Option<Secret>, ConfigError> {
    let direct = settings.text(name).and_then(Secret::new);
    let Some(path) = settings.text(file) else { return Ok(direct) };
    if direct.is_some() {
        return Err(settings.fault(file, format!("--{name} is also set; use only one of them")));
    }
    let text = read_private(path).map_err(|problem| settings.fault(file, problem))?;
    match Secret::new(text.lines().next().unwrap_or("").trim_end()) {
        None => Err(settings.fault(file, format!("the first line of {path} is empty"))),
        found => Ok(found),
    }
}

/// Reads a file that holds secrets. Refuses one that other users may access.
fn read_private(path: &str) -> Result<String, String> {
    let unreadable = |error| format!("cannot read {path}: {error}");
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{path} is accessible to other users (mode {:o}); run chmod 600 on it",
            mode & 0o777
        ));
    }
    std::fs::read_to_string(path).map(without_mark).map_err(unreadable)
}

/// Removes the byte order mark that some editors put in front of a text.
pub(super) fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

/// The password of Redis clients.
pub(super) fn password(settings: &Settings) -> Result<Option<Secret>, ConfigError> {
    secret(settings, "requirepass", "requirepass-file")
}

/// The HTTP users. Without any, the user `local` authenticates with the password of Redis clients,
/// if one is set.
pub(super) fn users(settings: &Settings, password: Option<&Secret>) -> Result<UsersConfig, ConfigError> {
    let mut users = Vec::new();
    if let Some(line) = settings.text("http-token") {
        let user = parse_user(line);
        users
            .push(user.map_err(|problem| settings.fault("http-token", format!("what was given {problem}")))?);
    }
    if let Some(path) = settings.text("http-tokens") {
        users.extend(users_in(path).map_err(|problem| settings.fault("http-tokens", problem))?);
    }
    if let Some(name) = ambiguous_user(&users) {
        let problem = format!("the token of {name} is given twice, or {name} has two namespaces");
        return Err(settings.fault("http-tokens", problem));
    }
    let local_token = password.filter(|_| users.is_empty()).cloned();
    let admin_key = secret(settings, "http-admin-key", "http-admin-key-file")?;
    Ok(UsersConfig { users, local_token, admin_key })
}

/// The users in the file at `path`, one per line; empty lines and comments are skipped.
fn users_in(path: &str) -> Result<Vec<UserConfig>, String> {
    let text = read_private(path)?;
    let lines = text.lines().map(str::trim).enumerate();
    let users = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| parse_user(line).map_err(|problem| format!("line {} of {path} {problem}", at + 1)))
        .collect::<Result<Vec<_>, _>>()?;
    if users.is_empty() { Err(format!("{path} has no user")) } else { Ok(users) }
}

fn parse_user(line: &str) -> Result<UserConfig, &'static str> {
    let user = UserConfig::parse(line)?;
    match &user.namespace {
        Some(namespace) if !http::is_namespace(namespace) => {
            Err("has a namespace that cannot begin the name of a lock")
        }
        _ => Ok(user),
    }
}

/// The name of a user whose token occurs twice, or who has two namespaces.
fn ambiguous_user(users: &[UserConfig]) -> Option<&str> {
    let found = users.iter().enumerate().find_map(|(at, user)| {
        users[..at].iter().find(|other| {
            other.token == user.token || (other.name == user.name && other.namespace != user.namespace)
        })
    });
    found.map(|user| user.name.as_str())
}
