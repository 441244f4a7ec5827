//! `/v1/models/{model}/…`: what a page needs to follow a model, and what it says of a version that it could not take.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use futures_util::StreamExt;
use futures_util::stream::select;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use shared_model::edge::report::{FaultReport, REPORT_BYTES_MAX};
use shared_model::ids::Version;
use shared_model::manifest::{
    Announcement, Channel, Envelope, FORMAT_VERSION, KeyList, NUM_BUCKETS, TextEncoderNote,
    UpdatePlan,
};
use tokio_stream::wrappers::WatchStream;

use super::body::{JsonBytes, not_json};
use super::document::{Api, Operation};
use super::query::{Path, Query};
use super::{AppState, Problem};
use crate::ingest::BodyError;
use crate::page_encoder::keeper::wanted_generation;

const MODEL_WORDS: &str = "Name of the model, `main` unless configured.";

/// The bucket that the page drew, if it says so: it decides which of the channels it hears.
#[derive(Deserialize, JsonSchema)]
struct BucketQuery {
    /// The bucket that the page drew once. Pages below `rollout.canary_share` have releases before the others.
    #[schemars(with = "Option<u8>", range(max = 99))]
    bucket: Option<String>,
}

pub(super) fn routes(api: &mut Api) {
    of_model(api, "/v1/models/{model}/manifest", get(manifest))
        .named("getManifest", "The signed manifest of the newest version")
        .query::<BucketQuery>()
        .header(
            "If-None-Match",
            "The `ETag` of the manifest that is known.",
            json!({ "type": "string" }),
        )
        .json::<Envelope>("The manifest, signed with ed25519.")
        .answer(304, "The manifest is that of `If-None-Match`.", None);
    of_model(api, "/v1/models/{model}/plan", get(plan))
        .named("getPlan", "The cheapest way to the newest version")
        .query::<PlanQuery>()
        .json::<UpdatePlan>("Blobs to fetch and apply in order; none when the page is up to date. Waits at most `publish.compose_wait_millis` for a delta merged on demand; the blobs stay for `publish.handed_out_grace_secs`.")
        .link("getBlob", "hash", "/steps/0/blob/id");
    of_model(api, "/v1/models/{model}/watch", get(watch))
        .named("watch", "Follow versions")
        .about("Server-sent events named `version`. The newest version is announced at once, then each newer one; slow readers miss versions in between. Events named `moderation` likewise tell the revision of the rules, to be fetched from `/v1/models/{model}/moderation`.")
        .query::<BucketQuery>()
        .events::<Announcement>("version", "moderation", "A stream of announcements.");
    of_model(api, "/v1/models/{model}/keys", get(keys))
        .named("getKeys", "Public keys of the manifests")
        .json::<KeyList>("The keys.");
    of_model(api, "/v1/models/{model}/text-encoder", get(text_encoder))
        .named("getTextEncoder", "What embeds texts in the page, signed")
        .about("The payload names the model, the generation, when and under which key set it was signed, and one of three: `small`, an encoder without weights; `packed`, the blob of a packed encoder, to be fetched from `/v1/blobs/{hash}`; or `changed`, the blob of a packed encoder and that of what it has learned since. It never expires. 503 means that the encoder is being packed, 404 that none of this generation is coming.")
        .query::<GenerationQuery>()
        .json::<Envelope>("The note, signed with ed25519.")
        .problems(&[500, 503]);
    let (route, handler) = ("/v1/models/{model}/reports", post(report));
    api.add(Method::POST, route, handler)
        .path::<String>("model", MODEL_WORDS, "main")
        .named("report", "Say that a page could not take a version")
        .about("One per page and version; at most 1024 bytes. Names nobody and nothing that was ranked.")
        .json_body::<FaultReport>(json!({ "version": 1, "code": "apply", "bucket": 7 }))
        .answer(204, "Counted.", None)
        .problems(&[404]);
}

pub(super) fn of_model<'a>(
    api: &'a mut Api,
    route: &'static str,
    handler: MethodRouter<AppState>,
) -> Operation<'a> {
    api.add(Method::GET, route, handler)
        .path::<String>("model", MODEL_WORDS, "main")
        .problems(&[404])
}

async fn manifest(
    State(state): State<AppState>,
    Path(model): Path<String>,
    Query(query): Query<BucketQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check_model(&state, &model)?;
    let latest = state
        .publisher
        .newest(channel(&state, query.bucket.as_deref())?)
        .ok_or_else(Problem::not_published)?;
    let etag = format!(
        "\"{}-{}\"",
        latest.manifest.version, latest.manifest.created_at
    );
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known == etag.as_str());
    let cache = [
        (header::ETAG, etag.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, cache).into_response());
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((cache, json, latest.signed.clone()).into_response())
}

#[derive(Deserialize, JsonSchema)]
struct PlanQuery {
    /// Version that the page has; left out when it has none.
    #[schemars(with = "Option<u64>")]
    base: Option<String>,
    /// As for the manifest.
    #[schemars(with = "Option<u8>", range(max = 99))]
    bucket: Option<String>,
}

async fn plan(
    State(state): State<AppState>,
    Path(model): Path<String>,
    Query(query): Query<PlanQuery>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<UpdatePlan>), Problem> {
    check_model(&state, &model)?;
    let base = match query.base.as_deref() {
        None | Some("") => None,
        Some(text) => match text.parse() {
            Ok(number) => Some(Version(number)),
            Err(_) => return Err(Problem::invalid_query("base", "expected a version number")),
        },
    };
    let channel = channel(&state, query.bucket.as_deref())?;
    let plan = state
        .publisher
        .plan_for(channel, base, (state.clock)())
        .await
        .ok_or_else(Problem::not_published)?;
    Ok((
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(plan),
    ))
}

