//! Routes requests, and completes every response.
//!
//! Guarantees: [`ROUTES`] is the only list of routes; every response has its request id and
//! the headers of the contract, also an error for a request that could not be parsed.
//! Not here: what routes do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};

use super::error::ApiError;
use super::metrics::Endpoint;
use super::unread::Unread;
use super::users::Caller;
use super::{HttpState, admin, body, host, key, keys, locks, overview, page, sessions, watch};
use crate::auth::WRONG_PASSWORD_DELAY;

/// A path, its method and its handler.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) method: Method,
    pub(super) endpoint: Endpoint,
    make: fn() -> MethodRouter<Arc<HttpState>>,
}

macro_rules! route {
    ($method:ident $path:literal => $endpoint:ident, $handler:path) => {
        Route {
            path: $path,
            method: method(stringify!($method)),
            endpoint: Endpoint::$endpoint,
            make: || $method($handler),
        }
    };
}

const fn method(name: &str) -> Method {
    match name.as_bytes() {
        b"get" => Method::GET,
        b"post" => Method::POST,
        b"delete" => Method::DELETE,
        _ => panic!("a route has the method get, post or delete"),
    }
}

/// All routes.
pub(super) static ROUTES: &[Route] = &[
    route!(post "/locks/{name}/acquire" => Acquire, locks::acquire),
    route!(post "/locks/{name}/renew" => Renew, locks::renew),
    route!(post "/locks/{name}/release" => Release, locks::release),
    route!(get "/locks/{name}/watch" => Watch, watch::watch),
    route!(get "/locks/{name}" => Status, locks::status),
    route!(get "/locks" => List, locks::list),
    route!(post "/sessions" => Session, sessions::create),
    route!(post "/sessions/{id}/keepalive" => Session, sessions::keep_alive),
    route!(get "/sessions/{id}" => Session, sessions::status),
    route!(delete "/sessions/{id}" => Session, sessions::delete),
    route!(get "/health" => Service, admin::health),
    route!(get "/health/leader" => Service, admin::leader_health),
    route!(get "/status" => Service, admin::status),
    route!(get "/metrics" => Service, admin::metrics),
    route!(get "/admin/status" => Service, admin::admin_status),
    route!(get "/admin/metrics/timeseries" => Service, admin::timeseries),
    route!(get "/openapi.yaml" => Service, admin::openapi),
    route!(get "/docs" => Service, page::docs),
    route!(get "/keys" => Keys, keys::list),
    route!(get "/key" => Keys, key::status),
    route!(post "/key/force-unlock" => Keys, key::force_unlock),
    route!(get "/server" => Service, overview::server),
    route!(get "/" => Service, page::index),
    route!(get "/page/style.css" => Service, page::style),
    route!(get "/page/app.js" => Service, page::script),
];

/// The router of all routes.
pub fn router(state: &Arc<HttpState>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.make)());
    }
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(state), middleware))
        .with_state(Arc::clone(state))
}

async fn no_route() -> ApiError {
    ApiError::no_route()
}

async fn no_method(request: Request) -> ApiError {
    let path = request.extensions().get::<MatchedPath>();
    let of_path = ROUTES.iter().filter(|route| path.is_some_and(|path| route.path == path.as_str()));
    let methods: Vec<_> = of_path.map(|route| route.method.as_str()).collect();
    let reason = format!("the method must be {}", methods.join(" or "));
    ApiError::malformed(StatusCode::METHOD_NOT_ALLOWED, &reason)
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const VARY: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after,x-request-id");
const METHODS: HeaderValue = HeaderValue::from_static("GET,POST,PUT,DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization,content-type,x-admin-key,x-octostore-admin-key");

/// The steps common to all requests: the request's id, headers, the shape of errors, metrics, and
/// the handling of an unread body.
async fn middleware(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    let clock = state.engine.clock();
    let started = clock.now();
    let endpoint = endpoint(&request);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let is_preflight = request.method() == Method::OPTIONS;
    let (request, unread) = Unread::watch(request);
    // Only locks of shards can be elsewhere.
    let uri = state.membership.shards.as_ref().map(|_| request.uri().clone());
    let mut answered = answer(&state, request, next).await;
    uri.iter().for_each(|uri| add_location(&mut answered, uri));
    let mut response = with_headers(answered, is_preflight);
    if state.membership.is_standby {
        // The next request may be one for the leader, to which only whole connections are passed
        // on.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(origin) = origin.filter(|origin| state.config.origins.iter().any(|known| known == origin)) {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    state.metrics.record(endpoint, clock.now().nanos_since(started), is_error);
    if response.status() == StatusCode::UNAUTHORIZED {
        tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
    }
    if let Some(unread) = unread {
        unread.finish(&mut response).await;
    }
    response
}

async fn answer(state: &HttpState, request: Request, next: Next) -> Response {
    if let Err(refusal) =
        host::check(&request, state.users.serve_this_machine_only(Caller::of_request(&request)))
    {
        refusal.into_response()
    } else if state.membership.is_standby && !is_for_any_node(request.uri().path()) {
        ApiError::no_leader().into_response()
    } else if request.method() == Method::OPTIONS {
        preflight()
    } else if request.uri().path().contains("//") {
        // No name and no id is empty, so this matches no route.
        ApiError::no_route().into_response()
    } else {
        next.run(request).await
    }
}

/// Whether every server of a cluster answers requests for this path itself; the others are for the
/// leader. The page is there while none leads, and says so.
pub fn is_for_any_node(path: &str) -> bool {
    matches!(path, "/health" | "/health/leader" | "/metrics" | "/" | "/docs" | "/openapi.yaml")
        || path.starts_with("/page/")
}

/// The response to a head that cannot be parsed, or to a connection beyond the limit.
pub(super) fn refusal(error: ApiError) -> Response {
    with_headers(error.into_response(), false)
}

fn with_headers(response: Response, is_preflight: bool) -> Response {
    let id = request_id();
    let mut response = with_error_body(response, &id);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::VARY, VARY);
    if !is_preflight {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

/// Names the place of what another server has, which clients follow with the same method and body.
fn add_location(response: &mut Response, uri: &Uri) {
    let moved_to = response.extensions().get::<ApiError>().and_then(ApiError::moved_to);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let location = moved_to.and_then(|to| HeaderValue::from_str(&format!("http://{to}{path}")).ok());
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
}

fn endpoint(request: &Request) -> Endpoint {
    let Some(path) = request.extensions().get::<MatchedPath>() else { return Endpoint::Other };
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let route = ROUTES.iter().find(|route| route.path == path.as_str() && route.method == method);
    route.map_or(Endpoint::Other, |route| route.endpoint)
}

/// `req_` and 32 hexadecimal digits. Unique, not secret.
fn request_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
        use std::hash::{BuildHasher, Hasher, RandomState};
        RandomState::new().build_hasher().finish()
    });
    format!("req_{:016x}{:016x}", *START, LAST.fetch_add(1, Ordering::Relaxed))
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
    ];
    (StatusCode::OK, headers).into_response()
}

/// Adds the body of an error, which contains the request's id.
fn with_error_body(mut response: Response, id: &str) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let made = body::json(response.status(), &error.body(id));
    let (made, body) = made.into_parts();
    *response.body_mut() = Body::new(body);
    // Keeps the methods of 405, but not the length of the empty body.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().extend(made.headers);
    if let Some(seconds) = error.retry_after_s() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
