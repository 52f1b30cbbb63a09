//! Configuration: flags, `OCTOSTORE_*` variables and a TOML file become a validated [`Config`].
//!
//! Guarantees: one table, [`OPTIONS`], gives flags, variables, file keys, help, `CONFIG GET` and
//! the table in `docs/configuration.md`. A flag wins over a variable, a variable over the file. Every error names the
//! setting, where it came from and what to do. A setting that does not exist, or that is empty, is
//! an error wherever it stands. Not here: secrets in any output.

mod cluster;
mod hints;
mod options;
mod secrets;
mod sources;
mod store;
mod tls;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use self::secrets::{http_access, password, users};
use self::sources::{Settings, refuse_unknown_variables};
use crate::auth::UsersConfig;
use crate::command::{ClientLimits, IDLE_TIMEOUT_S_MAX, SLOWLOG_LEN_MAX, ScriptLimits};
use crate::domain::{KEY_BYTES_MAX, KeyspaceEvents, LOCK_TTL_MS_MAX, Limits, OWNER_BYTES_MAX, TOKEN_MAX};
use crate::http::HttpConfig;
use crate::journal::{DamagedLog, Durability, StoreAddress};
use crate::net::ListenAddress;
use crate::resp::{ListenerLimits, ScanLimits};

pub use self::cluster::{ClusterConfig, ShardConfig};
pub use self::options::{OPTIONS, Opt};
#[cfg(test)]
pub(crate) use self::sources::SUBCOMMANDS;
pub(crate) use self::sources::{NOTES, command};
pub use self::tls::TlsConfig;

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The addresses for Redis clients.
    pub listen: Vec<ListenAddress>,
    /// The users.
    pub users: UsersConfig,
    /// Whether to allow listening beyond loopback without a password.
    pub allows_no_password: bool,
    /// The addresses for HTTP clients; empty if HTTP is off.
    pub http: Vec<ListenAddress>,
    /// The addresses for Sentinel clients; empty if they connect where Redis clients do.
    pub sentinel: Vec<ListenAddress>,
    /// Files and addresses of TLS; `None`: it is off.
    pub tls: Option<TlsConfig>,
    /// The configuration of HTTP.
    pub http_config: HttpConfig,
    /// The database file.
    pub data: PathBuf,
    /// The store of a cluster, in place of the database file.
    pub store: Option<StoreAddress>,
    /// How clients and other servers reach this one.
    pub cluster: ClusterConfig,
    /// Whether to discard commits that log damage hides.
    pub damaged_log: DamagedLog,
    /// When replies are sent.
    pub durability: Durability,
    /// Fencing tokens start above this.
    pub token_floor: i64,
    /// Maximum number of leases.
    pub locks_max: u64,
    /// Maximum number of open sessions.
    pub sessions_max: usize,
    /// Maximum number of requests queued for one lock.
    pub waiters_per_lock_max: usize,
    /// Maximum size of all values together, in bytes.
    pub values_bytes_max: u64,
    /// Maximum number of elements of one value.
    pub value_elements_max: usize,
    /// The limits of connections.
    pub listener: ListenerLimits,
    /// The limits of requests, over any protocol.
    pub limits: Limits,
    /// Whether FLUSHDB and FLUSHALL are permitted.
    pub allows_flush: bool,
    /// The limits of scripts.
    pub scripts: ScriptLimits,
    /// The limits of the state of a Redis client.
    pub client_limits: ClientLimits,
    /// Number of worker threads.
    pub threads: usize,
    /// The log level.
    pub log: tracing::Level,
    /// Every setting as text, for `CONFIG GET`, without secrets.
    pub settings: Vec<(&'static str, String)>,
}

