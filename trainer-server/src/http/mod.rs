//! The HTTP surface: routes, and what every route shares.
//!
//! Shapes are described in `openapi.json`; a test holds [`ROUTES`], the router and that file
//! together. Every error is an RFC 9457 problem document. Not here: rules about events (`ingest`),
//! ranking (whoever implements [`Recommender`]), bytes of versions (`publish`).

mod backup;
mod batch;
mod blobs;
mod body;
mod browse;
mod counters;
mod dashboard;
mod events;
mod explain;
mod explore;
mod guard;
mod items;
mod limiter;
mod models;
mod ops;
mod pace;
mod problem;
mod query;
mod recommend;
mod rollout;
mod search;
pub mod server;
mod users;
mod versions;
mod visits;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::HandlerWithoutStateExt;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post, put};
use tokio::sync::watch;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::access::Keys;
use crate::audit::AuditLog;
use crate::canary::reports::Reports;
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::event_log::EventLog;
use crate::ledger::Ledger;
use crate::observe::{Observer, Totals};
use crate::publish::Publisher;
use crate::rollout::Operator;
use crate::text_pack::keeper::TextPacks;
use crate::text_pack::queries::QueryEncoders;
use crate::visits::VisitTokens;
pub use counters::IngestCounters;
pub use explain::ExplainOrder;
pub use explore::ExploreResponse;
use limiter::Limiter;
use pace::Bodies;
pub use problem::{Problem, ProblemError};
pub use recommend::{RecommendError, RecommendRequest, RecommendResponse, Recommender, ScoredItem};
pub use search::SearchOrder;

/// Every route with its methods, as in `openapi.json`.
pub const ROUTES: [(&str, &[&str]); 20] = [
    ("/v1/events", &["post"]),
    ("/v1/visits", &["post"]),
    ("/v1/items", &["put", "delete"]),
    ("/v1/recommend", &["post"]),
    ("/v1/score", &["post"]),
    ("/v1/search", &["post"]),
    ("/v1/explain", &["post"]),
    ("/v1/explore", &["get"]),
    ("/v1/models/{model}/manifest", &["get"]),
    ("/v1/models/{model}/plan", &["get"]),
    ("/v1/models/{model}/watch", &["get"]),
    ("/v1/models/{model}/keys", &["get"]),
    ("/v1/models/{model}/text-encoder", &["get"]),
    ("/v1/models/{model}/reports", &["post"]),
    ("/v1/blobs/{hash}", &["get"]),
    ("/v1/status", &["get"]),
    ("/healthz", &["get"]),
    ("/readyz", &["get"]),
    ("/metrics", &["get"]),
    ("/openapi.json", &["get"]),
];

/// The routes of the admin address alone; all want the admin token.
pub const ADMIN_ROUTES: [(&str, &[&str]); 9] = [
    ("/v1/series", &["get"]),
    ("/v1/coverage", &["get"]),
    ("/v1/catalogue", &["get"]),
    ("/v1/rollout", &["post"]),
    ("/v1/versions", &["get", "post"]),
    ("/v1/versions/{version}", &["get"]),
    ("/v1/versions/{version}/changes", &["get"]),
    ("/v1/users/{user_id}", &["delete", "get"]),
    ("/v1/backup", &["post"]),
];

/// What the routes work with; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    parts: Arc<AppParts>,
    /// Embed what is searched for.
    query_encoders: QueryEncoders,
    counters: Arc<IngestCounters>,
    limiter: Arc<Limiter>,
    bodies: Bodies,
}

/// What an [`AppState`] is made of.
pub struct AppParts {
    /// Settings.
    pub config: Arc<Config>,
    /// Who may do what.
    pub keys: Keys,
    /// Who did what.
    pub audit: AuditLog,
    /// The log.
    pub log: EventLog,
    /// Which items exist.
    pub catalogue: Catalogue,
    /// Versions.
    pub publisher: Publisher,
    /// Ranking on the server.
    pub recommender: Arc<dyn Recommender>,
    /// Rows about versions.
    pub ledger: Ledger,
    /// What pages say of versions.
    pub reports: Reports,
    /// What happened of late.
    pub observer: Observer,
    /// What pages embed texts with.
    pub text_packs: TextPacks,
    /// Say which user ids were handed out here.
    pub visits: VisitTokens,
    /// Who takes orders about versions, where there is a trainer.
    pub operator: Option<Operator>,
    /// Milliseconds since 1970-01-01 UTC.
    pub clock: fn() -> i64,
    /// Turns `true` when the server is told to stop.
    pub stopping: watch::Receiver<bool>,
}

impl AppState {
    /// The state of a server.
    #[must_use]
    pub fn new(parts: AppParts) -> Self {
        let limiter = Limiter::new(&parts.config.limits, Instant::now());
        Self {
            parts: Arc::new(parts),
            query_encoders: QueryEncoders::default(),
            counters: Arc::default(),
            limiter: Arc::new(limiter),
            bodies: Bodies::default(),
        }
    }
}

