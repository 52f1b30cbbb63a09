//! Users as configured.
//!
//! Guarantees: no error repeats a token. Not here: files; what a namespace means; which requests
//! are served without a token.

use super::Secret;

/// Longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 64;

/// A user as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserConfig {
    /// Letters, digits and hyphens.
    pub name: String,
    /// Authenticates the user.
    pub token: Secret,
    /// The names of all locks of the user start with this and a dot.
    pub namespace: Option<String>,
}

impl UserConfig {
    /// Parses `user:token [namespace]`. The error says what is wrong, without the token.
    pub fn parse(line: &str) -> Result<UserConfig, &'static str> {
        let mut fields = line.split_whitespace();
        let (Some(credentials), namespace, None) = (fields.next(), fields.next(), fields.next()) else {
            return Err("is not user:token, or user:token and a namespace");
        };
        let Some((name, token)) = credentials.split_once(':') else {
            return Err("is not user:token");
        };
        let is_valid = (1..=USER_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_valid {
            return Err("has a user that is not 1 to 64 letters, digits and hyphens");
        }
        let Some(token) = Secret::new(token) else { return Err("has an empty token") };
        Ok(UserConfig { name: name.to_owned(), token, namespace: namespace.map(str::to_owned) })
    }
}

/// All users, as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsersConfig {
    /// The users with a token; if empty, the only user is `local`.
    pub users: Vec<UserConfig>,
    /// The token of `local`; `None`: it needs none.
    pub local_token: Option<Secret>,
    /// The operators' key.
    pub admin_key: Option<Secret>,
}

impl UsersConfig {
    /// Returns whether requests need no token.
    pub fn are_open(&self) -> bool {
        self.users.is_empty() && self.local_token.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_user_a_token_and_optionally_a_namespace() {
        let user = UserConfig::parse("build-1:s3cr:et team").unwrap();
        assert_eq!((user.name.as_str(), user.namespace.as_deref()), ("build-1", Some("team")));
        assert_eq!(user.token, Secret::new("s3cr:et").unwrap());
        assert!(!format!("{user:?}").contains("s3cr"));
        for bad in ["", "alice", ":t", "alice:", "a b c", "a_b:t", "alice:t a b"] {
            assert!(UserConfig::parse(bad).is_err(), "{bad}");
        }
        assert!(UserConfig::parse(&format!("{}:t", "a".repeat(64))).is_ok());
        assert!(UserConfig::parse(&format!("{}:t", "a".repeat(65))).is_err());
    }
}