/// Why there is no [`Config`].
#[derive(Debug)]
pub enum ConfigError {
    /// The command line asks for the help or the version, or cannot be parsed.
    Usage(clap::Error),
    /// A setting has no valid value.
    Setting(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Usage(error) => {
                let text = error.to_string();
                f.write_str(text.strip_prefix("error: ").unwrap_or(&text).trim_end())
            }
            ConfigError::Setting(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}

fn wrong(text: impl Into<String>) -> ConfigError {
    ConfigError::Setting(text.into())
}

impl Config {
    /// Reads flags (the program's name first), variables and the file.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Config, ConfigError> {
        let settings = sources::read(arguments)?;
        refuse_unknown_variables(std::env::vars_os())?;
        Config::check(&settings)
    }

    /// The defaults and these flags.
    pub fn with(flags: &[&str]) -> Result<Config, ConfigError> {
        let arguments = std::iter::once("octostore").chain(flags.iter().copied()).map(Into::into);
        Config::check(&sources::read(arguments)?)
    }

    fn check(settings: &Settings) -> Result<Config, ConfigError> {
        let users = users(settings, password(settings)?)?;
        let allows_no_password = settings.switch("allow-no-password")?;
        let tls = tls::config(settings)?;
        let is_redis_open = users.are_open() && !allows_no_password;
        let is_http_open = users.are_open_to_http() && !allows_no_password;
        let listen = addresses(settings, "listen")?;
        let sentinel = addresses(settings, "sentinel-listen")?;
        if is_redis_open {
            refuse_exposed(settings, "listen", &listen, NO_PASSWORD)?;
            refuse_exposed(settings, "sentinel-listen", &sentinel, NO_PASSWORD)?;
        }
        let http = addresses(settings, "http")?;
        if is_http_open {
            refuse_exposed(settings, "http", &http, NO_CREDENTIALS)?;
        }
        if let Some(tls) = tls.as_ref().filter(|tls| !tls.requires_certificates()) {
            if is_redis_open {
                refuse_exposed(settings, "tls-listen", &tls.redis, NO_PASSWORD)?;
                refuse_exposed(settings, "sentinel-tls-listen", &tls.sentinel, NO_PASSWORD)?;
            }
            if is_http_open {
                refuse_exposed(settings, "https", &tls.http, NO_CREDENTIALS)?;
            }
        }
        if listen.is_empty() && tls.as_ref().is_none_or(|tls| tls.redis.is_empty()) {
            return Err(settings.fault("listen", "there is no address for Redis clients; set --tls-listen"));
        }
        let mut listener = listener_limits(settings)?;
        listener.users_from_certificates = tls::names_users(settings)?;
        let http_config = HttpConfig {
            access: http_access(settings, &users)?,
            users_from_certificates: listener.users_from_certificates,
            origins: origins(settings)?,
            locks_per_user_max: settings.number("http-locks-per-user-max", 1, u64::from(u32::MAX))?,
            connections_max: listener.connections_max,
            output_stall: listener.output_stall,
            auth_timeout: listener.auth_timeout,
        };
        let (store, cluster) = (store::store(settings)?, cluster::cluster(settings)?);
        let token_floor = settings.number("token-floor", 0, (TOKEN_MAX / 2) as u64)?;
        Ok(Config {
            listen,
            users,
            allows_no_password,
            http,
            sentinel,
            tls,
            http_config,
            data: PathBuf::from(settings.text("data").unwrap_or("./octostore.db")),
            store: cluster.shard.as_ref().map_or(store, |shard| shard.store_of(shard.id)),
            cluster,
            damaged_log: match settings.switch("accept-damaged-log")? {
                true => DamagedLog::Discard,
                false => DamagedLog::Refuse,
            },
            durability: durability(settings)?,
            token_floor: i64::try_from(token_floor).unwrap_or(0),
            locks_max: settings.number("locks-max", 1, u64::from(u32::MAX))?,
            sessions_max: settings.size("sessions-max", 1, u64::from(u32::MAX))?,
            waiters_per_lock_max: settings.size("waiters-per-lock-max", 1, 1 << 30)?,
            values_bytes_max: settings.number("values-bytes-max", 1, 1 << 40)?,
            value_elements_max: settings.size("value-elements-max", 1, u64::from(u32::MAX))?,
            listener,
            limits: request_limits(settings)?,
            allows_flush: settings.switch("allow-flush")?,
            scripts: script_limits(settings)?,
            client_limits: client_limits(settings)?,
            threads: threads(settings)?,
            log: log_level(settings)?,
            settings: displayed_settings(settings)?,
        })
    }

    /// The durability mode's name.
    pub fn durability_name(&self) -> &'static str {
        match self.durability {
            Durability::Always => "always",
            Durability::Interval(_) => "interval",
            Durability::Memory => "memory",
        }
    }
}

fn durability(settings: &Settings) -> Result<Durability, ConfigError> {
    let interval = Duration::from_millis(settings.number("commit-interval-ms", 1, 60_000)?);
    match settings.text("durability").unwrap_or("") {
        "always" => Ok(Durability::Always),
        "interval" => Ok(Durability::Interval(interval)),
        "memory" => Ok(Durability::Memory),
        other => Err(settings.fault("durability", format!("{other:?} is not always, interval or memory"))),
    }
}

