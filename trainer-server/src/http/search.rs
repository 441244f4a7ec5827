//! `POST /v1/search`: items whose texts are like a query, for those without the page engine.
//!
//! The query is embedded with the packed encoder that pages have, so both find the same. What scores mean stands in
//! `shared_model::edge::engine::search`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;
use schemars::JsonSchema;
use serde_json::{Value, json};
use shared_model::edge::engine::Found;
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, UserId};

use super::body::JsonBytes;
use super::document::Api;
use super::recommend::{
    CANDIDATES_MAX, HISTORY_EVENTS_MAX, K_DEFAULT, K_MAX, RecommendError, asked, history, item_ids,
    k, now_millis,
};
use super::{AppState, Problem};
use crate::ingest::{Fault, Fields, RejectCode};
use crate::moderation::Effect;
use crate::page_encoder::keeper::wanted_generation;
use crate::page_encoder::queries::QueryError;

/// Longest query, in characters, as in the page.
const QUERY_LEN_MAX: usize = 10_000;

/// What is looked for, and for whom.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
pub struct SearchOrder {
    /// What is looked for; once embedded `[text_dim]`.
    #[schemars(with = "String", length(min = 1, max = QUERY_LEN_MAX), regex(pattern = r"\S"))]
    pub text: Vec<f32>,
    /// Say of the user's taste among the 200 items most like the text: both are put on one scale and mixed.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0), default)]
    pub taste: f64,
    /// Whose history the server looks up, where `history` is not given.
    pub user_id: Option<UserId>,
    /// The history for taste and for what was seen.
    #[schemars(length(max = HISTORY_EVENTS_MAX))]
    pub history: Option<Vec<HistoryEvent>>,
    /// Only these items may be found; all available ones unless given.
    #[schemars(length(max = CANDIDATES_MAX))]
    pub candidates: Option<Vec<ItemId>>,
    /// How many are wanted.
    #[schemars(range(min = 1, max = K_MAX), extend("default" = K_DEFAULT), default)]
    pub k: usize,
    /// Whether items of the history are left out.
    #[schemars(extend("default" = false), default)]
    pub exclude_seen: bool,
    /// The moment of ranking, milliseconds since 1970-01-01 UTC; now unless given, or the time of the newest event where
    /// `clock.mode` is `event_time`.
    #[schemars(rename = "now")]
    pub now_millis: Option<i64>,
    /// The rules of operators that hold.
    #[schemars(skip)]
    pub moderation: Arc<Effect>,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::POST, "/v1/search", post(search))
        .named("search", "Find items by a text")
        .about("For clients without the page engine. The text is embedded with the encoder that pages have; until that is packed the answer is 503 with `Retry-After`, and where pages are given none it is 404.")
        .json_body::<SearchOrder>(json!({ "text": "tea for two", "k": 5 }))
        .json::<Found>("What was found, best first.")
        .problems(&[404, 422, 500]);
}

async fn search(State(state): State<AppState>, body: JsonBytes) -> Result<Json<Found>, Problem> {
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
    let user_id: Option<UserId> = fields.id("user_id")?;
    let order = SearchOrder {
        text: Vec::new(),
        taste,
        user_id: user_id.map(|user_id| state.pseudonyms.of(user_id)),
        history: history(&fields)?,
        candidates: item_ids(&fields, "candidates")?,
        k: k(&fields)?.unwrap_or(K_DEFAULT),
        exclude_seen: fields.bool("exclude_seen")?.unwrap_or(false),
        now_millis: now_millis(&fields, state)?,
        moderation: state.moderation.effect(),
    };
    Ok((query.to_owned(), order))
}
