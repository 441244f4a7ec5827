//! Claims about what the server says of the text encoder of a generation, whatever there is of it.
//!
//! Not here: how and when encoders are packed (`text_pack`).

use axum::body::Bytes;
use shared_model::ids::BlobId;
use shared_model::manifest::{
    BlobRef, FORMAT_VERSION, TextEncoderKind, TextEncoderNote, VersionKind, parse_key_list,
};
use trainer_server::page_encoder::packs::TextPack;

use crate::harness::{NOW_MILLIS, TestServer, new_version};

const ROUTE: &str = "/v1/models/main/text-encoder?generation=";

/// Status and `Retry-After`.
async fn refusal(server: &TestServer, path: &str) -> (u16, Option<String>) {
    let response = server.get(path).await;
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().expect("a number").to_owned());
    (response.status().as_u16(), retry_after)
}

async fn body(server: &TestServer, path: &str) -> Bytes {
    let response = server.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.bytes().await.expect("a body")
}

/// What a page reads of the encoder of generation 0, which versions of the harness have.
async fn noted(server: &TestServer) -> TextEncoderNote {
    let keys = body(server, "/v1/models/main/keys").await;
    let keys = parse_key_list(&keys).expect("keys");
    let note = body(server, &format!("{ROUTE}0")).await;
    let verified = TextEncoderNote::verify(&note, &keys, "main", 0);
    verified.expect("a note that a page believes").0
}

#[tokio::test]
async fn a_page_waits_for_the_generation_that_is_packed_and_for_no_other() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    for number in ["", "x", "-1", "4294967296"] {
        let path = format!("{ROUTE}{number}");
        assert_eq!(refusal(&server, &path).await, (400, None), "{number}");
    }
    let without_number = "/v1/models/main/text-encoder";
    assert_eq!(refusal(&server, without_number).await, (400, None));
    let other_model = "/v1/models/other/text-encoder?generation=0";
    assert_eq!(refusal(&server, other_model).await, (404, None));
    let of_generation = [0, 1].map(|generation| format!("{ROUTE}{generation}"));
    let [wanted, other] = &of_generation;
    assert_eq!(refusal(&server, wanted).await, (404, None), "no version");

    let version = new_version(VersionKind::Release, 1);
    server.publisher.publish(version).expect("published");
    let wait = (503, Some("2".to_owned()));
    assert_eq!(refusal(&server, wanted).await, wait);
    assert_eq!(refusal(&server, other).await, (404, None));
    server.text_packs.put(0, TextPack::Failed);
    assert_eq!(refusal(&server, wanted).await, (404, None));
}

#[tokio::test]
async fn what_there_is_of_a_generation_is_signed_and_its_file_is_a_blob() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    server.text_packs.put(0, TextPack::Small);
    let expected = TextEncoderNote {
        format_version: FORMAT_VERSION,
        model: "main".to_owned(),
        encoder_generation: 0,
        created_at: NOW_MILLIS,
        key_set: None,
        text_encoder: TextEncoderKind::Small,
    };
    assert_eq!(noted(&server).await, expected);
    let (id, file) = (BlobId::of(b"file"), Bytes::from_static(b"file"));
    server.text_packs.put(0, TextPack::Packed(id, file.clone()));
    let packed = TextEncoderKind::Packed(BlobRef { id, bytes: 4 });
    assert_eq!(noted(&server).await.text_encoder, packed);
    assert_eq!(body(&server, &format!("/v1/blobs/{id}")).await, file);
    let learned = Bytes::from_static(b"learned");
    let change = BlobId::of(&learned);
    let pack = TextPack::Changed {
        base: (id, file.clone()),
        change: (change, learned.clone()),
    };
    server.text_packs.put(0, pack);
    let changed = TextEncoderKind::Changed {
        base: BlobRef { id, bytes: 4 },
        change: BlobRef {
            id: change,
            bytes: 7,
        },
    };
    assert_eq!(noted(&server).await.text_encoder, changed);
    for (id, bytes) in [(id, file), (change, learned)] {
        assert_eq!(body(&server, &format!("/v1/blobs/{id}")).await, bytes);
    }
}

#[tokio::test]
async fn a_server_that_gives_pages_none_says_so_at_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[("publish.text_bytes_max", "0")]).await;
    let version = new_version(VersionKind::Release, 1);
    server.publisher.publish(version).expect("published");
    let path = format!("{ROUTE}0");
    assert_eq!(refusal(&server, &path).await, (404, None));
}

/// A query to `/v1/search` about item `a`.
fn query(fields: serde_json::Value) -> String {
    let mut body = serde_json::json!({ "text": "a lamp", "candidates": ["a"] });
    let asked = body.as_object_mut().expect("an object");
    asked.extend(fields.as_object().expect("an object").clone());
    body.to_string()
}

#[tokio::test]
async fn the_server_searches_with_the_encoder_that_pages_have() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let search = async |fields| server.post("/v1/search", query(fields)).await;
    for (fields, pointer) in [
        (serde_json::json!({ "text": " " }), "/text"),
        (serde_json::json!({ "text": 7 }), "/text"),
        (serde_json::json!({ "taste": 1.5 }), "/taste"),
        (serde_json::json!({ "k": 0 }), "/k"),
    ] {
        let (status, problem) = search(fields).await;
        assert_eq!(
            (status, &problem["errors"][0]["pointer"]),
            (422, &pointer.into())
        );
    }
    assert_eq!(search(serde_json::json!({})).await.0, 503, "no version");
    let version = new_version(VersionKind::Release, 1);
    server.publisher.publish(version).expect("published");
    assert_eq!(
        search(serde_json::json!({})).await.0,
        503,
        "still being packed"
    );
    server.text_packs.put(0, TextPack::Failed);
    assert_eq!(search(serde_json::json!({})).await.0, 404);
    server.text_packs.put(0, TextPack::Small);
    let (status, found) = search(serde_json::json!({ "taste": 0.25 })).await;
    assert_eq!((status, &found["items"][0]["score"]), (200, &0.25.into()));
    let similarity = found["items"][0]["similarity"].as_f64().expect("a number");
    assert!(
        (similarity - 1.0).abs() < 1e-5,
        "a unit vector arrived: {similarity}"
    );
}
