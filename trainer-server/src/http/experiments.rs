//! `/v1/experiments…` and `/v1/estimates`, on the admin address; and what runs now, for pages that rank themselves.
//!
//! Not here: which arm a user has and what the figures mean (`crate::experiment`).

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, Method, header};
use axum::routing::{get, patch, post};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared_model::ids::{LogOffset, Version};

use super::body::{StrictJson, to_the_end};
use super::document::Api;
use super::guard::note;
use super::limiter::Caller;
use super::models::{check_model, of_model};
use super::query::Path;
use super::recommend::RecommendError;
use super::{AppState, Problem};
use crate::event_log::EventLogError;
use crate::event_log::view::LogView;
use crate::experiment::held::HeldVersions;
use crate::experiment::replayed::{self, Answer, EstimateError, Question};
use crate::experiment::store::ExperimentError;
use crate::experiment::tally::Tally;
use crate::experiment::verdict::Report;
use crate::experiment::{Arm, Design, Experiment, ExperimentFault, NewExperiment, Strategy};
use crate::ingest::{Fault, RejectCode};
use crate::trainer::MODELS_MAX;

/// What pages may keep the list for.
const RUNNING_SECS: &str = "max-age=60";

/// Largest experiment, change or question, in bytes.
const ORDER_BYTES_MAX: usize = 64 << 10;

pub(super) fn routes(api: &mut Api) {
    api.add(Method::GET, "/v1/experiments", get(list))
        .named("listExperiments", "List experiments")
        .json::<Listed>("All experiments in the order in which they began, stopped ones too.");
    let arms = json!([
        { "name": "model", "share": 50, "strategy": "model" },
        { "name": "popular", "share": 50, "strategy": "popularity" },
    ]);
    api.add(Method::POST, "/v1/experiments", post(begin))
        .named("beginExperiment", "Begin an experiment")
        .about("It runs from the end of the log on.")
        .strict_body::<NewExperiment>(json!({ "name": "first", "place": "home", "arms": arms }))
        .json::<Experiment>("The experiment as it runs.")
        .problems(&[409, 422, 500]);
    let (route, words) = ("/v1/experiments/{name}", "Its name.");
    api.add(Method::GET, route, get(one))
        .named("showExperiment", "What an experiment has shown")
        .about("Reads the log since the beginning of the experiment.")
        .path::<String>("name", words, "first")
        .json::<Shown>("The experiment with its report.")
        .problems(&[404, 500, 503]);
    api.add(Method::PATCH, route, patch(change))
        .named(
            "changeExperiment",
            "Change the shares of an experiment, or end it",
        )
        .about("From the end of the log on; users whose arm changes are shown the new one and still count for the first.")
        .path::<String>("name", words, "first")
        .strict_body::<ChangeBody>(json!({ "stop": true }))
        .json::<Experiment>("The experiment as it is now.")
        .problems(&[404, 409, 422, 500]);
    api.add(Method::POST, "/v1/estimates", post(estimate))
        .named("estimate", "What a strategy would have earned")
        .about("Off-policy estimates from impressions with position 0 and a propensity: IPS, SNIPS and doubly robust. 409 where the log has none.")
        .strict_body::<Question>(json!({ "strategy": "popularity" }))
        .json::<Answer>("The estimates.")
        .problems(&[404, 409, 422, 500]);
}

/// The route of pages.
pub(super) fn page_routes(api: &mut Api) {
    of_model(api, "/v1/models/{model}/experiments", get(running))
        .named("runningExperiments", "Experiments that run, for pages that find their own arm")
        .about("Splits only. A page hashes salt, arm and user as the server does; see `docs/experiments.md`. May be kept for a minute.")
        .json::<Running>("What runs.");
}

/// Experiments.
#[derive(Serialize, JsonSchema)]
struct Listed {
    /// In the order in which they began.
    experiments: Vec<Arc<Experiment>>,
}

async fn list(State(state): State<AppState>) -> Json<Listed> {
    let experiments = state.experiments.all();
    Json(Listed { experiments })
}

/// What a page needs to find its arm, of the experiments that run.
#[derive(Serialize, JsonSchema)]
struct Running {
    experiments: Vec<RunningExperiment>,
}

/// An experiment as pages see it.
#[derive(Serialize, JsonSchema)]
struct RunningExperiment {
    name: String,
    place: String,
    /// What the hash of users begins with.
    salt: String,
    arms: Vec<Arm>,
}

