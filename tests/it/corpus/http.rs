//! Any path, query, headers and body as a request to the HTTP routes.
//!
//! Checks: nothing panics; every response has its request id and a status of the contract; none is
//! an internal error.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Uri};
use octostore::auth::Users;
use octostore::clock::Clock;
use octostore::command;
use octostore::domain::{Limits, Membership};
use octostore::engine::{Engine, EngineConfig};
use octostore::entropy::Entropy;
use octostore::http::{AccessConfig, HttpConfig, HttpState, Storage, parts};
use octostore::journal::{Durability, MemoryBackend};
use octostore::metrics::ServerMetrics;
use tower_service::Service;

fn state() -> Arc<HttpState> {
    let config = EngineConfig {
        durability: Durability::Memory,
        locks_max: 16,
        sessions_max: 4,
        waiters_per_lock_max: 4,
        values_bytes_max: 1 << 30,
        value_elements_max: 1 << 24,
        leases_per_account_max: 4,
        token_floor: 0,
        boot: None,
        entropy: Entropy::seeded(0),
    };
    let backend = Box::new(MemoryBackend::default());
    let engine = Engine::start(backend, Clock::manual(), config).expect("nothing to recover");
    let config = HttpConfig {
        users_from_certificates: false,
        access: AccessConfig::default(),
        origins: vec!["http://page.example".into()],
        locks_per_user_max: 4,
        connections_max: 4,
        output_stall: Duration::from_secs(1),
        auth_timeout: Duration::from_secs(1),
    };
    let metrics = Arc::new(ServerMetrics::of(command::names()));
    let users = Arc::new(Users::open(command::catalog()));
    HttpState::new(
        &engine,
        &users,
        config,
        Limits::default(),
        &metrics,
        Storage::Memory,
        Membership::of_one("octostore", ""),
    )
}

/// Lines of a method, a path, headers as `Name: value`, and the body after an empty line; requests
/// are separated by a NUL.
fn request(text: &[u8]) -> Option<Request<Body>> {
    let end = text.windows(2).position(|pair| pair == b"\n\n").unwrap_or(text.len());
    let mut lines = text[..end].split(|byte| *byte == b'\n');
    let method = Method::from_bytes(lines.next()?).ok()?;
    let uri = Uri::try_from(lines.next()?).ok()?;
    let mut request = Request::builder().method(method).uri(uri).header("host", "localhost");
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request =
            request.header(&line[..colon], HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    let body = text.get(end + 2..).unwrap_or_default().to_vec();
    request.body(Body::from(body)).ok()
}

pub(crate) fn run(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let known =
            BTreeSet::from([200, 201, 204, 400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 422, 429]);
        let state = state();
        let mut router = parts::router(&state);
        for text in input.split(|byte| *byte == 0).take(16) {
            let Some(request) = request(text) else { continue };
            let answer = router.call(request).await.expect("a router answers");
            assert!(known.contains(&answer.status().as_u16()), "{}", answer.status());
            assert!(answer.headers().contains_key("x-request-id"));
        }
    });
}
