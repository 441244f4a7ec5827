//! `PUT /v1/items` and `DELETE /v1/items`: the catalogue, as operators keep it.

use axum::extract::State;
use axum::http::Method;
use axum::{Extension, Json, routing};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use shared_model::event::Item;
use shared_model::ids::{ItemId, LogOffset};
use shared_model::spec::NUM_ITEMS_MAX;

use super::batch::{Batch, BatchBody, BatchQuery, Verdict};
use super::body::{to_the_end, work_on};
use super::document::Api;
use super::events::{check_batch_len, enqueue, outcomes};
use super::guard::note;
use super::limiter::Caller;
use super::query::Query;
use super::{AppState, Problem};
use crate::event_log::{AppendOutcome, LogRecord};
use crate::ingest::{Fault, RejectCode, Rejection, item_from_json};

/// Deleted items that a line of the audit names.
const NAMED_ITEMS_MAX: usize = 10;

/// Items to add or replace; taken apart by hand, as each is judged by itself.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its shape alone is wanted")]
struct ItemBatch {
    /// The items.
    items: Vec<Item>,
}

/// Items to take away.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its shape alone is wanted")]
struct ItemIdBatch {
    /// Their ids.
    item_ids: Vec<ItemId>,
}

/// Answer to a change of the catalogue.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ItemsResponse {
    /// Items changed.
    accepted: u64,
    /// Items that were put just as they are already.
    unchanged: u64,
    /// Items refused, and why.
    rejected: Vec<Rejection>,
    /// Once a version has learned through this offset, it has the change.
    offset: LogOffset,
    /// Answering NDJSON: what became of each line that is not blank.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<Verdict>>,
}

pub(super) fn routes(api: &mut Api) {
    let route = "/v1/items";
    let item = json!({ "item_id": "i-1", "title": "Tea pot", "text": "Blue, for two", "attributes": { "price": 19 } });
    api.add(Method::PUT, route, routing::put(put))
        .named("putItems", "Add or replace items of the catalogue")
        .about("Items that are put just as they are already cost nothing.")
        .query::<BatchQuery>()
        .batch_body::<ItemBatch>("item", json!({ "items": [item] }))
        .json::<ItemsResponse>("What became of each item.")
        .problems(&[507]);
    api.add(Method::DELETE, route, routing::delete(delete))
        .named("deleteItems", "Take items out of the catalogue")
        .query::<BatchQuery>()
        .batch_body::<ItemIdBatch>("item id", json!({ "item_ids": ["i-2"] }))
        .json::<ItemsResponse>("What became of each item.")
        .problems(&[507]);
}

async fn put(
    State(state): State<AppState>,
    Query(query): Query<BatchQuery>,
    body: BatchBody,
) -> Result<Json<ItemsResponse>, Problem> {
    let is_dry_run = query.is_dry_run()?;
    let (num_bytes, worker) = (body.num_bytes(), state.clone());
    let (change, pending) = work_on(num_bytes, move || {
        let change = read_put(&worker, &body)?;
        if is_dry_run {
            return Ok((change, None));
        }
        let items = change.wanted.iter().cloned();
        let records: Vec<_> = items.map(LogRecord::ItemPut).collect();
        let pending = enqueue(&worker, &records)?;
        Ok((change, pending))
    })
    .await?;
    if is_dry_run {
        return Ok(Json(change.response(&state)));
    }
    // The index must follow the log whether or not the sender waits.
    to_the_end(async move {
        let outcomes = outcomes(pending).await?;
        count_rejected(&state, &change.rejected);
        let (mut response, items) = (change.response(&state), change.wanted);
        for (item, outcome) in items.into_iter().zip(outcomes) {
            let offset = offset_of(outcome);
            response.offset = response.offset.max(offset.next());
            state.catalogue.put(offset, item);
        }
        Ok(Json(response))
    })
    .await
}

/// A body of items or of ids, sorted out.
struct Change<T> {
    batch: Batch,
    wanted: Vec<T>,
    rejected: Vec<Rejection>,
    /// On each element.
    verdicts: Vec<Verdict>,
}

