//! `POST /v1/recommend` and `POST /v1/score`: ranking on the server, for those without the page engine.
//!
//! Not here: why an item has its score (`explain`), which shares the readers of histories and times.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use shared_model::edge::engine::{Found, ItemExplanation};
use shared_model::edge::explore::Exploration;
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, UserId, Version};

use super::body::JsonBytes;
use super::explain::ExplainOrder;
use super::explore::ExploreResponse;
use super::search::SearchOrder;
use super::{AppState, Problem};
use crate::config::ClockMode;
use crate::coverage::CoverageReport;
use crate::influence::Standing;
use crate::ingest::{Fault, Fields, RejectCode, kind_from_name};

/// Most items in one answer.
const K_MAX: usize = 1000;
/// Longest history read.
const HISTORY_EVENTS_MAX: usize = 1000;
/// Most items scored by one request.
const CANDIDATES_MAX: usize = 10_000;

/// A request to rank.
#[derive(Debug, Clone, PartialEq)]
pub struct RecommendRequest {
    /// Whose history the server looks up, where `history` is not given.
    pub user_id: Option<UserId>,
    /// The history to rank from.
    pub history: Option<Vec<HistoryEvent>>,
    /// How many items are wanted.
    pub k: usize,
    /// Whether items of the history are left out.
    pub exclude_seen: bool,
    /// Only these items are ranked; all available ones where `None`.
    pub candidates: Option<Vec<ItemId>>,
    /// The moment to rank for; `None`: the newest event (only with `clock.mode = "event_time"`).
    pub now_millis: Option<i64>,
    /// How places are drawn by chance; `None`: best first.
    pub exploration: Option<Exploration>,
}

/// Ranked items.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecommendResponse {
    /// Version that ranked.
    pub model_version: Version,
    /// Best first, or as drawn where exploration was asked for.
    pub items: Vec<ScoredItem>,
}

/// An item and its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoredItem {
    /// The item.
    pub item_id: ItemId,
    /// Its score; comparable within one answer only.
    pub score: f32,
    /// Probability of standing at this place, given the places before; only with exploration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propensity: Option<f64>,
}

/// Why nothing was ranked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecommendError {
    /// No version is published yet.
    #[error("no version is published yet")]
    NotReady,
    /// The item is in the catalogue, but not in the published version yet.
    #[error("the published version does not hold item {0} yet")]
    NotYetHeld(ItemId),
    /// Ranking failed; the text is for the server's log.
    #[error("ranking failed: {0}")]
    Failed(String),
}

/// Who ranks on the server: the trainer, and small stand-ins in tests.
pub trait Recommender: Send + Sync {
    /// Ranks; may take milliseconds, so it runs on a thread that may block.
    ///
    /// # Errors
    /// Nothing is published yet, or ranking failed.
    fn recommend(&self, request: RecommendRequest) -> Result<RecommendResponse, RecommendError>;

    /// Explains one score; may take some dozen milliseconds, on a thread that may block.
    ///
    /// # Errors
    /// Nothing is published yet, the item is not in the published version, or scoring failed.
    fn explain(&self, order: ExplainOrder) -> Result<ItemExplanation, RecommendError>;

    /// Items whose texts are like a query.
    ///
    /// # Errors
    /// Nothing is published yet, or scoring failed.
    fn search(&self, order: SearchOrder) -> Result<Found, RecommendError>;

    /// The `k` items that the published version is least certain about.
    ///
    /// # Errors
    /// Nothing is published yet, or scoring failed.
    fn explore(&self, k: usize) -> Result<ExploreResponse, RecommendError>;

    /// What the lists of the users seen lately hold; may take some hundred milliseconds.
    ///
    /// # Errors
    /// Nothing is published yet, or scoring failed.
    fn coverage(&self) -> Result<CoverageReport, RecommendError>;

    /// Device and counters of the loop, for `/v1/status`.
    fn status(&self) -> Value;

    /// What is kept of a user, oldest first.
    fn history(&self, user_id: &UserId) -> Vec<HistoryEvent>;

    /// How much a user has taught; `None` where that is not known.
    fn standing(&self, user_id: &UserId) -> Option<Standing>;
}

pub(super) async fn recommend(
    State(state): State<AppState>,
    body: JsonBytes,
) -> Result<Json<RecommendResponse>, Problem> {
    let value = body.value()?;
    let request = read_recommend(&value, &state).map_err(Problem::invalid_request)?;
    Ok(Json(rank(&state, request).await?))
}

pub(super) async fn score(
    State(state): State<AppState>,
    body: JsonBytes,
) -> Result<Json<Value>, Problem> {
    let value = body.value()?;
    let request = read_score(&value, &state).map_err(Problem::invalid_request)?;
    let asked = request.candidates.clone().unwrap_or_default();
    let ranked = rank(&state, request).await?;
    let scores: std::collections::BTreeMap<_, _> = ranked
        .items
        .iter()
        .map(|item| (&item.item_id, item.score))
        .collect();
    // In the order of the question; an item that the version does not hold yet has no score.
    let items: Vec<_> = asked
        .iter()
        .map(|item_id| json!({ "item_id": item_id, "score": scores.get(item_id) }))
        .collect();
    Ok(Json(
        json!({ "model_version": ranked.model_version, "items": items }),
    ))
}

async fn rank(state: &AppState, request: RecommendRequest) -> Result<RecommendResponse, Problem> {
    asked(state, move |recommender| recommender.recommend(request)).await
}

