//! `GET /v1/explore`: which items to show in order to learn about them, as JSON or as a table for a spreadsheet.
//!
//! For operators, so it is served where `/metrics` is. What the numbers mean stands in `crate::explore`.

use std::fmt::Write;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use shared_model::ids::Version;

use super::query::count;
use super::recommend::asked;
use super::{AppState, Problem};
use crate::explore::Uncertain;

/// Items listed where the request does not say how many.
const K_DEFAULT: usize = 100;
const K_MAX: usize = 10_000;

/// The most uncertain items of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct ExploreResponse {
    /// The version that scored.
    pub model_version: Version,
    /// Most uncertain first.
    pub items: Vec<Uncertain>,
}

#[derive(Deserialize)]
pub(super) struct ExploreQuery {
    k: Option<String>,
    format: Option<String>,
}

pub(super) async fn explore(
    State(state): State<AppState>,
    Query(query): Query<ExploreQuery>,
) -> Result<Response, Problem> {
    let k = match &query.k {
        None => K_DEFAULT,
        Some(k) => count("k", k, K_MAX)?,
    };
    let is_table = match query.format.as_deref() {
        None | Some("json") => false,
        Some("tsv") => true,
        Some(other) => {
            let detail = format!("expected json or tsv, found {other}");
            return Err(Problem::invalid_query("format", detail));
        }
    };
    let answer = asked(&state, move |recommender| recommender.explore(k)).await?;
    if is_table {
        let content_type = "text/tab-separated-values; charset=utf-8";
        return Ok(([(header::CONTENT_TYPE, content_type)], table(&answer)).into_response());
    }
    let body = json!({ "model_version": answer.model_version, "items": answer.items });
    Ok(Json(body).into_response())
}

/// Ids hold no control characters, and so no tab and no end of line.
fn table(answer: &ExploreResponse) -> String {
    let mut text = "item_id\tshare\tnum_events\tuncertainty\tupper\n".to_owned();
    for row in &answer.items {
        let Uncertain {
            item_id,
            share,
            num_events,
            uncertainty,
            upper,
        } = row;
        let written = writeln!(
            text,
            "{item_id}\t{share:.6}\t{num_events:.3}\t{uncertainty:.6}\t{upper:.6}"
        );
        written.expect("a text takes whatever is written to it");
    }
    text
}
