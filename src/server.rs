//! The composition root: opens the journal, recovers, binds, serves, reloads, and ends in order.
//!
//! Guarantees: nothing is served before recovery is done; on shutdown, what was received is finished
//! and committed; a reload changes all that can be changed, or nothing. Not here: everything that
//! could be decided elsewhere.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::{self, Clock};
use crate::command::{self, About, Clients, CurrentPassword, Hub, Publication, Service};
use crate::config::{Config, ConfigError, OPTIONS};
use crate::domain::DATABASES;
use crate::engine::{Engine, EngineConfig, Expiry, Heard};
use crate::http::{self, Adapter};
use crate::journal::{Backend, Durability, JournalError, MemoryBackend, SqliteBackend};
use crate::metrics::{Count, ServerMetrics};
use crate::net::{ListenAddress, Listeners};
use crate::resp::{self, ListenerLimits};

/// Why a server does not start.
#[derive(Debug)]
pub enum StartError {
    /// The address, of this setting, cannot be listened on.
    Bind(&'static str, SocketAddr, io::Error),
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
                    "cannot listen on {addr}: the port is in use; stop that program, or choose another --{setting}"
                )
            }
            StartError::Bind(setting, addr, error) => {
                write!(f, "cannot listen on {addr}: {error}; see --{setting}")
            }
            StartError::Journal(data, error) => write!(f, "cannot use {data}: {error}"),
            StartError::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A server that has recovered and listens.
pub struct Server {
    engine: Arc<Engine>,
    service: Arc<Service>,
    listeners: Listeners,
    limits: ListenerLimits,
    http: Option<HttpSide>,
    config: Config,
    _expiry: Expiry,
}

struct HttpSide {
    adapter: Arc<Adapter>,
    listeners: Listeners,
}

/// Lock events passed on before those who listen get a turn: fewer than an HTTP reader may be behind.
const EVENTS_PER_TURN: usize = 32;

fn bind(setting: &'static str, wanted: &[ListenAddress]) -> Result<Listeners, StartError> {
    Listeners::bind(wanted).map_err(|(address, error)| StartError::Bind(setting, address, error))
}

/// Whether only this machine can reach all of them.
fn are_loopback(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| address.ip().is_loopback())
}

/// Addresses for people, or for Redis' way of listing them.
fn joined(items: impl IntoIterator<Item = impl ToString>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}

impl Server {
    /// Opens the data, recovers and binds.
    pub async fn start(config: &Config) -> Result<Server, StartError> {
        Server::start_on(config, Clock::system()).await
    }

    /// [`Server::start`] under a clock of the caller's.
    pub async fn start_on(config: &Config, clock: Clock) -> Result<Server, StartError> {
        let open = || -> Result<Box<dyn Backend>, JournalError> {
            Ok(match config.durability {
                Durability::Memory => Box::new(MemoryBackend::default()),
                _ => Box::new(SqliteBackend::open_with(&config.data, config.damaged_log)?),
            })
        };
        Server::start_with(config, clock, open).await
    }