async fn running(
    State(state): State<AppState>,
    Path(model): Path<String>,
) -> Result<([(HeaderName, &'static str); 1], Json<Running>), Problem> {
    check_model(&state, &model)?;
    let all = state.experiments.all();
    let split = |one: &&Arc<Experiment>| one.stopped.is_none() && one.asked.design == Design::Split;
    let running = all.iter().filter(split).map(|one| RunningExperiment {
        name: one.asked.name.clone(),
        place: one.asked.place.clone(),
        salt: one.salt().to_owned(),
        arms: one.asked.arms.clone(),
    });
    let experiments = running.collect();
    let running = Running { experiments };
    Ok(([(header::CACHE_CONTROL, RUNNING_SECS)], Json(running)))
}

/// The body must be called `application/json`: a page of another origin cannot send that unasked.
async fn begin(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    StrictJson(asked): StrictJson<NewExperiment, ORDER_BYTES_MAX>,
) -> Result<Json<Arc<Experiment>>, Problem> {
    let what = format!("POST /v1/experiments {}", asked.name);
    changed(state, caller, what, move |state| {
        hold_versions(state, &asked)?;
        let (end, now_millis) = (state.log.end(), (state.clock)());
        let begun = state.experiments.begin(asked, end, now_millis);
        begun.map_err(problem_of)
    })
    .await
}

/// One of both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    /// Percent, in the order of the arms.
    shares: Option<Vec<u32>>,
    stop: Option<bool>,
}

async fn change(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    StrictJson(ChangeBody { shares, stop }): StrictJson<ChangeBody, ORDER_BYTES_MAX>,
) -> Result<Json<Arc<Experiment>>, Problem> {
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
#[derive(Serialize, JsonSchema)]
struct Shown {
    #[serde(flatten)]
    experiment: Arc<Experiment>,
    report: Report,
}

/// Reads the log since the beginning of the experiment.
async fn one(
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
async fn estimate(
    State(state): State<AppState>,
    StrictJson(question): StrictJson<Question, ORDER_BYTES_MAX>,
) -> Result<Json<Answer>, Problem> {
    question.check().map_err(invalid)?;
    let answer = on_blocking(move || {
        let (version, from) = asked_of(&state, &question)?;
        let view = view(&state)?;
        let history_len = state.config.model.history_len as usize;
        let recommender = &*state.recommender;
        let answer = replayed::answer(&view, recommender, &question, version, from, history_len);
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

/// Keeps the versions that its arms rank by, and lets go of those that no running experiment wants any more.
fn hold_versions(state: &AppState, asked: &NewExperiment) -> Result<(), Problem> {
    let held = HeldVersions::of(&state.config.server.data_dir);
    let running = state.experiments.all().into_iter();
    let running = running.filter(|one| one.stopped.is_none());
    let mut wanted: Vec<Version> = running.flat_map(|one| versions(&one.asked)).collect();
    let unheld = |error: std::io::Error| {
        tracing::error!(%error, "the versions of experiments cannot be held");
        Problem::unavailable("the versions of experiments cannot be stored right now")
    };
    held.keep_only(&wanted).map_err(unheld)?;
    wanted.extend(versions(asked));
    wanted.sort();
    wanted.dedup();
    if wanted.len() > MODELS_MAX {
        let detail = format!(
            "running experiments and this one rank by {} versions, at most {MODELS_MAX} are ready at a time",
            wanted.len()
        );
        return Err(Problem::conflict(detail));
    }
    for (arm_idx, arm) in asked.arms.iter().enumerate() {
        let Strategy::Version(version) = arm.strategy else {
            continue;
        };
        let kept = state.publisher.kept(version).map_err(|error| {
            tracing::error!(%error, "version {version} cannot be read");
            Problem::internal()
        })?;
        let Some((_, codes)) = kept else {
            return Err(invalid(ExperimentFault {
                pointer: format!("/arms/{arm_idx}/strategy/version"),
                detail: format!("version {version} is not kept"),
            }));
        };
        held.hold(version, &codes).map_err(unheld)?;
    }
    Ok(())
}

fn versions(asked: &NewExperiment) -> Vec<Version> {
    let version = |arm: &Arm| match arm.strategy {
        Strategy::Version(version) => Some(version),
        Strategy::Model | Strategy::Popularity | Strategy::Exploration(_) => None,
    };
    asked.arms.iter().filter_map(version).collect()
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
