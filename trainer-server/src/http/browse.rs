//! What the dashboard asks beside status, versions and orders: `GET /v1/series`, `/v1/coverage`, `/v1/catalogue`; on the
//! admin address only.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::Method;
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::event::Item;

use super::document::Api;
use super::query::{Query, count};
use super::recommend::asked;
use super::{AppState, Problem};
use crate::coverage::CoverageReport;
use crate::observe::Sample;

/// Items listed where the request does not say how many.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 1000;

#[derive(Deserialize, JsonSchema)]
struct SeriesQuery {
    /// How long the stretches are.
    #[schemars(extend("enum" = ["1s", "30s"], "default" = "1s"))]
    resolution: Option<String>,
}

/// Samples of equal stretches of time.
#[derive(Serialize, JsonSchema)]
struct Series {
    /// How long each is.
    resolution_millis: u64,
    /// Oldest first.
    samples: Vec<Sample>,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::GET, "/v1/series", get(series))
        .named("series", "What happened of late")
        .about("Since the start of the server: a quarter of an hour of seconds, or a day of half minutes.")
        .query::<SeriesQuery>()
        .json::<Series>("Samples of equal stretches of time, oldest first.");
    api.add(Method::GET, "/v1/coverage", get(coverage))
        .named("coverage", "What lists hold beside what users do")
        .about("The lists of ten that the newest version makes for the users seen last.")
        .json::<CoverageReport>("Shares of exposure and of events.")
        .problems(&[500, 503]);
    api.add(Method::GET, "/v1/catalogue", get(items))
        .named("catalogue", "Search the catalogue")
        .query::<CatalogueQuery>()
        .json::<ItemsPage>("Items that match, in the order of their ids.")
        .problems(&[500]);
}

async fn series(
    State(state): State<AppState>,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<Series>, Problem> {
    let (resolution_millis, samples) = match query.resolution.as_deref() {
        None | Some("1s") => (1000, state.observer.seconds()),
        Some("30s") => (30_000, state.observer.coarse()),
        Some(other) => {
            let detail = format!("expected 1s or 30s, found {other}");
            return Err(Problem::invalid_query("resolution", detail));
        }
    };
    Ok(Json(Series {
        resolution_millis,
        samples,
    }))
}

async fn coverage(State(state): State<AppState>) -> Result<Json<CoverageReport>, Problem> {
    let effect = state.moderation.effect();
    let report = asked(&state, move |recommender| {
        recommender.coverage(&effect.rules)
    });
    Ok(Json(report.await?))
}

/// What may stand behind the `?`; read by hand, as `id` may be repeated.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its shape alone is wanted")]
struct CatalogueQuery {
    /// Words that the id or the title must hold, all of them, whatever the case.
    query: Option<String>,
    /// Only items with one of these ids.
    id: Option<Vec<String>>,
    /// Items listed at most.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("default" = LIMIT_DEFAULT))]
    limit: Option<usize>,
}

/// What of the catalogue is wanted.
struct ItemsQuery {
    words: Vec<String>,
    /// Any of these, where any is named.
    ids: HashSet<String>,
    limit: usize,
}

impl ItemsQuery {
    fn read(query: &str) -> Result<Self, Problem> {
        let mut read = Self {
            words: Vec::new(),
            ids: HashSet::new(),
            limit: LIMIT_DEFAULT,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "query" => read.words = words(&value),
                "id" => drop(read.ids.insert(value.into_owned())),
                "limit" => read.limit = count("limit", &value, LIMIT_MAX)?,
                _ => {} // as with every other route
            }
        }
        Ok(read)
    }

    fn matches(&self, item: &Item) -> bool {
        let id = item.item_id.as_str();
        if !self.ids.is_empty() && !self.ids.contains(id) {
            return false;
        }
        let (id, title) = (id.to_lowercase(), item.title.to_lowercase());
        self.words
            .iter()
            .all(|word| id.contains(word) || title.contains(word))
    }
}

fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Items of the catalogue.
#[derive(Serialize, JsonSchema)]
struct ItemsPage {
    /// How many match.
    num_matching: usize,
    /// The first of them, in the order of their ids.
    items: Vec<Arc<Item>>,
}

/// Items whose id or title holds every word of `query`, whatever the case, and that are named by an `id` where any is.
async fn items(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<ItemsPage>, Problem> {
    let query = ItemsQuery::read(&query.unwrap_or_default())?;
    let matching = move || {
        let mut items = state.catalogue.items();
        items.retain(|item| query.matches(item));
        let num_matching = items.len();
        items.truncate(query.limit);
        ItemsPage {
            num_matching,
            items,
        }
    };
    let found = tokio::task::spawn_blocking(matching).await;
    found.map(Json).map_err(|error| {
        tracing::error!(%error, "searching the catalogue panicked");
        Problem::internal()
    })
}
