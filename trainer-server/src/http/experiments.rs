//! `/v1/experiments…` and `/v1/estimates`, on the admin address; and what runs now, for pages that rank themselves.
//!
//! Not here: which arm a user has and what the figures mean (`crate::experiment`).

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared_model::ids::{LogOffset, Version};

use super::body::to_the_end;
use super::guard::note;
use super::limiter::Caller;
use super::models::check_model;
use super::recommend::RecommendError;
use super::{AppState, Problem};
use crate::event_log::EventLogError;
use crate::event_log::view::LogView;
use crate::experiment::replayed::{self, Answer, EstimateError, Question};
use crate::experiment::store::ExperimentError;
use crate::experiment::tally::Tally;
use crate::experiment::verdict::Report;
use crate::experiment::{Design, Experiment, ExperimentFault, NewExperiment, Strategy};
use crate::ingest::{BodyError, Fault, RejectCode};

/// What pages may keep the list for.
const RUNNING_SECS: &str = "max-age=60";

/// Experiments.
#[derive(Serialize)]
pub(super) struct Listed {
    /// In the order in which they began.
    experiments: Vec<Arc<Experiment>>,
}

pub(super) async fn list(State(state): State<AppState>) -> Json<Listed> {
    let experiments = state.experiments.all();
    Json(Listed { experiments })
}

/// What a page needs to find its arm, of the experiments that run.
pub(super) async fn running(
    State(state): State<AppState>,
    Path(model): Path<String>,
) -> Result<Response, Problem> {
    check_model(&state, &model)?;
    let all = state.experiments.all();
    let split = |one: &&Arc<Experiment>| one.stopped.is_none() && one.asked.design == Design::Split;
    let running = all.iter().filter(split).map(|one| {
        json!({ "name": one.asked.name, "place": one.asked.place, "salt": one.salt(), "arms": one.asked.arms })
    });
    let body = json!({ "experiments": running.collect::<Vec<_>>() });
    Ok(([(header::CACHE_CONTROL, RUNNING_SECS)], Json(body)).into_response())
}

/// The body must be called `application/json`: a page of another origin cannot send that unasked.
pub(super) async fn begin(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<NewExperiment>, JsonRejection>,
) -> Result<Json<Arc<Experiment>>, Problem> {
    let Json(asked) = body.map_err(malformed)?;
    let what = format!("POST /v1/experiments {}", asked.name);
    changed(state, caller, what, move |state| {
        check_versions(state, &asked)?;
        let (end, now_millis) = (state.log.end(), (state.clock)());
        let begun = state.experiments.begin(asked, end, now_millis);
        begun.map_err(problem_of)
    })
    .await
}

/// One of both.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeBody {
    /// Percent, in the order of the arms.
    shares: Option<Vec<u32>>,
    stop: Option<bool>,
}

pub(super) async fn change(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Result<Json<ChangeBody>, JsonRejection>,
) -> Result<Json<Arc<Experiment>>, Problem> {
    let Json(ChangeBody { shares, stop }) = body.map_err(malformed)?;
    let what = format!(
        "PATCH /v1/experiments {name:?} {}",
        json!({ "shares": shares, "stop": stop })
    );
    changed(state, caller, what, move |state| {
        let (end, now_millis) = (state.log.end(), (state.clock)());
        let changed = match (shares, stop) {
            (Some(shares), None) => state.experiments.share(&name, shares, end, now_millis),
            (None, Some(true)) => state.experiments.stop(&name, end, now_millis),
            (Some(_) | None, _) => {
                let detail = "expected either shares or stop, which is true".to_owned();
                let pointer = "/stop".to_owned();
                return Err(invalid(ExperimentFault { pointer, detail }));
            }
        };
        changed.map_err(problem_of)
    })
    .await
}

/// Writes to the disk on a thread that may block, and into the audit log what came of it.
async fn changed(
    state: AppState,
    caller: Caller,
    what: String,
    change: impl FnOnce(&AppState) -> Result<Arc<Experiment>, Problem> + Send + 'static,
) -> Result<Json<Arc<Experiment>>, Problem> {
    to_the_end(async move {
        let changing = state.clone();
        let result = on_blocking(move || change(&changing)).await;
        note(&state, caller, what, &result).await;
        result.map(Json)
    })
    .await
}

/// An experiment with what it has shown.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    experiment: Arc<Experiment>,
    report: Report,
}

