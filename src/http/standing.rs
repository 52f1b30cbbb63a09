//! Whether a connection has authenticated, where requests need credentials.
//!
//! Guarantees: a connection without a request that has authenticated ends in time, and gives way to
//! newer ones before that if there are many. Not here: how many, who is who.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::HttpState;
use crate::net::Place;

/// The standing of one connection.
#[derive(Default)]
pub(super) struct Standing {
    /// Taken by the first request that authenticates.
    place: Mutex<Option<Place>>,
    gives_way: Arc<Notify>,
}

/// Why a connection that has not authenticated ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Its time is over.
    TimedOut,
    /// Newer ones need its place.
    GivesWay,
}

impl Standing {
    /// Of a connection whose requests need credentials.
    pub(super) fn unauthenticated(state: &HttpState, client: SocketAddr) -> Standing {
        let gives_way = Arc::<Notify>::default();
        let (metrics, notify) = (Arc::clone(&state.server_metrics.http), Arc::clone(&gives_way));
        let close = move || {
            metrics.refuse();
            tracing::warn!(
                %client,
                "HTTP connection closed for a newer one: half of --connections-max have not authenticated"
            );
            notify.notify_one();
        };
        let config = &state.config;
        let place = state.unauthenticated.enter(config.connections_max, config.auth_timeout, close);
        Standing { place: Mutex::new(Some(place)), gives_way }
    }

    /// A request has authenticated.
    pub(super) fn authenticate(&self) {
        self.place.lock().take();
    }

    /// Whether none must, or one has.
    pub(super) fn is_authenticated(&self) -> bool {
        self.place.lock().is_none()
    }

    /// Waits until the connection is to end. Does not return if it has authenticated.
    pub(super) async fn overdue(&self) -> Overdue {
        let Some(deadline) = self.place.lock().as_ref().map(Place::deadline) else { return pending().await };
        let overdue = tokio::select! {
            () = self.gives_way.notified() => Overdue::GivesWay,
            () = sleep_until(deadline) => Overdue::TimedOut,
        };
        if self.is_authenticated() { pending().await } else { overdue }
    }
}
