//! The composition root: opens the journal, recovers, binds, serves, reloads and shuts down in
//! order.
//!
//! Guarantees: nothing is served before recovery is done; on shutdown, what was received is
//! finished and committed; a reload changes all that can be changed, or nothing. Not here:
//! decisions that belong to a part.

mod certificate;
pub mod logging;
mod process;
mod reload;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::auth::{DenialLog, Users};
use crate::clock::{self, Clock};
use crate::command::{
    self, Clients, Delivery, LiveSettings, Lookups, Monitors, Pauses, PubSub, ScriptEngine, ServerInfo,
    ServerState, ServerStats, SlowLog, Tracking,
};
use crate::config::{Config, TlsConfig};
use crate::domain::DATABASES;
use crate::engine::{Engine, EngineConfig, Event, Expiry, Heard};
use crate::entropy::Entropy;
use crate::http::{self, HttpState};
use crate::journal::{Backend, Durability, JournalError, MemoryBackend, SqliteBackend};
use crate::metrics::{Count, ServerMetrics};
use crate::net::{ListenAddress, Listeners, Tls, TlsError, TlsProtocol};
use crate::resp::{self, ListenerLimits};

pub use process::{
    FEW_CONNECTIONS, Hangups, asked_to_stop, fit_file_limit, keep_files_private, raise_file_limit,
};
pub use reload::{Reloaded, Reloader};

/// Why a server does not start.
#[derive(Debug)]
pub enum StartError {
    /// The server cannot listen on this address of this setting.
    Bind(&'static str, SocketAddr, io::Error),
    /// The certificate cannot be used.
    Tls(TlsError),
    /// The data cannot be used.
    Journal(String, JournalError),
    /// The system refuses a thread.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind(setting, addr, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "cannot listen on {addr}: port in use; stop the other program or choose another --{setting}"
                )
            }
            StartError::Bind(setting, addr, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "cannot listen on {addr}: the system reserves port {} for privileged processes; choose \
                     another --{setting}, or grant CAP_NET_BIND_SERVICE",
                    addr.port()
                )
            }
            StartError::Bind(setting, addr, error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "cannot listen on {addr}: this machine does not have the address; name one that it has in \
                     --{setting}, or 0.0.0.0 for all"
                )
            }
            StartError::Bind(setting, addr, error) => {
                write!(f, "cannot listen on {addr}: {error}; see --{setting}")
            }
            StartError::Tls(error) => write!(f, "cannot use TLS: {error}"),
            StartError::Journal(data, error) => write!(f, "cannot use {data}: {error}"),
            StartError::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A server that has recovered and listens.
pub struct Server {
    engine: Arc<Engine>,
    server: Arc<ServerState>,
    listeners: Listeners,
    limits: ListenerLimits,
    http: Option<HttpSide>,
    tls: Option<Arc<Tls>>,
    config: Config,
    _expiry: Expiry,
}

struct HttpSide {
    state: Arc<HttpState>,
    listeners: Listeners,
}

/// Lock events that are passed on before their readers get a turn: fewer than an HTTP reader may be
/// behind.
const EVENTS_PER_TURN: usize = 32;

/// 40 random hexadecimal digits.
fn run_id() -> String {
    let mut bytes = [0; 20];
    // Without random numbers, the engine does not start either.
    let _ = Entropy::system().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bind(setting: &'static str, wanted: &[ListenAddress]) -> Result<Listeners, StartError> {
    Listeners::bind(wanted).map_err(|(address, error)| StartError::Bind(setting, address, error))
}

/// Listens for clients of a protocol, in plain text and with TLS; nowhere if the configuration has
/// no address.
fn bind_all(config: &Config, tls: Option<&Arc<Tls>>, protocol: TlsProtocol) -> Result<Listeners, StartError> {
    let (name, plain, encrypted_name) = match protocol {
        TlsProtocol::Redis => ("listen", &config.listen, "tls-listen"),
        TlsProtocol::Http => ("http", &config.http, "https"),
    };
    let mut listeners = bind(name, plain)?;
    if let (Some(tls), Some(config)) = (tls, &config.tls) {
        let encrypted = match protocol {
            TlsProtocol::Redis => &config.redis,
            TlsProtocol::Http => &config.http,
        };
        let encrypted = bind(encrypted_name, encrypted)?;
        listeners = listeners.and_encrypted(encrypted, Arc::clone(tls), protocol);
    }
    Ok(listeners)
}

/// Whether only this machine can reach all of them.
fn are_loopback(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| address.ip().is_loopback())
}

