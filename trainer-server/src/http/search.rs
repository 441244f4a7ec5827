//! `POST /v1/search`: items whose texts are like a query, for those without the page engine.
//!
//! The query is embedded with the packed encoder that pages have, so both find the same. What scores mean stands in
//! `shared_model::edge::engine::search`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use shared_model::edge::engine::Found;
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, UserId};

use super::body::JsonBytes;
use super::recommend::{RecommendError, asked, history, item_ids, k, now_millis};
use super::{AppState, Problem};
use crate::ingest::{Fault, Fields, RejectCode};
use crate::moderation::Effect;
use crate::text_pack::keeper::wanted_generation;
use crate::text_pack::queries::QueryError;

/// Longest query, in characters, as in the page.
const QUERY_LEN_MAX: usize = 10_000;

/// What is looked for, embedded, and for whom.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOrder {
    /// `[text_dim]`.
    pub text: Vec<f32>,
    /// Say of the user's taste, 0 to 1.
    pub taste: f64,
    /// Whose history the server looks up, where `history` is not given.
    pub user_id: Option<UserId>,
    /// The history for taste and for what was seen.
    pub history: Option<Vec<HistoryEvent>>,
    /// Only these items may be found; all available ones where `None`.
    pub candidates: Option<Vec<ItemId>>,
    /// How many are wanted.
    pub k: usize,
    /// Whether items of the history are left out.
    pub exclude_seen: bool,
    /// The moment of ranking; `None`: the newest event (only with `clock.mode = "event_time"`).
    pub now_millis: Option<i64>,
    /// The rules of operators that hold.
    pub moderation: Arc<Effect>,
}

pub(super) async fn search(
    State(state): State<AppState>,
    body: JsonBytes,
) -> Result<Json<Found>, Problem> {
    let value = body.value()?;
    let (query, mut order) = read(&value, &state).map_err(Problem::invalid_request)?;
    if state.config.publish.text_bytes_max == 0 {
        let detail = "`publish.text_bytes_max` is 0: there is no encoder for queries";
        return Err(Problem::not_found(detail));
    }
    let generation = wanted_generation(&state.publisher)
        .ok_or_else(|| Problem::unavailable(RecommendError::NotReady.to_string()))?;
    let worker = state.clone();
    let embedded = tokio::task::spawn_blocking(move || {
        let encoders = &worker.query_encoders;
        encoders.embed(&worker.text_packs, generation, &query)
    });
    order.text = match embedded.await {
        Ok(Ok(text)) => text,
        Ok(Err(error @ QueryError::NotReady)) => return Err(Problem::not_ready(error.to_string())),
        Ok(Err(error @ QueryError::NoPack)) => return Err(Problem::not_found(error.to_string())),
        Ok(Err(error @ QueryError::Text(_))) => {
            tracing::error!(%error, "a query was not embedded");
            return Err(Problem::internal());
        }
        Err(error) => {
            tracing::error!(%error, "embedding a query panicked");
            return Err(Problem::internal());
        }
    };
    let found = asked(&state, move |recommender| recommender.search(order));
    Ok(Json(found.await?))
}

fn read(value: &Value, state: &AppState) -> Result<(String, SearchOrder), Fault> {
    let fields = Fields::new(value, "")?;
    let query = fields.required("text", fields.text("text")?)?;
    let len = query.chars().count();
    if query.trim().is_empty() || len > QUERY_LEN_MAX {
        let detail = format!("expected 1 to {QUERY_LEN_MAX} characters, found {len}");
        return Err(fields.fault(RejectCode::Malformed, "text", detail));
    }
    let taste = fields.f64("taste")?.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&taste) {
        let detail = format!("expected 0 to 1, found {taste}");
        return Err(fields.fault(RejectCode::Malformed, "taste", detail));
    }
    let order = SearchOrder {
        text: Vec::new(),
        taste,
        user_id: fields.id("user_id")?,
        history: history(&fields)?,
        candidates: item_ids(&fields, "candidates")?,
        k: k(&fields)?.unwrap_or(10),
        exclude_seen: fields.bool("exclude_seen")?.unwrap_or(false),
        now_millis: now_millis(&fields, state)?,
        moderation: state.moderation.effect(),
    };
    Ok((query.to_owned(), order))
}
