//! `GET /v1/explore`: which items to show in order to learn about them, as JSON or as a table for a spreadsheet.
//!
//! For operators, so it is served where `/metrics` is. What the numbers mean stands in `crate::explore`.

use std::fmt::Write;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::ids::Version;

use super::document::Api;
use super::query::{Query, count};
use super::recommend::asked;
use super::{AppState, Problem};
use crate::explore::Uncertain;

/// Items listed where the request does not say how many.
const K_DEFAULT: usize = 100;
const K_MAX: usize = 10_000;
const TABLE_TYPE: &str = "text/tab-separated-values; charset=utf-8";

/// The most uncertain items of one version.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ExploreResponse {
    /// The version that scored.
    pub model_version: Version,
    /// Most uncertain first.
    pub items: Vec<Uncertain>,
}

#[derive(Deserialize, JsonSchema)]
struct ExploreQuery {
    /// Items listed at most.
    #[schemars(with = "Option<usize>", range(min = 1, max = K_MAX), extend("default" = K_DEFAULT))]
    k: Option<String>,
    /// As JSON, or as a table for a spreadsheet.
    #[schemars(extend("enum" = ["json", "tsv"], "default" = "json"))]
    format: Option<String>,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::GET, "/v1/explore", get(explore))
        .named("explore", "Items to show in order to learn about them")
        .about("Ordered by uncertainty: believed to be wanted, hardly tried.")
        .query::<ExploreQuery>()
        .json::<ExploreResponse>("The most uncertain items first.")
        .text(TABLE_TYPE, "The same.")
        .problems(&[500, 503]);
}

async fn explore(
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
        return Ok(([(header::CONTENT_TYPE, TABLE_TYPE)], table(&answer)).into_response());
    }
    Ok(Json(answer).into_response())
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
