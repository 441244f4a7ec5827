//! What the dashboard asks beside status, versions and orders: `GET /v1/series`, `/v1/coverage`, `/v1/catalogue`; on the
//! admin address only.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use shared_model::event::Item;

use super::recommend::asked;
use super::{AppState, Problem};
use crate::coverage::CoverageReport;
use crate::observe::Sample;

/// Items listed where the request does not say how many.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 1000;

#[derive(Deserialize)]
pub(super) struct SeriesQuery {
    resolution: Option<String>,
}

/// Samples of equal stretches of time.
#[derive(Serialize)]
pub(super) struct Series {
    resolution_millis: u64,
    /// Oldest first.
    samples: Vec<Sample>,
}

pub(super) async fn series(
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

pub(super) async fn coverage(
    State(state): State<AppState>,
) -> Result<Json<CoverageReport>, Problem> {
    let report = asked(&state, |recommender| recommender.coverage());
    Ok(Json(report.await?))
}

#[derive(Deserialize)]
pub(super) struct ItemsQuery {
    query: Option<String>,
    limit: Option<String>,
}

/// Items of the catalogue.
#[derive(Serialize)]
pub(super) struct ItemsPage {
    /// How many match.
    num_matching: usize,
    /// The first of them, in the order of their ids.
    items: Vec<Arc<Item>>,
}

/// Items whose id or title holds every word of `query`, whatever the case.
pub(super) async fn items(
    State(state): State<AppState>,
    Query(query): Query<ItemsQuery>,
) -> Result<Json<ItemsPage>, Problem> {
    let limit = match query.limit.as_deref().map(str::parse::<usize>) {
        None => LIMIT_DEFAULT,
        Some(Ok(limit)) if (1..=LIMIT_MAX).contains(&limit) => limit,
        Some(_) => {
            let found = query.limit.unwrap_or_default();
            let detail = format!("expected 1 to {LIMIT_MAX}, found {found}");
            return Err(Problem::invalid_query("limit", detail));
        }
    };
    let wanted = query.query.unwrap_or_default().to_lowercase();
    let matching = move || {
        let words: Vec<&str> = wanted.split_whitespace().collect();
        let mut items = state.catalogue.items();
        items.retain(|item| {
            let (id, title) = (
                item.item_id.as_str().to_lowercase(),
                item.title.to_lowercase(),
            );
            words
                .iter()
                .all(|word| id.contains(word) || title.contains(word))
        });
        let num_matching = items.len();
        items.truncate(limit);
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
