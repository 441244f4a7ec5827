//! `POST /v1/recommend` and `POST /v1/score`: ranking on the server, for those without the page engine.
//!
//! Not here: why an item has its score (`explain`), which shares the readers of histories and times.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use shared_model::edge::engine::{Found, ItemExplanation};
use shared_model::edge::explore::Exploration;
use shared_model::event::HistoryEvent;
use shared_model::ids::{ItemId, UserId, Version};
use shared_model::manifest::ModerationRules;

use super::body::JsonBytes;
use super::document::Api;
use super::explain::ExplainOrder;
use super::explore::ExploreResponse;
use super::search::SearchOrder;
use super::{AppState, Problem};
use crate::config::ClockMode;
use crate::coverage::CoverageReport;
use crate::experiment::serve::{Visit, ranked};
use crate::experiment::{NAME_BYTES_MAX, is_name};
use crate::influence::Standing;
use crate::ingest::{Fault, Fields, RejectCode, kind_from_name};
use crate::moderation::{Effect, Preview};

/// Most items in one answer.
pub(super) const K_MAX: usize = 1000;
/// Items where the request does not say how many.
pub(super) const K_DEFAULT: usize = 10;
/// Longest history read.
pub(super) const HISTORY_EVENTS_MAX: usize = 1000;
/// Most items scored by one request.
pub(super) const CANDIDATES_MAX: usize = 10_000;

/// A request to rank.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
pub struct RecommendRequest {
    /// Whose history the server looks up, where `history` is not given.
    pub user_id: Option<UserId>,
    /// The history to rank from.
    #[schemars(length(max = HISTORY_EVENTS_MAX))]
    pub history: Option<Vec<HistoryEvent>>,
    /// How many items are wanted.
    #[schemars(range(min = 1, max = K_MAX), extend("default" = K_DEFAULT), default)]
    pub k: usize,
    /// Whether items of the history are left out.
    #[schemars(extend("default" = true), default)]
    pub exclude_seen: bool,
    /// Only these items are ranked; all available ones unless given.
    #[schemars(length(max = CANDIDATES_MAX))]
    pub candidates: Option<Vec<ItemId>>,
    /// The moment to rank for, milliseconds since 1970-01-01 UTC; now unless given, or the time of the newest event where
    /// `clock.mode` is `event_time`.
    #[schemars(rename = "now")]
    pub now_millis: Option<i64>,
    /// How places are drawn by chance; best first unless given.
    pub exploration: Option<Exploration>,
    /// The rules of operators that hold.
    #[schemars(skip)]
    pub moderation: Arc<Effect>,
    /// What is best.
    #[schemars(skip)]
    pub ranked_by: RankedBy,
    /// A version that is kept, to rank by; the live one where `None`.
    #[schemars(skip)]
    pub version: Option<Version>,
    /// Whether somebody is shown it: then an older version ranks only what the live one has.
    #[schemars(skip)]
    pub is_for_show: bool,
}

/// What items are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RankedBy {
    /// What the version thinks of them for this history.
    #[default]
    Score,
    /// Their decayed counts in the version; nothing is drawn by chance.
    Popularity,
}

/// A request to rank, and where the list is shown.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its shape alone is wanted")]
struct RecommendBody {
    #[serde(flatten)]
    request: RecommendRequest,
    /// Where the list is shown. With `user_id`, the experiment that runs there decides how it is ranked.
    #[schemars(extend("minLength" = 1, "maxLength" = NAME_BYTES_MAX, "pattern" = "^[A-Za-z0-9._-]+$"))]
    place: Option<String>,
}

/// A request to score; read as a [`RecommendRequest`] that ranks these items alone.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its shape alone is wanted")]
struct ScoreRequest {
    /// Whose history the server looks up, where `history` is not given.
    user_id: Option<UserId>,
    /// The history to score from.
    #[schemars(length(max = HISTORY_EVENTS_MAX))]
    history: Option<Vec<HistoryEvent>>,
    /// The items, all in the catalogue.
    #[schemars(length(max = CANDIDATES_MAX))]
    item_ids: Vec<ItemId>,
    /// As in a request to rank.
    now: Option<i64>,
}

/// Scores in the order of the question.
#[derive(Serialize, JsonSchema)]
struct ScoreResponse {
    /// Version that scored.
    model_version: Version,
    /// The items.
    items: Vec<ItemScore>,
}

/// The score of an item that was asked for.
#[derive(Serialize, JsonSchema)]
struct ItemScore {
    /// The item.
    item_id: ItemId,
    /// Null where the item is blocked, or the version does not hold it yet.
    score: Option<f32>,
    /// What rules of operators added to the score, or took from it, where they do.
    #[serde(skip_serializing_if = "is_zero")]
    points: f64,
    /// Whether such a rule blocks it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_blocked: bool,
}

/// Ranked items.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RecommendResponse {
    /// Version that ranked.
    pub model_version: Version,
    /// Arm of an experiment that the list is of, as `experiment/arm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// Best first, or as drawn where exploration was asked for.
    pub items: Vec<ScoredItem>,
}

/// An item and its score.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ScoredItem {
    /// The item.
    pub item_id: ItemId,
    /// Its score; comparable within one answer only.
    pub score: f32,
    /// Only with `exploration`: probability of standing at this place, given the places before. Send it along with the
    /// impression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propensity: Option<f64>,
    /// What rules of operators added to the score, or took from it, where they do.
    #[serde(skip_serializing_if = "is_zero")]
    pub points: f64,
    /// Whether such a rule gave it this place.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_pinned: bool,
    /// Arm of an experiment whose item it is, where lists are interleaved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
}

