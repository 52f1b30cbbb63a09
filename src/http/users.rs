//! Authentication of requests, and what their users may do.
//!
//! Guarantees: users are those of Redis clients. Without credentials, a request acts as the user
//! `default` if that needs none, and then only requests whose host is this machine are served. Not
//! here: passwords and rules, checking the host.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::budget::Budget;
use super::credentials::{self, Credentials};
use super::error::ApiError;
use super::pseudonyms::Ids;
use super::standing::Standing;
use super::{HttpState, body, names};
use crate::auth::{self, DEFAULT_USER, Digest, KeyRights, Secret, Uses};
use crate::domain::{LockName, Owner};
use crate::metrics::Count;

/// Names of locks that no user may use.
const RESERVED: &str = "__election/";
/// The user `default` has this name for HTTP clients.
const LOCAL: &str = "local";
/// The user of the operators' key.
const ADMIN: &str = "(admin)";
/// A user who may run this command, which is in the category `@admin`, is an operator.
const OPERATOR_COMMAND: &str = "config|get";

/// Headers of the operators' key.
const ADMIN_KEY: HeaderName = HeaderName::from_static("x-admin-key");
const OLD_ADMIN_KEY: HeaderName = HeaderName::from_static("x-octostore-admin-key");

/// What is checked beside users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// The operators' key.
    pub admin_key: Option<Secret>,
    /// Whether requests need credentials although the user `default` needs no password.
    pub needs_credentials: bool,
    /// Whether metrics need no credentials.
    pub is_metrics_open: bool,
}

/// What a request does with a lock: the command that it acts as, and the access to the key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act(&'static str, KeyRights);

impl Act {
    pub(super) const ACQUIRE: Act = Act("lock", KeyRights::WRITE);
    pub(super) const RENEW: Act = Act("renew", KeyRights::WRITE);
    pub(super) const RELEASE: Act = Act("unlock", KeyRights::WRITE);
    pub(super) const INSPECT: Act = Act("lockinfo", KeyRights::READ);
    pub(super) const FORCE: Act = Act("forceunlock", KeyRights::WRITE);
}

/// The other end of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// The common name in the certificate of the client, if that names users.
    pub(super) certificate: Option<Arc<str>>,
    pub(super) standing: Arc<Standing>,
}

/// What a request says about its user.
#[derive(Clone, Copy)]
pub(super) struct Caller<'r> {
    headers: &'r HeaderMap,
    /// Absent only in requests that come from no connection.
    peer: Option<&'r Peer>,
}

impl<'r> Caller<'r> {
    pub(super) fn of(parts: &'r Parts) -> Caller<'r> {
        Caller { headers: &parts.headers, peer: parts.extensions.get() }
    }

    pub(super) fn of_request(request: &'r Request) -> Caller<'r> {
        Caller { headers: request.headers(), peer: request.extensions().get() }
    }

    /// Counts its connection as one that has authenticated.
    fn mark_authenticated(self) {
        if let Some(peer) = self.peer {
            peer.standing.authenticate();
        }
    }

    /// What is kept to authenticate the same caller again.
    pub(super) fn keep(self) -> KeptCaller {
        let mut headers = HeaderMap::new();
        for name in [header::AUTHORIZATION, ADMIN_KEY, OLD_ADMIN_KEY] {
            if let Some(value) = self.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        KeptCaller { headers, peer: self.peer.cloned() }
    }
}

/// A [`Caller`] without the rest of its request.
pub(super) struct KeptCaller {
    headers: HeaderMap,
    peer: Option<Peer>,
}

impl KeptCaller {
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller { headers: &self.headers, peer: self.peer.as_ref() }
    }
}

/// A user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: Uuid,
    pub(super) name: String,
    /// The account that counts its locks.
    pub(super) account: Box<str>,
    /// The owner of its locks that are not ephemeral.
    pub(super) owner: Owner,
    /// Its budget for request bodies.
    pub(super) bodies: Arc<Budget>,
    rights: Rights,
}

#[derive(Debug, Clone)]
enum Rights {
    /// Those of the operators' key.
    Operator,
    /// Those of this user.
    Of(Arc<auth::User>, &'static auth::Catalog),
}

impl User {
    fn new(ids: &Ids, name: &str, bodies: Arc<Budget>, rights: Rights) -> User {
        // Names of users fit into an owner; a longer one would be a user without locks of its own.
        let owner = Owner::new(format!("http:{name}").as_bytes());
        User {
            id: ids.user(name),
            name: name.to_owned(),
            account: name.into(),
            owner: owner.unwrap_or_else(|_| unreachable!("names of users are short")),
            bodies,
            rights,
        }
    }

