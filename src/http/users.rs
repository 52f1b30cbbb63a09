//! Who asks.
//!
//! Guarantees: credentials are kept and compared as keyed hashes, in constant time, and never shown. Without any configured,
//! one user `local` needs none, and then only requests that were meant for this machine are served. Not here: what a user
//! may do with a lock; for which host a request was meant.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, header};
use hmac::Mac;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::budget::Budget;
use super::error::ApiError;
use super::ids::{Ids, keyed};
use super::{body, names};
use crate::domain::{LockName, Owner};
use crate::metrics::Count;

/// Longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 64;
/// Names of locks that no user may use.
const RESERVED: &str = "__election/";

/// A secret of a user or an operator. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// From what was configured; `None` for an empty text, which would be no protection.
    pub fn new(text: &str) -> Option<Secret> {
        (!text.is_empty()).then(|| Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A user as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserConfig {
    /// Letters, digits and hyphens.
    pub name: String,
    /// What it proves itself with.
    pub token: Secret,
    /// All its locks begin with this and a dot.
    pub namespace: Option<String>,
}

impl UserConfig {
    /// Reads `user:token [namespace]`; the error says what is wrong, without the token.
    pub fn parse(line: &str) -> Result<UserConfig, &'static str> {
        let mut words = line.split_whitespace();
        let (Some(credentials), namespace, None) = (words.next(), words.next(), words.next()) else {
            return Err("is not user:token, or user:token and a namespace");
        };
        let Some((name, token)) = credentials.split_once(':') else {
            return Err("is not user:token");
        };
        let is_good = |name: &str| {
            (1..=USER_BYTES_MAX).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !is_good(name) {
            return Err("has a user that is not 1 to 64 letters, digits and hyphens");
        }
        let Some(token) = Secret::new(token) else { return Err("has an empty token") };
        if namespace.is_some_and(|namespace| names::parse(&format!("{namespace}.x")).is_err()) {
            return Err("has a namespace that cannot begin the name of a lock");
        }
        Ok(UserConfig { name: name.to_owned(), token, namespace: namespace.map(str::to_owned) })
    }
}

/// Who may ask, as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsersConfig {
    /// Everyone with a token. Nobody: one user `local`.
    pub users: Vec<UserConfig>,
    /// What `local` must know; without it, nothing.
    pub local_token: Option<Secret>,
    /// What operators know.
    pub admin_key: Option<Secret>,
}

impl UsersConfig {
    /// Whether requests need no token.
    pub fn are_open(&self) -> bool {
        self.users.is_empty() && self.local_token.is_none()
    }
}

/// A user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: Uuid,
    pub(super) name: String,
    /// Toward which its locks count.
    pub(super) account: Box<str>,
    /// As which it holds locks that are not ephemeral.
    pub(super) owner: Owner,
    namespace: Option<String>,
    /// What its requests may have in flight.
    pub(super) bodies: Budget,
}

impl User {
    fn new(ids: &Ids, name: &str, namespace: Option<String>) -> User {
        User {
            id: ids.user(name),
            name: name.to_owned(),
            account: name.into(),
            owner: Owner::new(format!("http:{name}").as_bytes())
                .unwrap_or_else(|_| unreachable!("names of users are short")),
            namespace,
            bodies: body::budget(),
        }
    }

    /// The lock of a name, if this user may use it.
    pub(super) fn lock(&self, name: &str) -> Result<LockName, ApiError> {
        let lock = names::parse(name)?;
        if name.starts_with(RESERVED) {
            return Err(ApiError::forbidden("names that start with __election/ are reserved"));
        }
        match &self.namespace {
            Some(own) if !is_inside(own, name) => {
                Err(ApiError::forbidden(&format!("the names of this user's locks start with {own}.")))
            }
            _ => Ok(lock),
        }
    }

    /// The prefix that a list is about.
    pub(super) fn prefix(&self, asked: Option<String>) -> Result<Option<String>, ApiError> {
        match (&self.namespace, asked) {
            (None, asked) => Ok(asked),
            (Some(own), None) => Ok(Some(format!("{own}."))),
            (Some(own), Some(prefix)) if is_inside(own, &prefix) => Ok(Some(prefix)),
            (Some(own), Some(_)) => {
                Err(ApiError::forbidden(&format!("the names of this user's locks start with {own}.")))
            }
        }
    }
}

fn is_inside(namespace: &str, name: &str) -> bool {
    name.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('.'))
}

type Digest = [u8; 32];

/// Everyone who may ask, at this time. Each request looks at one state of it.
pub(super) struct Users {
    key: [u8; 32],
    current: RwLock<Arc<Accounts>>,
    /// Wrong tokens and keys that were given.
    pub(super) failed_logins: Count,
}

impl Users {
    pub(super) fn new(config: &UsersConfig, ids: &Ids, secret: &[u8; 32]) -> Users {
        let current = RwLock::new(Arc::new(Accounts::new(config, ids, secret)));
        Users { key: *secret, current, failed_logins: Count::default() }
    }

    /// Replaces everyone. Requests under way go on as who they are.
    pub(super) fn replace(&self, config: &UsersConfig, ids: &Ids) {
        let accounts = Arc::new(Accounts::new(config, ids, &self.key));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = accounts;
    }

