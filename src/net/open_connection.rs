//! Counts open connections.
//!
//! Guarantees: a connection counts from when it is accepted until just before its socket is closed: a
//! client that sees that can open another at once. One that lingers after the end of its output is
//! open. Not here: limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::ConnectionMetrics;

/// Counts a connection as open while it exists.
pub(super) struct OpenConnection {
    metrics: Arc<ConnectionMetrics>,
    /// Where it counts as served, if it does.
    served: Option<Served>,
}

/// The number of connections that a listener serves.
#[derive(Clone, Default)]
pub(super) struct Served(Arc<AtomicUsize>);

impl Served {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl OpenConnection {
    pub(super) fn new(metrics: &Arc<ConnectionMetrics>) -> OpenConnection {
        metrics.open();
        OpenConnection { metrics: Arc::clone(metrics), served: None }
    }

    /// Counts it as served from now on.
    pub(super) fn serve(mut self, served: &Served) -> OpenConnection {
        served.0.fetch_add(1, Ordering::Relaxed);
        self.served = Some(served.clone());
        self
    }

    /// Counts its TLS handshake as failed.
    pub(super) fn fail_handshake(&self) {
        self.metrics.fail_handshake();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(Served(count)) = &self.served {
            count.fetch_sub(1, Ordering::Release);
        }
        self.metrics.close();
    }
}
