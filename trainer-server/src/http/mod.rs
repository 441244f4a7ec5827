//! The HTTP surface: routes, and what every route shares.
//!
//! Each module adds its routes to `document::Api`, which makes the OpenAPI document of them. Every error is an RFC 9457
//! problem document. Not here: rules about events (`ingest`), ranking (whoever implements [`Recommender`]), bytes of
//! versions (`publish`).

mod backup;
mod batch;
mod blobs;
mod body;
mod browse;
mod counters;
mod dashboard;
mod document;
mod event_use;
mod events;
mod experiments;
mod explain;
mod explore;
mod guard;
mod items;
mod limiter;
mod models;
mod moderation;
mod ops;
mod pace;
mod problem;
mod query;
mod recommend;
mod rollout;
mod search;
pub mod server;
mod status;
mod trace;
mod users;
mod versions;
mod visits;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::HandlerWithoutStateExt;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::watch;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::access::LiveKeys;
use crate::audit::AuditLog;
use crate::canary::reports::Reports;
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::event_log::EventLog;
use crate::experiment::store::Experiments;
use crate::ledger::Ledger;
use crate::moderation::Moderation;
use crate::observe::{Observer, Totals};
use crate::page_encoder::packs::TextPacks;
use crate::page_encoder::queries::QueryEncoders;
use crate::pseudonyms::Pseudonyms;
use crate::publish::Publisher;
use crate::rollout::Operator;
use crate::visits::VisitTokens;
pub use counters::IngestCounters;
use counters::RefusalCounters;
pub use document::Address;
use document::Api;
pub use explain::ExplainOrder;
pub use explore::ExploreResponse;
use limiter::Limiter;
use pace::Bodies;
pub use problem::{Problem, ProblemError};
pub use recommend::{
    RankedBy, RecommendError, RecommendRequest, RecommendResponse, Recommender, ScoredItem,
};
pub use search::SearchOrder;

/// What the routes work with; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    parts: Arc<AppParts>,
    /// Embed what is searched for.
    query_encoders: QueryEncoders,
    counters: Arc<IngestCounters>,
    refusals: Arc<RefusalCounters>,
    /// Which origins may ask.
    cors: Arc<RwLock<CorsLayer>>,
    limiter: Arc<Limiter>,
    bodies: Bodies,
}

/// What an [`AppState`] is made of.
pub struct AppParts {
    /// Settings.
    pub config: Arc<Config>,
    /// Who may do what.
    pub keys: LiveKeys,
    /// Who did what.
    pub audit: AuditLog,
    /// The log.
    pub log: EventLog,
    /// Which items exist.
    pub catalogue: Catalogue,
    /// Versions.
    pub publisher: Publisher,
    /// What is tried where.
    pub experiments: Experiments,
    /// Ranking on the server.
    pub recommender: Arc<dyn Recommender>,
    /// Rows about versions.
    pub ledger: Ledger,
    /// What pages say of versions.
    pub reports: Reports,
    /// What happened of late.
    pub observer: Observer,
    /// Rules over lists.
    pub moderation: Moderation,
    /// What pages embed texts with.
    pub text_packs: TextPacks,
    /// Say which user ids were handed out here.
    pub visits: VisitTokens,
    /// What users are called here: every `user_id` of a request goes through it.
    pub pseudonyms: Pseudonyms,
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
        let cors = cors(&parts.config.server.cors_origins);
        Self {
            parts: Arc::new(parts),
            query_encoders: QueryEncoders::default(),
            counters: Arc::default(),
            refusals: Arc::default(),
            cors: Arc::new(RwLock::new(cors)),
            limiter: Arc::new(limiter),
            bodies: Bodies::default(),
        }
    }
}

impl AppState {
    /// Holds the next requests to the limits and origins of `config`; see [`crate::config::reload`].
    pub fn reload(&self, config: &Config) {
        self.limiter.change(config.limits.clone());
        let mut held = self.cors.write().unwrap_or_else(PoisonError::into_inner); // whole at any time
        *held = cors(&config.server.cors_origins);
    }

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

/// The routes of an address that are described in its document.
fn api(address: Address) -> Api {
    let mut api = Api::new(address);
    status::routes(&mut api);
    recommend::routes(&mut api);
    explain::routes(&mut api);
    ops::routes(&mut api);
    if address != Address::Admin {
        events::routes(&mut api);
        event_use::routes(&mut api);
        visits::routes(&mut api);
        items::routes(&mut api);
        search::routes(&mut api);
        models::routes(&mut api);
        moderation::page_routes(&mut api);
        experiments::page_routes(&mut api);
        blobs::routes(&mut api);
    }
    if address != Address::Public {
        ops::metrics_route(&mut api);
        explore::routes(&mut api);
    }
    if address == Address::Admin {
        browse::routes(&mut api);
        rollout::routes(&mut api);
        versions::routes(&mut api);
        users::routes(&mut api);
        backup::routes(&mut api);
        moderation::routes(&mut api);
        experiments::routes(&mut api);
    }
    api
}

/// The OpenAPI document of an address.
#[must_use]
pub fn document(address: Address) -> Value {
    api(address).finish().1
}

/// The public routes; `/metrics` and `/v1/explore` are among them only where there is no admin address.
pub fn router(state: AppState) -> Router {
    let server = &state.config.server;
    let address = match server.admin_bind {
        Some(_) => Address::Public,
        None => Address::Only,
    };
    let (routes, _) = api(address).finish();
    let router = routes.merge(dashboard::reference());
    let router = match &server.static_dir {
        Some(dir) => {
            let files = ServeDir::new(dir)
                .call_fallback_on_method_not_allowed(true)
                .fallback(not_found.into_service());
            router.fallback_service(files)
        }
        None => router.fallback(not_found),
    };
    let nosniff = SetResponseHeaderLayer::if_not_present(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    router
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.clone(), guard::public))
        .layer(from_fn(trace::traced))
        .layer(nosniff)
        .layer(from_fn_with_state(state.clone(), with_cors))
        .with_state(state)
}

/// What the admin address serves.
pub fn admin_router(state: AppState) -> Router {
    let (routes, _) = api(Address::Admin).finish();
    routes
        .merge(dashboard::reference())
        .merge(dashboard::pages())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.clone(), guard::admin))
        .layer(from_fn(trace::traced))
        .with_state(state)
}

/// The origins may be others from one request to the next, so the layer is put around each.
async fn with_cors(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let cors = state
        .cors
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone(); // whole at any time
    let Ok(response) = cors.layer(next).call(request).await;
    response
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
            HeaderName::from_static("traceparent"),
            trace::REQUEST_ID,
        ])
        .expose_headers([
            header::ETAG,
            header::RETRY_AFTER,
            header::CONTENT_RANGE,
            header::DATE,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            trace::REQUEST_ID,
        ])
        .max_age(std::time::Duration::from_secs(86_400))
}

async fn not_found(uri: axum::http::Uri) -> Response {
    Problem::not_found(format!("there is nothing at {}", uri.path())).into_response()
}

async fn method_not_allowed(method: Method, uri: axum::http::Uri) -> Response {
    Problem::method_not_allowed(format!("{} does not answer {method}", uri.path())).into_response()
}