/// Whether other machines can connect without a certificate.
fn is_exposed(listeners: &Listeners, config: &Config) -> bool {
    let requires_certificates = config.tls.as_ref().is_some_and(TlsConfig::requires_certificates);
    !are_loopback(match requires_certificates {
        true => listeners.plain_addresses(),
        false => listeners.addresses(),
    })
}

/// Logs what is wrong with the users of a server that listens there.
fn warn_of_exposure(config: &Config, redis: &Listeners, http: Option<&Listeners>) {
    let users = &config.users;
    if users.are_open() && is_exposed(redis, config) {
        tracing::warn!("listening beyond loopback without a password for Redis clients");
    }
    if users.are_open_to_http() && http.is_some_and(|http| is_exposed(http, config)) {
        tracing::warn!("listening beyond loopback without a token for HTTP clients");
    }
    let plain = [Some(redis), http].into_iter().flatten().flat_map(Listeners::plain_addresses);
    let readable: Vec<_> = plain.filter(|address| !address.ip().is_loopback()).collect();
    if !readable.is_empty() {
        let addresses = joined(readable, ", ");
        tracing::warn!(%addresses, "no TLS beyond loopback: passwords and all traffic can be read on the network");
    }
    if !users.tokens.is_empty() {
        tracing::warn!("--http-tokens is deprecated: define these users in the file of --users");
    }
}

/// Joins the items of a list.
fn joined(items: impl IntoIterator<Item = impl ToString>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}

/// The addresses of a protocol as the banner shows them.
fn listed(listeners: &Listeners) -> String {
    let encrypted = listeners.encrypted_addresses().iter().map(|address| format!("TLS {address}"));
    let plain = listeners.plain_addresses().iter().map(ToString::to_string);
    joined(plain.chain(encrypted), ", ")
}

impl Server {
    /// Opens the data, recovers and binds.
    pub async fn start(config: &Config) -> Result<Server, StartError> {
        Server::start_on(config, Clock::system()).await
    }

    /// [`Server::start`] with the caller's clock.
    pub async fn start_on(config: &Config, clock: Clock) -> Result<Server, StartError> {
        let open = || -> Result<Box<dyn Backend>, JournalError> {
            if config.store.is_some() {
                let what = "a server of a cluster needs an election, which this version does not have";
                return Err(JournalError::Store { what: what.into() });
            }
            Ok(match config.durability {
                Durability::Memory => Box::new(MemoryBackend::default()),
                _ => Box::new(SqliteBackend::open_with(&config.data, config.damaged_log)?),
            })
        };
        Server::start_with(config, clock, open).await
    }

