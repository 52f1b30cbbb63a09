//! Users as configured, and those of HTTP tokens, an older way to define users.
//!
//! Guarantees: no error repeats a token. Not here: reading files; which requests are served without a
//! token.

use super::catalog::Catalog;
use super::secret::Secret;
use super::user::{DEFAULT_USER, User};

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
        if name == DEFAULT_USER {
            return Err("has the user default, whose password is --requirepass");
        }
        let Some(token) = Secret::new(token) else { return Err("has an empty token") };
        Ok(UserConfig { name: name.to_owned(), token, namespace: namespace.map(str::to_owned) })
    }
}

/// What the user of an HTTP token may do beside its locks, on which it may do everything but force.
const TOKEN_RULES: [&str; 5] = ["on", "+@lock", "+@connection", "-@dangerous", "&__lock__:*"];

impl UserConfig {
    fn apply_to(&self, user: &mut User, catalog: &Catalog) {
        let mut pattern = b"~".to_vec();
        for byte in self.namespace.iter().flat_map(|namespace| namespace.bytes()) {
            if b"*?[]\\^".contains(&byte) {
                pattern.push(b'\\');
            }
            pattern.push(byte);
        }
        pattern.extend_from_slice(if self.namespace.is_some() { b".*" } else { b"*" });
        let rules = TOKEN_RULES.iter().map(|rule| rule.as_bytes());
        let applied = user.apply_all(catalog, rules.chain([b"resetkeys", &*pattern]));
        debug_assert!(applied.is_ok(), "{applied:?}");
        user.add_password(self.token.hash());
    }
}

/// All users, as configured.
#[derive(Debug, Clone, Default)]
pub struct UsersConfig {
    /// The password of the user `default`, unless the file defines that user.
    pub password: Option<Secret>,
    /// The users of HTTP tokens.
    pub tokens: Vec<UserConfig>,
    /// The users file.
    pub file: Option<String>,
    /// The users in the file.
    pub in_file: Vec<User>,
}

impl UsersConfig {
    /// The users that settings other than the file define. Those of the file take precedence.
    pub fn beside_file(&self, catalog: &Catalog) -> Vec<User> {
        let mut default = User::open_default(catalog);
        if let Some(password) = &self.password {
            default.set_passwords([password.hash()]);
        }
        let mut users = vec![default];
        for token in &self.tokens {
            let place = users.iter().position(|user| **user.name() == *token.name).or_else(|| {
                users.push(User::new(token.name.as_bytes())?);
                Some(users.len() - 1)
            });
            if let Some(place) = place {
                token.apply_to(&mut users[place], catalog);
            }
        }
        users
    }

    /// Whether Redis clients need no password.
    pub fn are_open(&self) -> bool {
        let default = self.in_file.iter().find(|user| **user.name() == *DEFAULT_USER);
        default.map_or(self.password.is_none(), User::is_open)
    }

    /// Whether HTTP requests need no credentials.
    pub fn are_open_to_http(&self) -> bool {
        self.are_open() && self.tokens.is_empty()
    }

    /// The users of the file, each as a line.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.in_file.iter().map(User::line).collect()
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

    #[test]
    fn tokens_define_users_with_their_names_of_locks() {
        let commands = [("lock", ["@lock"]), ("forceunlock", ["@lock"]), ("ping", ["@connection"])];
        let catalog = Catalog::new(commands, ["@lock", "@connection", "@dangerous"]);
        let parse = |line: &str| UserConfig::parse(line).unwrap();
        let tokens = vec![parse("alice:t"), parse("bob:u te*am"), parse("alice:v")];
        let config = UsersConfig { tokens, ..UsersConfig::default() };
        let users = config.beside_file(&catalog);
        let rules = |n: usize| {
            let rules = users[n].rules().next().unwrap();
            (users[n].name().to_string(), users[n].hashes().count(), String::from_utf8(rules.keys).unwrap())
        };
        assert_eq!(rules(1), ("alice".to_owned(), 2, "~*".to_owned()));
        assert_eq!(rules(2), ("bob".to_owned(), 1, "~te\\*am.*".to_owned()));
        assert!(users[0].is_open() && config.are_open() && !config.are_open_to_http());
    }
}
