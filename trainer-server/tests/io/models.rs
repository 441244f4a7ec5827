//! Claims about what a page fetches: manifest, plan, watch, keys, blobs.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde_json::Value;
use shared_model::codec::delta::apply_delta;
use shared_model::codec::snapshot::decode_snapshot;
use shared_model::ids::Version;
use shared_model::manifest::{
    self, PlanStepKind, VersionKind, parse_announcement, parse_key_list, parse_plan,
};

use crate::harness::{TestServer, new_version};

const DEADLINE: Duration = Duration::from_secs(20);

/// The data of the next SSE event.
async fn next_data(
    stream: &mut (impl Stream<Item = reqwest::Result<impl AsRef<[u8]>>> + Unpin),
    seen: &mut String,
) -> String {
    loop {
        if let Some((message, rest)) = seen.split_once("\n\n") {
            let is_version = message.starts_with("event: version\n");
            let data = message
                .lines()
                .filter(|_| is_version)
                .find_map(|line| line.strip_prefix("data: "))
                .map(str::to_owned);
            *seen = rest.to_owned();
            match data {
                Some(data) => return data,
                None => continue,
            }
        }
        let chunk = tokio::time::timeout(DEADLINE, stream.next())
            .await
            .expect("in time");
        let chunk = chunk.expect("the stream goes on").expect("bytes");
        seen.push_str(std::str::from_utf8(chunk.as_ref()).expect("text"));
    }
}

#[tokio::test]
async fn nothing_is_published_at_first_and_another_model_never() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    for path in ["/v1/models/main/manifest", "/v1/models/main/plan"] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 404);
        let problem: Value = response.json().await.expect("JSON");
        assert_eq!(problem["type"], "/problems/not-published");
    }
    for route in ["manifest", "plan", "watch", "keys"] {
        assert_eq!(
            server
                .get(&format!("/v1/models/other/{route}"))
                .await
                .status(),
            404
        );
    }
}

#[tokio::test]
async fn a_page_reaches_the_newest_state_by_plan_and_blobs_and_can_verify_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let latest = server
        .publisher
        .publish(new_version(VersionKind::Fast, 2))
        .expect("published");

    let keys = server
        .get("/v1/models/main/keys")
        .await
        .bytes()
        .await
        .expect("body");
    let keys = parse_key_list(&keys).expect("keys");
    let plan = server
        .get("/v1/models/main/plan")
        .await
        .bytes()
        .await
        .expect("body");
    let plan = parse_plan(&plan).expect("a plan");
    let manifest = manifest::verify(plan.manifest.as_bytes(), &keys).expect("signed");
    assert_eq!(manifest, latest.manifest);

    let kinds: Vec<_> = plan.steps.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, [PlanStepKind::Snapshot, PlanStepKind::Delta]);
    let mut blobs = Vec::new();
    for step in &plan.steps {
        let response = server.get(&format!("/v1/blobs/{}", step.blob.id)).await;
        assert_eq!(response.status(), 200);
        blobs.push(response.bytes().await.expect("body"));
    }
    let (_, base) = decode_snapshot(&blobs[0]).expect("decodes");
    let state = apply_delta(&base, &blobs[1]).expect("applies");
    assert_eq!(state.hash(), manifest.state);
    assert_eq!(state, *latest.state);

    let plan = server
        .get("/v1/models/main/plan?base=2")
        .await
        .bytes()
        .await
        .expect("body");
    assert_eq!(parse_plan(&plan).expect("a plan").steps, []);
    assert_eq!(
        server.get("/v1/models/main/plan?base=x").await.status(),
        400
    );
}