/// Announces the newest version and each newer one, and likewise revisions of the rules. A slow reader misses versions in between,
/// never the newest. Ends when the server stops.
async fn watch(
    State(state): State<AppState>,
    Path(model): Path<String>,
    Query(query): Query<BucketQuery>,
) -> Result<Response, Problem> {
    check_model(&state, &model)?;
    let channel = channel(&state, query.bucket.as_deref())?;
    let mut stopping = state.stopping.clone();
    let stopped = async move {
        // An error means that whoever could stop the server is gone: it has stopped.
        drop(stopping.wait_for(|stopping| *stopping).await);
    };
    let revisions = WatchStream::new(state.moderation.subscribe()).map(|revision| {
        let event = Event::default().event("moderation");
        Ok(event.data(revision.to_string()))
    });
    let versions = WatchStream::new(state.publisher.subscribe_to(channel))
        .filter_map(|published| async move { published })
        .map(|published| {
            let event = Event::default()
                .event("version")
                .id(published.manifest.version.to_string())
                .data(&published.announcement);
            Ok::<_, Infallible>(event)
        });
    let announced = select(revisions, versions).take_until(Box::pin(stopped));
    let keep_alive = Duration::from_secs(state.config.server.keep_alive_secs);
    let sse = Sse::new(announced).keep_alive(KeepAlive::new().interval(keep_alive));
    // Without this, nginx collects the stream before it passes it on.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, sse).into_response())
}

async fn keys(
    State(state): State<AppState>,
    Path(model): Path<String>,
) -> Result<Json<KeyList>, Problem> {
    check_model(&state, &model)?;
    Ok(Json(state.publisher.keyring().key_list()))
}

#[derive(Deserialize, JsonSchema)]
struct GenerationQuery {
    /// The `encoder_generation` of the manifest that the page ranks with.
    #[schemars(with = "u32")]
    generation: Option<String>,
}

/// What a page embeds texts with, signed: `?generation=` is the one of the version that it ranks with.
async fn text_encoder(
    State(state): State<AppState>,
    Path(model): Path<String>,
    Query(query): Query<GenerationQuery>,
) -> Result<Response, Problem> {
    check_model(&state, &model)?;
    let generation = query
        .generation
        .as_deref()
        .and_then(|text| text.parse::<u32>().ok());
    let expected = "expected the number of a generation of the text encoder";
    let generation = generation.ok_or_else(|| Problem::invalid_query("generation", expected))?;
    if state.config.publish.text_bytes_max == 0 {
        return Err(Problem::not_found(
            "`publish.text_bytes_max` is 0: pages are given no text encoder",
        ));
    }
    let Some(pack) = state.text_packs.of(generation) else {
        // Another one is not coming, so nobody is to wait for it.
        return Err(if wanted_generation(&state.publisher) == Some(generation) {
            Problem::not_ready("the text encoder of this generation is being packed")
        } else {
            Problem::not_found("the text encoder of this generation is not kept")
        });
    };
    let Some(kind) = pack.kind() else {
        return Err(Problem::not_found(
            "the text encoder of this generation cannot be packed",
        ));
    };
    let keyring = state.publisher.keyring();
    let created_at = (state.clock)();
    let key = keyring.signer(created_at).map_err(|error| {
        tracing::error!(%error, "the text encoder cannot be signed");
        Problem::internal()
    })?;
    let note = TextEncoderNote {
        format_version: FORMAT_VERSION,
        model,
        encoder_generation: generation,
        created_at,
        key_set: keyring.number(),
        text_encoder: kind,
    };
    let headers = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_TYPE, "application/json"),
    ];
    Ok((headers, note.sign(key)).into_response())
}

/// A page could not take a version. What is not of this server's versions is counted nowhere.
async fn report(
    State(state): State<AppState>,
    Path(model): Path<String>,
    body: JsonBytes,
) -> Result<StatusCode, Problem> {
    check_model(&state, &model)?;
    if body.0.len() > REPORT_BYTES_MAX {
        let detail = format!("a report has at most {REPORT_BYTES_MAX} bytes");
        return Err(Problem::too_large(detail));
    }
    let report: FaultReport = serde_json::from_slice(&body.0).map_err(not_json)?;
    if report.bucket.is_some_and(|bucket| bucket >= NUM_BUCKETS) {
        let pointer = "/bucket".to_owned();
        let detail = format!("expected 0 to {}", NUM_BUCKETS - 1);
        return Err(Problem::malformed_body(BodyError { pointer, detail }));
    }
    if report.version >= state.publisher.next_version() {
        return Err(Problem::not_found("there is no such version"));
    }
    tracing::debug!(code = ?report.code, "a page could not take version {}", report.version);
    state.reports.note(report);
    Ok(StatusCode::NO_CONTENT)
}

/// Which versions a page with this bucket is to have.
fn channel(state: &AppState, bucket: Option<&str>) -> Result<Channel, Problem> {
    let Some(text) = bucket else {
        return Ok(Channel::Stable);
    };
    let bucket = text.parse::<u8>().ok();
    let bucket = bucket.filter(|bucket| *bucket < NUM_BUCKETS);
    let Some(bucket) = bucket else {
        let detail = format!("expected 0 to {}, found {text}", NUM_BUCKETS - 1);
        return Err(Problem::invalid_query("bucket", detail));
    };
    if bucket < state.config.rollout.canary_share {
        return Ok(Channel::Canary);
    }
    Ok(Channel::Stable)
}

pub(super) fn check_model(state: &AppState, model: &str) -> Result<(), Problem> {
    if model == state.publisher.model() {
        return Ok(());
    }
    Err(Problem::not_found("there is no model of this name"))
}
