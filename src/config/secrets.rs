//! Passwords, tokens and keys: given directly or in private files.
//!
//! Guarantees: a file that others may read or change is refused. No error repeats a secret.

use std::os::unix::fs::PermissionsExt;

use super::ConfigError;
use super::sources::Settings;
use crate::command::Password;
use crate::http::{Secret, UserConfig, UsersConfig};

/// A secret given as such, or as a file with it in the first line.
pub(super) fn secret(
    settings: &Settings,
    name: &'static str,
    file: &'static str,
) -> Result<Option<String>, ConfigError> {
    let direct = settings.text(name).map(str::to_owned);
    let Some(path) = settings.text(file) else { return Ok(direct) };
    if direct.is_some() {
        return Err(settings.fault(file, format!("--{name} is also set; use only one of them")));
    }
    let text = read_private(path).map_err(|problem| settings.fault(file, problem))?;
    match text.lines().next().unwrap_or("").trim_end() {
        "" => Err(settings.fault(file, format!("the first line of {path} is empty"))),
        line => Ok(Some(line.to_owned())),
    }
}

/// Reads a file that holds a secret. Refuses one that is open to others.
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

/// Some editors put a byte order mark in front of a text. It is no part of it.
pub(super) fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

pub(super) fn password(settings: &Settings) -> Result<Option<Password>, ConfigError> {
    Ok(secret(settings, "requirepass", "requirepass-file")?.as_deref().and_then(Password::new))
}

/// The HTTP users. Without any, the user `local` authenticates with the password of Redis clients, if one is set.
pub(super) fn users(settings: &Settings) -> Result<UsersConfig, ConfigError> {
    let mut users = Vec::new();
    if let Some(line) = settings.text("http-token") {
        let user = UserConfig::parse(line);
        users
            .push(user.map_err(|problem| settings.fault("http-token", format!("what was given {problem}")))?);
    }
    if let Some(path) = settings.text("http-tokens") {
        let fault = |problem: String| settings.fault("http-tokens", problem);
        let text = read_private(path).map_err(fault)?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let user = UserConfig::parse(line);
            users.push(user.map_err(|problem| fault(format!("line {} of {path} {problem}", number + 1)))?);
        }
        if users.is_empty() {
            return Err(fault(format!("{path} has no user")));
        }
    }
    if let Some(twice) = users.iter().enumerate().find_map(|(n, user)| {
        users[..n].iter().find(|other| {
            other.token == user.token || (other.name == user.name && other.namespace != user.namespace)
        })
    }) {
        let name = &twice.name;
        let problem = format!("the token of {name} is given twice, or {name} has two namespaces");
        return Err(settings.fault("http-tokens", problem));
    }
    let local_token = match users.as_slice() {
        [] => secret(settings, "requirepass", "requirepass-file")?.as_deref().and_then(Secret::new),
        _ => None,
    };
    let admin_key =
        secret(settings, "http-admin-key", "http-admin-key-file")?.as_deref().and_then(Secret::new);
    Ok(UsersConfig { users, local_token, admin_key })
}
