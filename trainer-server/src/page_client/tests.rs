//! A page against a small server over real HTTP: first version, inline delta, outage, reconnect.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::StreamExt;
use serde::Deserialize;
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::codec::state::{CodeState, ItemEntry};
use shared_model::edge::engine::{RankOptions, RankRequest};
use shared_model::ids::{BlobId, ItemId};
use shared_model::manifest::{KeyList, SelfTest};
use shared_model::spec::ModelSpec;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::WatchStream;

use super::*;
use crate::config::Config;
use crate::publish::ceremony::{self, Term};
use crate::publish::{NewVersion, Publisher};

const DEADLINE: Duration = Duration::from_secs(20);

/// Runs on its own runtime, so that dropping it breaks every connection, as a crash does.
struct Server {
    _runtime: Runtime,
    address: SocketAddr,
}

impl Server {
    fn start(publisher: &Publisher, bind: &str) -> Self {
        let runtime = Runtime::new().expect("runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(bind))
            .expect("bind");
        let address = listener.local_addr().expect("address");
        let router = Router::new()
            .route("/v1/models/main/keys", get(keys))
            .route("/v1/models/main/plan", get(plan))
            .route("/v1/models/main/watch", get(watch))
            .route("/v1/blobs/{hash}", get(blob))
            .with_state(publisher.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            _runtime: runtime,
            address,
        }
    }
}

async fn keys(State(publisher): State<Publisher>) -> Json<KeyList> {
    Json(publisher.keyring().key_list())
}

#[derive(Deserialize)]
struct PlanQuery {
    base: Option<Version>,
}

async fn plan(State(publisher): State<Publisher>, Query(query): Query<PlanQuery>) -> Response {
    match publisher.plan(query.base) {
        Some(plan) => Json(plan).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn watch(State(publisher): State<Publisher>) -> Response {
    let versions = WatchStream::new(publisher.subscribe()).filter_map(|published| async move {
        let event = Event::default()
            .event("version")
            .data(&published?.announcement);
        Some(Ok::<_, Infallible>(event))
    });
    Sse::new(versions).into_response()
}

async fn blob(State(publisher): State<Publisher>, Path(hash): Path<String>) -> Response {
    let id = BlobId::from_hex(&hash).expect("a hash");
    publisher
        .blobs()
        .get(id)
        .expect("readable")
        .expect("a blob of this server")
        .into_response()
}

fn open_publisher(dir: &tempfile::TempDir) -> Publisher {
    Publisher::open(dir.path(), "main", &Config::default().publish).expect("publisher")
}

/// Publishes the next version: a state with one bias that tells them apart.
fn publish(publisher: &Publisher, bias_code: i16) {
    let spec = ModelSpec {
        embedding_dim: 4,
        text_dim: 0,
        ff_dim: 4,
        ..ModelSpec::default()
    };
    let mut state = CodeState::empty(spec);
    let entry = |idx| ItemEntry {
        item_id: ItemId::new(format!("i{idx}")).expect("id"),
        available: true,
    };
    state.append_items((0..5).map(entry));
    state.tensor_mut("item.bias").expect("in the spec").codes[0] = bias_code;
    let learned_from = publisher
        .latest()
        .map_or(LogOffset(0), |latest| latest.manifest.learned_through);
    let self_test = SelfTest {
        history: Vec::new(),
        now_millis: 0,
        item_ids: Vec::new(),
        scores: Vec::new(),
        tolerance: 1.0,
    };
    let new = NewVersion {
        kind: VersionKind::Fast,
        state: std::sync::Arc::new(state),
        learned_from,
        learned_through: LogOffset(learned_from.0 + 10),
        event_time_millis: 0,
        created_at: 0,
        self_test,
    };
    publisher.publish(new).expect("publish");
}

fn next(runtime: &Runtime, page: &mut PageClient) -> Applied {
    let applied =
        runtime.block_on(async { tokio::time::timeout(DEADLINE, page.next_version()).await });
    applied.expect("a version arrives in time")
}

#[test]
fn a_page_follows_over_an_outage_and_its_states_have_the_published_hashes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open_publisher(&dir);
    publish(&publisher, 1);
    let server = Server::start(&publisher, "127.0.0.1:0");
    let (address, runtime) = (server.address, Runtime::new().expect("runtime"));
    let url = ServerAddress::new(&format!("http://{address}"), "main");
    let mut page = runtime
        .block_on(PageClient::connect(&url, PageKind::Following))
        .expect("connect");

    let first = next(&runtime, &mut page);
    assert_eq!(
        (first.version, first.hash_matches, first.learned_through),
        (Version(1), true, LogOffset(10))
    );
    let snapshot_bytes = page.downloads().blob_bytes;
    assert!(snapshot_bytes > 0, "the first version comes as a blob");

    // The page opens its stream only when it waits, so the second version may come as a plan.
    publish(&publisher, 2);
    assert_eq!(next(&runtime, &mut page).version, Version(2));
    let blob_bytes = page.downloads().blob_bytes;
    publish(&publisher, 3);
    let third = next(&runtime, &mut page);
    assert!(third.hash_matches && third.version == Version(3));
    assert!(
        third.delta_bytes_downloaded > third.delta_bytes,
        "inline deltas ride in base64"
    );
    assert!(third.announcement_bytes > third.delta_bytes_downloaded);
    assert_eq!(
        page.downloads().blob_bytes,
        blob_bytes,
        "the inline delta needed no fetch"
    );

    drop(server);
    publish(&publisher, 4);
    let _server = Server::start(&publisher, &address.to_string());
    let fourth = next(&runtime, &mut page);
    assert!(fourth.hash_matches && fourth.version == Version(4));
    assert!(page.troubles().num_disconnects > 0);
    assert_eq!(
        page.live().map(|live| live.manifest.version),
        Some(Version(4))
    );
}

#[test]
fn a_version_restored_over_another_one_ranks_with_its_own_weights() {
    let dir = tempfile::tempdir().expect("temp dir");
    let publisher = open_publisher(&dir);
    let trust = Trust::Keys(publisher.keyring().own_keys());
    let mut engine = EdgeEngine::new("main", trust, Device::flex(), Padding::Longest);
    let options = RankOptions {
        k: 5,
        exclude_seen: false,
    };
    let request = RankRequest {
        history: &[],
        candidates: None,
        options: &options,
        now_millis: 0,
        moderation: None,
    };
    for (bias_code, position) in [(-5, 4), (5, 0)] {
        publish(&publisher, bias_code);
        let latest = publisher.latest().expect("a version is published");
        let version = latest.manifest.version;
        let snapshot = encode_snapshot(&latest.state, version).expect("a checked state");
        engine
            .sync_mut()
            .restore(latest.signed.as_bytes(), &snapshot)
            .expect("verified");

        let ranking = pollster::block_on(engine.rank(&request)).expect("ranks");

        assert_eq!(ranking.model_version, version);
        let found = ranking
            .items
            .iter()
            .position(|item| item.item_id.as_str() == "i0");
        assert_eq!(found, Some(position));
    }
}

#[test]
fn a_page_that_pinned_a_root_follows_a_rotation_and_a_change_of_the_root() {
    let dir = tempfile::tempdir().expect("temp dir");
    let root = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
    let term = Term {
        now_millis: 0,
        valid_days: 365,
    };
    ceremony::init(dir.path(), &root, term).expect("signed");
    let publisher = open_publisher(&dir);
    let server = Server::start(&publisher, "127.0.0.1:0");
    let address = ServerAddress::new(&format!("http://{}", server.address), "main");
    let pinned = root.verifying_key();
    let mut page =
        PageClient::with_root(&address, PageKind::Following, pinned).expect("an HTTP client");
    let runtime = Runtime::new().expect("runtime");
    publish(&publisher, 1);
    assert_eq!(next(&runtime, &mut page).version, Version(1));

    ceremony::rotate(dir.path(), &root, 0, term).expect("signed");
    assert_eq!(publisher.reload_keys().expect("sound keys"), Some(2));
    assert_eq!(publisher.reload_keys().expect("sound keys"), None);
    let renewed = publisher.renew(1).expect("signed by the new key");
    assert!(
        renewed.is_some(),
        "pages must not wait for the next version"
    );
    assert_eq!(next(&runtime, &mut page).version, Version(2));

    let new_root = ed25519_dalek::SigningKey::from_bytes(&[6; 32]);
    ceremony::rotate_root(dir.path(), &root, &new_root, term).expect("signed");
    ceremony::rotate(dir.path(), &new_root, 0, term).expect("signed");
    publisher.reload_keys().expect("sound keys");
    publish(&publisher, 3);
    let third = next(&runtime, &mut page);
    assert!(third.hash_matches && third.version == Version(3));
    let reopened = open_publisher(&dir);
    let latest = reopened.latest().expect("what it signed is still read");
    assert_eq!(latest.manifest.version, Version(3));
}
