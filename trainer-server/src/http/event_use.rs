//! `GET /v1/events/{event_id}`: whether an event was used, and by which version first.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use schemars::JsonSchema;
use serde::Serialize;
use shared_model::ids::{EventId, LogOffset, Version};
use shared_model::manifest::{Channel, VersionKind};

use super::document::Api;
use super::query::Path;
use super::{AppState, Problem};
use crate::event_log::LogRecord;
use crate::ledger::PublishedRow;
use crate::rollout::RolloutState;
use crate::trainer;

/// What became of an event that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum EventState {
    /// It is in the log, and no version has learned from it yet.
    Waiting,
    /// The newest version has taken it in. Whether it taught anything by `[influence]` is not kept.
    Learned,
    /// Under overload it entered histories and counts alone; a refit learns from it once such events are many.
    Counted,
    /// A rollback took back what was learned from it.
    SetAside,
    /// It was taken out of the log: its user was erased, or it was too old.
    Erased,
}

/// An event's way through the loop.
#[derive(Debug, Serialize, JsonSchema)]
struct EventUse {
    event_id: EventId,
    /// Where it lies in the log.
    offset: LogOffset,
    state: EventState,
    /// The version that was the first to learn from it, while the ledger remembers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_version: Option<FirstVersion>,
    /// The version of the rollback that set it aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_aside_by: Option<Version>,
    /// The newest version that all pages may have, 0 before the first.
    newest_version: Version,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FirstVersion {
    version: Version,
    kind: VersionKind,
    channel: Channel,
    /// Milliseconds since 1970-01-01 UTC.
    created_at: i64,
}

impl From<PublishedRow> for FirstVersion {
    fn from(row: PublishedRow) -> Self {
        Self {
            version: row.version,
            kind: row.kind,
            channel: row.channel,
            created_at: row.created_at,
        }
    }
}

pub(super) fn routes(api: &mut Api) {
    let words = "As it was posted.";
    api.add(
        Method::GET,
        "/v1/events/{event_id}",
        axum::routing::get(get),
    )
    .named(
        "eventUse",
        "Whether an event was used, and by which version first",
    )
    .path::<EventId>("event_id", words, "order-17")
    .json::<EventUse>("Its way through the loop.")
    .problems(&[400, 404, 500, 503]);
}

async fn get(
    State(state): State<AppState>,
    Path(event_id): Path<String>,
) -> Result<Json<EventUse>, Problem> {
    let event_id = EventId::new(event_id)
        .map_err(|error| Problem::invalid_query("event_id", error.to_string()))?;
    let Some(offset) = state.log.find(&event_id, (state.clock)()).await? else {
        let days = state.config.log.id_memory_secs / 86_400;
        return Err(Problem::not_found(format!(
            "no event {event_id} was accepted in the last {days} days"
        )));
    };
    let looked_up = tokio::task::spawn_blocking(move || look_up(&state, event_id, offset)).await;
    looked_up
        .map_err(anyhow::Error::from)
        .flatten()
        .map(Json)
        .map_err(|error| {
            tracing::error!("the use of an event could not be looked up: {error:#}");
            Problem::internal()
        })
}

fn look_up(state: &AppState, event_id: EventId, offset: LogOffset) -> anyhow::Result<EventUse> {
    let newest = state.publisher.latest();
    let newest = newest.as_ref().map(|published| &published.manifest);
    let learned_through = newest.map_or(LogOffset(0), |manifest| manifest.learned_through);
    let rollout = RolloutState::open(&state.config.server.data_dir)?;
    let rollback = rollout.set_aside_by(offset);
    let (event_state, refit) = state_at(state, offset, learned_through, &rollout)?;
    let first = match (event_state, refit) {
        (EventState::Learned, Some(refit)) => state.ledger.of(refit),
        (EventState::Learned | EventState::SetAside, _) => state.ledger.first_to_learn(offset),
        (EventState::Waiting | EventState::Counted | EventState::Erased, _) => None,
    };
    Ok(EventUse {
        event_id,
        offset,
        state: event_state,
        first_version: first.map(FirstVersion::from),
        set_aside_by: rollback.map(|rollback| rollback.version),
        newest_version: newest.map_or(Version(0), |manifest| manifest.version),
    })
}

/// With the refit that learned it, where it had been passed over before.
fn state_at(
    state: &AppState,
    offset: LogOffset,
    learned_through: LogOffset,
    rollout: &RolloutState,
) -> anyhow::Result<(EventState, Option<Version>)> {
    let read = state.log.read(offset, 1)?;
    let is_event = |(_, record): &(LogOffset, LogRecord)| matches!(record, LogRecord::Event(_));
    if !read.first().is_some_and(is_event) {
        return Ok((EventState::Erased, None));
    }
    if rollout.set_aside_by(offset).is_some() {
        return Ok((EventState::SetAside, None));
    }
    if learned_through <= offset {
        return Ok((EventState::Waiting, None));
    }
    let data_dir = &state.config.server.data_dir;
    Ok(match trainer::passed_over(data_dir, offset, rollout)? {
        Some(None) => (EventState::Counted, None),
        Some(refit) => (EventState::Learned, refit),
        None => (EventState::Learned, None),
    })
}