/// Asks the recommender on a thread that may block.
pub(super) async fn asked<T: Send + 'static>(
    state: &AppState,
    question: impl FnOnce(&dyn Recommender) -> Result<T, RecommendError> + Send + 'static,
) -> Result<T, Problem> {
    let recommender = std::sync::Arc::clone(&state.recommender);
    match tokio::task::spawn_blocking(move || question(&*recommender)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error @ (RecommendError::NotReady | RecommendError::NotYetHeld(_)))) => {
            Err(Problem::unavailable(error.to_string()))
        }
        Ok(Err(error @ RecommendError::Failed(_))) => {
            tracing::error!(%error, "a recommendation failed");
            Err(Problem::internal())
        }
        Err(error) => {
            tracing::error!(%error, "a recommendation panicked");
            Err(Problem::internal())
        }
    }
}

fn read_recommend(value: &Value, state: &AppState) -> Result<RecommendRequest, Fault> {
    let fields = Fields::new(value, "")?;
    Ok(RecommendRequest {
        user_id: fields.id("user_id")?,
        history: history(&fields)?,
        k: k(&fields)?.unwrap_or(10),
        exclude_seen: fields.bool("exclude_seen")?.unwrap_or(true),
        candidates: item_ids(&fields, "candidates")?,
        now_millis: now_millis(&fields, state)?,
        exploration: exploration(&fields)?,
    })
}

fn read_score(value: &Value, state: &AppState) -> Result<RecommendRequest, Fault> {
    let fields = Fields::new(value, "")?;
    let candidates = fields.required("item_ids", item_ids(&fields, "item_ids")?)?;
    let unknown = candidates
        .iter()
        .position(|item_id| !state.catalogue.contains(item_id));
    if let Some(index) = unknown {
        let detail = "no such item in the catalogue";
        let pointer = format!("/item_ids/{index}");
        return Err(Fault::new(RejectCode::UnknownItem, pointer, detail));
    }
    Ok(RecommendRequest {
        user_id: fields.id("user_id")?,
        history: history(&fields)?,
        k: candidates.len(),
        exclude_seen: false,
        candidates: Some(candidates),
        now_millis: now_millis(&fields, state)?,
        exploration: None,
    })
}

pub(super) fn k(fields: &Fields<'_>) -> Result<Option<usize>, Fault> {
    match fields.u64("k")?.map(|k| (k, usize::try_from(k))) {
        None => Ok(None),
        Some((_, Ok(k))) if (1..=K_MAX).contains(&k) => Ok(Some(k)),
        Some((k, _)) => {
            let detail = format!("expected 1 to {K_MAX}, found {k}");
            Err(fields.fault(RejectCode::Malformed, "k", detail))
        }
    }
}

fn exploration(fields: &Fields<'_>) -> Result<Option<Exploration>, Fault> {
    let Some(value) = fields.get("exploration") else {
        return Ok(None);
    };
    let fields = Fields::new(value, "/exploration")?;
    let (temperature, epsilon) = (fields.f64("temperature")?, fields.f64("epsilon")?);
    let seed = fields.required("seed", fields.u64("seed")?)?;
    let checked = Exploration::from_fields(temperature, epsilon, fields.u64("pool")?, seed);
    checked.map(Some).map_err(|error| {
        let detail = format!("expected {}, found {}", error.expected, error.actual);
        fields.fault(RejectCode::Malformed, error.field, detail)
    })
}

pub(super) fn now_millis(fields: &Fields<'_>, state: &AppState) -> Result<Option<i64>, Fault> {
    Ok(match (fields.i64("now")?, state.config.clock.mode) {
        (Some(now_millis), _) => Some(now_millis),
        (None, ClockMode::Live) => Some((state.clock)()),
        (None, ClockMode::EventTime) => None,
    })
}

fn limited<'a>(fields: &Fields<'a>, name: &str, max: usize) -> Result<Option<&'a [Value]>, Fault> {
    match fields.list(name)? {
        Some(list) if list.len() > max => {
            let detail = format!("{} long, at most {max} are allowed", list.len());
            Err(fields.fault(RejectCode::TooLarge, name, detail))
        }
        other => Ok(other),
    }
}

pub(super) fn item_ids(fields: &Fields<'_>, name: &str) -> Result<Option<Vec<ItemId>>, Fault> {
    let Some(list) = limited(fields, name, CANDIDATES_MAX)? else {
        return Ok(None);
    };
    let mut item_ids = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let malformed =
            |detail: String| Fault::new(RejectCode::Malformed, format!("/{name}/{index}"), detail);
        let Some(text) = value.as_str() else {
            return Err(malformed(format!("expected a text, found {value}")));
        };
        item_ids.push(ItemId::new(text).map_err(|error| malformed(error.to_string()))?);
    }
    Ok(Some(item_ids))
}

pub(super) fn history(fields: &Fields<'_>) -> Result<Option<Vec<HistoryEvent>>, Fault> {
    let Some(list) = limited(fields, "history", HISTORY_EVENTS_MAX)? else {
        return Ok(None);
    };
    let mut history = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let fields = Fields::new(value, &format!("/history/{index}"))?;
        let name = fields.required("kind", fields.text("kind")?)?;
        let Some(kind) = kind_from_name(name) else {
            return Err(fields.fault(RejectCode::Malformed, "kind", format!("no kind `{name}`")));
        };
        history.push(HistoryEvent {
            item_id: fields.required("item_id", fields.id("item_id")?)?,
            kind,
            occurred_at: fields.required("occurred_at", fields.i64("occurred_at")?)?,
        });
    }
    Ok(Some(history))
}