    /// [`Server::start_on`] a backend of the caller's.
    pub async fn start_with(
        config: &Config,
        clock: Clock,
        open: impl FnOnce() -> Result<Box<dyn Backend>, JournalError>,
    ) -> Result<Server, StartError> {
        let listeners = bind("listen", &config.listen)?;
        let http = match config.http.as_slice() {
            [] => None,
            wanted => Some(bind("http", wanted)?),
        };
        let port = listeners.addresses()[0].port();
        let data = match config.durability {
            Durability::Memory => "memory".to_owned(),
            _ => config.data.display().to_string(),
        };
        let journal = |error| StartError::Journal(data.clone(), error);
        let backend = open().map_err(journal)?;
        if config.password.is_none() && !are_loopback(listeners.addresses()) {
            tracing::warn!("other machines can reach this server, and Redis clients need no password");
        }
        let is_http_exposed = http.as_ref().is_some_and(|http| !are_loopback(http.addresses()));
        if config.http_adapter.users.are_open() && is_http_exposed {
            tracing::warn!("other machines can reach this server, and HTTP clients need no token");
        }
        let engine_config = EngineConfig {
            durability: config.durability,
            locks_max: config.locks_max,
            sessions_max: config.sessions_max,
            waiters_per_lock_max: config.waiters_per_lock_max,
            leases_per_account_max: config.http_adapter.locks_per_user_max,
            token_floor: config.token_floor,
            boot: clock::boot_id(),
        };
        let started = clock.now();
        let engine = Engine::start(backend, clock, engine_config).map_err(journal)?;
        let expiry = Expiry::start(&engine).map_err(StartError::Thread)?;
        let about = About { port, data, durability: config.durability_name(), started };
        let metrics = Arc::new(ServerMetrics::of(command::names()));
        let file = (config.durability != Durability::Memory).then(|| config.data.clone());
        let http = http.map(|listeners| {
            let adapter = Adapter::new(&engine, config.http_adapter.clone(), &metrics, file);
            HttpSide { adapter, listeners }
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
        let service = Arc::new(Service {
            engine: Arc::clone(&engine),
            limits: config.limits.clone(),
            password: CurrentPassword::new(config.password.clone()),
            clients: Clients::default(),
            hub: Hub::default(),
            settings,
            about,
            metrics,
            commands_run: Count::default(),
        });
        let limits = config.listener.clone();
        let config = config.clone();
        Ok(Server { engine, service, listeners, limits, http, config, _expiry: expiry })
    }

    /// The first address at which Redis clients connect.
    pub fn address(&self) -> SocketAddr {
        self.listeners.addresses()[0]
    }

    /// The first address at which HTTP clients connect; `None`: nowhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.listeners.addresses()[0])
    }

    /// A handle that replaces the password and the users while the server runs.
    pub fn reloader(&self) -> Reloader {
        let http = self.http.as_ref();
        Reloader {
            service: Arc::clone(&self.service),
            adapter: http.map(|http| Arc::clone(&http.adapter)),
            is_redis_exposed: !are_loopback(self.listeners.addresses()),
            is_http_exposed: http.is_some_and(|http| !are_loopback(http.listeners.addresses())),
            config: self.config.clone(),
        }
    }

    /// The lock manager.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What to tell whoever started it.
    pub fn banner(&self) -> String {
        let about = &self.service.about;
        let lock_stats = self.engine.lock_stats();
        let recovered = match (0..DATABASES).map(|database| lock_stats.keys(database)).sum::<u64>() {
            1 => "1 lock recovered".to_owned(),
            locks => format!("{locks} locks recovered"),
        };
        let kept = match about.durability {
            "memory" => "in memory only: a restart forgets all locks".to_owned(),
            mode => format!("{} ({recovered}), durability {mode}", about.data),
        };
        let address = self.address();
        let mut try_it = "redis-cli".to_owned();
        if !matches!(address.ip().to_string().as_str(), "127.0.0.1" | "0.0.0.0" | "::") {
            try_it.push_str(&format!(" -h {}", address.ip()));
        }
        try_it.push_str(&format!(" -p {}", address.port()));
        if !self.service.password.is_none() {
            try_it.push_str(" --askpass");
        }
        let redis = joined(self.listeners.addresses(), ", ");
        let http =
            self.http.as_ref().map_or("off".to_owned(), |http| joined(http.listeners.addresses(), ", "));
        format!(
            "octostore {}\n  redis  {redis}\n  http   {http}\n  data   {kept}\n  try    {try_it} LOCK demo me EX 30",
            env!("CARGO_PKG_VERSION"),
        )
    }

    /// Serves until `shutdown`, then finishes what was received and closes the data.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let events = {
            let (service, adapter) =
                (Arc::clone(&self.service), self.http.as_ref().map(|http| Arc::clone(&http.adapter)));
            tokio::spawn(async move {
                loop {
                    match service.engine.next_events(EVENTS_PER_TURN).await {
                        Heard::Events(events) => {
                            for event in &events {
                                let mut publication = Publication::event(event);
                                while publication.advance(&service.hub).is_none() {
                                    tokio::task::yield_now().await;
                                }
                                adapter.iter().for_each(|adapter| adapter.tell(event));
                            }
                        }
                        Heard::Lost(events) => {
                            let redis = service.hub.cut_off_listeners();
                            let http =
                                adapter.iter().map(|adapter| adapter.cut_off_watchers()).sum::<usize>();
                            tracing::warn!(
                                events,
                                redis,
                                http,
                                "lock events came faster than they could be passed on; all who listened to any are cut off"
                            );
                        }
                    }
                    tokio::task::yield_now().await;
                }
            })
        };
        let (stop, stopped) = watch::channel(());
        let redis = resp::listen(self.listeners, self.service, self.limits, asked(stopped.clone()));
        let http = async {
            if let Some(http) = self.http {
                http::serve(http.listeners, http.adapter, asked(stopped)).await;
            }
        };
        tokio::join!(redis, http, async {
            shutdown.await;
            drop(stop);
        });
        events.abort();
        drop(self._expiry);
        let engine = self.engine;
        // Commits what is left: blocking, but nothing else is to be done any more.
        if let Err(error) = tokio::task::spawn_blocking(move || engine.close()).await {
            tracing::error!(%error, "the data was not closed cleanly; the next start recovers it");
            return;
        }
        tracing::info!("stopped");
    }
}

/// Completes when the other side of the channel is gone.
async fn asked(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}

