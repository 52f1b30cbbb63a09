//! `/` and `/docs`: the page for people and the documentation of routes, and the files that they
//! consist of.
//!
//! Guarantees: the page loads nothing from elsewhere, and its policy allows no script and no style
//! that is not one of these files. `docs.html` is generated from `openapi.yaml`. Not here: what the
//! page shows, which it asks the other routes for.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// What the page may do: run its own files, and ask the server that it came from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

fn file(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

pub(super) async fn index() -> Response {
    file("text/html; charset=utf-8", include_str!("index.html"))
}

pub(super) async fn docs() -> Response {
    file("text/html; charset=utf-8", include_str!("docs.html"))
}

pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("style.css"))
}

pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("app.js"))
}
