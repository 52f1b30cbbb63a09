//! `/health`, `/status`, `/metrics`, `/admin/…`, `/openapi.yaml`: the server itself.
//!
//! Guarantees: these routes change nothing. Not here: routes of single locks.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::metrics::TextFormat;
use super::timeseries::Totals;
use super::users::Caller;
use super::{HttpState, Storage, body, locks, metrics, names, times};
use crate::domain::{FencingToken, LockName, Timestamp};
use crate::engine::SharedTxn;
use crate::lock::Lease;

static OPENAPI: &str = include_str!("openapi.yaml");

#[derive(Serialize)]
struct Health {
    status: &'static str,
    storage: &'static str,
    db_size_bytes: u64,
}

/// The numbers that `/status` and `/admin/status` show.
#[derive(Serialize)]
struct Numbers {
    uptime_seconds: u64,
    active_locks: u64,
    total_users: usize,
    total_acquires: u64,
    total_releases: u64,
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
    #[serde(flatten)]
    numbers: Numbers,
}

#[derive(Serialize)]
struct AdminStatus {
    healthy: bool,
    #[serde(flatten)]
    numbers: Numbers,
    locks: Vec<HeldView>,
    users: Vec<UserView>,
}

#[derive(Serialize)]
struct HeldView {
    name: String,
    holder_username: String,
    metadata: Option<String>,
    fencing_token: i64,
    expires_at: String,
    ttl_remaining_seconds: Option<u64>,
}

#[derive(Serialize)]
struct UserView {
    id: uuid::Uuid,
    github_username: String,
    created_at: String,
}

#[derive(Serialize, Default)]
struct Timeseries {
    timestamps: Vec<u64>,
    request_volume: Vec<u64>,
    acquire_rates: Vec<u64>,
    release_rates: Vec<u64>,
    active_locks: Vec<u64>,
}

impl HttpState {
    fn numbers(&self) -> Numbers {
        let stats = self.engine.lock_stats();
        Numbers {
            uptime_seconds: self.uptime_seconds(),
            active_locks: stats.leases(),
            total_users: self.users.all().len(),
            total_acquires: self.acquires(),
            total_releases: stats.totals().releases,
        }
    }

    pub(super) fn uptime_seconds(&self) -> u64 {
        self.engine.clock().now().millis_since(self.started) / 1000
    }

    /// Grants, repeated ones included.
    pub(super) fn acquires(&self) -> u64 {
        let totals = self.engine.lock_stats().totals();
        totals.grants + totals.repeats
    }

    pub(super) fn record_minute(&self) {
        let stats = self.engine.lock_stats();
        self.history.record(Totals {
            unix_s: self.engine.clock().wall_millis() / 1000,
            requests: self.metrics.requests(),
            acquires: self.acquires(),
            releases: stats.totals().releases,
            active_locks: stats.leases(),
        });
    }
}

pub(super) async fn health(State(state): State<Arc<HttpState>>) -> Result<Response, ApiError> {
    // The probe is about whether locks can be acquired.
    let membership = &state.membership;
    if state.engine.journal_down().is_some()
        || membership.is_standby && !membership.topology.read().is_eligible
    {
        return Err(ApiError::internal());
    }
    let size = match &state.storage {
        Storage::File(path) => std::fs::metadata(path).map_or(0, |file| file.len()),
        Storage::Memory | Storage::Etcd => 0,
    };
    let health = Health { status: "ok", storage: state.storage.name(), db_size_bytes: size };
    Ok(body::json(StatusCode::OK, &health))
}

#[derive(Serialize)]
struct LeaderHealth {
    status: &'static str,
    role: &'static str,
}

/// For load balancers: 200 on the server that serves requests about locks, 503 on the others.
pub(super) async fn leader_health(State(state): State<Arc<HttpState>>) -> Result<Response, ApiError> {
    if state.membership.is_standby || state.engine.journal_down().is_some() {
        return Err(ApiError::not_leading());
    }
    let confirm = |txn: &SharedTxn<'_>| {
        txn.confirm_leadership();
        Ok(())
    };
    state.decide(confirm).await.map_err(|_| ApiError::not_leading())?;
    Ok(body::json(StatusCode::OK, &LeaderHealth { status: "ok", role: "leader" }))
}

