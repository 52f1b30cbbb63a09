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
#[cfg(feature = "etcd")]
mod role;
mod service;
mod sockets;
mod supervisor;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use self::reload::Reloadable;
use self::service::{Process, Service};
use self::sockets::Sockets;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::{DATABASES, Membership};
use crate::engine::Engine;
use crate::http;
use crate::journal::{Backend, Durability, JournalError, MemoryBackend, SqliteBackend};
use crate::net::TlsError;
use crate::resp;

pub use process::{
    FEW_CONNECTIONS, Hangups, asked_to_stop, avoid_huge_pages, fit_file_limit, keep_files_private,
    raise_file_limit,
};
pub use reload::{Reloaded, Reloader};
#[cfg(feature = "etcd")]
pub use role::Member;
pub use supervisor::notify_ready;

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
    service: Service,
    sockets: Sockets,
    process: Process,
    config: Config,
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
                let what = "a server of a cluster is started as a member of it";
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
        let sockets = Sockets::bind(config)?;
        let data = match config.durability {
            Durability::Memory => "memory".to_owned(),
            _ => std::path::absolute(&config.data).unwrap_or(config.data.clone()).display().to_string(),
        };
        let process = Process::new(&sockets, data, clock, None);
        let membership = Membership::of_one(&config.cluster.name, &process.run_id);
        let service = Service::open(config, &process, membership, config.durability, open)?;
        sockets.warn_of_exposure(config);
        Ok(Server { service, sockets, process, config: config.clone() })
    }

    /// The first address at which Redis clients connect.
    pub fn address(&self) -> SocketAddr {
        self.sockets.redis_address()
    }

    /// The first address at which HTTP clients connect; `None`: nowhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.sockets.http_address()
    }

    /// The first address at which Redis clients connect with TLS; `None`: nowhere.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.sockets.redis.encrypted_addresses().first().copied()
    }

    /// The first address at which HTTP clients connect with TLS; `None`: nowhere.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.sockets.http.as_ref()?.encrypted_addresses().first().copied()
    }

    /// A handle that replaces the password and the users while the server runs.
    pub fn reloader(&self) -> Reloader {
        Reloader::new(&self.sockets, Arc::new(Reloadable::new(&self.service, &self.config)))
    }

    /// The lock manager.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.service.engine
    }

    /// The lines printed at start.
    pub fn banner(&self) -> String {
        let info = &self.service.server.info;
        let (stats, values) = (self.service.engine.lock_stats(), self.service.engine.value_stats().values());
        let keys: u64 = (0..DATABASES).map(|database| stats.keys(database)).sum();
        let counted = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let locks = counted(keys.saturating_sub(values), "lock");
        let recovered = match values {
            0 => format!("{locks} recovered"),
            values => format!("{locks} and {} recovered", counted(values, "value")),
        };
        let kept = match info.durability {
            "memory" => "memory only, locks are lost on restart".to_owned(),
            mode => format!("{} ({recovered}), durability {mode}", info.data),
        };
        self.sockets.banner(&kept, &self.service.server.users.default_user())
    }

    /// Serves until `shutdown`, then finishes what was received and closes the data.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        self.service.deliver_events();
        let certificate = self.process.follow_certificate(&self.sockets);
        let (stop, stopped) = watch::channel(());
        let server = Arc::clone(&self.service.server);
        let limits = self.config.listener.clone();
        let redis = resp::listen(self.sockets.redis, Arc::clone(&server), limits, dropped(stopped.clone()));
        let http = async {
            if let (Some(sockets), Some(state)) = (self.sockets.http, self.service.http.clone()) {
                http::serve(sockets, state, dropped(stopped)).await;
            }
        };
        tokio::join!(redis, http, async {
            tokio::select! {
                () = shutdown => {}
                () = server.shutdown.notified() => tracing::info!("shutting down: draining connections"),
            }
            supervisor::notify_stopping();
            drop(stop);
        });
        drop((server, certificate));
        self.service.close().await;
        tracing::info!("stopped");
    }
}

/// Completes when the sender is dropped.
async fn dropped(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
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
