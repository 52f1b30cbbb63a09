//! Authentication of requests.
//!
//! Guarantees: credentials are kept and compared as keyed hashes, in constant time, and never
//! shown. Without any configured, one user `local` needs none, and then only requests whose
//! host is this machine are served. Not here: what a user may do with a lock; checking the host.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use parking_lot::RwLock;
use uuid::Uuid;

use super::budget::Budget;
use super::error::ApiError;
use super::pseudonyms::Ids;
use super::{body, names};
use crate::auth::{Digest, UsersConfig};
use crate::domain::{Limits, LockName, Owner};
use crate::metrics::Count;

/// Names of locks that no user may use.
const RESERVED: &str = "__election/";

/// A user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: Uuid,
    pub(super) name: String,
    /// The account that counts its locks.
    pub(super) account: Box<str>,
    /// The owner of its locks that are not ephemeral.
    pub(super) owner: Owner,
    namespace: Option<String>,
    /// Its budget for request bodies.
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

    /// The lock of a name that this user may use.
    pub(super) fn lock(&self, limits: &Limits, name: &str) -> Result<LockName, ApiError> {
        let lock = names::parse(limits, name)?;
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

    /// The prefix of a list of locks.
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

/// The current users. Each request sees one version of them.
pub(super) struct Users {
    key: [u8; 32],
    current: RwLock<Arc<Accounts>>,
    /// Number of wrong tokens and keys.
    pub(super) failed_logins: Count,
}

impl Users {
    pub(super) fn new(config: &UsersConfig, ids: &Ids, secret: &[u8; 32]) -> Users {
        let current = RwLock::new(Arc::new(Accounts::new(config, ids, secret)));
        Users { key: *secret, current, failed_logins: Count::default() }
    }

    /// Replaces all users. Requests in progress keep theirs.
    pub(super) fn replace(&self, config: &UsersConfig, ids: &Ids) {
        let accounts = Arc::new(Accounts::new(config, ids, &self.key));
        *self.current.write() = accounts;
    }

    fn current(&self) -> Arc<Accounts> {
        Arc::clone(&self.current.read())
    }

    /// All users.
    pub(super) fn all(&self) -> Vec<Arc<User>> {
        self.current().all()
    }

    /// The user of a request for locks and sessions.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<User>, ApiError> {
        self.counted(self.current().authenticate(headers))
    }

    /// Refuses callers that are not operators. If no credentials are configured, every caller is
    /// one.
    pub(super) fn authenticate_admin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        self.counted(self.current().authenticate_admin(headers))
    }

    /// Whether the server must check the host of a request because it checks no credentials.
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

/// One version of the users.
struct Accounts {
    key: [u8; 32],
    by_token: HashMap<Digest, Arc<User>>,
    admin: Option<Digest>,
    admin_user: Arc<User>,
    /// The user of requests without credentials, if they are served.
    open: Option<Arc<User>>,
}

impl Accounts {
    fn new(config: &UsersConfig, ids: &Ids, secret: &[u8; 32]) -> Accounts {
        // No user's name has parentheses.
        let admin_user = Arc::new(User::new(ids, "(admin)", None));
        let admin = config.admin_key.as_ref().map(|key| key.digest(secret));
        let mut users = Accounts { key: *secret, by_token: HashMap::new(), admin, admin_user, open: None };
        for user in &config.users {
            let made = Arc::new(User::new(ids, &user.name, user.namespace.clone()));
            users.by_token.insert(user.token.digest(secret), made);
        }
        if config.users.is_empty() {
            let local = Arc::new(User::new(ids, "local", None));
            match &config.local_token {
                Some(token) => drop(users.by_token.insert(token.digest(secret), local)),
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

    /// Refuses callers that are not operators. If no credentials are configured, every caller is
    /// one.
    fn authenticate_admin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.is_operator(headers) || (self.admin.is_none() && self.open.is_some()) {
            return Ok(());
        }
        let given = bearer(headers).ok_or_else(ApiError::no_credentials)?;
        match self.user_of(given) {
            Some(_) => {
                Err(ApiError::forbidden("this path needs the key of --http-admin-key-file in x-admin-key"))
            }
            None => Err(ApiError::wrong_credentials()),
        }
    }

    /// Whether the operators' key is given, in a header of its own or, as Prometheus does, as a
    /// bearer token.
    fn is_operator(&self, headers: &HeaderMap) -> bool {
        let is_key = |given: &str| {
            self.is_admin_key(given) || given.strip_prefix("admin:").is_some_and(|key| self.is_admin_key(key))
        };
        self.has_admin_key(headers) || bearer(headers).is_some_and(is_key)
    }

    fn user_of(&self, token: &str) -> Option<Arc<User>> {
        self.by_token.get(&Digest::new(&self.key, token.as_bytes())).cloned()
    }

    fn has_admin_key(&self, headers: &HeaderMap) -> bool {
        let given = headers.get("x-admin-key").or_else(|| headers.get("x-octostore-admin-key"));
        given.and_then(|value| value.to_str().ok()).is_some_and(|key| self.is_admin_key(key))
    }

    fn is_admin_key(&self, given: &str) -> bool {
        self.admin.is_some_and(|admin| admin == Digest::new(&self.key, given.as_bytes()))
    }
}

/// The token after `Bearer `. The contract demands this exact prefix.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
        .filter(|token| !token.is_empty())
}