pub(super) async fn status(State(state): State<Arc<HttpState>>) -> Response {
    body::json(StatusCode::OK, &Status { status: "ok", numbers: state.numbers() })
}

pub(super) async fn metrics(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    state.users.authenticate_metrics(Caller::of_request(&request))?;
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let accepted = accepted.to_ascii_lowercase();
    if accepted.contains("application/json") {
        return Ok(body::json(StatusCode::OK, &metrics::as_json(&state)));
    }
    let format = TextFormat::accepted(&accepted);
    let text = metrics::as_text(&state, format).map_err(|_| ApiError::internal())?;
    Ok(([(header::CONTENT_TYPE, format.media_type())], text).into_response())
}

pub(super) async fn admin_status(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let user = state.users.authenticate_admin(Caller::of(&parts))?;
    let snapshot = |name: &LockName, lease: &Lease| HeldSnapshot {
        name: name.clone(),
        holder: holder(lease),
        meta: lease.meta().map(str::to_owned),
        token: lease.token,
        deadline: lease.deadline,
    };
    let view = move |state: &HttpState, held: HeldSnapshot| {
        let now = state.engine.clock().now();
        user.may_list(&held.name).then(|| HeldView {
            name: names::escape(held.name.key()),
            holder_username: held.holder,
            metadata: held.meta,
            fencing_token: held.token.get(),
            expires_at: state.format_time(held.deadline),
            ttl_remaining_seconds: held.deadline.millis_left(now).map(|millis| millis / 1000),
        })
    };
    let shown = Arc::clone(&state);
    let answer = move |locks| {
        let since = times::rfc3339(shown.engine.clock().wall_nanos_of(shown.started));
        let users = shown.users.all().into_iter().map(|user| UserView {
            id: user.id,
            github_username: user.name.clone(),
            created_at: since.clone(),
        });
        let status = AdminStatus { healthy: true, numbers: shown.numbers(), locks, users: users.collect() };
        body::json(StatusCode::OK, &status)
    };
    locks::collect(&state, snapshot, view, answer).await
}

/// A held lock as it was at one instant.
struct HeldSnapshot {
    name: LockName,
    holder: String,
    meta: Option<String>,
    token: FencingToken,
    deadline: Timestamp,
}

/// The public name of the holder: a user, or a Redis client's name or address.
fn holder(lease: &Lease) -> String {
    let origin = lease.origin.as_deref();
    let client =
        origin.map(|origin| if origin.client_name.is_empty() { &origin.addr } else { &origin.client_name });
    lease.account().or(client.map(String::as_str)).unwrap_or("").to_owned()
}

pub(super) async fn timeseries(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let window = names::query(&parts, "window")?;
    state.users.authenticate_admin(Caller::of(&parts))?;
    let hours = match window.as_deref() {
        None | Some("1h") => 1,
        Some("12h") => 12,
        Some("24h") => 24,
        Some("7d") => 7 * 24,
        Some(_) => return Err(ApiError::invalid("a window is 1h, 12h, 24h or 7d")),
    };
    let mut series = Timeseries::default();
    for minute in state.history.last(hours * 60) {
        series.timestamps.push(minute.unix_s);
        series.request_volume.push(minute.requests);
        series.acquire_rates.push(minute.acquires);
        series.release_rates.push(minute.releases);
        series.active_locks.push(minute.active_locks);
    }
    Ok(body::json(StatusCode::OK, &series))
}

pub(super) async fn openapi() -> Response {
    let text = OPENAPI.replace("{version}", env!("CARGO_PKG_VERSION"));
    ([(header::CONTENT_TYPE, "application/yaml")], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::router::ROUTES;

    #[test]
    fn the_document_describes_all_routes() {
        let mut described = BTreeSet::new();
        let mut path = "";
        let paths = OPENAPI.split("\npaths:\n").nth(1).expect("paths");
        for line in paths.lines().take_while(|line| line.is_empty() || line.starts_with(' ')) {
            let text = line.trim_start();
            let word = text.trim_end_matches(':');
            match line.len() - text.len() {
                2 => path = word,
                4 if ["get", "post", "put", "delete"].contains(&word) => {
                    described.insert((word.to_uppercase(), path.to_owned()));
                }
                _ => {}
            }
        }
        let routes: BTreeSet<_> =
            ROUTES.iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
        assert_eq!(described, routes);
    }
}
