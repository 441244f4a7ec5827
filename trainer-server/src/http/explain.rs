//! `POST /v1/explain`: why an item has its score for a history.
//!
//! The request is that of `/v1/recommend` with one `item_id`; what the answer means stands in
//! `docs/explanations.md`. Not here: the measuring (`shared_model::model::explain`).

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use shared_model::edge::engine::ItemExplanation;
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, UserId};

use super::body::JsonBytes;
use super::document::Api;
use super::moderation::{AppliedRule, applied};
use super::recommend::{HISTORY_EVENTS_MAX, K_MAX, asked, history, k, now_millis};
use super::{AppState, Problem};
use crate::ingest::{Fault, Fields, RejectCode};

/// Events named where the request does not say how many: more than any answer that people read.
const K_DEFAULT: usize = 10;

/// A request to explain a score.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
pub struct ExplainOrder {
    /// Whose history the server looks up, where `history` is not given.
    pub user_id: Option<UserId>,
    /// The history to score from.
    #[schemars(length(max = HISTORY_EVENTS_MAX))]
    pub history: Option<Vec<HistoryEvent>>,
    /// The item, which is in the catalogue.
    pub item_id: ItemId,
    /// How many events are named at most.
    #[schemars(range(min = 1, max = K_MAX), extend("default" = K_DEFAULT), default)]
    pub k: usize,
    /// The moment to score for, milliseconds since 1970-01-01 UTC; now unless given, or the time of the newest event where
    /// `clock.mode` is `event_time`.
    #[schemars(rename = "now")]
    pub now_millis: Option<i64>,
}

/// Why an item has its score, and what rules do to it besides.
#[derive(Serialize, JsonSchema)]
struct Explained {
    #[serde(flatten)]
    explanation: ItemExplanation,
    /// Active rules about the item.
    rules: Vec<AppliedRule>,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::POST, "/v1/explain", post(explain))
        .named("explain", "Explain one score")
        .about("Why an item has its score for a history: exact parts, and the effect of each event by leaving it out. An item that the catalogue lacks is 422, one that no version holds yet 503.")
        .json_body::<ExplainOrder>(json!({ "item_id": "i-1", "user_id": "u-1" }))
        .json::<Explained>("The explanation.")
        .problems(&[422, 500]);
}

async fn explain(
    State(state): State<AppState>,
    body: JsonBytes,
) -> Result<Json<Explained>, Problem> {
    let value = body.value()?;
    let order = read(&value, &state).map_err(Problem::invalid_request)?;
    let explanation = asked(&state, move |recommender| recommender.explain(order)).await?;
    Ok(Json(Explained {
        rules: applied(&state, &explanation.item_id),
        explanation,
    }))
}

fn read(value: &Value, state: &AppState) -> Result<ExplainOrder, Fault> {
    let fields = Fields::new(value, "")?;
    let item_id: ItemId = fields.required("item_id", fields.id("item_id")?)?;
    if !state.catalogue.contains(&item_id) {
        let detail = format!("no item {item_id} in the catalogue");
        return Err(fields.fault(RejectCode::UnknownItem, "item_id", detail));
    }
    let user_id: Option<UserId> = fields.id("user_id")?;
    Ok(ExplainOrder {
        user_id: user_id.map(|user_id| state.pseudonyms.of(user_id)),
        history: history(&fields)?,
        item_id,
        k: k(&fields)?.unwrap_or(K_DEFAULT),
        now_millis: now_millis(&fields, state)?,
    })
}
