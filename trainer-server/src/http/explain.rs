//! `POST /v1/explain`: why an item has its score for a history.
//!
//! The request is that of `/v1/recommend` with one `item_id`; what the answer means stands in
//! `docs/explanations.md`. Not here: the measuring (`shared_model::model::explain`).

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use shared_model::edge::engine::ItemExplanation;
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, UserId};

use super::body::JsonBytes;
use super::moderation::{AppliedRule, applied};
use super::recommend::{asked, history, k, now_millis};
use super::{AppState, Problem};
use crate::ingest::{Fault, Fields, RejectCode};

/// Events named where the request does not say how many: more than any answer that people read.
const K_DEFAULT: usize = 10;

/// A request to explain.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainOrder {
    /// Whose history the server looks up, where `history` is not given.
    pub user_id: Option<UserId>,
    /// The history to score from.
    pub history: Option<Vec<HistoryEvent>>,
    /// The item, which is in the catalogue.
    pub item_id: ItemId,
    /// How many events are named at most.
    pub k: usize,
    /// The moment to score for; `None`: the newest event (only with `clock.mode = "event_time"`).
    pub now_millis: Option<i64>,
}

/// Why an item has its score, and what rules do to it besides.
#[derive(Serialize)]
pub(super) struct Explained {
    #[serde(flatten)]
    explanation: ItemExplanation,
    rules: Vec<AppliedRule>,
}

pub(super) async fn explain(
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
    Ok(ExplainOrder {
        user_id: fields.id("user_id")?,
        history: history(&fields)?,
        item_id,
        k: k(&fields)?.unwrap_or(K_DEFAULT),
        now_millis: now_millis(&fields, state)?,
    })
}