    /// [`Server::start_on`] with the caller's backend.
    pub async fn start_with(
        config: &Config,
        clock: Clock,
        open: impl FnOnce() -> Result<Box<dyn Backend>, JournalError>,
    ) -> Result<Server, StartError> {
        let tls = certificate::load(config).map_err(StartError::Tls)?;
        let listeners = bind_all(config, tls.as_ref(), TlsProtocol::Redis)?;
        let http = bind_all(config, tls.as_ref(), TlsProtocol::Http)?;
        let http = Some(http).filter(|http| !http.addresses().is_empty());
        let port = listeners.addresses()[0].port();
        let data = match config.durability {
            Durability::Memory => "memory".to_owned(),
            _ => std::path::absolute(&config.data).unwrap_or(config.data.clone()).display().to_string(),
        };
        let journal = |error| StartError::Journal(data.clone(), error);
        let backend = open().map_err(journal)?;
        warn_of_exposure(config, &listeners, http.as_ref());
        let started = clock.now();
        let engine = Engine::start(backend, clock, engine_config(config)).map_err(journal)?;
        let expiry = Expiry::start(&engine).map_err(StartError::Thread)?;
        let run_id = run_id();
        let info = ServerInfo { port, data, durability: config.durability_name(), run_id, started };
        let metrics = Arc::new(ServerMetrics::of(command::names()));
        if let Some(tls) = &tls {
            certificate::record(tls, &metrics, engine.clock());
        }
        let file = (config.durability != Durability::Memory).then(|| config.data.clone());
        let users = Arc::new(Users::new(command::catalog(), engine.secret(), &config.users));
        let http = http.map(|listeners| {
            let (config, limits) = (config.http_config.clone(), config.limits);
            let state = HttpState::new(&engine, &users, config, limits, &metrics, file);
            HttpSide { state, listeners }
        });
        let connections_max = config.listener.connections_max.to_string();
        let mut settings = config.settings.clone();
        settings.retain(|(name, _)| *name != "connections-max");
        settings.extend([
            ("connections-max", connections_max.clone()),
            ("maxclients", connections_max),
            ("bind", joined(listeners.addresses().iter().map(SocketAddr::ip), " ")),
            ("port", port.to_string()),
        ]);
        let server = Arc::new(ServerState {
            engine: Arc::clone(&engine),
            limits: config.limits,
            client_limits: config.client_limits,
            users,
            denials: DenialLog::default(),
            clients: Clients::default(),
            pauses: Pauses::default(),
            allows_flush: config.allows_flush,
            scripts: ScriptEngine::new(config.scripts.clone()),
            pubsub: PubSub::default(),
            tracking: Tracking::default(),
            monitors: Monitors::default(),
            settings: LiveSettings::new(settings),
            info,
            metrics,
            commands_run: Count::default(),
            lookups: Lookups::default(),
            stats: ServerStats::default(),
            slow_log: SlowLog::default(),
            shutdown: Notify::new(),
        });
        engine.notify_of(server.settings.keyspace_events());
        let limits = config.listener.clone();
        let config = config.clone();
        Ok(Server { engine, server, listeners, limits, http, tls, config, _expiry: expiry })
    }

    /// The first address at which Redis clients connect.
    pub fn address(&self) -> SocketAddr {
        self.listeners.addresses()[0]
    }

