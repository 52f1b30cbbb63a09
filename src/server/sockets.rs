//! The sockets that a server listens on, for both protocols.
//!
//! Guarantees: none is bound unless all are. Not here: what happens to connections.

use std::net::SocketAddr;

use super::StartError;
use crate::config::Config;
use crate::net::{ListenAddress, Listeners};

/// The sockets for Redis clients and for HTTP clients.
pub(super) struct Sockets {
    pub(super) redis: Listeners,
    /// `None`: HTTP is off.
    pub(super) http: Option<Listeners>,
}

impl Sockets {
    /// Listens wherever `config` says.
    pub(super) fn bind(config: &Config) -> Result<Sockets, StartError> {
        let redis = bind("listen", &config.listen)?;
        let http = match config.http.as_slice() {
            [] => None,
            wanted => Some(bind("http", wanted)?),
        };
        Ok(Sockets { redis, http })
    }

    /// The first address at which Redis clients connect.
    pub(super) fn redis_address(&self) -> SocketAddr {
        self.redis.addresses()[0]
    }

    /// The first address at which HTTP clients connect; `None`: nowhere.
    pub(super) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.addresses()[0])
    }

    /// Whether other machines can reach the sockets for Redis clients.
    pub(super) fn is_redis_exposed(&self) -> bool {
        !are_loopback(self.redis.addresses())
    }

    /// Whether other machines can reach the sockets for HTTP clients.
    pub(super) fn is_http_exposed(&self) -> bool {
        self.http.as_ref().is_some_and(|http| !are_loopback(http.addresses()))
    }

    /// Logs what is wrong with the users of a server that listens here.
    pub(super) fn warn_of_users(&self, config: &Config) {
        let users = &config.users;
        if users.are_open() && self.is_redis_exposed() {
            tracing::warn!("listening beyond loopback without a password for Redis clients");
        }
        if users.are_open_to_http() && self.is_http_exposed() {
            tracing::warn!("listening beyond loopback without a token for HTTP clients");
        }
        if !users.tokens.is_empty() {
            tracing::warn!("--http-tokens is deprecated: define these users in the file of --users");
        }
    }

    /// The lines printed at start. `kept` says where the data is.
    pub(super) fn banner(&self, kept: &str, has_password: bool) -> String {
        let address = self.redis_address();
        let mut try_it = "redis-cli".to_owned();
        if !matches!(address.ip().to_string().as_str(), "127.0.0.1" | "0.0.0.0" | "::") {
            try_it.push_str(&format!(" -h {}", address.ip()));
        }
        try_it.push_str(&format!(" -p {}", address.port()));
        if has_password {
            try_it.push_str(" --askpass");
        }
        let redis = joined(self.redis.addresses(), ", ");
        let http = self.http.as_ref().map_or("off".to_owned(), |http| joined(http.addresses(), ", "));
        format!(
            "octostore {}\n  redis  {redis}\n  http   {http}\n  data   {kept}\n  try    {try_it} LOCK demo me EX 30",
            env!("CARGO_PKG_VERSION"),
        )
    }
}

fn bind(setting: &'static str, wanted: &[ListenAddress]) -> Result<Listeners, StartError> {
    Listeners::bind(wanted).map_err(|(address, error)| StartError::Bind(setting, address, error))
}

/// Whether only this machine can reach all of them.
fn are_loopback(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| address.ip().is_loopback())
}

/// Joins the items of a list.
pub(super) fn joined(items: impl IntoIterator<Item = impl ToString>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}