    fn current(&self) -> Arc<Accounts> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<User>> {
        self.current().all()
    }

    /// Who asks about locks and sessions.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<User>, ApiError> {
        self.counted(self.current().authenticate(headers))
    }

    /// Refuses whoever is not an operator. Where nobody has credentials, everyone is.
    pub(super) fn authenticate_admin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        self.counted(self.current().authenticate_admin(headers))
    }

    /// Whether a request must be meant for this machine, as nothing else shows that its sender may ask.
    pub(super) fn serve_this_machine_only(&self, headers: &HeaderMap) -> bool {
        let accounts = self.current();
        accounts.open.is_some() && !accounts.is_operator(headers)
    }

    fn counted<T>(&self, found: Result<T, ApiError>) -> Result<T, ApiError> {
        if found.as_ref().is_err_and(ApiError::is_wrong_credentials) {
            self.failed_logins.add(1);
        }
        found
    }
}

/// Everyone who may ask.
struct Accounts {
    key: [u8; 32],
    by_token: HashMap<Digest, Arc<User>>,
    admin: Option<Digest>,
    admin_user: Arc<User>,
    /// Who asks without credentials.
    open: Option<Arc<User>>,
}

impl Accounts {
    fn new(config: &UsersConfig, ids: &Ids, secret: &[u8; 32]) -> Accounts {
        // Parentheses are in no user's name.
        let admin_user = Arc::new(User::new(ids, "(admin)", None));
        let admin = config.admin_key.as_ref().map(|key| digest(secret, &key.0));
        let mut users = Accounts { key: *secret, by_token: HashMap::new(), admin, admin_user, open: None };
        for user in &config.users {
            let made = Arc::new(User::new(ids, &user.name, user.namespace.clone()));
            users.by_token.insert(digest(secret, &user.token.0), made);
        }
        if config.users.is_empty() {
            let local = Arc::new(User::new(ids, "local", None));
            match &config.local_token {
                Some(token) => drop(users.by_token.insert(digest(secret, &token.0), local)),
                None => users.open = Some(local),
            }
        }
        users
    }

    fn all(&self) -> Vec<Arc<User>> {
        let mut all: Vec<_> = self.by_token.values().chain(&self.open).cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        // One user may have several tokens.
        all.dedup_by(|a, b| a.name == b.name);
        all
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<User>, ApiError> {
        if self.has_admin_key(headers) {
            return Ok(Arc::clone(&self.admin_user));
        }
        if let Some(open) = &self.open {
            return Ok(Arc::clone(open));
        }
        let given = bearer(headers).ok_or_else(ApiError::no_credentials)?;
        self.user_of(given).ok_or_else(ApiError::wrong_credentials)
    }

    /// Refuses callers that are not operators. Where nobody has credentials, every caller is one.
    fn authenticate_admin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.is_operator(headers) || (self.admin.is_none() && self.open.is_some()) {
            return Ok(());
        }
        let given = bearer(headers).ok_or_else(ApiError::no_credentials)?;
        match self.user_of(given) {
            Some(_) => Err(ApiError::forbidden("this is for operators")),
            None => Err(ApiError::wrong_credentials()),
        }
    }

    /// Whether the operators' key is given, in a header of its own or, as Prometheus does, as a bearer token.
    fn is_operator(&self, headers: &HeaderMap) -> bool {
        let is_key = |given: &str| {
            self.is_admin_key(given) || given.strip_prefix("admin:").is_some_and(|key| self.is_admin_key(key))
        };
        self.has_admin_key(headers) || bearer(headers).is_some_and(is_key)
    }

    fn user_of(&self, token: &str) -> Option<Arc<User>> {
        // Whoever does not know the key cannot choose digests, so the time of this look-up tells nothing.
        self.by_token.get(&digest(&self.key, token)).cloned()
    }

    fn has_admin_key(&self, headers: &HeaderMap) -> bool {
        let given = headers.get("x-admin-key").or_else(|| headers.get("x-octostore-admin-key"));
        given.and_then(|value| value.to_str().ok()).is_some_and(|key| self.is_admin_key(key))
    }

    fn is_admin_key(&self, given: &str) -> bool {
        self.admin.is_some_and(|admin| admin.ct_eq(&digest(&self.key, given)).into())
    }
}

fn digest(key: &[u8; 32], token: &str) -> Digest {
    let mut mac = keyed(key);
    mac.update(b"credential\0");
    mac.update(token.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The token after `Bearer `; scheme and space exactly so.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_file_is_a_user_a_token_and_perhaps_a_namespace() {
        let user = UserConfig::parse("build-1:s3cr:et team").unwrap();
        assert_eq!((user.name.as_str(), user.namespace.as_deref()), ("build-1", Some("team")));
        assert_eq!(user.token, Secret::new("s3cr:et").unwrap());
        assert!(!format!("{user:?}").contains("s3cr"));
        for bad in ["", "alice", ":t", "alice:", "a b c", "a_b:t", "alice:t a:b", "alice:t a b"] {
            assert!(UserConfig::parse(bad).is_err(), "{bad}");
        }
        assert!(UserConfig::parse(&format!("{}:t", "a".repeat(64))).is_ok());
        assert!(UserConfig::parse(&format!("{}:t", "a".repeat(65))).is_err());
    }
}
