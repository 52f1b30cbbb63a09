//! The sockets that a server listens on, for both protocols.
//!
//! Guarantees: none is bound unless all are. Not here: what happens to connections.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{StartError, certificate};
use crate::auth::User;
use crate::config::{Config, TlsConfig};
use crate::net::{ListenAddress, Listeners, Tls, TlsProtocol};

/// The sockets for all kinds of clients.
pub(super) struct Sockets {
    pub(super) redis: Listeners,
    /// `None`: HTTP is off.
    pub(super) http: Option<Listeners>,
    /// Those for clients of Sentinel; `None`: they connect where Redis clients do.
    pub(super) sentinel: Option<Listeners>,
    /// The certificate; `None`: all is in plain text.
    pub(super) tls: Option<Arc<Tls>>,
    /// Clients that use TLS must have a certificate.
    requires_certificates: bool,
}

impl Sockets {
    /// Listens wherever `config` says.
    pub(super) fn bind(config: &Config) -> Result<Sockets, StartError> {
        let tls = certificate::load(config).map_err(StartError::Tls)?;
        let redis = bind_all(config, tls.as_ref(), Kind::Redis)?;
        let optional = |kind| -> Result<Option<Listeners>, StartError> {
            let bound = bind_all(config, tls.as_ref(), kind)?;
            Ok(Some(bound).filter(|bound| !bound.addresses().is_empty()))
        };
        let (http, sentinel) = (optional(Kind::Http)?, optional(Kind::Sentinel)?);
        let requires_certificates = config.tls.as_ref().is_some_and(TlsConfig::requires_certificates);
        Ok(Sockets { redis, http, sentinel, tls, requires_certificates })
    }

    /// The first address at which Redis clients connect.
    pub(super) fn redis_address(&self) -> SocketAddr {
        self.redis.addresses()[0]
    }

    /// The first address at which HTTP clients connect; `None`: nowhere.
    pub(super) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.addresses()[0])
    }

    /// Whether other machines can connect as Redis clients, or as those of Sentinel, without a
    /// certificate.
    pub(super) fn is_redis_exposed(&self) -> bool {
        self.is_exposed(&self.redis) || self.sentinel.as_ref().is_some_and(|bound| self.is_exposed(bound))
    }

    /// Whether other machines can connect as HTTP clients without a certificate.
    pub(super) fn is_http_exposed(&self) -> bool {
        self.http.as_ref().is_some_and(|http| self.is_exposed(http))
    }

    fn is_exposed(&self, listeners: &Listeners) -> bool {
        !are_loopback(match self.requires_certificates {
            true => listeners.plain_addresses(),
            false => listeners.addresses(),
        })
    }

    /// Logs what is wrong with the users of a server that listens here.
    pub(super) fn warn_of_exposure(&self, config: &Config) {
        let users = &config.users;
        if users.are_open() && self.is_redis_exposed() {
            tracing::warn!("listening beyond loopback without a password for Redis clients");
        }
        if users.are_open_to_http() && self.is_http_exposed() {
            tracing::warn!("listening beyond loopback without a token for HTTP clients");
        }
        let plain = [Some(&self.redis), self.http.as_ref(), self.sentinel.as_ref()].into_iter().flatten();
        let plain = plain.flat_map(Listeners::plain_addresses);
        let readable: Vec<_> = plain.filter(|address| !address.ip().is_loopback()).collect();
        if !readable.is_empty() {
            let addresses = joined(readable, ", ");
            tracing::warn!(%addresses, "no TLS beyond loopback: passwords and all traffic can be read on the network");
        }
        if !users.tokens.is_empty() {
            tracing::warn!("--http-tokens is deprecated: define these users in the file of --users");
        }
    }

    /// The lines printed at start. `kept` says where the data is.
    pub(super) fn banner(&self, kept: &str, default: &User) -> String {
        let address = self.redis_address();
        let mut try_it = "redis-cli".to_owned();
        if !matches!(address.ip().to_string().as_str(), "127.0.0.1" | "0.0.0.0" | "::") {
            try_it.push_str(&format!(" -h {}", address.ip()));
        }
        try_it.push_str(&format!(" -p {}", address.port()));
        if self.redis.plain_addresses().is_empty() {
            try_it.push_str(if self.requires_certificates {
                " --tls --cert FILE --key FILE"
            } else {
                " --tls"
            });
        }
        try_it.push_str(match (default.is_open(), default.is_on()) {
            (true, _) => "",
            (false, true) => " --askpass",
            (false, false) => " --user USER --askpass",
        });
        let mut lines = vec![
            ("redis", listed(&self.redis)),
            ("http", self.http.as_ref().map_or("off".to_owned(), listed)),
            ("data", kept.to_owned()),
            ("try", format!("{try_it} LOCK demo me EX 30")),
        ];
        if let Some(sentinel) = &self.sentinel {
            lines.insert(2, ("sentinel", listed(sentinel)));
        }
        let width = if self.sentinel.is_some() { "sentinel".len() } else { "redis".len() };
        let lines = lines.iter().map(|(name, text)| format!("\n  {name:width$}  {text}"));
        format!("octostore {}{}", env!("CARGO_PKG_VERSION"), lines.collect::<String>())
    }
}

fn bind(setting: &'static str, wanted: &[ListenAddress]) -> Result<Listeners, StartError> {
    Listeners::bind(wanted).map_err(|(address, error)| StartError::Bind(setting, address, error))
}

/// A kind of clients, which has addresses of its own.
#[derive(Clone, Copy)]
enum Kind {
    Redis,
    Http,
    Sentinel,
}

/// Listens for clients of a kind, in plain text and with TLS; nowhere if the configuration has no
/// address.
fn bind_all(config: &Config, tls: Option<&Arc<Tls>>, kind: Kind) -> Result<Listeners, StartError> {
    let (name, plain, encrypted_name, protocol) = match kind {
        Kind::Redis => ("listen", &config.listen, "tls-listen", TlsProtocol::Redis),
        Kind::Http => ("http", &config.http, "https", TlsProtocol::Http),
        Kind::Sentinel => ("sentinel-listen", &config.sentinel, "sentinel-tls-listen", TlsProtocol::Redis),
    };
    let mut listeners = bind(name, plain)?;
    if let (Some(tls), Some(config)) = (tls, &config.tls) {
        let encrypted = match kind {
            Kind::Redis => &config.redis,
            Kind::Http => &config.http,
            Kind::Sentinel => &config.sentinel,
        };
        let encrypted = bind(encrypted_name, encrypted)?;
        listeners = listeners.and_encrypted(encrypted, Arc::clone(tls), protocol);
    }
    Ok(listeners)
}

/// The addresses of a protocol as the banner shows them.
fn listed(listeners: &Listeners) -> String {
    let encrypted = listeners.encrypted_addresses().iter().map(|address| format!("TLS {address}"));
    let plain = listeners.plain_addresses().iter().map(ToString::to_string);
    joined(plain.chain(encrypted), ", ")
}

/// Whether only this machine can reach all of them.
fn are_loopback(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| address.ip().is_loopback())
}

/// Joins the items of a list.
pub(super) fn joined(items: impl IntoIterator<Item = impl ToString>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}
