//! The process: signals, file modes, the limit of open files.
//!
//! Guarantees: a signal that was caught is not lost, whenever its future is first polled.

use std::future::Future;

use super::{Reloader, supervisor};
use crate::config::{Config, ConfigError};

/// Completes on SIGTERM or Ctrl-C.
/// The signals are caught from this call on, whenever the future is first polled.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::warn!("cannot catch signals; the process will end without draining");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down: draining connections");
    }
}

/// The SIGHUP handler. While it exists, SIGHUP does not end the process.
pub struct Hangups(Option<tokio::signal::unix::Signal>);

impl Hangups {
    /// Catches the signal. Needs a runtime.
    pub fn catch() -> Hangups {
        let caught = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        if let Err(error) = &caught {
            tracing::warn!(%error, "cannot catch SIGHUP; it will end the process");
        }
        Hangups(caught.ok())
    }

    /// Reads the configuration again at every SIGHUP and applies what can change. An invalid
    /// configuration is logged and changes nothing.
    pub async fn reload<R>(self, mut reloader: Reloader, read: R)
    where
        R: Fn() -> Result<Config, ConfigError> + Clone + Send + 'static,
    {
        let Some(mut hangup) = self.0 else { return };
        while hangup.recv().await.is_some() {
            supervisor::notify_reloading();
            let reloaded = match tokio::task::spawn_blocking(read.clone()).await {
                Ok(Ok(config)) => reloader.reload(&config),
                Ok(Err(error)) => Err(error.to_string()),
                // The log has the panic's own line, too.
                Err(error) => Err(error.to_string()),
            };
            match reloaded {
                Ok(reloaded) => tracing::info!("SIGHUP: {reloaded}"),
                Err(reason) => tracing::error!("SIGHUP: nothing was reloaded: {reason}"),
            }
            supervisor::notify_ready();
        }
    }
}

/// Makes new files private to the user: they contain owners and session ids, which are secrets.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Open files that the server needs besides connections.
const FILES_BESIDE: u64 = 64;

/// Raises the limit of open files for `connections_max` clients of each of this number of kinds.
/// Returns the number of connections of each kind that the system allows.
pub fn raise_file_limit(connections_max: usize, kinds: u64) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = connections_max as u64 * kinds + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        // Ignores failures: the limit in force afterwards is what counts.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum });
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    let connections = (allowed.saturating_sub(FILES_BESIDE) / kinds).max(1);
    usize::try_from(connections).map_or(connections_max, |connections| connections.min(connections_max))
}

/// A server that may have fewer connections than this warns at the start.
pub const FEW_CONNECTIONS: usize = 1000;

/// Lowers `--connections-max` to what the system allows. Returns the log line if it did.
pub fn fit_file_limit(config: &mut Config) -> Option<String> {
    let wanted = config.listener.connections_max;
    let tls = config.tls.as_ref();
    let has_http = !config.http.is_empty() || tls.is_some_and(|tls| !tls.http.is_empty());
    let has_sentinel = !config.sentinel.is_empty() || tls.is_some_and(|tls| !tls.sentinel.is_empty());
    let allowed = raise_file_limit(wanted, 1 + u64::from(has_http) + u64::from(has_sentinel));
    (allowed < wanted).then(|| {
        config.listener.connections_max = allowed;
        config.http_config.connections_max = allowed;
        let kinds = match (has_http, has_sentinel) {
            (false, false) => "for Redis clients",
            (true, false) => "for Redis and for HTTP clients each",
            (_, true) => "for the clients of each protocol",
        };
        format!(
            "--connections-max lowered from {wanted} to {allowed} {kinds}: the limit of open files is too low; \
             raise it (ulimit -n, LimitNOFILE=)"
        )
    })
}
