//! The settings of TLS.
//!
//! Guarantees: a setting of TLS that would have no effect is an error. Not here: what the files
//! contain.

use super::sources::Settings;
use super::{ConfigError, addresses};
use crate::net::{ClientAuth, ListenAddress, TlsFiles};

/// The configuration of TLS.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The addresses for Redis clients.
    pub redis: Vec<ListenAddress>,
    /// The addresses for HTTP clients.
    pub http: Vec<ListenAddress>,
    /// The addresses for Sentinel clients.
    pub sentinel: Vec<ListenAddress>,
    /// The certificate, its key, and the roots of clients and of other servers.
    pub files: TlsFiles,
}

impl TlsConfig {
    /// Whether only clients with a certificate are served.
    pub fn requires_certificates(&self) -> bool {
        matches!(self.files.client_roots, Some((_, ClientAuth::Required)))
    }
}

pub(super) fn config(settings: &Settings) -> Result<Option<TlsConfig>, ConfigError> {
    let (redis, http) = (addresses(settings, "tls-listen")?, addresses(settings, "https")?);
    let sentinel = addresses(settings, "sentinel-tls-listen")?;
    let is_off = redis.is_empty() && http.is_empty() && sentinel.is_empty();
    for name in ["tls-cert", "tls-key", "tls-client-ca", "tls-client-auth"] {
        if is_off && !settings.is_default(name) {
            return Err(
                settings.fault(name, "has no effect without --tls-listen, --https or --sentinel-tls-listen")
            );
        }
    }
    if is_off {
        return Ok(None);
    }
    let required = |name: &'static str| match settings.text(name) {
        Some(path) => Ok(path.into()),
        None => Err(settings.fault(name, "TLS needs --tls-cert and --tls-key")),
    };
    let (certificate, key) = (required("tls-cert")?, required("tls-key")?);
    let auth = match settings.text("tls-client-auth").unwrap_or("") {
        "optional" => ClientAuth::Optional,
        "required" => ClientAuth::Required,
        other => {
            let problem = format!("{other:?} is not optional or required");
            return Err(settings.fault("tls-client-auth", problem));
        }
    };
    let roots = settings.text("tls-client-ca");
    if roots.is_none() && !settings.is_default("tls-client-auth") {
        return Err(settings.fault("tls-client-auth", "has no effect without --tls-client-ca"));
    }
    let client_roots = roots.map(|path| (path.into(), auth));
    let server_roots = settings.text("cluster-ca").map(Into::into);
    let files = TlsFiles { certificate, key, client_roots, server_roots };
    Ok(Some(TlsConfig { redis, http, sentinel, files }))
}

/// Whether certificates of clients name their users.
pub(super) fn names_users(settings: &Settings) -> Result<bool, ConfigError> {
    const NAME: &str = "tls-user-from";
    match settings.text(NAME) {
        None => Ok(false),
        Some("cn") if settings.text("tls-client-ca").is_some() => Ok(true),
        Some("cn") => Err(settings.fault(NAME, "has no effect without --tls-client-ca")),
        Some(other) => Err(settings.fault(NAME, format!("{other:?} is not cn, the common name"))),
    }
}