impl AppState {
    /// What has happened since start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let manifest = self.publisher.latest();
        let manifest = manifest.as_ref().map(|latest| &latest.manifest);
        let learned_through = manifest.map_or(0, |manifest| manifest.learned_through.0);
        let totals = Totals {
            accepted: self.counters.num_accepted(),
            duplicates: self.counters.num_duplicates(),
            rejected: self
                .counters
                .num_rejected()
                .iter()
                .map(|(_, count)| count)
                .sum(),
            delta_bytes: self.publisher.counters().delta_bytes,
            lag: self.log.end().0.saturating_sub(learned_through),
            version: manifest.map_or(0, |manifest| manifest.version.0),
            ..Totals::default()
        };
        totals.with_trainer(&self.recommender.status())
    }
}

impl std::ops::Deref for AppState {
    type Target = AppParts;
    fn deref(&self) -> &AppParts {
        &self.parts
    }
}

/// The public routes; `/metrics` and `/v1/explore` are among them only where there is no admin address.
pub fn router(state: AppState) -> Router {
    let server = &state.config.server;
    let mut router = Router::new()
        .route("/v1/events", post(events::post))
        .route("/v1/visits", post(visits::begin))
        .route("/v1/items", put(items::put).delete(items::delete))
        .route("/v1/recommend", post(recommend::recommend))
        .route("/v1/score", post(recommend::score))
        .route("/v1/search", post(search::search))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/models/{model}/manifest", get(models::manifest))
        .route("/v1/models/{model}/plan", get(models::plan))
        .route("/v1/models/{model}/watch", get(models::watch))
        .route("/v1/models/{model}/keys", get(models::keys))
        .route("/v1/models/{model}/text-encoder", get(models::text_encoder))
        .route("/v1/models/{model}/reports", post(models::report))
        .route("/v1/blobs/{hash}", get(blobs::get))
        .route("/v1/status", get(ops::status))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/openapi.json", get(ops::openapi))
        .route("/docs", get(|| async { Redirect::temporary("/docs/") }))
        .route("/docs/", get(dashboard::docs))
        .route("/docs/{file}", get(dashboard::docs_file));
    if server.admin_bind.is_none() {
        router = router
            .route("/metrics", get(ops::metrics))
            .route("/v1/explore", get(explore::explore));
    }
    let router = match &server.static_dir {
        Some(dir) => {
            let files = ServeDir::new(dir)
                .call_fallback_on_method_not_allowed(true)
                .fallback(not_found.into_service());
            router.fallback_service(files)
        }
        None => router.fallback(not_found),
    };
    let limit = DefaultBodyLimit::max(server.body_bytes_max);
    let nosniff = SetResponseHeaderLayer::if_not_present(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    router
        .method_not_allowed_fallback(method_not_allowed)
        .layer(limit)
        .layer(from_fn_with_state(state.clone(), guard::public))
        .layer(nosniff)
        .layer(cors(&server.cors_origins))
        .with_state(state)
}

/// What the admin address serves.
pub fn admin_router(state: AppState) -> Router {
    let given_limit = DefaultBodyLimit::max(versions::GIVEN_BYTES_MAX);
    let given = post(versions::publish).layer(given_limit);
    let backup_limit = DefaultBodyLimit::max(backup::BACKUP_ORDER_BYTES_MAX);
    let backup = post(backup::backup).layer(backup_limit);
    Router::new()
        .route("/metrics", get(ops::metrics))
        .route("/v1/explore", get(explore::explore))
        .route("/", get(dashboard::root))
        .route("/dashboard/", get(dashboard::index))
        .route("/dashboard/{file}", get(dashboard::file))
        .route("/v1/status", get(ops::status))
        .route("/v1/series", get(browse::series))
        .route("/v1/coverage", get(browse::coverage))
        .route("/v1/catalogue", get(browse::items))
        .route("/v1/recommend", post(recommend::recommend))
        .route("/v1/explain", post(explain::explain))
        .route("/openapi.json", get(ops::openapi))
        .route("/v1/rollout", post(rollout::order))
        .route("/v1/versions", get(versions::list).merge(given))
        .route("/v1/versions/{version}", get(versions::one))
        .route("/v1/versions/{version}/changes", get(versions::changes))
        .route(
            "/v1/users/{user_id}",
            get(users::export).delete(users::erase),
        )
        .route("/v1/backup", backup)
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(rollout::ORDER_BYTES_MAX))
        .layer(from_fn_with_state(state.clone(), guard::admin))
        .with_state(state)
}

/// Pages may read and post from the configured origins. The catalogue cannot be changed from a page
/// of another origin: PUT and DELETE are left out on purpose.
fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        // An origin that is no header value can never be sent by a browser either.
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([
            header::ETAG,
            header::RETRY_AFTER,
            header::CONTENT_RANGE,
            header::DATE,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
        ])
        .max_age(std::time::Duration::from_secs(86_400))
}

async fn not_found(uri: axum::http::Uri) -> Response {
    Problem::not_found(format!("there is nothing at {}", uri.path())).into_response()
}

async fn method_not_allowed(method: Method, uri: axum::http::Uri) -> Response {
    Problem::method_not_allowed(format!("{} does not answer {method}", uri.path())).into_response()
}
