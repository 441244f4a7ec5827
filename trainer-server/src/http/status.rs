//! `GET /v1/status`: where the loop stands.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use shared_model::edge::report::FaultCode;
use shared_model::ids::{LogOffset, Version};
use shared_model::manifest::{Channel, VersionKind};

use super::AppState;
use super::document::Api;
use crate::page_encoder::packs::RecipeOutcome;
use crate::publish::{PublishCounters, StoreUse};

/// Offsets, version, device and counters of the loop, the counters since the start of the server.
#[derive(Serialize, JsonSchema)]
struct Status {
    /// Version of Freshet.
    freshet: &'static str,
    /// Name of the model.
    model: String,
    /// One past the last record of the log.
    log_offset: LogOffset,
    /// One past the last record that the newest version has learned from; null before the first version, as are the others
    /// about it.
    learned_through: Option<LogOffset>,
    /// Newest version.
    version: Option<Version>,
    /// How it came about.
    kind: Option<VersionKind>,
    /// Time of the newest event that it has learned from, milliseconds since 1970-01-01 UTC.
    event_time_millis: Option<i64>,
    /// When it was published, milliseconds since 1970-01-01 UTC.
    published_at: Option<i64>,
    /// Items in the catalogue.
    num_items: usize,
    /// Whether events can be taken in.
    is_log_writable: bool,
    /// What the trainer computes on.
    device: Option<String>,
    /// What came in.
    ingest: IngestStatus,
    /// What went out.
    publish: PublishCounters,
    /// Releases that a part of the pages tries.
    canary: CanaryStatus,
    /// What published versions take.
    store: StoreUse,
    /// What came of `publish.text_recipe` for the newest generation since the start; null where nothing has.
    text_recipe: Option<RecipeOutcome>,
    /// Counters and figures of the trainer, as `docs/operations.md` and `docs/learning.md` name them.
    #[schemars(with = "Map<String, Value>")]
    trainer: Value,
}

/// What came in since the start.
#[derive(Serialize, JsonSchema)]
struct IngestStatus {
    /// Events stored.
    accepted: u64,
    /// Events that had been stored before.
    duplicates: u64,
    /// Requests turned away because the queue was full.
    backpressure: u64,
    /// Events and items refused, by reason.
    rejected: BTreeMap<&'static str, u64>,
}

/// Of the canary.
#[derive(Serialize, JsonSchema)]
struct CanaryStatus {
    /// The newest version that only its cohort has.
    version: Option<Version>,
    /// Pages of the cohort that watch.
    num_pages: usize,
    /// Reports of pages that could not take a version, by what failed.
    faults: BTreeMap<FaultCode, u64>,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::GET, "/v1/status", get(status))
        .named("getStatus", "Where the loop stands")
        .json::<Status>("Where it stands.");
}

async fn status(State(state): State<AppState>) -> Json<Status> {
    let latest = state.publisher.latest();
    let manifest = latest.as_ref().map(|latest| &latest.manifest);
    let trainer = state.recommender.status();
    let canary = state.publisher.newest(Channel::Canary);
    let canary = canary.filter(|canary| canary.manifest.channel == Channel::Canary);
    let rejected = state.counters.num_rejected();
    Json(Status {
        freshet: env!("CARGO_PKG_VERSION"),
        model: state.publisher.model().to_owned(),
        log_offset: state.log.end(),
        learned_through: manifest.map(|manifest| manifest.learned_through),
        version: manifest.map(|manifest| manifest.version),
        kind: manifest.map(|manifest| manifest.kind),
        event_time_millis: manifest.map(|manifest| manifest.event_time_millis),
        published_at: manifest.map(|manifest| manifest.created_at),
        num_items: state.catalogue.num_items(),
        is_log_writable: state.log.is_writable(),
        device: trainer["device"].as_str().map(str::to_owned),
        ingest: IngestStatus {
            accepted: state.counters.num_accepted(),
            duplicates: state.counters.num_duplicates(),
            backpressure: state.counters.num_backpressure(),
            rejected: rejected
                .iter()
                .map(|(code, count)| (code.as_str(), *count))
                .collect(),
        },
        publish: state.publisher.counters(),
        canary: CanaryStatus {
            version: canary.map(|canary| canary.manifest.version),
            num_pages: state.publisher.num_cohort_pages(),
            faults: state.reports.by_code(),
        },
        store: state.publisher.store_use(),
        text_recipe: state.text_packs.outcome(),
        trainer,
    })
}
