//! Replaces the credentials of a running server.
//!
//! Guarantees: a reload takes over everything that can be changed, or nothing.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::certificate;
use super::service::Service;
use super::sockets::Sockets;
use crate::command::ServerState;
use crate::config::{Config, OPTIONS};
use crate::http::HttpState;
use crate::net::Tls;

/// What is reloaded, and the configuration as the server runs now.
pub(super) struct Reloadable(Mutex<Inner>);

/// Never empty.
struct Inner {
    services: Vec<(Arc<ServerState>, Option<Arc<HttpState>>)>,
    config: Config,
}

impl Reloadable {
    pub(super) fn new(service: &Service, config: &Config) -> Reloadable {
        let services = vec![(Arc::clone(&service.server), service.http.clone())];
        Reloadable(Mutex::new(Inner { services, config: config.clone() }))
    }

    /// The configuration as the server runs now.
    #[cfg(feature = "etcd")]
    pub(super) fn config(&self) -> Config {
        self.0.lock().config.clone()
    }

    /// Reloads the users of another service, too.
    #[cfg(feature = "etcd")]
    pub(super) fn add(&self, service: &Service) {
        self.0.lock().services.push((Arc::clone(&service.server), service.http.clone()));
    }

    /// Forgets a service.
    #[cfg(feature = "etcd")]
    pub(super) fn remove(&self, service: &Service) {
        self.0.lock().services.retain(|(server, _)| !Arc::ptr_eq(server, &service.server));
    }
}

/// Changes the users of a running server.
pub struct Reloader {
    running: Arc<Reloadable>,
    tls: Option<Arc<Tls>>,
    is_redis_exposed: bool,
    is_http_exposed: bool,
}

impl Reloader {
    pub(super) fn new(sockets: &Sockets, running: Arc<Reloadable>) -> Reloader {
        let (is_redis_exposed, is_http_exposed) = (sockets.is_redis_exposed(), sockets.is_http_exposed());
        Reloader { running, tls: sockets.tls.clone(), is_redis_exposed, is_http_exposed }
    }

    /// Applies the credentials in `config`: the users, and the operators' key of HTTP; and reads
    /// the certificate again. Connections of users that still exist stay authenticated. Refuses to
    /// remove the last credentials of a server that other machines can reach.
    pub fn reload(&mut self, config: &Config) -> Result<Reloaded, String> {
        let mut running = self.running.0.lock();
        let mut users = config.users.clone();
        if users.file != running.config.users.file {
            // Another file needs a restart.
            (users.file, users.in_file) =
                (running.config.users.file.clone(), running.config.users.in_file.clone());
        }
        let is_open =
            (self.is_redis_exposed && users.are_open()) || (self.is_http_exposed && users.are_open_to_http());
        if is_open && !running.config.allows_no_password {
            return Err("the server listens beyond loopback and would no longer require a password".into());
        }
        if let (Some(tls), Some((server, _))) = (&self.tls, running.services.first()) {
            tls.reload().map_err(|error| error.to_string())?;
            certificate::record(tls, &server.metrics, server.engine.clock());
        }
        let before = &running.config;
        let has_new_password = users.password != before.users.password;
        let (access, access_before) = (&config.http_config.access, &before.http_config.access);
        let has_new_users = users.tokens != before.users.tokens
            || users.lines() != before.users.lines()
            || access.admin_key != access_before.admin_key;
        let has_new_metrics = access.is_metrics_open != access_before.is_metrics_open;
        for (server, http) in &running.services {
            // With a users file, commands may have changed the users without it.
            if has_new_password || has_new_users || server.users.file().is_some() {
                let changed = server.users.reconfigure(&users);
                server.close_affected(&changed, None);
            }
            if let Some(http) = http {
                http.replace_access(access);
            }
        }
        running.config.http_config.access = access.clone();
        running.config.users = users;
        let is_fixed =
            |name: &str| OPTIONS.iter().any(|option| option.name == name && !option.is_reloadable());
        let before = &running.config.settings;
        let differing =
            config.settings.iter().filter(|setting| is_fixed(setting.0) && !before.contains(setting));
        let waiting = differing.map(|(name, _)| *name).collect();
        Ok(Reloaded { has_new_password, has_new_users, has_new_metrics, waiting })
    }
}

/// What a reload did.
#[derive(Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The user `default` has another password.
    pub has_new_password: bool,
    /// There are other users, tokens or operators.
    pub has_new_users: bool,
    /// Metrics need credentials that needed none, or the reverse.
    pub has_new_metrics: bool,
    /// Settings that differ from those of the start, and hold only after a restart.
    pub waiting: Vec<&'static str>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password_and_users = match (self.has_new_password, self.has_new_users) {
            (true, true) => Some("the password and the users were reloaded"),
            (true, false) => Some("the password was reloaded"),
            (false, true) => Some("the users were reloaded"),
            (false, false) if self.has_new_metrics => None,
            (false, false) => Some("password and users are unchanged"),
        };
        let metrics = self.has_new_metrics.then_some("--metrics-open was reloaded");
        let parts: Vec<&str> = password_and_users.into_iter().chain(metrics).collect();
        f.write_str(&parts.join("; "))?;
        match self.waiting.as_slice() {
            [] => Ok(()),
            waiting => write!(f, "; restart required to change --{}", waiting.join(", --")),
        }
    }
}
