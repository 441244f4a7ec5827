//! `/v1/versions…`: the ledger, what is different between two versions, and codes of an operator; on the admin
//! address only.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::Method;
use axum::routing::{get, post};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared_model::codec::snapshot::decode_snapshot;
use shared_model::ids::Version;

use super::body::{self, to_the_end};
use super::document::Api;
use super::guard::note;
use super::limiter::Caller;
use super::query::{Path, Query, count};
use super::rollout::{check_name, problem_of};
use super::{AppState, Problem};
use crate::ingest::BodyError;
use crate::ledger::difference::{Difference, difference};
use crate::ledger::{NumberedRow, PublishedRow};
use crate::rollout::{GivenCodes, OPERATOR_NAME_LEN_MAX, OPERATOR_NAME_PATTERN, Obeyed};

/// Largest snapshot that an operator may send, in bytes. Half a million items of the default sizes take about 100 MiB.
const GIVEN_BYTES_MAX: usize = 128 << 20;
/// Rows listed where the request does not say how many.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1000;
const GIVEN_TYPE: &str = "application/octet-stream";

#[derive(Deserialize, JsonSchema)]
struct ListQuery {
    /// Rows listed at most.
    #[schemars(with = "Option<usize>", range(min = 1, max = LIMIT_MAX), extend("default" = LIMIT_DEFAULT))]
    limit: Option<String>,
    /// Rows with smaller numbers: `next_before` of the page before.
    #[schemars(with = "Option<u64>")]
    before: Option<String>,
}

/// A page of the ledger.
#[derive(Serialize, JsonSchema)]
struct Listed {
    /// Newest first.
    rows: Vec<NumberedRow>,
    /// What to pass as `before` for the next page, where there may be one.
    next_before: Option<u64>,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::GET, "/v1/versions", get(list))
        .named("versions", "The newest versions and refusals")
        .query::<ListQuery>()
        .json::<Listed>("Rows of the ledger.");
    api.add(Method::POST, "/v1/versions", post(publish))
        .named(
            "publishCodes",
            "Publish the trained codes of a snapshot, through the gate",
        )
        .about("Items, texts, features and counts stay as they are.")
        .query::<GivenQuery>()
        .text_body(GIVEN_TYPE, "A snapshot of at most 128 MiB.")
        .json::<Obeyed>("The newest version now.")
        .problems(&[404, 409, 500]);
    let (words, example) = ("Its number.", 1);
    api.add(Method::GET, "/v1/versions/{version}", get(one))
        .named("version", "What a version moved and who let it out")
        .path::<Version>("version", words, example)
        .json::<PublishedRow>("Its row of the ledger.")
        .problems(&[404]);
    api.add(Method::GET, "/v1/versions/{version}/changes", get(changes))
        .named(
            "versionChanges",
            "What is different between two versions that are kept",
        )
        .about("Rebuilds both versions.")
        .path::<Version>("version", words, example)
        .query::<DifferenceQuery>()
        .json::<Difference>(
            "Codes and rows changed per tensor, bytes of the delta, and the items that moved most.",
        )
        .problems(&[404, 500]);
}

async fn list(
    State(state): State<AppState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Listed>, Problem> {
    let limit = match &query.limit {
        None => LIMIT_DEFAULT,
        Some(limit) => count("limit", limit, LIMIT_MAX)?,
    };
    let before = query.before.as_deref().map(str::parse::<u64>).transpose();
    let before = before.map_err(|error| Problem::invalid_query("before", error.to_string()))?;
    let rows = state.ledger.newest(limit, before);
    let oldest = rows.last().map(|row| row.number);
    Ok(Json(Listed {
        next_before: oldest.filter(|number| rows.len() == limit && *number > 0),
        rows,
    }))
}

async fn one(
    State(state): State<AppState>,
    Path(version): Path<String>,
) -> Result<Json<PublishedRow>, Problem> {
    let row = state.ledger.of(parsed(&version)?);
    row.map(Json)
        .ok_or_else(|| Problem::not_found(format!("the ledger has no version {version}")))
}

#[derive(Deserialize, JsonSchema)]
struct DifferenceQuery {
    /// The version that it is compared with.
    #[schemars(with = "u64")]
    base: Option<String>,
}

/// From `base` to the version; rebuilds both, on another thread.
async fn changes(
    State(state): State<AppState>,
    Path(version): Path<String>,
    Query(query): Query<DifferenceQuery>,
) -> Result<Json<Difference>, Problem> {
    let target = parsed(&version)?;
    let Some(base) = query.base.as_deref().and_then(|base| base.parse().ok()) else {
        return Err(Problem::invalid_query("base", "expected a version number"));
    };
    let publisher = state.publisher.clone();
    let compared = move || {
        let kept = |version| match publisher.kept(version) {
            Ok(Some((_, state))) => Ok(state),
            Ok(None) => Err(Problem::not_found(format!("version {version} is not kept"))),
            Err(error) => {
                tracing::error!(%error, "version {version} cannot be read");
                Err(Problem::internal())
            }
        };
        let (base_state, target_state) = (kept(Version(base))?, kept(target)?);
        Ok(difference(
            (Version(base), &base_state),
            (target, &target_state),
        ))
    };
    let compared = tokio::task::spawn_blocking(compared).await;
    compared
        .map(|found| found.map(Json))
        .unwrap_or_else(|error| {
            tracing::error!(%error, "comparing versions panicked");
            Err(Problem::internal())
        })
}

#[derive(Deserialize, JsonSchema)]
struct GivenQuery {
    /// Who orders it, for the ledger.
    #[schemars(length(min = 1, max = OPERATOR_NAME_LEN_MAX), regex(pattern = OPERATOR_NAME_PATTERN))]
    by: Option<String>,
}

/// A snapshot. It must be called `application/octet-stream`: a page of another origin cannot send that unasked.
struct Given(Bytes);

impl FromRequest<AppState> for Given {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        body::check_called(request.headers(), GIVEN_TYPE)?;
        Ok(Self(body::read(request, state, GIVEN_BYTES_MAX).await?))
    }
}

async fn publish(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Query(GivenQuery { by }): Query<GivenQuery>,
    Given(body): Given,
) -> Result<Json<Obeyed>, Problem> {
    check_name(by.as_deref())?;
    let decoded = tokio::task::spawn_blocking(move || decode_snapshot(&body)).await;
    let decoded = decoded.map_err(|error| {
        tracing::error!(%error, "decoding a snapshot panicked");
        Problem::internal()
    })?;
    let (version, codes) = decoded.map_err(|error| {
        Problem::malformed_body(BodyError {
            pointer: String::new(),
            detail: error.to_string(),
        })
    })?;
    let given = GivenCodes {
        version,
        state: codes,
    };
    // Noted whether or not the sender waits.
    to_the_end(async move {
        let what = serde_json::json!({ "snapshot_of_version": version, "by": by }).to_string();
        let result = publish_given(&state, given, by).await;
        note(&state, caller, format!("POST /v1/versions {what}"), &result).await;
        result.map(Json)
    })
    .await
}

async fn publish_given(
    state: &AppState,
    given: GivenCodes,
    by: Option<String>,
) -> Result<Obeyed, Problem> {
    let Some(operator) = &state.operator else {
        return Err(Problem::unavailable("there is no trainer to give codes to"));
    };
    operator.publish_given(given, by).await.map_err(problem_of)
}

fn parsed(version: &str) -> Result<Version, Problem> {
    let number = version.parse().map(Version);
    number.map_err(|_| Problem::not_found(format!("{version} is no version number"))) // the error says no more
}
