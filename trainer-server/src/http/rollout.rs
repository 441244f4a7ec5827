//! `POST /v1/rollout`: orders of an operator, on the admin address only.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::{Extension, Json};
use serde::Deserialize;

use super::body::to_the_end;
use super::guard::note;
use super::limiter::Caller;
use super::{AppState, Problem};
use crate::ingest::BodyError;
use crate::rollout::{OPERATOR_NAME_LEN_MAX, Obeyed, Order, OrderError, is_operator_name};

/// Largest order, in bytes.
pub(super) const ORDER_BYTES_MAX: usize = 4096;

/// An order and who gives it.
#[derive(Debug, Deserialize)]
pub(super) struct OrderBody {
    #[serde(flatten)]
    order: Order,
    by: Option<String>,
}

/// The body must be called `application/json`: a page of another origin cannot send that unasked.
pub(super) async fn order(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<OrderBody>, JsonRejection>,
) -> Result<Json<Obeyed>, Problem> {
    let Json(OrderBody { order, by }) = body.map_err(|rejection| {
        Problem::malformed_body(BodyError {
            pointer: String::new(),
            detail: rejection.body_text(),
        })
    })?;
    check_name(by.as_deref())?;
    // Noted whether or not the sender waits.
    to_the_end(async move {
        let what = serde_json::json!({ "order": order, "by": by }).to_string();
        let result = obey(&state, order, by).await;
        note(&state, caller, format!("POST /v1/rollout {what}"), &result).await;
        result.map(Json)
    })
    .await
}

async fn obey(state: &AppState, order: Order, by: Option<String>) -> Result<Obeyed, Problem> {
    let Some(operator) = &state.operator else {
        let detail = "there is no trainer to give orders to";
        return Err(Problem::unavailable(detail));
    };
    operator.order(order, by).await.map_err(problem_of)
}

/// The name that an operator gives, if any.
pub(super) fn check_name(by: Option<&str>) -> Result<(), Problem> {
    if by.is_none_or(is_operator_name) {
        return Ok(());
    }
    let detail =
        format!("expected 1 to {OPERATOR_NAME_LEN_MAX} characters without control characters");
    Err(Problem::invalid_query("by", detail))
}

pub(super) fn problem_of(error: OrderError) -> Problem {
    let detail = error.to_string();
    match error {
        OrderError::Busy | OrderError::Stopped | OrderError::NotStored { .. } => {
            Problem::unavailable(detail)
        }
        OrderError::NotPublished => Problem::not_published(),
        OrderError::NotKept { .. } => Problem::not_found(detail),
        OrderError::OtherEncoder { .. }
        | OrderError::Pinned
        | OrderError::NoRelease
        | OrderError::Refused
        | OrderError::GivenRefused { .. }
        | OrderError::OtherSpec
        | OrderError::OtherItems { .. }
        | OrderError::TooMany => Problem::conflict(detail),
    }
}
