//! `POST /v1/events`: each event of a batch is accepted, a duplicate, or rejected with a reason.

use std::time::Instant;

use axum::extract::State;
use axum::http::Method;
use axum::{Extension, Json, routing};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use shared_model::event::{Event, EventKind};
use shared_model::ids::{ItemId, LogOffset};

use super::batch::{Batch, BatchBody, BatchQuery, Verdict, verdicts};
use super::body::work_on;
use super::document::Api;
use super::limiter::{Caller, Counted};
use super::query::Query;
use super::{AppState, Problem};
use crate::config::ClockMode;
use crate::event_log::{AppendOutcome, EventLogError, LogRecord, Pending, StoredEvent};
use crate::ingest::{self, EventRules, Fields, Rejection};

/// A batch of feedback. Each event is judged by itself, so this is taken apart by hand.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its shape alone is wanted")]
struct EventBatch {
    /// The events.
    events: Vec<Event>,
    /// When the batch was sent by the sender's clock, milliseconds since 1970-01-01 UTC: the times of its events are
    /// corrected by what that clock is off.
    sent_at: Option<i64>,
}

/// Answer to a batch of events.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EventsResponse {
    /// Events stored.
    accepted: u64,
    /// Events stored before, by their ids.
    duplicates: u64,
    /// Events refused, and why.
    rejected: Vec<Rejection>,
    /// Once a version has learned through this offset, it has learned from the whole batch.
    offset: LogOffset,
    /// Events, however they fared, whose `token` is none that this server gave to their user, or has ended: ask
    /// `POST /v1/visits` for another. Left out where there are none.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(default)]
    invalid_tokens: u64,
    /// Answering NDJSON: what became of each line that is not blank.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<Verdict>>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::POST, "/v1/events", routing::post(post))
        .named("postEvents", "Post feedback")
        .about("Idempotent: an `event_id` counts once for at least 7 days. Each event is accepted, a duplicate, or rejected with a reason; one bad event never sinks the batch. The answer comes after the events are synced to disk.")
        .query::<BatchQuery>()
        .batch_body::<EventBatch>("event", json!({ "events": [{
            "event_id": "e-1", "kind": "click", "user_id": "u-1", "item_id": "i-1", "occurred_at": 1_767_225_600_000_u64,
        }] }))
        .json::<EventsResponse>("What became of each event.")
        .problems(&[422, 507]);
}

async fn post(
    State(state): State<AppState>,
    Query(query): Query<BatchQuery>,
    Extension(caller): Extension<Caller>,
    body: BatchBody,
) -> Result<Json<EventsResponse>, Problem> {
    let is_dry_run = query.is_dry_run()?;
    let (num_bytes, worker) = (body.num_bytes(), state.clone());
    let (sorted, pending) = work_on(num_bytes, move || {
        let sorted = read(&worker, caller, &body)?;
        let pending = if is_dry_run {
            try_out(&worker, &sorted.records)?
        } else {
            enqueue(&worker, &sorted.records)?
        };
        Ok((sorted, pending))
    })
    .await?;
    let outcomes = outcomes(pending).await?;
    if !is_dry_run {
        state.moderation.count(accepted(&sorted.records, &outcomes));
    }
    let mut response = summarize(&state, &outcomes, sorted);
    if is_dry_run {
        response.offset = state.log.end();
    } else {
        for rejection in &response.rejected {
            state.counters.add_rejected(rejection.code);
        }
        state.counters.add(response.accepted, response.duplicates);
    }
    Ok(Json(response))
}

/// Item and kind of the events that were not there before.
fn accepted<'a>(
    records: &'a [LogRecord],
    outcomes: &'a [AppendOutcome],
) -> impl Iterator<Item = (&'a ItemId, EventKind)> {
    let pairs = records.iter().zip(outcomes);
    pairs.filter_map(|(record, outcome)| {
        let LogRecord::Event(StoredEvent { event, .. }) = record else {
            return None;
        };
        let is_new = matches!(outcome, AppendOutcome::Accepted(_));
        is_new.then_some((&event.item_id, event.kind))
    })
}

/// What is accepted of a body, ready for the log, and what is not.
struct Sorted {
    batch: Batch,
    num_elements: usize,
    records: Vec<LogRecord>,
    rejected: Vec<Rejection>,
    num_invalid_tokens: u64,
}

