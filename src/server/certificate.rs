//! The certificate of a running server.
//!
//! Guarantees: it is replaced when its files change, and stays if the new ones cannot be used. Not
//! here: TLS.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::ServerMetrics;
use crate::net::{Tls, TlsError};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate that expires within this number of days is a warning.
const DAYS_FEW: i64 = 7;

/// Loads the configured certificate; `None`: there is no TLS.
pub(super) fn load(config: &Config) -> Result<Option<Arc<Tls>>, TlsError> {
    let tls = config.tls.as_ref().map(|tls| Tls::load(tls.files.clone()));
    tls.transpose().map(|tls| tls.map(Arc::new))
}

/// Puts the end of the certificate into the metrics, and logs it if it is near.
pub(super) fn record(tls: &Tls, metrics: &ServerMetrics, clock: &Clock) {
    metrics.certificate_expires_at.store(tls.expires_at(), Ordering::Relaxed);
    match metrics.certificate_days(clock.wall_millis()) {
        Some(days) if days < 0 => tracing::warn!(days, "the certificate has expired: clients refuse it"),
        Some(days) if days < DAYS_FEW => tracing::warn!(days, "the certificate expires soon"),
        Some(days) => tracing::info!(days, "certificate loaded"),
        None => {}
    }
}

/// Loads the certificate again whenever its files have changed.
pub(super) async fn follow(tls: Arc<Tls>, metrics: Arc<ServerMetrics>, clock: Clock) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let tls = Arc::clone(&tls);
        let look = move || tls.has_changed().then(|| tls.reload().map(|()| tls));
        match tokio::task::spawn_blocking(look).await {
            Ok(Some(Ok(tls))) => record(&tls, &metrics, &clock),
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "the new certificate cannot be used; the old one stays");
            }
            // The log has the panic's own line.
            Ok(None) | Err(_) => {}
        }
    }
}
