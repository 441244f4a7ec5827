//! `POST /v1/rollout`: orders of an operator, on the admin address only.

use axum::extract::State;
use axum::http::Method;
use axum::{Extension, Json, routing};
use schemars::JsonSchema;
use serde::Deserialize;

use super::body::{StrictJson, to_the_end};
use super::document::Api;
use super::guard::note;
use super::limiter::Caller;
use super::{AppState, Problem};
use crate::rollout::{
    OPERATOR_NAME_LEN_MAX, OPERATOR_NAME_PATTERN, Obeyed, Order, OrderError, is_operator_name,
};

/// Largest order, in bytes.
const ORDER_BYTES_MAX: usize = 4096;

/// An order and who gives it.
#[derive(Debug, Deserialize, JsonSchema)]
struct OrderBody {
    #[serde(flatten)]
    order: Order,
    /// Who orders it, for the ledger.
    #[schemars(length(min = 1, max = OPERATOR_NAME_LEN_MAX), regex(pattern = OPERATOR_NAME_PATTERN))]
    by: Option<String>,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::POST, "/v1/rollout", routing::post(order))
        .named(
            "rollout",
            "Order a rollback, a pin, a release or a promotion",
        )
        .about("Answers once the order is carried out; `docs/rollout.md` says what each does.")
        .strict_body::<OrderBody>(serde_json::json!({ "order": "unpin", "by": "Ada" }))
        .json::<Obeyed>("The newest version now, and what has become of the order.")
        .problems(&[404, 409]);
}

async fn order(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    StrictJson(OrderBody { order, by }): StrictJson<OrderBody, ORDER_BYTES_MAX>,
) -> Result<Json<Obeyed>, Problem> {
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
        | OrderError::Private
        | OrderError::NoRelease
        | OrderError::Refused
        | OrderError::GivenRefused { .. }
        | OrderError::OtherSpec
        | OrderError::OtherItems { .. }
        | OrderError::TooMany => Problem::conflict(detail),
    }
}