    fn allows(&self, command: &str, uses: &KeyUse<'_>) -> bool {
        match &self.rights {
            Rights::Operator => true,
            Rights::Of(user, _) if user.allows_everything() => true,
            Rights::Of(user, catalog) => {
                catalog.find(command).is_some_and(|command| user.check(command, uses).is_ok())
            }
        }
    }

    /// Whether the user may run a command, as far as that does not depend on keys.
    pub(super) fn may_run(&self, command: &str) -> bool {
        self.allows(command, &KeyUse(None))
    }

    /// Whether the user may use a key for `act`.
    pub(super) fn may(&self, Act(command, access): Act, key: &LockName) -> bool {
        self.allows(command, &KeyUse(Some((key.key(), access))))
    }

    /// Refuses a user who may not run the command that a request acts as.
    pub(super) fn check(&self, command: &str) -> Result<(), ApiError> {
        match self.may_run(command) {
            true => Ok(()),
            false => Err(ApiError::forbidden("the rules of this user do not allow this request")),
        }
    }

    /// The lock of a name that this user may use for `act`.
    pub(super) fn lock(&self, state: &HttpState, name: &str, act: Act) -> Result<LockName, ApiError> {
        let lock = names::parse(&state.limits, name)?;
        if name.starts_with(RESERVED) {
            return Err(ApiError::forbidden("names that start with __election/ are reserved"));
        }
        if !self.may(act, &lock) {
            return Err(self.refusal());
        }
        state.check_shard(&lock)?;
        Ok(lock)
    }

    pub(super) fn refusal(&self) -> ApiError {
        match self.namespace() {
            Some(own) => ApiError::forbidden(&format!("the names of this user's locks start with {own}")),
            None => ApiError::forbidden("the rules of this user do not allow this request for this lock"),
        }
    }

    /// What the names of all locks of the user start with, if anything.
    fn namespace(&self) -> Option<&str> {
        match &self.rights {
            Rights::Operator => None,
            Rights::Of(user, _) => user.key_prefix().and_then(|prefix| std::str::from_utf8(prefix).ok()),
        }
    }

    /// The prefix of a list of locks.
    pub(super) fn prefix(&self, asked: Option<String>) -> Result<Option<String>, ApiError> {
        self.check("locks")?;
        match (self.namespace(), asked) {
            (None, asked) => Ok(asked),
            (Some(own), None) => Ok(Some(own.to_owned())),
            (Some(own), Some(prefix)) if prefix.starts_with(own) => Ok(Some(prefix)),
            (Some(_), Some(_)) => Err(self.refusal()),
        }
    }

    /// Whether a list of locks shows this one.
    pub(super) fn may_list(&self, lock: &LockName) -> bool {
        self.may_list_key(lock.key())
    }

    /// Whether a list of keys shows this one.
    pub(super) fn may_list_key(&self, key: &[u8]) -> bool {
        match &self.rights {
            Rights::Operator => true,
            Rights::Of(user, _) => user.allows_everything() || user.may_read(key),
        }
    }
}

/// The users, as HTTP sees them.
pub(super) struct Users {
    shared: Arc<auth::Users>,
    ids: Ids,
    key: [u8; 32],
    access: RwLock<Arc<Operators>>,
    /// What HTTP keeps of the users it has seen.
    seen: Mutex<HashMap<Arc<str>, Arc<User>>>,
    admin: Arc<User>,
    /// Number of wrong tokens, passwords and keys.
    pub(super) failed_logins: Count,
}

/// One version of [`AccessConfig`].
struct Operators {
    admin_key: Option<Digest>,
    needs_credentials: bool,
    is_metrics_open: bool,
}

impl Operators {
    fn new(config: &AccessConfig, key: &[u8; 32]) -> Arc<Operators> {
        Arc::new(Operators {
            admin_key: config.admin_key.as_ref().map(|admin_key| admin_key.digest(key)),
            needs_credentials: config.needs_credentials,
            is_metrics_open: config.is_metrics_open,
        })
    }
}

impl Users {
    pub(super) fn new(shared: &Arc<auth::Users>, config: &AccessConfig, key: &[u8; 32]) -> Users {
        let ids = Ids::new(key);
        let admin = Arc::new(User::new(&ids, ADMIN, Arc::new(body::budget()), Rights::Operator));
        Users {
            shared: Arc::clone(shared),
            ids,
            key: *key,
            access: RwLock::new(Operators::new(config, key)),
            seen: Mutex::default(),
            admin,
            failed_logins: Count::default(),
        }
    }