impl<T> Change<T> {
    /// Sorts the elements by what `judge` says of each; `None` where there is nothing to change.
    fn read(
        state: &AppState,
        body: &BatchBody,
        name: &str,
        mut judge: impl FnMut(&Value, &str) -> Result<Option<T>, Fault>,
    ) -> Result<Self, Problem> {
        let mut batch = body.read(name, state.config.server.body_bytes_max)?;
        let list = std::mem::take(&mut batch.elements.list);
        check_batch_len(state, list.len())?;
        let mut change = Self {
            batch,
            wanted: Vec::new(),
            rejected: Vec::new(),
            verdicts: Vec::with_capacity(list.len()),
        };
        for (index, element) in list.into_iter().enumerate() {
            let pointer = change.batch.pointer(index);
            let judged = element.and_then(|value| judge(&value, &pointer));
            change.verdicts.push(match judged {
                Ok(Some(wanted)) => {
                    change.wanted.push(wanted);
                    Verdict::Accepted
                }
                Ok(None) => Verdict::Unchanged,
                Err(fault) => {
                    change.rejected.push(Rejection::new(index, fault));
                    Verdict::Rejected
                }
            });
        }
        Ok(change)
    }

    fn response(&self, state: &AppState) -> ItemsResponse {
        let unchanged = self.verdicts.len() - self.wanted.len() - self.rejected.len();
        ItemsResponse {
            accepted: self.wanted.len() as u64, // widening on every supported target
            unchanged: unchanged as u64,
            rejected: self.rejected.clone(),
            offset: state.log.end(),
            lines: self.batch.listed(|| self.verdicts.clone()),
        }
    }
}

fn read_put(state: &AppState, body: &BatchBody) -> Result<Change<Item>, Problem> {
    let mut rows_left = NUM_ITEMS_MAX.saturating_sub(state.catalogue.num_ids());
    Change::read(state, body, "items", |value, pointer| {
        let item = item_from_json(value, pointer)?;
        let item = take_row(state, item, &mut rows_left, pointer)?;
        Ok(Some(item).filter(|item| !is_unchanged(state, item)))
    })
}

async fn delete(
    State(state): State<AppState>,
    Query(query): Query<BatchQuery>,
    Extension(caller): Extension<Caller>,
    body: BatchBody,
) -> Result<Json<ItemsResponse>, Problem> {
    let is_dry_run = query.is_dry_run()?;
    let (num_bytes, worker) = (body.num_bytes(), state.clone());
    let change = work_on(num_bytes, move || {
        Change::read(&worker, &body, "item_ids", |value, pointer| {
            known_id(&worker, value, pointer).map(Some)
        })
    })
    .await?;
    if is_dry_run {
        return Ok(Json(change.response(&state)));
    }
    let item_ids = change.wanted.iter().cloned();
    let records: Vec<_> = item_ids.map(LogRecord::ItemDelete).collect();
    let pending = enqueue(&state, &records)?;
    to_the_end(async move {
        let what = deletion(&change.wanted);
        let result = outcomes(pending)
            .await
            .map(|outcomes| deleted(&state, change, outcomes));
        note(&state, caller, what, &result).await;
        result.map(Json)
    })
    .await
}

fn deleted(
    state: &AppState,
    change: Change<ItemId>,
    outcomes: Vec<AppendOutcome>,
) -> ItemsResponse {
    count_rejected(state, &change.rejected);
    let (mut response, item_ids) = (change.response(state), change.wanted);
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
    let what = json!({ "count": count, "item_ids": named });
    format!("DELETE /v1/items {what}")
}

fn count_rejected(state: &AppState, rejected: &[Rejection]) {
    for rejection in rejected {
        state.counters.add_rejected(rejection.code);
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

fn known_id(state: &AppState, value: &Value, pointer: &str) -> Result<ItemId, Fault> {
    let Some(text) = value.as_str() else {
        let detail = format!("expected a text, found {value}");
        return Err(Fault::new(RejectCode::Malformed, pointer, detail));
    };
    let item_id = ItemId::new(text)
        .map_err(|error| Fault::new(RejectCode::Malformed, pointer, error.to_string()))?;
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
