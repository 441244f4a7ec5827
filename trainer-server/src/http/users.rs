//! `/v1/users/{user_id}`: what is held of a user, and its erasure; on the admin address only.

use axum::extract::State;
use axum::http::Method;
use axum::routing::{delete, get};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::event::HistoryEvent;
use shared_model::ids::{LogOffset, UserId};

use super::body::to_the_end;
use super::document::Api;
use super::guard::note;
use super::limiter::Caller;
use super::query::{Path, Query};
use super::{AppState, Problem};
use crate::backup::BackupError;
use crate::erasure::{self, Erased};
use crate::event_log::StoredEvent;
use crate::event_log::tombstone::IdHash;
use crate::influence::Standing;

/// Events in one answer; about 30 MB.
const EVENTS_MAX: usize = 100_000;

#[derive(Deserialize, JsonSchema)]
struct ExportQuery {
    /// Log offset to begin at: `next_from` of the answer before.
    #[schemars(with = "Option<u64>")]
    from: Option<String>,
}

/// Everything that is held of a user.
#[derive(Serialize, JsonSchema)]
struct Export {
    /// The user, as in the log: a pseudonym where `log.pseudonymous_ids` is set.
    user_id: UserId,
    /// How logs and lists name the user after an erasure.
    user_hash: IdHash,
    /// From the log, in its order.
    events: Vec<ExportedEvent>,
    /// What to pass as `from` for the events that did not fit.
    next_from: Option<LogOffset>,
    /// What follows from the events.
    derived: Derived,
}

/// An event of the user.
#[derive(Serialize, JsonSchema)]
struct ExportedEvent {
    /// Where it is in the log.
    offset: LogOffset,
    #[serde(flatten)]
    stored: StoredEvent,
}

/// What the server has made of the events.
#[derive(Serialize, JsonSchema)]
struct Derived {
    /// What the server ranks and trains from, oldest first.
    history: Vec<HistoryEvent>,
    /// How much they taught.
    influence: Option<Standing>,
}

pub(super) fn routes(api: &mut Api) {
    let route = "/v1/users/{user_id}";
    let words = "The user, as in events.";
    api.add(Method::GET, route, get(export))
        .named("exportUser", "Everything that is held of a user")
        .about("Reads the whole log: seconds for a million records.")
        .path::<UserId>("user_id", words, "u-1")
        .query::<ExportQuery>()
        .json::<Export>("The user's events, 100,000 at most, and the history that the server keeps. Both are empty for a user who is not known.")
        .problems(&[500, 503]);
    api.add(Method::DELETE, route, delete(erase))
        .named("eraseUser", "Erase a user")
        .about("The trainer forgets the user at once; answers once the log is rewritten without the user's events: seconds for a million records. Events that are sent later are taken in again.")
        .path::<UserId>("user_id", words, "u-2")
        .json::<Erased>("No event of the user before `log_offset` is left on the disk. For a user who was not known, `num_events` is 0.")
        .problems(&[400, 500, 503, 507]);
}

async fn export(
    State(state): State<AppState>,
    Path(user_id): Path<String>,
    Query(query): Query<ExportQuery>,
) -> Result<Json<Export>, Problem> {
    let user_id = parsed(&state, user_id)?;
    let from = query.from.as_deref().map(str::parse).transpose();
    let from = from.map_err(|error: std::num::ParseIntError| {
        Problem::invalid_query("from", error.to_string())
    })?;
    let from = LogOffset(from.unwrap_or(0));
    let read = move || {
        let (events, next_from) = state.log.view()?.events_of(&user_id, from, EVENTS_MAX)?;
        let events = events.into_iter();
        Ok::<_, BackupError>(Export {
            events: events
                .map(|(offset, stored)| ExportedEvent { offset, stored })
                .collect(),
            next_from,
            derived: Derived {
                history: state.recommender.history(&user_id),
                influence: state.recommender.standing(&user_id),
            },
            user_hash: IdHash::of_user(&user_id),
            user_id,
        })
    };
    blocking(read).await
}

/// Answers once no event of the user before the order is left on the disk.
async fn erase(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(user_id): Path<String>,
) -> Result<Json<Erased>, Problem> {
    let user_id = parsed(&state, user_id)?;
    let now_millis = (state.clock)();
    let data_dir = state.config.server.data_dir.clone();
    let log = state.log.clone();
    // Noted whether or not the sender waits; the user, who is to be forgotten, is not named.
    to_the_end(async move {
        let erased = blocking(move || erasure::erase(&log, &data_dir, &user_id, now_millis)).await;
        let what = "DELETE /v1/users/{user_id}".to_owned();
        note(&state, caller, what, &erased).await;
        erased
    })
    .await
}

fn parsed(state: &AppState, user_id: String) -> Result<UserId, Problem> {
    let user_id = UserId::new(user_id);
    user_id
        .map(|user_id| state.pseudonyms.of(user_id))
        .map_err(|error| Problem::invalid_query("user_id", error.to_string()))
}

/// Runs what reads or writes the whole log on another thread; it goes on where the asker hangs up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<Json<T>, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(Json(done)),
        Ok(Err(BackupError::Log(error))) => Err(error.into()),
        Ok(Err(error)) => {
            tracing::error!(%error, "a request about a user failed");
            Err(Problem::internal())
        }
        Err(error) => {
            tracing::error!(%error, "a request about a user panicked");
            Err(Problem::internal())
        }
    }
}
