//! Claims about how batches may be sent: compressed, a line each, and as a dry run.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{TestServer, event};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("in memory")
}

async fn send(
    server: &TestServer,
    (method, path): (Method, &str),
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> (u16, Value) {
    let mut request = server
        .client
        .request(method, format!("{}{path}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(body).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

const EVENTS: (Method, &str) = (Method::POST, "/v1/events");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

#[tokio::test]
async fn compressed_batches_are_taken_like_others() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    for (encoding, compress, id) in [
        ("gzip", gzip as fn(&[u8]) -> Vec<u8>, "1"),
        ("zstd", zstd, "2"),
        ("identity", <[u8]>::to_vec, "3"),
    ] {
        let body = json!({ "events": [event(id)] }).to_string();
        let headers = [("content-encoding", encoding)];
        let (status, answer) = send(&server, EVENTS, &headers, compress(body.as_bytes())).await;
        assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    }
    let items = json!({ "items": [{ "item_id": "c", "title": "Lamp" }] }).to_string();
    let headers = [("content-encoding", "zstd")];
    let put = (Method::PUT, "/v1/items");
    let (status, answer) = send(&server, put, &headers, zstd(items.as_bytes())).await;
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
}

#[tokio::test]
async fn bombs_damaged_and_other_encodings_are_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [("server.body_bytes_max", "5000")];
    let server = TestServer::start(dir.path(), &flags).await;
    let bomb = vec![b' '; 4_000_000];
    let exact = format!("{{\"events\":[]}}{}", " ".repeat(5000 - 13));
    for (encoding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let headers = [("content-encoding", encoding)];
        let (status, _) = send(&server, EVENTS, &headers, compress(&bomb)).await;
        assert_eq!(status, 413, "{encoding}");
        let whole = compress(exact.as_bytes());
        for len in 1..whole.len() {
            let (status, problem) = send(&server, EVENTS, &headers, whole[..len].to_vec()).await;
            assert_eq!(status, 400, "{encoding} cut after {len}: {problem}");
        }
        let (status, _) = send(&server, EVENTS, &headers, whole).await;
        assert_eq!(status, 200, "{encoding}: exactly at the limit");
    }
    let (status, problem) = send(&server, EVENTS, &[("content-encoding", "br")], "x").await;
    assert_eq!(
        (status, problem["type"].as_str()),
        (415, Some("/problems/unsupported-media-type"))
    );
}

#[tokio::test]
async fn every_line_has_its_verdict() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let mut unknown = event("2");
    unknown["item_id"] = json!("zzz");
    let body = format!(
        "{}\n\n{unknown}\r\n{{\"value\": NaN}}\n{}\n{}",
        event("1"),
        event("1"),
        event("3")
    );
    let gzipped = [LINES, ("content-encoding", "gzip")];
    let (status, answer) = send(&server, EVENTS, &gzipped, gzip(body.as_bytes())).await;
    assert_eq!(status, 200, "{answer}");
    let verdicts = ["accepted", "rejected", "rejected", "duplicate", "accepted"];
    assert_eq!(answer["lines"], json!(verdicts));
    assert_eq!(answer["rejected"][0]["pointer"], "/1/item_id");
    assert_eq!(answer["rejected"][1]["code"], "invalid_value");

    let put = (Method::PUT, "/v1/items");
    let body = "{\"item_id\": \"a\", \"title\": \"Tea pot\"}\n{\"item_id\": \"c\"}\n{\"item_id\": \"d\", \"title\": \"Lamp\"}\n";
    let (_, answer) = send(&server, put, &[LINES], body).await;
    let verdicts = ["unchanged", "rejected", "accepted"];
    assert_eq!(answer["lines"], json!(verdicts), "{answer}");
    let delete = (Method::DELETE, "/v1/items");
    let (_, answer) = send(&server, delete, &[LINES], "\"d\"\n7\n").await;
    assert_eq!(answer["lines"], json!(["accepted", "rejected"]), "{answer}");
    assert_eq!(answer["rejected"][0]["pointer"], "/1");
}

#[tokio::test]
async fn a_dry_run_answers_like_the_real_one_and_keeps_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let kept = json!({ "events": [event("1")] }).to_string();
    server.post("/v1/events", kept).await;
    let end = server.log.end();
    let mut future = event("4");
    future["occurred_at"] = json!(i64::MAX);
    let body = json!({ "events": [event("1"), event("2"), event("2"), future] }).to_string();
    let (status, dry) = server.post("/v1/events?dry_run=true", body.clone()).await;
    assert_eq!((status, &dry["offset"]), (200, &json!(end)), "{dry}");
    let items = json!({ "items": [{ "item_id": "c", "title": "Lamp" }, { "item_id": "d" }] });
    let put = |path| server.send(Method::PUT, path, items.to_string());
    let (_, dry_put) = put("/v1/items?dry_run=true").await;
    let ids = json!({ "item_ids": ["a", "zzz"] }).to_string();
    let (_, dry_delete) = server
        .send(Method::DELETE, "/v1/items?dry_run=true", ids)
        .await;
    assert_eq!(dry_delete["accepted"], 1, "{dry_delete}");
    assert_eq!(server.log.end(), end, "nothing was written");
    let metrics = server.get("/metrics").await.text().await.expect("text");
    for reason in ["unknown_item", "malformed", "time_in_future"] {
        let line = format!("freshet_rejected_total{{reason=\"{reason}\"}} 0\n");
        assert!(metrics.contains(&line), "{reason} was counted");
    }

    let (_, real) = server.post("/v1/events?dry_run=false", body).await;
    let (_, real_put) = put("/v1/items").await;
    for field in ["accepted", "duplicates", "rejected"] {
        assert_eq!(dry[field], real[field]);
    }
    for field in ["accepted", "unchanged", "rejected"] {
        assert_eq!(dry_put[field], real_put[field]);
    }
    let (status, problem) = server.post("/v1/events?dry_run=1", "{}").await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (400, &json!("dry_run"))
    );
}
