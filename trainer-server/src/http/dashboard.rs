//! The dashboard, a page of the admin address, and `/docs`, the reference of the API; their files are part of the
//! binary.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use super::query::Path;
use super::{AppState, Problem};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// The page loads nothing from elsewhere, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

macro_rules! files {
    ($($name:literal $content_type:ident),* $(,)?) => {
        [$(($name, $content_type, include_str!(concat!("../../dashboard/", $name)))),*]
    };
}

const FILES: [(&str, &str, &str); 17] = files![
    "index.html" HTML,
    "style.css" CSS,
    "main.js" JS,
    "api.js" JS,
    "elements.js" JS,
    "charts.js" JS,
    "live.js" JS,
    "learning.js" JS,
    "versions.js" JS,
    "experiments.js" JS,
    "quality.js" JS,
    "simulator.js" JS,
    "bias.js" JS,
    "moderation.js" JS,
    "uncertain.js" JS,
    "docs.html" HTML,
    "docs.js" JS,
];

/// The reference of the API, on both addresses.
pub(super) fn reference() -> Router<AppState> {
    Router::new()
        .route("/docs", get(async || Redirect::temporary("/docs/")))
        .route("/docs/", get(async || answer("docs.html")))
        .route("/docs/{file}", get(reference_file))
}

/// The dashboard.
pub(super) fn pages() -> Router<AppState> {
    Router::new()
        .route("/", get(async || Redirect::temporary("/dashboard/")))
        .route("/dashboard/", get(async || answer("index.html")))
        .route("/dashboard/{file}", get(file))
}

async fn file(Path(name): Path<String>) -> Response {
    answer(&name)
}

/// What the reference shares with the dashboard, and its own.
async fn reference_file(Path(name): Path<String>) -> Response {
    match &*name {
        "docs.js" | "elements.js" | "style.css" => answer(&name),
        _ => Problem::not_found(format!("the reference has no file {name}")).into_response(),
    }
}

fn answer(name: &str) -> Response {
    let Some((_, content_type, text)) = FILES.iter().find(|(known, _, _)| *known == name) else {
        return Problem::not_found(format!("the dashboard has no file {name}")).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, *content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, *text).into_response()
}