    /// The first address at which HTTP clients connect; `None`: nowhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.listeners.addresses()[0])
    }

    /// The first address at which Redis clients connect with TLS; `None`: nowhere.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.listeners.encrypted_addresses().first().copied()
    }

    /// The first address at which HTTP clients connect with TLS; `None`: nowhere.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.listeners.encrypted_addresses().first().copied()
    }

    /// A handle that replaces the password and the users while the server runs.
    pub fn reloader(&self) -> Reloader {
        let http = self.http.as_ref();
        Reloader {
            server: Arc::clone(&self.server),
            state: http.map(|http| Arc::clone(&http.state)),
            tls: self.tls.clone(),
            is_redis_exposed: is_exposed(&self.listeners, &self.config),
            is_http_exposed: http.is_some_and(|http| is_exposed(&http.listeners, &self.config)),
            config: self.config.clone(),
        }
    }

    /// The lock manager.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The lines printed at start.
    pub fn banner(&self) -> String {
        let info = &self.server.info;
        let stats = self.engine.lock_stats();
        let recovered = match (0..DATABASES).map(|database| stats.keys(database)).sum::<u64>() {
            1 => "1 lock recovered".to_owned(),
            locks => format!("{locks} locks recovered"),
        };
        let kept = match info.durability {
            "memory" => "memory only, locks are lost on restart".to_owned(),
            mode => format!("{} ({recovered}), durability {mode}", info.data),
        };
        let address = self.address();
        let mut try_it = "redis-cli".to_owned();
        if !matches!(address.ip().to_string().as_str(), "127.0.0.1" | "0.0.0.0" | "::") {
            try_it.push_str(&format!(" -h {}", address.ip()));
        }
        try_it.push_str(&format!(" -p {}", address.port()));
        if self.listeners.plain_addresses().is_empty() {
            try_it.push_str(" --tls");
        }
        if !self.server.users.default_user().is_open() {
            try_it.push_str(" --askpass");
        }
        let redis = listed(&self.listeners);
        let http = self.http.as_ref().map_or("off".to_owned(), |http| listed(&http.listeners));
        format!(
            "octostore {}\n  redis  {redis}\n  http   {http}\n  data   {kept}\n  try    {try_it} LOCK demo me EX 30",
            env!("CARGO_PKG_VERSION"),
        )
    }

    /// Serves until `shutdown`, then finishes what was received and closes the data.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let events = {
            let (server, state) =
                (Arc::clone(&self.server), self.http.as_ref().map(|http| Arc::clone(&http.state)));
            tokio::spawn(async move {
                loop {
                    match server.engine.next_events(EVENTS_PER_TURN).await {
                        Heard::Events(events) => {
                            for event in &events {
                                for delivery in Delivery::of(event, &server.engine) {
                                    complete(delivery, &server).await;
                                }
                                if let Event::Lease(event) = event {
                                    state.iter().for_each(|state| state.notify(event));
                                }
                            }
                        }
                        Heard::Lost(events) => {
                            let redis = server.pubsub.cut_off_listeners();
                            complete(Delivery::after_loss(), &server).await;
                            let http = state.iter().map(|state| state.cut_off_watchers()).sum::<usize>();
                            tracing::warn!(
                                events,
                                redis,
                                http,
                                "lock events were lost: they came faster than they could be sent; closing all their streams and subscriptions"
                            );
                        }
                    }
                    tokio::task::yield_now().await;
                }
            })
        };
        let certificates = self.tls.map(|tls| {
            let metrics = Arc::clone(&self.server.metrics);
            tokio::spawn(certificate::follow(tls, metrics, self.engine.clock().clone()))
        });
        let (stop, stopped) = watch::channel(());
        let asked = Arc::clone(&self.server);
        let redis = resp::listen(self.listeners, self.server, self.limits, dropped(stopped.clone()));
        let http = async {
            if let Some(http) = self.http {
                http::serve(http.listeners, http.state, dropped(stopped)).await;
            }
        };
        tokio::join!(redis, http, async {
            tokio::select! {
                () = shutdown => {}
                () = asked.shutdown.notified() => tracing::info!("shutting down: draining connections"),
            }
            drop((stop, asked));
        });
        events.abort();
        certificates.inspect(tokio::task::JoinHandle::abort);
        drop(self._expiry);
        let engine = self.engine;
        // Commits the rest.
        if let Err(error) = tokio::task::spawn_blocking(move || engine.close()).await {
            tracing::error!(%error, "the database was not closed cleanly; the next start recovers it");
            return;
        }
        tracing::info!("stopped");
    }
}

/// Makes all steps of a delivery; other tasks run in between.
async fn complete(mut delivery: Delivery, server: &ServerState) {
    while !delivery.advance(server) {
        tokio::task::yield_now().await;
    }
}

/// Completes when the sender is dropped.
async fn dropped(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

fn engine_config(config: &Config) -> EngineConfig {
    EngineConfig {
        durability: config.durability,
        locks_max: config.locks_max,
        sessions_max: config.sessions_max,
        waiters_per_lock_max: config.waiters_per_lock_max,
        values_bytes_max: config.values_bytes_max,
        value_elements_max: config.value_elements_max,
        leases_per_account_max: config.http_config.locks_per_user_max,
        token_floor: config.token_floor,
        boot: clock::boot_id(),
        entropy: Entropy::system(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_bound_has_a_next_step() {
        for (kind, expected) in [
            (io::ErrorKind::AddrInUse, "port in use; stop the other program"),
            (io::ErrorKind::PermissionDenied, "reserves port 80 for privileged processes"),
            (io::ErrorKind::AddrNotAvailable, "this machine does not have the address"),
            (io::ErrorKind::Other, "see --listen"),
        ] {
            let address = SocketAddr::from(([192, 0, 2, 1], 80));
            let text = StartError::Bind("listen", address, kind.into()).to_string();
            assert!(text.starts_with("cannot listen on 192.0.2.1:80: "), "{text}");
            assert!(text.contains(expected) && text.contains("--listen"), "{text}");
        }
    }
}
