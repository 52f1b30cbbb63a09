//! The composition root: opens the journal, recovers, binds, serves, and ends in order.
//!
//! Promise: nothing is served before recovery is done; on shutdown, what was received is finished and committed.
//! Absent: everything that could be decided elsewhere.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::clock::{self, Clock};
use crate::command::{self, About, Clients, Hub, Publication, Service};
use crate::config::Config;
use crate::engine::{Engine, EngineConfig, Expiry, Heard};
use crate::http::{self, Adapter};
use crate::journal::{Backend, Durability, JournalError, MemoryBackend, SqliteBackend};
use crate::lock::DATABASES;
use crate::metrics::{Count, ServerMetrics};
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
    listener: TcpListener,
    address: SocketAddr,
    limits: ListenerLimits,
    http: Option<HttpSide>,
    _expiry: Expiry,
}

struct HttpSide {
    adapter: Arc<Adapter>,
    listener: TcpListener,
    address: SocketAddr,
}

/// Lock events passed on before those who listen get a turn: fewer than an HTTP reader may be behind.
const EVENTS_PER_TURN: usize = 32;

/// Connections that may be made before they are accepted, as far as the system allows that (`net.core.somaxconn`). A whole fleet
/// comes back at once after a restart, and who finds no room tries again only after a second, then three, then seven.
const BACKLOG: u32 = 65_535;

fn bind(setting: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Or a restart finds its port in use for a minute.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|error| StartError::Bind(setting, address, error))
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
                _ => Box::new(SqliteBackend::open(&config.data)?),
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
        let (listener, address) = bind("listen", config.listen)?;
        let http = match config.http {
            Some(address) => Some(bind("http", address)?),
            None => None,
        };
        let data = match config.durability {
            Durability::Memory => "memory".to_owned(),
            _ => config.data.display().to_string(),
        };
        let journal = |error| StartError::Journal(data.clone(), error);
        let backend = open().map_err(journal)?;
        let is_alone = |address: SocketAddr| address.ip().is_loopback();
        if config.password.is_none() && !(is_alone(config.listen) && config.http.is_none_or(is_alone)) {
            tracing::warn!("other machines can reach this server, and Redis clients need no password");
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
        let about = About { port: address.port(), data, durability: config.durability_name(), started };
        let metrics = Arc::new(ServerMetrics::of(command::names()));
        let file = (config.durability != Durability::Memory).then(|| config.data.clone());
        let http = http.map(|(listener, address)| {
            let adapter = Adapter::new(&engine, config.http_adapter.clone(), &metrics, file);
            HttpSide { adapter, listener, address }
        });
        let service = Arc::new(Service {
            engine: Arc::clone(&engine),
            limits: config.limits.clone(),
            password: config.password.clone(),
            clients: Clients::default(),
            hub: Hub::default(),
            settings: config.settings.clone(),
            about,
            metrics,
            commands_run: Count::default(),
        });
        let limits = config.listener.clone();
        Ok(Server { engine, service, listener, address, limits, http, _expiry: expiry })
    }

    /// Where Redis clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTP clients connect; `None`: nowhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    /// The lock manager.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What to tell whoever started it.
    pub fn banner(&self) -> String {
        let about = &self.service.about;
        let census = self.engine.census();
        let recovered = match (0..DATABASES).map(|database| census.keys(database)).sum::<u64>() {
            1 => "1 lock recovered".to_owned(),
            locks => format!("{locks} locks recovered"),
        };
        let kept = match about.durability {
            "memory" => "in memory only: a restart forgets all locks".to_owned(),
            mode => format!("{} ({recovered}), durability {mode}", about.data),
        };
        let address = self.address;
        let mut try_it = "redis-cli".to_owned();
        if !matches!(address.ip().to_string().as_str(), "127.0.0.1" | "0.0.0.0" | "::") {
            try_it.push_str(&format!(" -h {}", address.ip()));
        }
        try_it.push_str(&format!(" -p {}", address.port()));
        if self.service.password.is_some() {
            try_it.push_str(" --askpass");
        }
        let http = self.http_address().map_or_else(|| "off".to_owned(), |address| address.to_string());
        format!(
            "octostore {}\n  redis  {address}\n  http   {http}\n  data   {kept}\n  try    {try_it} LOCK demo me EX 30",
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
        let redis = resp::listen(self.listener, self.service, self.limits, asked(stopped.clone()));
        let http = async {
            if let Some(http) = self.http {
                http::serve(http.listener, http.adapter, asked(stopped)).await;
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
pub async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be caught; the process ends without draining");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: no new connections, finishing what was received");
}

/// Sends what is logged at `level` or worse to stderr. The variable RUST_LOG overrides it.
pub fn log_to_stderr(level: tracing::Level) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level.to_string()));
    let is_terminal = std::io::IsTerminal::is_terminal(&io::stderr());
    // A second call, as in tests, keeps what the first one set up.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(is_terminal)
        .with_target(false)
        // There is nowhere to say that stderr cannot be written, and trying to would panic.
        .log_internal_errors(false)
        .try_init();
}

/// Makes the files that the process creates its user's only: they name owners and sessions, which are secrets.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Files that the server needs beside connections.
const FILES_BESIDE: u64 = 64;

/// Asks the system for as many open files as connections need: so many Redis clients, and as many HTTP clients if there are any.
pub fn raise_file_limit(connections_max: usize, has_http: bool) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = connections_max as u64 * if has_http { 2 } else { 1 } + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limit.maximum });
    if raised.is_err() || allowed < wanted {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(0);
        tracing::warn!(
            "{wanted} open files are needed for --connections-max {connections_max}, and {files} are allowed: \
             raise that (ulimit -n), or lower --connections-max"
        );
    }
}
