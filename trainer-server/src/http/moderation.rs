//! `/v1/rules…`: rules over lists, proposed and decided by operators on the admin address; and
//! `/v1/models/{model}/moderation`: what holds, signed, for pages.

use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use shared_model::ids::ItemId;

use shared_model::manifest::{Envelope, FORMAT_VERSION, ModerationNote};

use super::body::{StrictJson, to_the_end};
use super::document::Api;
use super::guard::note;
use super::limiter::Caller;
use super::models::{check_model, of_model};
use super::query::Path;
use super::recommend::asked;
use super::{AppState, Problem};
use crate::ingest::{Fields, RejectCode};
use crate::moderation::{
    Action, DRAFT_BYTES_MAX, Decision, Draft, Listed, Moderation, ModerationError, Preview, Rule,
    read_draft, read_name,
};
use crate::rollout::OPERATOR_NAME_LEN_MAX;

/// Largest decision, in bytes.
const DECISION_BYTES_MAX: usize = 4096;

/// What becomes of a rule, and who says so.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its shape alone is wanted")]
struct DecisionBody {
    /// What is decided.
    decision: Decision,
    /// The name of whoever acts, kept with the rule.
    #[schemars(length(min = 1, max = OPERATOR_NAME_LEN_MAX))]
    by: String,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::GET, "/v1/rules", get(list))
        .named("rules", "Rules over lists and their history")
        .about("What a rule does: `docs/moderation.md`.")
        .json::<Listed>("All rules.");
    let example = json!({ "action": "bury", "item_ids": ["i-1"], "points": 1.5, "reason": "Out of season", "by": "Ada" });
    api.add(Method::POST, "/v1/rules", post(propose))
        .named("proposeRule", "Propose a rule")
        .about("A rule holds once it is approved.")
        .strict_body::<Draft>(example)
        .json::<Rule>("The proposal.")
        .problems(&[409, 422]);
    let (words, route) = ("Its number.", "/v1/rules/{id}");
    api.add(Method::POST, route, post(decide))
        .named("decideRule", "Approve, reject or withdraw a rule")
        .about("An approved rule holds from the next list on; open pages follow within seconds.")
        .path::<u64>("id", words, 1)
        .strict_body::<DecisionBody>(json!({ "decision": "approve", "by": "Grace" }))
        .json::<Rule>("The rule as it is now.")
        .problems(&[404, 409, 422]);
    api.add(Method::GET, "/v1/rules/{id}/preview", get(preview))
        .named("previewRule", "What a rule would do")
        .about("The lists of the 100 users seen last, as they are and as they would be were the proposal approved, or the active rule withdrawn.")
        .path::<u64>("id", words, 1)
        .json::<Preview>("How many lists change, and one of them.")
        .problems(&[404, 409, 500, 503]);
}

/// The route of pages.
pub(super) fn page_routes(api: &mut Api) {
    of_model(api, "/v1/models/{model}/moderation", get(signed))
        .named("getModeration", "The rules that hold, signed")
        .about("The payload names the model, the revision, when and under which key set it was signed, the items that are blocked, those that are pinned and their positions, and points by item. The revision only grows.")
        .json::<Envelope>("The note, signed with ed25519.")
        .problems(&[500]);
}

async fn list(State(state): State<AppState>) -> Json<Listed> {
    Json(state.moderation.listed())
}

/// The body must be called `application/json`: a page of another origin cannot send that unasked.
async fn propose(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    StrictJson(body): StrictJson<Value, DRAFT_BYTES_MAX>,
) -> Result<Json<Rule>, Problem> {
    let now_millis = (state.clock)();
    let is_known = |item_id: &ItemId| state.catalogue.contains(item_id);
    let draft = read_draft(&body, is_known, now_millis).map_err(Problem::invalid_request)?;
    let what = format!(
        "POST /v1/rules {}",
        Value::from_iter([("rule", described(&draft))])
    );
    act(state, caller, what, move |rules| {
        rules.propose(draft, now_millis)
    })
    .await
}

