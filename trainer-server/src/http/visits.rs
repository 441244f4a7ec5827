//! `POST /v1/visits`: a token that says this server handed a user id out; events carry it.

use std::time::Instant;

use axum::extract::State;
use axum::http::Method;
use axum::routing::post;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use shared_model::ids::UserId;

use super::body::JsonBytes;
use super::document::Api;
use super::limiter::{Caller, Counted, SECS_PER_HOUR};
use super::{AppState, Problem};
use crate::ingest::Fields;

/// Who visits.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its shape alone is wanted")]
struct VisitBody {
    /// The user id that events will have.
    user_id: UserId,
}

/// A token.
#[derive(Serialize, JsonSchema)]
struct Visit {
    /// For the field `token` of events.
    token: String,
    /// When it ends, in milliseconds since 1970-01-01 UTC.
    expires_at: u64,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::POST, "/v1/visits", post(begin))
        .named("beginVisit", "A visit token for a user id")
        .about("Events carry it as `token`; what those without one teach is `influence.without_token`. One client address gets `limits.client_visits_per_hour` of them.")
        .json_body::<VisitBody>(json!({ "user_id": "u-1" }))
        .json::<Visit>("The token, and when it ends.")
        .problems(&[422]);
}

async fn begin(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBytes,
) -> Result<Json<Visit>, Problem> {
    let value = body.value()?;
    let user_id = Fields::new(&value, "").and_then(|fields| {
        let user_id: Option<UserId> = fields.id("user_id")?;
        fields.required("user_id", user_id)
    });
    let user_id = user_id.map_err(Problem::invalid_request)?;
    let counted = state
        .limiter
        .take(caller, Counted::Visits, SECS_PER_HOUR, Instant::now());
    counted.map_err(Problem::too_many)?;
    let now_secs = u64::try_from((state.clock)() / 1000).unwrap_or(0); // before 1970
    let expires_at = now_secs + state.config.access.visit_secs;
    Ok(Json(Visit {
        token: state.visits.mint(&user_id, expires_at),
        expires_at: expires_at * 1000,
    }))
}