/// Reads the log since the beginning of the experiment.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<Shown>, Problem> {
    let experiment = state.experiments.named(&name).map_err(problem_of)?;
    let shown = on_blocking(move || {
        let tally = Tally::of(&view(&state)?, &experiment).map_err(unreadable)?;
        let report = Report::of(&experiment, &tally, (state.clock)());
        Ok(Shown { experiment, report })
    });
    shown.await.map(Json)
}

/// Reads the log twice, and ranks once per decision.
pub(super) async fn estimate(
    State(state): State<AppState>,
    body: Result<Json<Question>, JsonRejection>,
) -> Result<Json<Answer>, Problem> {
    let Json(question) = body.map_err(malformed)?;
    question.check().map_err(invalid)?;
    let answer = on_blocking(move || {
        let (version, from) = asked_of(&state, &question)?;
        let view = view(&state)?;
        let answer = replayed::answer(&view, &*state.recommender, &question, version, from);
        answer.map_err(|error| match error {
            EstimateError::NoPropensities(why) => Problem::conflict(why),
            EstimateError::Log(error) => unreadable(error),
            EstimateError::Recommend(error @ RecommendError::NotKept(_)) => {
                Problem::not_found(error.to_string())
            }
            EstimateError::Recommend(error) => {
                tracing::error!(%error, "an estimate failed");
                Problem::internal()
            }
        })
    });
    answer.await.map(Json)
}

/// The version that a strategy is asked of, and where the log goes on behind what it learned.
fn asked_of(state: &AppState, question: &Question) -> Result<(Version, LogOffset), Problem> {
    let manifests = state.publisher.manifests().map_err(|error| {
        tracing::error!(%error, "the manifests cannot be read");
        Problem::internal()
    })?;
    let wanted = match question.strategy {
        Strategy::Version(version) => Some(version),
        Strategy::Model | Strategy::Popularity | Strategy::Exploration(_) => question.version,
    };
    let mut kept = manifests.iter();
    let manifest = match wanted {
        None => kept.min_by_key(|manifest| manifest.version),
        Some(version) => kept.find(|manifest| manifest.version == version),
    };
    match (manifest, wanted) {
        (Some(manifest), _) => Ok((manifest.version, manifest.learned_through)),
        (None, None) => Err(Problem::not_published()),
        (None, Some(version)) => {
            let error = RecommendError::NotKept(version);
            Err(Problem::not_found(error.to_string()))
        }
    }
}

fn check_versions(state: &AppState, asked: &NewExperiment) -> Result<(), Problem> {
    for (arm_idx, arm) in asked.arms.iter().enumerate() {
        let Strategy::Version(version) = arm.strategy else {
            continue;
        };
        let kept = state.publisher.kept(version).map_err(|error| {
            tracing::error!(%error, "version {version} cannot be read");
            Problem::internal()
        })?;
        if kept.is_none() {
            return Err(invalid(ExperimentFault {
                pointer: format!("/arms/{arm_idx}/strategy/version"),
                detail: format!("version {version} is not kept"),
            }));
        }
    }
    Ok(())
}

fn view(state: &AppState) -> Result<LogView, Problem> {
    state.log.view().map_err(unreadable)
}

fn unreadable(error: EventLogError) -> Problem {
    tracing::error!(%error, "the log cannot be read");
    Problem::unavailable("the event log cannot be read right now")
}

async fn on_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            tracing::error!(%error, "working on an experiment panicked");
            Err(Problem::internal())
        })
}

fn malformed(rejection: JsonRejection) -> Problem {
    Problem::malformed_body(BodyError {
        pointer: String::new(),
        detail: rejection.body_text(),
    })
}

fn invalid(fault: ExperimentFault) -> Problem {
    let ExperimentFault { pointer, detail } = fault;
    Problem::invalid_request(Fault::new(RejectCode::Malformed, pointer, detail))
}

fn problem_of(error: ExperimentError) -> Problem {
    let detail = error.to_string();
    match error {
        ExperimentError::Fault(fault) => invalid(fault),
        ExperimentError::Unknown(_) => Problem::not_found(detail),
        ExperimentError::Conflict(_) => Problem::conflict(detail),
        ExperimentError::Io { .. } => {
            tracing::error!(%detail, "an experiment is not stored");
            Problem::unavailable("the experiment cannot be stored right now")
        }
    }
}
