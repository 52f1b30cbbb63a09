//! Replaces the credentials of a running server.
//!
//! Guarantees: a reload takes over everything that can be changed, or nothing.

use std::fmt;
use std::sync::Arc;

use super::certificate;
use crate::command::ServerState;
use crate::config::{Config, OPTIONS};
use crate::http::HttpState;
use crate::net::Tls;

/// Changes the users of a running server.
pub struct Reloader {
    pub(super) server: Arc<ServerState>,
    pub(super) state: Option<Arc<HttpState>>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) is_redis_exposed: bool,
    pub(super) is_http_exposed: bool,
    /// As the server runs now.
    pub(super) config: Config,
}

impl Reloader {
    /// Applies the credentials in `config`: the users, and the operators' key of HTTP; and reads the
    /// certificate again. Connections of
    /// users that still exist stay authenticated. Refuses to remove the last credentials of a server
    /// that other machines can reach.
    pub fn reload(&mut self, config: &Config) -> Result<Reloaded, String> {
        let mut users = config.users.clone();
        if users.file != self.config.users.file {
            // Another file needs a restart.
            (users.file, users.in_file) = (self.config.users.file.clone(), self.config.users.in_file.clone());
        }
        let is_open =
            (self.is_redis_exposed && users.are_open()) || (self.is_http_exposed && users.are_open_to_http());
        if is_open && !self.config.allows_no_password {
            return Err("the server listens beyond loopback and would no longer require a password".into());
        }
        if let Some(tls) = &self.tls {
            tls.reload().map_err(|error| error.to_string())?;
            certificate::record(tls, &self.server.metrics, self.server.engine.clock());
        }
        let before = &self.config;
        let has_new_password = users.password != before.users.password;
        let has_new_users = users.tokens != before.users.tokens
            || users.lines() != before.users.lines()
            || config.http_config.access != before.http_config.access;
        // With a users file, commands may have changed the users without it.
        if has_new_password || has_new_users || self.server.users.file().is_some() {
            let changed = self.server.users.reconfigure(&users);
            self.server.close_affected(&changed, None);
        }
        if let Some(state) = &self.state {
            state.replace_access(&config.http_config.access);
        }
        self.config.http_config.access = config.http_config.access.clone();
        self.config.users = users;
        let is_fixed =
            |name: &str| OPTIONS.iter().any(|option| option.name == name && !option.is_reloadable());
        let before = &self.config.settings;
        let differing =
            config.settings.iter().filter(|setting| is_fixed(setting.0) && !before.contains(setting));
        let waiting = differing.map(|(name, _)| *name).collect();
        Ok(Reloaded { has_new_password, has_new_users, waiting })
    }
}

/// What a reload did.
#[derive(Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The user `default` has another password.
    pub has_new_password: bool,
    /// There are other users, tokens or operators.
    pub has_new_users: bool,
    /// Settings that differ from those of the start, and hold only after a restart.
    pub waiting: Vec<&'static str>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.has_new_password, self.has_new_users) {
            (true, true) => "the password and the users were reloaded",
            (true, false) => "the password was reloaded",
            (false, true) => "the users were reloaded",
            (false, false) => "password and users are unchanged",
        })?;
        match self.waiting.as_slice() {
            [] => Ok(()),
            waiting => write!(f, "; restart required to change --{}", waiting.join(", --")),
        }
    }
}
