//! Passwords, tokens and keys: given directly or in private files.
//!
//! Guarantees: a file that other users may read or change is refused. No error repeats a secret.
//! Not here: what they authenticate.

use super::ConfigError;
use super::sources::Settings;
use crate::auth::{Secret, UserConfig, UsersConfig, read_private, read_users};
use crate::command::catalog;
use crate::http::{self, AccessConfig};

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

/// The password of Redis clients.
pub(super) fn password(settings: &Settings) -> Result<Option<Secret>, ConfigError> {
    secret(settings, "requirepass", "requirepass-file")
}

/// All users.
pub(super) fn users(settings: &Settings, password: Option<Secret>) -> Result<UsersConfig, ConfigError> {
    let mut tokens = Vec::new();
    if let Some(line) = settings.text("http-token") {
        let user = parse_user(line);
        tokens
            .push(user.map_err(|problem| settings.fault("http-token", format!("what was given {problem}")))?);
    }
    if let Some(path) = settings.text("http-tokens") {
        tokens.extend(users_in(path).map_err(|problem| settings.fault("http-tokens", problem))?);
    }
    if let Some(problem) = ambiguity(&tokens) {
        return Err(settings.fault("http-tokens", problem));
    }
    let file = settings.text("users").map(str::to_owned);
    let in_file = match &file {
        Some(path) => read_users(catalog(), path).map_err(|problem| settings.fault("users", problem))?,
        None => Vec::new(),
    };
    Ok(UsersConfig { password, tokens, file, in_file })
}

/// What HTTP checks beside users.
pub(super) fn http_access(settings: &Settings, users: &UsersConfig) -> Result<AccessConfig, ConfigError> {
    Ok(AccessConfig {
        admin_key: secret(settings, "http-admin-key", "http-admin-key-file")?,
        needs_credentials: !users.tokens.is_empty(),
        is_metrics_open: settings.switch("metrics-open")?,
    })
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

/// Describes a token that two entries share, or a user who has two namespaces.
fn ambiguity(users: &[UserConfig]) -> Option<String> {
    users.iter().enumerate().find_map(|(at, user)| {
        users[..at].iter().find_map(|other| match (other.token == user.token, other.name == user.name) {
            (true, true) => Some(format!("the token of {} is given twice", user.name)),
            (true, false) => Some(format!("{} and {} have the same token", other.name, user.name)),
            (false, true) if other.namespace != user.namespace => {
                Some(format!("{} has two namespaces", user.name))
            }
            _ => None,
        })
    })
}