#[tokio::test]
async fn the_manifest_is_revalidated_by_its_etag() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let first = server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let response = server.get("/v1/models/main/manifest").await;
    let etag = response.headers()["etag"].clone();
    assert_eq!(response.text().await.expect("body"), first.signed);
    let ask = || {
        let request = server
            .client
            .get(format!("{}/v1/models/main/manifest", server.url));
        request.header("if-none-match", etag.clone()).send()
    };
    assert_eq!(ask().await.expect("an answer").status(), 304);
    server
        .publisher
        .publish(new_version(VersionKind::Fast, 2))
        .expect("published");
    assert_eq!(ask().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn blobs_are_immutable_and_resumable() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let first = server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let blob = first.manifest.snapshot.expect("a release has a snapshot");
    let path = format!("/v1/blobs/{}", blob.id);
    let response = server.get(&path).await;
    assert_eq!(
        response.headers()["cache-control"],
        "public, max-age=31536000, immutable"
    );
    let etag = response.headers()["etag"].clone();
    let whole = response.bytes().await.expect("body");
    assert_eq!(whole.len() as u64, blob.bytes);

    let ask = |name: &'static str, value: &str| {
        server
            .client
            .get(format!("{}{path}", server.url))
            .header(name, value)
            .send()
    };
    let response = ask("if-none-match", etag.to_str().expect("text"))
        .await
        .expect("an answer");
    assert_eq!(response.status(), 304);
    let response = ask("range", "bytes=5-").await.expect("an answer");
    assert_eq!(response.status(), 206);
    assert_eq!(response.bytes().await.expect("body"), whole[5..]);
    let response = ask("range", "bytes=999999-").await.expect("an answer");
    assert_eq!(response.status(), 416);

    let missing = format!("/v1/blobs/{}", "0".repeat(64));
    assert_eq!(server.get(&missing).await.status(), 404);
    assert_eq!(
        server.get("/v1/blobs/..%2F..%2Fsigning.key").await.status(),
        404
    );
}

#[tokio::test]
async fn a_download_cut_anywhere_is_resumed_by_range() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let first = server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let blob = first.manifest.snapshot.expect("a release has a snapshot");
    let url = format!("{}/v1/blobs/{}", server.url, blob.id);
    let whole = server.publisher.blobs().get(blob.id).expect("sound");
    let whole = whole.expect("there");
    for cut in [1, 2, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        let mut held = whole[..cut].to_vec();
        let rest = server
            .client
            .get(&url)
            .header("range", format!("bytes={cut}-"));
        let response = rest.send().await.expect("an answer");
        assert_eq!(response.status(), 206);
        let end = whole.len() - 1;
        let range = format!("bytes {cut}-{end}/{}", whole.len());
        assert_eq!(response.headers()["content-range"], range.as_str());
        held.extend(response.bytes().await.expect("a body"));
        assert_eq!(held, whole, "cut at {cut}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_range_is_kept_only_when_it_continues_the_same_bytes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let first = server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let blob = first.manifest.snapshot.expect("a release has a snapshot");
    let url = format!("{}/v1/blobs/{}", server.url, blob.id);
    for (condition, status) in [
        (format!("\"{}\"", blob.id), 206),
        ("\"other\"".to_owned(), 200),
    ] {
        let ask = server.client.get(&url).header("range", "bytes=5-");
        let response = ask.header("if-range", condition).send().await;
        assert_eq!(response.expect("an answer").status(), status);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_damaged_blob_is_never_served() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let first = server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let id = first.manifest.snapshot.expect("a snapshot").id;
    std::fs::write(dir.path().join("blobs").join(id.to_hex()), b"other bytes").expect("written");
    assert_eq!(server.get(&format!("/v1/blobs/{id}")).await.status(), 500);
}

#[tokio::test]
async fn watchers_hear_of_the_newest_version_at_once_and_of_each_newer_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    let response = server.get("/v1/models/main/watch").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut stream, mut seen) = (response.bytes_stream(), String::new());
    let data = next_data(&mut stream, &mut seen).await;
    assert_eq!(
        parse_announcement(data.as_bytes()).expect("valid").version,
        Version(1)
    );

    let second = server
        .publisher
        .publish(new_version(VersionKind::Fast, 2))
        .expect("published");
    let data = next_data(&mut stream, &mut seen).await;
    let announcement = parse_announcement(data.as_bytes()).expect("valid");
    assert_eq!(announcement.version, Version(2));
    assert_eq!(announcement.manifest, second.signed);
    let base64 = base64::engine::general_purpose::STANDARD;
    let delta = announcement.delta.expect("small enough to ride along");
    let delta = base64::Engine::decode(&base64, delta).expect("base64");
    assert_eq!(Some(&delta), second.inline_delta.as_ref());
}
