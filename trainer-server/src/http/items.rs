//! `PUT /v1/items` and `DELETE /v1/items`: the catalogue, as operators keep it.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;
use shared_model::event::Item;
use shared_model::ids::{ItemId, LogOffset};
use shared_model::spec::NUM_ITEMS_MAX;

use super::body::{JsonBytes, to_the_end, work_on};
use super::events::{check_batch_len, enqueue, outcomes};
use super::guard::note;
use super::limiter::Caller;
use super::{AppState, Problem};
use crate::event_log::{AppendOutcome, LogRecord};
use crate::ingest::{self, Fault, RejectCode, Rejection, item_from_json};

/// Deleted items that a line of the audit names.
const NAMED_ITEMS_MAX: usize = 10;

/// Answer to a change of the catalogue.
#[derive(Debug, Serialize)]
pub(super) struct ItemsResponse {
    accepted: u64,
    /// Items that were put just as they are already.
    unchanged: u64,
    rejected: Vec<Rejection>,
    offset: LogOffset,
}

pub(super) async fn put(
    State(state): State<AppState>,
    body: JsonBytes,
) -> Result<Json<ItemsResponse>, Problem> {
    let (num_bytes, worker) = (body.0.len(), state.clone());
    let (put, pending) = work_on(num_bytes, move || {
        let put = read_put(&worker, &body)?;
        let records: Vec<_> = put.items.iter().cloned().map(LogRecord::ItemPut).collect();
        let pending = enqueue(&worker, &records)?;
        Ok((put, pending))
    })
    .await?;
    // The index must follow the log whether or not the sender waits.
    to_the_end(async move {
        let outcomes = outcomes(pending).await?;
        let mut response = response(&state, outcomes.len(), put.num_unchanged, put.rejected);
        for (item, outcome) in put.items.into_iter().zip(outcomes) {
            let offset = offset_of(outcome);
            response.offset = response.offset.max(offset.next());
            state.catalogue.put(offset, item);
        }
        Ok(Json(response))
    })
    .await
}

/// A body of items, sorted out.
struct Put {
    items: Vec<Item>,
    num_unchanged: u64,
    rejected: Vec<Rejection>,
}

fn read_put(state: &AppState, body: &JsonBytes) -> Result<Put, Problem> {
    let elements = ingest::elements(&body.0, "items").map_err(Problem::malformed_body)?;
    check_batch_len(state, elements.list.len())?;
    let mut put = Put {
        items: Vec::new(),
        num_unchanged: 0,
        rejected: Vec::new(),
    };
    let mut rows_left = NUM_ITEMS_MAX.saturating_sub(state.catalogue.num_ids());
    for (index, element) in elements.list.into_iter().enumerate() {
        let pointer = format!("/items/{index}");
        let item = element.and_then(|value| item_from_json(&value, &pointer));
        match item.and_then(|item| take_row(state, item, &mut rows_left, &pointer)) {
            Ok(item) if is_unchanged(state, &item) => put.num_unchanged += 1,
            Ok(item) => put.items.push(item),
            Err(fault) => put.rejected.push(Rejection::new(index, fault)),
        }
    }
    Ok(put)
}

pub(super) async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBytes,
) -> Result<Json<ItemsResponse>, Problem> {
    let elements = ingest::elements(&body.0, "item_ids").map_err(Problem::malformed_body)?;
    check_batch_len(&state, elements.list.len())?;
    let (mut item_ids, mut rejected) = (Vec::new(), Vec::new());
    for (index, element) in elements.list.into_iter().enumerate() {
        match element.and_then(|value| known_id(&state, &value, index)) {
            Ok(item_id) => item_ids.push(item_id),
            Err(fault) => rejected.push(Rejection::new(index, fault)),
        }
    }
    let records: Vec<_> = item_ids
        .iter()
        .cloned()
        .map(LogRecord::ItemDelete)
        .collect();
    let pending = enqueue(&state, &records)?;
    to_the_end(async move {
        let what = deletion(&item_ids);
        let result = match outcomes(pending).await {
            Ok(outcomes) => Ok(deleted(&state, item_ids, outcomes, rejected)),
            Err(problem) => Err(problem),
        };
        note(&state, caller, what, &result).await;
        result.map(Json)
    })
    .await
}

fn deleted(
    state: &AppState,
    item_ids: Vec<ItemId>,
    outcomes: Vec<AppendOutcome>,
    rejected: Vec<Rejection>,
) -> ItemsResponse {
    let mut response = response(state, outcomes.len(), 0, rejected);
    for (item_id, outcome) in item_ids.into_iter().zip(outcomes) {
        let offset = offset_of(outcome);
        response.offset = response.offset.max(offset.next());
        state.catalogue.delete(offset, item_id);
    }
    response
}

/// For the audit: how many, and the first of them.
fn deletion(item_ids: &[ItemId]) -> String {
    let named = &item_ids[..item_ids.len().min(NAMED_ITEMS_MAX)];
    let count = item_ids.len();
    let what = serde_json::json!({ "count": count, "item_ids": named });
    format!("DELETE /v1/items {what}")
}

fn response(
    state: &AppState,
    num_accepted: usize,
    unchanged: u64,
    rejected: Vec<Rejection>,
) -> ItemsResponse {
    for rejection in &rejected {
        state.counters.add_rejected(rejection.code);
    }
    let accepted = num_accepted as u64; // widening on every supported target
    ItemsResponse {
        accepted,
        unchanged,
        rejected,
        offset: state.log.end(),
    }
}

/// A new item takes one of the rows that are left.
fn take_row(
    state: &AppState,
    item: Item,
    rows_left: &mut usize,
    pointer: &str,
) -> Result<Item, Fault> {
    if state.catalogue.contains(&item.item_id) {
        return Ok(item);
    }
    let Some(left) = rows_left.checked_sub(1) else {
        let detail = format!("a model may have at most {NUM_ITEMS_MAX} items");
        return Err(Fault::new(RejectCode::CatalogueFull, pointer, detail));
    };
    *rows_left = left;
    Ok(item)
}

/// Putting an item as it is costs nothing: operators may send their whole catalogue at every start.
fn is_unchanged(state: &AppState, item: &Item) -> bool {
    state
        .catalogue
        .get(&item.item_id)
        .is_some_and(|present| *present == *item)
}

fn known_id(state: &AppState, value: &Value, index: usize) -> Result<ItemId, Fault> {
    let pointer = format!("/item_ids/{index}");
    let Some(text) = value.as_str() else {
        let detail = format!("expected a text, found {value}");
        return Err(Fault::new(RejectCode::Malformed, pointer, detail));
    };
    let item_id = ItemId::new(text)
        .map_err(|error| Fault::new(RejectCode::Malformed, pointer.clone(), error.to_string()))?;
    if !state.catalogue.contains(&item_id) {
        let detail = format!("no item `{item_id}` in the catalogue");
        return Err(Fault::new(RejectCode::UnknownItem, pointer, detail));
    }
    Ok(item_id)
}

fn offset_of(outcome: AppendOutcome) -> LogOffset {
    match outcome {
        AppendOutcome::Accepted(offset) | AppendOutcome::Duplicate(offset) => offset,
    }
}