fn log_level(settings: &Settings) -> Result<tracing::Level, ConfigError> {
    let text = settings.text("log").unwrap_or("");
    text.parse()
        .map_err(|_| settings.fault("log", format!("{text:?} is not error, warn, info, debug or trace")))
}

fn threads(settings: &Settings) -> Result<usize, ConfigError> {
    Ok(match settings.size("threads", 0, 1024)? {
        0 => std::thread::available_parallelism().map_or(1, |processors| processors.get() - 1).max(1),
        threads => threads,
    })
}

fn listener_limits(settings: &Settings) -> Result<ListenerLimits, ConfigError> {
    settings.number("idle-timeout-s", 0, IDLE_TIMEOUT_S_MAX)?;
    Ok(ListenerLimits {
        users_from_certificates: false,
        connections_max: settings.size("connections-max", 1, 1 << 20)?,
        output_stall: Duration::from_millis(settings.number("output-stall-ms", 10, 3_600_000)?),
        auth_timeout: Duration::from_millis(settings.number("auth-timeout-ms", 10, 3_600_000)?),
        scan: scan_limits(settings)?,
    })
}

fn scan_limits(settings: &Settings) -> Result<ScanLimits, ConfigError> {
    let request_bytes_max = settings.size("request-bytes-max", 16 << 10, 1 << 30)?;
    let arg_bytes_max = settings.size("arg-bytes-max", 8 << 10, 512 << 20)?;
    if arg_bytes_max > request_bytes_max {
        let problem = format!("is more than --request-bytes-max ({request_bytes_max}); raise that, too");
        return Err(settings.fault("arg-bytes-max", problem));
    }
    let args_max = settings.size("args-max", 16, 1 << 20)?;
    Ok(ScanLimits { args_max, arg_bytes_max, request_bytes_max, ..ScanLimits::default() })
}

fn script_limits(settings: &Settings) -> Result<ScriptLimits, ConfigError> {
    Ok(ScriptLimits {
        bytes_max: settings.size("script-bytes-max", 1 << 20, 1 << 40)?,
        ms_max: settings.number("script-ms-max", 1, 3_600_000)?,
    })
}

fn request_limits(settings: &Settings) -> Result<Limits, ConfigError> {
    let ttl_ms_max = settings.number("ttl-ms-max", 1, LOCK_TTL_MS_MAX)?;
    let ttl_ms_default = settings.number("ttl-ms-default", 1, ttl_ms_max)?;
    let key_bytes_max = settings.size("key-bytes-max", 1, KEY_BYTES_MAX as u64)?;
    let lock_key_bytes_max = settings.size("lock-key-bytes-max", 1, KEY_BYTES_MAX as u64)?;
    Ok(Limits {
        ttl_ms_max,
        ttl_ms_default,
        key_bytes_max,
        lock_key_bytes_max: lock_key_bytes_max.min(key_bytes_max),
        owner_bytes_max: settings.size("owner-bytes-max", 1, OWNER_BYTES_MAX as u64)?,
        value_bytes_max: settings.size("value-bytes-max", 1, OWNER_BYTES_MAX as u64)?,
        meta_bytes_max: settings.size("meta-bytes-max", 0, 1 << 20)?,
    })
}

fn client_limits(settings: &Settings) -> Result<ClientLimits, ConfigError> {
    Ok(ClientLimits {
        multi_bytes_max: settings.size("multi-bytes-max", 1024, 1 << 30)?,
        subscriber_bytes_max: settings.size("subscriber-bytes-max", 1024, 1 << 30)?,
        subscriptions_max: settings.size("subscriptions-max", 1, 1 << 20)?,
        subscriptions_bytes_max: settings.size("subscriptions-bytes-max", 1024, 1 << 30)?,
    })
}

/// Why addresses beyond loopback are refused for Redis clients, and for HTTP clients.
const NO_PASSWORD: &str = "no password is set; set --requirepass-file or --users";
const NO_CREDENTIALS: &str = "requests need no credentials; set --users or --requirepass-file";

/// Refuses addresses beyond loopback.
fn refuse_exposed(
    settings: &Settings,
    name: &'static str,
    addresses: &[ListenAddress],
    problem: &str,
) -> Result<(), ConfigError> {
    let mut all = addresses.iter().map(|listen| listen.address);
    match all.find(|address| !address.ip().is_loopback()) {
        Some(exposed) => Err(settings.fault(
            name,
            format!(
                "{exposed} is not a loopback address and {problem}, or --allow-no-password to give full access to \
                 all clients that can connect"
            ),
        )),
        None => Ok(()),
    }
}