/// Likewise.
async fn decide(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    StrictJson(body): StrictJson<Value, DECISION_BYTES_MAX>,
) -> Result<Json<Rule>, Problem> {
    let id = parsed(&id)?;
    let fields = Fields::new(&body, "").map_err(Problem::invalid_request)?;
    let by = read_name(&fields).map_err(Problem::invalid_request)?;
    let decision = fields.required("decision", fields.get("decision"));
    let decision = decision.map_err(Problem::invalid_request)?;
    let decision: Decision = serde_json::from_value(decision.clone()).map_err(|_| {
        // The values say more than the parser does.
        let detail = format!("expected approve, reject or withdraw, found {decision}");
        Problem::invalid_request(fields.fault(RejectCode::Malformed, "decision", detail))
    })?;
    let now_millis = (state.clock)();
    let what = json!({ "decision": decision, "by": by });
    let what = format!("POST /v1/rules/{id} {what}");
    act(state, caller, what, move |rules| {
        rules.decide(id, decision, &by, now_millis)
    })
    .await
}

/// What the lists of the users seen lately would be, and are.
async fn preview(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<Preview>, Problem> {
    let id = parsed(&id)?;
    let after = blocking(&state, move |rules| rules.preview(id)).await?;
    let before = state.moderation.effect();
    let preview = asked(&state, move |recommender| {
        recommender.preview(&before.rules, &after)
    });
    Ok(Json(preview.await?))
}

/// What holds, signed; `watch` announces another revision.
async fn signed(
    State(state): State<AppState>,
    Path(model): Path<String>,
) -> Result<Response, Problem> {
    check_model(&state, &model)?;
    let effect = state.moderation.effect();
    let keyring = state.publisher.keyring();
    let created_at = (state.clock)();
    let key = keyring.signer(created_at).map_err(|error| {
        tracing::error!(%error, "the rules cannot be signed");
        Problem::internal()
    })?;
    let note = ModerationNote {
        format_version: FORMAT_VERSION,
        model,
        revision: effect.revision,
        created_at,
        key_set: keyring.number(),
        rules: effect.rules.clone(),
    };
    let headers = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_TYPE, "application/json"),
    ];
    Ok((headers, note.sign(key)).into_response())
}

/// A rule that had a say in what is explained.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AppliedRule {
    /// Its number.
    id: u64,
    #[serde(flatten)]
    action: Action,
    /// Why it was proposed.
    reason: String,
}

/// The active rules about an item.
pub(super) fn applied(state: &AppState, item_id: &ItemId) -> Vec<AppliedRule> {
    let rules = state.moderation.about(item_id).into_iter();
    let applied = rules.map(|rule| AppliedRule {
        id: rule.id,
        action: rule.draft.action,
        reason: rule.draft.reason,
    });
    applied.collect()
}

/// Works with the rules on a thread that may block.
async fn blocking<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce(&Moderation) -> Result<T, ModerationError> + Send + 'static,
) -> Result<T, Problem> {
    let moderation = state.moderation.clone();
    match tokio::task::spawn_blocking(move || work(&moderation)).await {
        Ok(outcome) => outcome.map_err(problem_of),
        Err(error) => {
            tracing::error!(%error, "working on the rules panicked");
            Err(Problem::internal())
        }
    }
}

/// Carries out an act, noted whether or not the sender waits.
async fn act(
    state: AppState,
    caller: Caller,
    what: String,
    act: impl FnOnce(&Moderation) -> Result<Rule, ModerationError> + Send + 'static,
) -> Result<Json<Rule>, Problem> {
    to_the_end(async move {
        let result = blocking(&state, act).await;
        note(&state, caller, what, &result).await;
        result.map(Json)
    })
    .await
}

fn described(draft: &impl Serialize) -> Value {
    serde_json::to_value(draft).expect("plain values always serialize")
}

fn parsed(id: &str) -> Result<u64, Problem> {
    id.parse()
        .map_err(|_| Problem::not_found(format!("{id} is no rule number"))) // the error says no more
}

fn problem_of(error: ModerationError) -> Problem {
    let detail = error.to_string();
    match error {
        ModerationError::NotFound { .. } => Problem::not_found(detail),
        ModerationError::File { .. } => {
            tracing::error!("{detail}");
            Problem::unavailable("the rules cannot be written at the moment")
        }
        ModerationError::WrongState { .. }
        | ModerationError::SamePerson { .. }
        | ModerationError::PlaceTaken { .. }
        | ModerationError::Full
        | ModerationError::TooManyItems { .. } => Problem::conflict(detail),
    }
}