/// Completes when the process is told to end, by SIGTERM or Ctrl-C.
/// The signals are caught from this call on, whenever the future is first polled.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::warn!("signals cannot be caught; the process ends without draining");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new connections, finishing what was received");
    }
}

/// Changes the password and the users of a running server.
pub struct Reloader {
    service: Arc<Service>,
    adapter: Option<Arc<Adapter>>,
    is_redis_exposed: bool,
    is_http_exposed: bool,
    /// As the server runs now.
    config: Config,
}

impl Reloader {
    /// Takes over from `config` who may do what: the password of Redis clients, and the users and
    /// the operators' key of HTTP. Connections that are authenticated stay so. Refuses to open a
    /// server that other machines can reach.
    pub fn reload(&mut self, config: &Config) -> Result<Reloaded, &'static str> {
        let users = &config.http_adapter.users;
        let is_open = (self.is_redis_exposed && config.password.is_none())
            || (self.is_http_exposed && users.are_open());
        if is_open && !self.config.allows_no_password {
            return Err("other machines can reach this server, and nobody would need a password any more");
        }
        let has_new_password = self.service.password.replace(config.password.clone());
        let has_new_users = *users != self.config.http_adapter.users;
        if let Some(adapter) = self.adapter.as_ref().filter(|_| has_new_users) {
            adapter.replace_users(users);
        }
        self.config.http_adapter.users = users.clone();
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
    /// Redis clients need another password.
    pub has_new_password: bool,
    /// HTTP has other users, tokens or operators.
    pub has_new_users: bool,
    /// Settings that differ from those of the start, and hold only after a restart.
    pub waiting: Vec<&'static str>,
}

/// SIGHUP, which does not end the process as long as this exists.
pub struct Hangups(Option<tokio::signal::unix::Signal>);

impl Hangups {
    /// Catches the signal. Needs a runtime.
    pub fn catch() -> Hangups {
        let caught = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        if let Err(error) = &caught {
            tracing::warn!(%error, "SIGHUP cannot be caught; it ends the process");
        }
        Hangups(caught.ok())
    }

    /// Reads the configuration anew at every SIGHUP and takes over what can be. If anything is
    /// wrong with it, that is logged and the server goes on as it is.
    pub async fn reload<R>(self, mut reloader: Reloader, read: R)
    where
        R: Fn() -> Result<Config, ConfigError> + Clone + Send + 'static,
    {
        let Some(mut hangup) = self.0 else { return };
        while hangup.recv().await.is_some() {
            let reloaded = match tokio::task::spawn_blocking(read.clone()).await {
                Ok(Ok(config)) => reloader.reload(&config).map_err(str::to_owned),
                Ok(Err(error)) => Err(error.to_string()),
                // The log has the panic's own line, too.
                Err(error) => Err(error.to_string()),
            };
            match reloaded {
                Ok(reloaded) => tracing::info!("SIGHUP: {reloaded}"),
                Err(reason) => tracing::error!("SIGHUP: nothing was reloaded: {reason}"),
            }
        }
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.has_new_password, self.has_new_users) {
            (true, true) => "the password and the users of HTTP were reloaded",
            (true, false) => "the password was reloaded",
            (false, true) => "the users of HTTP were reloaded",
            (false, false) => "password and users are the same as before",
        })?;
        match self.waiting.as_slice() {
            [] => Ok(()),
            waiting => write!(f, "; only a restart changes --{}", waiting.join(", --")),
        }
    }
}

/// Makes the files that the process creates its user's only: they name owners and sessions, which are secrets.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Files that the server needs beside connections.
const FILES_BESIDE: u64 = 64;

/// Asks the system for as many open files as connections need, up to `connections_max` Redis
/// clients and as many HTTP clients if there are any. Returns the number of connections of each kind
/// that the system allows.
pub fn raise_file_limit(connections_max: usize, has_http: bool) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let kinds = if has_http { 2 } else { 1 };
    let wanted = connections_max as u64 * kinds + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        // What is allowed after this counts, not whether it worked.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum });
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    let connections = (allowed.saturating_sub(FILES_BESIDE) / kinds).max(1);
    usize::try_from(connections).map_or(connections_max, |connections| connections.min(connections_max))
}

/// Lowers `--connections-max` to what the system allows. Returns what the log is to say of it.
pub fn fit_file_limit(config: &mut Config) -> Option<String> {
    let wanted = config.listener.connections_max;
    let has_http = !config.http.is_empty();
    let allowed = raise_file_limit(wanted, has_http);
    (allowed < wanted).then(|| {
        config.listener.connections_max = allowed;
        config.http_adapter.connections_max = allowed;
        let kinds = if has_http { "Redis clients and as many HTTP clients" } else { "Redis clients" };
        format!(
            "up to {allowed} {kinds} can connect, not --connections-max {wanted}: the system allows no more open \
             files (ulimit -n)"
        )
    })
}
