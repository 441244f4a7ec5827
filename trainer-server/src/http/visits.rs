//! `POST /v1/visits`: a token that says this server handed a user id out; events carry it.

use std::time::Instant;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use shared_model::ids::UserId;

use super::body::JsonBytes;
use super::limiter::{Caller, Counted};
use super::{AppState, Problem};
use crate::ingest::Fields;

/// Buckets run dry by whole units a second; what is limited per hour counts as many.
const SECS_PER_HOUR: u64 = 3600;

/// A token.
#[derive(Serialize)]
pub(super) struct Visit {
    token: String,
    /// In milliseconds since 1970-01-01 UTC.
    expires_at: u64,
}

pub(super) async fn begin(
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
