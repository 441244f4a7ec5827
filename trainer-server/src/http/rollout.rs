//! `POST /v1/rollout`: orders of an operator, on the admin address only.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;

use super::{AppState, Problem};
use crate::ingest::BodyError;
use crate::rollout::{Obeyed, Order, OrderError};

/// Largest order, in bytes.
pub(super) const ORDER_BYTES_MAX: usize = 4096;

/// The body must be called `application/json`: a page of another origin cannot send that unasked.
pub(super) async fn order(
    State(state): State<AppState>,
    body: Result<Json<Order>, JsonRejection>,
) -> Result<Json<Obeyed>, Problem> {
    let Json(order) = body.map_err(|rejection| {
        Problem::malformed_body(BodyError {
            pointer: String::new(),
            detail: rejection.body_text(),
        })
    })?;
    let Some(operator) = &state.operator else {
        return Err(Problem::unavailable(
            "there is no trainer to give orders to",
        ));
    };
    operator.order(order).await.map(Json).map_err(problem_of)
}

fn problem_of(error: OrderError) -> Problem {
    let detail = error.to_string();
    match error {
        OrderError::Busy | OrderError::Stopped => Problem::unavailable(detail),
        OrderError::NotPublished => Problem::not_published(),
        OrderError::NotKept { .. } => Problem::not_found(detail),
        OrderError::OtherEncoder { .. }
        | OrderError::Pinned
        | OrderError::NoRelease
        | OrderError::Refused
        | OrderError::TooMany => Problem::conflict(detail),
    }
}