    /// Replaces what is checked beside users.
    pub(super) fn replace(&self, config: &AccessConfig) {
        *self.access.write() = Operators::new(config, &self.key);
    }

    fn access(&self) -> Arc<Operators> {
        Arc::clone(&self.access.read())
    }

    /// All users that are on and need credentials, or else the only one.
    pub(super) fn all(&self) -> Vec<Arc<User>> {
        let needs_credentials = self.access().needs_credentials;
        let all = self.shared.all().into_iter();
        let may_request = |user: &Arc<auth::User>| user.is_on() && !(needs_credentials && user.is_open());
        all.filter(may_request).map(|user| self.seen(user)).collect()
    }

    /// The user as HTTP sees it. Its budget is kept while its rules change.
    fn seen(&self, user: Arc<auth::User>) -> Arc<User> {
        let mut seen = self.seen.lock();
        let known = seen.get(user.name());
        if let Some(known) = known
            && matches!(&known.rights, Rights::Of(rights, _) if Arc::ptr_eq(rights, &user))
        {
            return Arc::clone(known);
        }
        let bodies = known.map_or_else(|| Arc::new(body::budget()), |known| Arc::clone(&known.bodies));
        let name = match &**user.name() {
            DEFAULT_USER => LOCAL.to_owned(),
            // No user's name has a space.
            taken @ (LOCAL | ADMIN) => format!("user {taken}"),
            name => name.to_owned(),
        };
        let rights = Rights::Of(Arc::clone(&user), self.shared.catalog());
        let made = Arc::new(User::new(&self.ids, &name, bodies, rights));
        // A changed user is rare; what is kept of deleted ones goes then.
        seen.retain(|name, _| self.shared.find(name.as_bytes()).is_some());
        seen.insert(Arc::clone(user.name()), Arc::clone(&made));
        made
    }

    /// The user of requests without credentials, if they are served.
    fn anonymous(&self) -> Option<Arc<User>> {
        if self.access().needs_credentials {
            return None;
        }
        let default = self.shared.default_user();
        default.is_open().then(|| self.seen(default))
    }

    /// The user that the credentials of a request name, or else the certificate of the client; `None`
    /// without either.
    fn named(&self, caller: Caller<'_>) -> Option<Result<Arc<User>, ApiError>> {
        let Some(credentials) = Credentials::of(caller.headers) else {
            let user = self.shared.with_certificate(caller.peer?.certificate.as_deref()?)?;
            return Some(Ok(self.seen(user)));
        };
        let found = match credentials {
            Credentials::Bearer(token) => self.shared.with_password(token.as_bytes()),
            Credentials::Basic { user, password } => self.shared.authenticate(&user, &password),
        };
        // A name without a password proves nothing: any web page could send it.
        let found = found.filter(|user| !user.needs_no_password());
        Some(found.map(|user| self.seen(user)).ok_or_else(ApiError::wrong_credentials))
    }

    fn user_of(&self, caller: Caller<'_>) -> Result<Arc<User>, ApiError> {
        match (self.named(caller), self.anonymous()) {
            (Some(Ok(user)), _) | (_, Some(user)) => Ok(user),
            (Some(Err(wrong)), None) => Err(wrong),
            (None, None) => Err(ApiError::no_credentials()),
        }
    }

    /// The user of a request for locks and sessions.
    pub(super) fn authenticate(&self, caller: Caller<'_>) -> Result<Arc<User>, ApiError> {
        if self.has_admin_key(caller.headers) {
            caller.mark_authenticated();
            return Ok(Arc::clone(&self.admin));
        }
        self.counted(caller, self.user_of(caller))
    }

    /// Whether requests of a client need credentials, given the name in its certificate.
    pub(super) fn demand_credentials(&self, certificate: Option<&str>) -> bool {
        self.anonymous().is_none()
            && certificate.and_then(|name| self.shared.with_certificate(name)).is_none()
    }