fn is_zero(points: &f64) -> bool {
    *points == 0.0
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
    /// The version that was asked for is kept no more.
    #[error("version {0} is not kept")]
    NotKept(Version),
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
    fn coverage(&self, moderation: &ModerationRules) -> Result<CoverageReport, RecommendError>;

    /// What the lists of the users seen lately are under some rules, and would be under others.
    ///
    /// # Errors
    /// Nothing is published yet, or scoring failed.
    fn preview(
        &self,
        before: &ModerationRules,
        after: &ModerationRules,
    ) -> Result<Preview, RecommendError>;

    /// Device and counters of the loop, for `/v1/status`.
    fn status(&self) -> Value;

    /// What is kept of a user, oldest first.
    fn history(&self, user_id: &UserId) -> Vec<HistoryEvent>;

    /// How much a user has taught; `None` where that is not known.
    fn standing(&self, user_id: &UserId) -> Option<Standing>;
}

pub(super) fn routes(api: &mut Api) {
    let history =
        json!([{ "item_id": "i-2", "kind": "click", "occurred_at": 1_767_225_600_000_u64 }]);
    api.add(Method::POST, "/v1/recommend", post(recommend))
        .named("recommend", "Rank on the server")
        .about("For clients without the page engine.")
        .json_body::<RecommendBody>(json!({ "history": history, "k": 5 }))
        .json::<RecommendResponse>("The best items, best first, or as drawn.")
        .problems(&[422, 500]);
    api.add(Method::POST, "/v1/score", post(score))
        .named("score", "Score given items on the server")
        .json_body::<ScoreRequest>(json!({ "item_ids": ["i-1", "i-2"], "history": history }))
        .json::<ScoreResponse>("The items in the order of the question.")
        .problems(&[422, 500]);
}

async fn recommend(
    State(state): State<AppState>,
    body: JsonBytes,
) -> Result<Json<RecommendResponse>, Problem> {
    let value = body.value()?;
    let mut request = read_recommend(&value, &state).map_err(Problem::invalid_request)?;
    // The page finds the arm of the id that is sent, too.
    let visit = visit(&value, &request, &state).map_err(Problem::invalid_request)?;
    request.user_id = request.user_id.map(|user_id| state.pseudonyms.of(user_id));
    let ranked = match visit {
        None => rank(&state, request).await?,
        Some(visit) => {
            asked(&state, move |recommender| {
                ranked(recommender, request, &visit)
            })
            .await?
        }
    };
    Ok(Json(ranked))
}

/// Where a request names its place and its user, and an experiment runs there.
fn visit(
    value: &Value,
    request: &RecommendRequest,
    state: &AppState,
) -> Result<Option<Visit>, Fault> {
    let fields = Fields::new(value, "")?;
    let place = fields.text("place")?;
    if let Some(place) = place
        && !is_name(place)
    {
        let detail = format!("expected 1 to {NAME_BYTES_MAX} letters, digits, or `-_.`");
        return Err(fields.fault(RejectCode::Malformed, "place", detail));
    }
    let experiment = place.and_then(|place| state.experiments.at(place));
    let (Some(experiment), Some(user_id)) = (experiment, request.user_id.clone()) else {
        return Ok(None);
    };
    Ok(Some(Visit {
        experiment,
        user_id,
        seed: rand::random(),
    }))
}

async fn score(
    State(state): State<AppState>,
    body: JsonBytes,
) -> Result<Json<ScoreResponse>, Problem> {
    let value = body.value()?;
    let mut request = read_score(&value, &state).map_err(Problem::invalid_request)?;
    request.user_id = request.user_id.map(|user_id| state.pseudonyms.of(user_id));
    let asked = request.candidates.clone().unwrap_or_default();
    let effect = state.moderation.effect();
    let blocked: HashSet<&ItemId> = effect.rules.block.iter().collect();
    let ranked = rank(&state, request).await?;
    let scores: std::collections::BTreeMap<_, _> = ranked
        .items
        .iter()
        .map(|item| (&item.item_id, item))
        .collect();
    let item_score = |item_id: ItemId| {
        let item = scores.get(&item_id);
        ItemScore {
            score: item.map(|item| item.score),
            points: item.map_or(0.0, |item| item.points),
            is_blocked: item.is_none() && blocked.contains(&item_id),
            item_id,
        }
    };
    Ok(Json(ScoreResponse {
        model_version: ranked.model_version,
        items: asked.into_iter().map(item_score).collect(),
    }))
}

async fn rank(state: &AppState, request: RecommendRequest) -> Result<RecommendResponse, Problem> {
    asked(state, move |recommender| recommender.recommend(request)).await
}

/// Asks the recommender on a thread that may block.
pub(super) async fn asked<T: Send + 'static>(
    state: &AppState,
    question: impl FnOnce(&dyn Recommender) -> Result<T, RecommendError> + Send + 'static,
) -> Result<T, Problem> {
    let recommender = Arc::clone(&state.recommender);
    match tokio::task::spawn_blocking(move || question(&*recommender)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error @ (RecommendError::NotReady | RecommendError::NotYetHeld(_)))) => {
            Err(Problem::unavailable(error.to_string()))
        }
        Ok(Err(error @ RecommendError::NotKept(_))) => Err(Problem::not_found(error.to_string())),
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
        k: k(&fields)?.unwrap_or(K_DEFAULT),
        exclude_seen: fields.bool("exclude_seen")?.unwrap_or(true),
        candidates: item_ids(&fields, "candidates")?,
        now_millis: now_millis(&fields, state)?,
        exploration: exploration(&fields)?,
        moderation: state.moderation.effect(),
        ranked_by: RankedBy::default(),
        version: None,
        is_for_show: true,
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
        moderation: state.moderation.effect(),
        ranked_by: RankedBy::default(),
        version: None,
        is_for_show: true,
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