fn read(state: &AppState, caller: Caller, body: &BatchBody) -> Result<Sorted, Problem> {
    let mut batch = body.read("events", state.config.server.body_bytes_max)?;
    let list = std::mem::take(&mut batch.elements.list);
    let num_elements = list.len();
    check_batch_len(state, num_elements)?;
    let counted = state
        .limiter
        .take(caller, Counted::Events, num_elements as u64, Instant::now()); // widening
    counted.map_err(Problem::too_many)?;
    let now_millis = (state.clock)();
    let others = Value::Object(std::mem::take(&mut batch.elements.others));
    let sent_at = Fields::new(&others, "")
        .and_then(|fields| fields.i64("sent_at"))
        .map_err(Problem::invalid_request)?;
    let is_known = |item_id: &ItemId| state.catalogue.contains(item_id);
    let rules = EventRules {
        is_known: &is_known,
        now_millis,
        future_millis_max: state.config.clock.future_millis_max(),
        skew_millis: match state.config.clock.mode {
            ClockMode::Live => EventRules::skew_millis(now_millis, sent_at),
            ClockMode::EventTime => 0, // the times are those of another day, and right
        },
    };
    let mut sorted = Sorted {
        batch,
        num_elements,
        records: Vec::with_capacity(num_elements),
        rejected: Vec::new(),
        num_invalid_tokens: 0,
    };
    sorted.sort(state, list, &rules);
    Ok(sorted)
}

/// Refuses batches over the configured length.
pub(super) fn check_batch_len(state: &AppState, actual: usize) -> Result<(), Problem> {
    let max = state.config.server.batch_events_max;
    if actual > max {
        return Err(Problem::too_large(format!(
            "{actual} in one batch, at most {max} are allowed"
        )));
    }
    Ok(())
}

/// Puts records into the log's queue, counting what is turned away; nothing to append is nothing
/// to wait for.
pub(super) fn enqueue(state: &AppState, records: &[LogRecord]) -> Result<Option<Pending>, Problem> {
    if records.is_empty() {
        return Ok(None);
    }
    let pending = state.log.enqueue(records);
    if matches!(pending, Err(EventLogError::Backpressure { .. })) {
        state.counters.add_backpressure();
    }
    Ok(Some(pending?))
}

/// As [`enqueue`], but nothing is to be kept.
fn try_out(state: &AppState, records: &[LogRecord]) -> Result<Option<Pending>, Problem> {
    if records.is_empty() {
        return Ok(None);
    }
    Ok(Some(state.log.try_out(records)?))
}

/// Waits until what was put into the queue is synced.
#[tracing::instrument(name = "sync", skip_all)]
pub(super) async fn outcomes(pending: Option<Pending>) -> Result<Vec<AppendOutcome>, Problem> {
    match pending {
        Some(pending) => Ok(pending.outcomes().await?),
        None => Ok(Vec::new()),
    }
}

impl Sorted {
    fn sort(
        &mut self,
        state: &AppState,
        list: Vec<Result<Value, ingest::Fault>>,
        rules: &EventRules<'_>,
    ) {
        let received_at = rules.now_millis;
        let end = LogOffset(u64::MAX); // where it will be is not known yet, and all phases have begun
        for (index, element) in list.into_iter().enumerate() {
            let pointer = self.batch.pointer(index);
            let num_invalid = &mut self.num_invalid_tokens;
            let stored = element.and_then(|value| {
                let event = ingest::event_from_json(&value, &pointer)?;
                let token = Fields::new(&value, &pointer)?.text("token")?;
                let vouches = |token| state.visits.vouches(token, &event.user_id, received_at);
                let is_vouched = token.is_some_and(vouches);
                *num_invalid += u64::from(token.is_some() && !is_vouched);
                let event = rules.check(event, &pointer)?;
                let (door, experiments) = (&state.pseudonyms, &state.experiments);
                Ok(door.stored(event, received_at, is_vouched, experiments, end))
            });
            match stored {
                Ok(stored) => self.records.push(LogRecord::Event(stored)),
                Err(fault) => self.rejected.push(Rejection::new(index, fault)),
            }
        }
    }
}

fn summarize(state: &AppState, outcomes: &[AppendOutcome], sorted: Sorted) -> EventsResponse {
    let rejected = sorted.rejected;
    let lines = sorted.batch.listed(|| {
        let others = outcomes.iter().map(|outcome| match outcome {
            AppendOutcome::Accepted(_) => Verdict::Accepted,
            AppendOutcome::Duplicate(_) => Verdict::Duplicate,
        });
        verdicts(sorted.num_elements, &rejected, others)
    });
    let (mut accepted, mut duplicates, mut offset) = (0, 0, None);
    for outcome in outcomes {
        let at = match outcome {
            AppendOutcome::Accepted(at) => {
                accepted += 1;
                *at
            }
            AppendOutcome::Duplicate(at) => {
                duplicates += 1;
                *at
            }
        };
        offset = offset.max(Some(at.next()));
    }
    let offset = offset.unwrap_or_else(|| state.log.end());
    EventsResponse {
        accepted,
        duplicates,
        rejected,
        offset,
        invalid_tokens: sorted.num_invalid_tokens,
        lines,
    }
}