    /// Differs after each change of users.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation()
    }

    /// Whether the user of a request that began earlier may still inspect a lock.
    pub(super) fn still_may_inspect(&self, user: &User, lock: &LockName) -> bool {
        let Rights::Of(rights, _) = &user.rights else { return true };
        self.shared.current(rights).is_some_and(|now| self.seen(now).may(Act::INSPECT, lock))
    }

    /// The user of a request that only some users may make. Where there is an operators' key, requests
    /// without credentials are refused.
    pub(super) fn authenticate_operator(&self, caller: Caller<'_>) -> Result<Arc<User>, ApiError> {
        if self.is_operator(caller.headers) {
            caller.mark_authenticated();
            return Ok(Arc::clone(&self.admin));
        }
        let anonymous = self.anonymous().filter(|_| self.access().admin_key.is_none());
        let user = match (self.named(caller), anonymous) {
            (Some(Ok(user)), _) | (_, Some(user)) => Ok(user),
            (Some(Err(wrong)), None) => Err(wrong),
            (None, None) => Err(ApiError::no_credentials()),
        };
        self.counted(caller, user)
    }

    /// Refuses callers that are neither users with the category `@admin` nor have the operators' key.
    pub(super) fn authenticate_admin(&self, caller: Caller<'_>) -> Result<Arc<User>, ApiError> {
        let user = self.authenticate_operator(caller)?;
        match user.may_run(OPERATOR_COMMAND) {
            true => Ok(user),
            false => Err(ApiError::forbidden(
                "this path needs a user with +@admin, or the key of --http-admin-key-file in x-admin-key",
            )),
        }
    }

    /// [`Users::authenticate_admin`], unless metrics are open.
    pub(super) fn authenticate_metrics(&self, caller: Caller<'_>) -> Result<(), ApiError> {
        if self.access().is_metrics_open { Ok(()) } else { self.authenticate_admin(caller).map(drop) }
    }

    /// Whether the server must check the host of a request because it checks no credentials.
    pub(super) fn serve_this_machine_only(&self, caller: Caller<'_>) -> bool {
        self.anonymous().is_some()
            && !self.is_operator(caller.headers)
            && self.named(caller).is_none_or(|named| named.is_err())
    }

    /// Counts and logs a failed authentication. A key in the header of operators is wrong if nothing
    /// was found.
    fn counted<T>(&self, caller: Caller<'_>, found: Result<T, ApiError>) -> Result<T, ApiError> {
        if found.is_ok() {
            caller.mark_authenticated();
        }
        let is_wrong = |error: &ApiError| error.is_wrong_credentials() || admin_key(caller.headers).is_some();
        if found.as_ref().is_err_and(is_wrong) {
            self.failed_logins.add(1);
            if let Some(peer) = caller.peer {
                auth::log_failed_login(peer.addr);
            }
        }
        found
    }

    /// Whether the operators' key is given, in a header of its own or, as Prometheus does, as a
    /// bearer token.
    fn is_operator(&self, headers: &HeaderMap) -> bool {
        let is_key = |given: &str| {
            self.is_admin_key(given) || given.strip_prefix("admin:").is_some_and(|key| self.is_admin_key(key))
        };
        self.has_admin_key(headers) || credentials::bearer(headers).is_some_and(is_key)
    }

    fn has_admin_key(&self, headers: &HeaderMap) -> bool {
        admin_key(headers).and_then(|value| value.to_str().ok()).is_some_and(|key| self.is_admin_key(key))
    }

    fn is_admin_key(&self, given: &str) -> bool {
        self.access().admin_key.is_some_and(|admin| admin == Digest::new(&self.key, given.as_bytes()))
    }
}

/// The operators' key that a request gives, in a header of its own.
fn admin_key(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(&ADMIN_KEY).or_else(|| headers.get(&OLD_ADMIN_KEY))
}

/// The only key of a request, if it has one.
struct KeyUse<'a>(Option<(&'a [u8], KeyRights)>);

impl Uses for KeyUse<'_> {
    fn visit_keys(&self, visit: &mut dyn FnMut(&[u8], KeyRights)) {
        if let Some((key, access)) = self.0 {
            visit(key, access);
        }
    }

    fn visit_channels(&self, _: &mut dyn FnMut(&[u8], bool)) {}
}