/// Describes why `text` is not an address to listen on.
fn not_resolved(text: &str, error: &io::Error) -> String {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && !host.is_empty() && port.parse::<u16>().is_ok() => {
            format!("the host name {host:?} cannot be resolved ({error}); name an address of this machine")
        }
        _ => format!(
            "{text:?} is not an address and port, as in 127.0.0.1:7379 or [::1]:7379, with commas between several"
        ),
    }
}

/// Comma-separated addresses; none if it is `off` or not set. A host name stands for all of its
/// addresses.
fn addresses(settings: &Settings, name: &'static str) -> Result<Vec<ListenAddress>, ConfigError> {
    let mut found: Vec<ListenAddress> = Vec::new();
    let Some(all) = settings.text(name).filter(|text| *text != "off") else { return Ok(found) };
    for text in all.split(',').map(str::trim) {
        let resolved =
            text.to_socket_addrs().map_err(|error| settings.fault(name, not_resolved(text, &error)))?;
        let before = found.len();
        let is_required = !settings.is_default(name) && text.parse::<SocketAddr>().is_ok();
        for address in resolved {
            if found.iter().all(|known| known.address != address) {
                found.push(ListenAddress { address, is_required });
            } else if found[..before].iter().any(|known| known.address == address) {
                return Err(settings.fault(name, format!("{address} is given twice")));
            }
        }
        if found.len() == before {
            return Err(settings.fault(name, format!("{text:?} resolves to no address")));
        }
    }
    Ok(found)
}

fn origins(settings: &Settings) -> Result<Vec<String>, ConfigError> {
    let text = settings.text("http-allow-origin").unwrap_or("");
    let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    origins
        .map(|origin| match origin.split_once("://") {
            Some((_, host)) if !host.is_empty() && !host.contains('/') => Ok(origin.to_owned()),
            _ => Err(settings.fault("http-allow-origin", format!("{origin:?} is not scheme://host[:port]"))),
        })
        .collect()
}

/// The settings of `CONFIG GET`: octostore's, and those of Redis that clients read. The running
/// server adds its addresses and its limit of connections.
fn displayed_settings(settings: &Settings) -> Result<Vec<(&'static str, String)>, ConfigError> {
    check_live_settings(settings)?;
    let own = OPTIONS.iter().filter(|option| !option.is_secret());
    let mut all: Vec<(&str, String)> =
        own.map(|option| (option.name, settings.text(option.name).unwrap_or("").to_owned())).collect();
    // These may contain passwords.
    for (name, text) in all.iter_mut().filter(|(name, _)| ["store", "shard-stores"].contains(name)) {
        let without_passwords = text.split_whitespace().map(|url| {
            let address = store::parse(settings, name, url);
            address.map(|address| address.to_string())
        });
        *text = without_passwords.collect::<Result<Vec<_>, _>>()?.join(" ");
    }
    let of = |name: &'static str| settings.text(name).unwrap_or("").to_owned();
    let is_kept = settings.text("durability") != Some("memory");
    all.extend([
        ("timeout", of("idle-timeout-s")),
        ("databases", crate::domain::DATABASES.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("save", String::new()),
        ("appendonly", if is_kept { "yes" } else { "no" }.to_owned()),
        (
            "appendfsync",
            if settings.text("durability") == Some("always") { "always" } else { "everysec" }.to_owned(),
        ),
        ("replica-read-only", "yes".to_owned()),
        ("slave-read-only", "yes".to_owned()),
        ("proto-max-bulk-len", of("arg-bytes-max")),
    ]);
    Ok(all)
}

/// Checks settings that a running server can change and reads from their texts.
fn check_live_settings(settings: &Settings) -> Result<(), ConfigError> {
    settings.number("slowlog-max-len", 0, SLOWLOG_LEN_MAX as u64)?;
    let micros = settings.text("slowlog-log-slower-than").unwrap_or("");
    if micros.parse::<i64>().map_or(true, |micros| micros < -1) {
        let problem = format!("{micros:?} is not a number from -1 to {}", i64::MAX);
        return Err(settings.fault("slowlog-log-slower-than", problem));
    }
    let events = settings.text("notify-keyspace-events").unwrap_or("");
    match KeyspaceEvents::parse(events) {
        Some(_) => Ok(()),
        None => Err(settings.fault(
            "notify-keyspace-events",
            format!("{events:?} has a character that is none of Ag$lshzxeKEtmdn"),
        )),
    }
}

#[cfg(test)]
mod tests;
