//! Claims about `POST /v1/events`.

use serde_json::{Value, json};

use crate::harness::{NOW_MILLIS, TestServer, event};

fn with(name: &str, value: Value) -> Value {
    let mut event = event("odd");
    event[name] = value;
    event
}

fn batch(events: &[Value]) -> String {
    json!({ "events": events }).to_string()
}

#[tokio::test]
async fn duplicates_are_counted_once_in_a_batch_and_over_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let body = batch(&[event("1"), event("2"), event("1")]);
    let (status, answer) = server.post("/v1/events", body.clone()).await;
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        json!({ "accepted": 2, "duplicates": 1, "rejected": [], "offset": 4 })
    );
    server.stop().await;

    let server = TestServer::start(dir.path(), &[]).await;
    let (status, answer) = server.post("/v1/events", body).await;
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        json!({ "accepted": 0, "duplicates": 3, "rejected": [], "offset": 4 })
    );
}

#[tokio::test]
async fn a_beacon_without_preflight_is_taken() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let request = server.client.post(format!("{}/v1/events", server.url));
    let request = request.header("content-type", "text/plain;charset=UTF-8");
    let response = request
        .body(batch(&[event("1")]))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.expect("JSON")["accepted"], 1);
}

#[tokio::test]
async fn each_bad_event_is_rejected_with_its_reason_and_the_good_ones_are_kept() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let events = [
        with("item_id", json!("zzz")),
        with("occurred_at", json!(NOW_MILLIS + 300_001)),
        with("kind", json!("rating")),
        with("propensity", json!(0)),
        with("user_id", json!(["u"])),
        json!("no object"),
        event("good"),
        with("occurred_at", json!(NOW_MILLIS + 300_000)),
    ];
    let (status, answer) = server.post("/v1/events", batch(&events)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["accepted"], 2);
    let rejected = answer["rejected"].as_array().expect("a list");
    let reasons: Vec<_> = rejected
        .iter()
        .map(|entry| {
            (
                entry["index"].as_u64(),
                entry["code"].as_str(),
                entry["pointer"].as_str(),
            )
        })
        .collect();
    let expected = [
        (0, "unknown_item", "/events/0/item_id"),
        (1, "time_in_future", "/events/1/occurred_at"),
        (2, "invalid_value", "/events/2/value"),
        (3, "invalid_propensity", "/events/3/propensity"),
        (4, "malformed", "/events/4/user_id"),
        (5, "malformed", "/events/5"),
    ];
    let expected = expected.map(|(index, code, pointer)| (Some(index), Some(code), Some(pointer)));
    assert_eq!(reasons, expected);
}

#[tokio::test]
async fn a_bare_nan_is_rejected_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let nan = event("nan")
        .to_string()
        .replace("\"click\"", "\"rating\", \"value\": NaN");
    let body = format!("{{\"events\": [{nan}, {}]}}", event("good"));
    let (status, answer) = server.post("/v1/events", body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["accepted"], 1);
    assert_eq!(answer["rejected"][0]["code"], "invalid_value");
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_corrected_by_the_time_of_sending() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let ahead = 3_600_000;
    let mut late = event("1");
    late["occurred_at"] = json!(NOW_MILLIS + ahead - 2000);
    let body = json!({ "sent_at": NOW_MILLIS + ahead, "events": [late] });
    let (_, answer) = server.post("/v1/events", body.to_string()).await;
    assert_eq!(answer["accepted"], 1, "{answer}");
    let records = server
        .log
        .read(shared_model::ids::LogOffset(2), 1)
        .expect("read");
    let json = serde_json::to_value(&records[0].1).expect("JSON");
    assert_eq!(json["event"]["event"]["occurred_at"], NOW_MILLIS - 2000);
}

#[tokio::test]
async fn a_malformed_body_is_a_problem_document_that_says_where() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let bodies = [
        ("", ""),
        ("{\"events\": [\n", ""),
        ("[]", ""),
        ("{\"events\": 3}", "/events"),
        ("{\"event\": []}", "/events"),
    ];
    for (body, pointer) in bodies {
        let (status, problem) = server.post("/v1/events", body).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(problem["status"], 400);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let (_, problem) = server.post("/v1/events", "{\"events\": [\n").await;
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("line 2")),
        "{problem}"
    );
    let (status, problem) = server
        .post("/v1/events", r#"{"events": [], "sent_at": "x"}"#)
        .await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (422, &json!("/sent_at"))
    );
}

#[tokio::test]
async fn size_length_and_type_of_a_body_are_limited() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [
        ("server.body_bytes_max", "2000"),
        ("server.batch_events_max", "3"),
    ];
    let server = TestServer::start(dir.path(), &flags).await;
    let (status, problem) = server.post("/v1/events", " ".repeat(2001)).await;
    assert_eq!(
        (status, problem["type"].as_str()),
        (413, Some("/problems/too-large"))
    );
    let chunks = futures_util::stream::iter(
        [1500, 1500].map(|len| Ok::<_, std::io::Error>(vec![b' '; len])),
    );
    let (status, _) = server
        .post("/v1/events", reqwest::Body::wrap_stream(chunks))
        .await;
    assert_eq!(status, 413, "without a length up front");
    let (status, _) = server
        .post("/v1/events", r#"{"events": [1, 2, 3, 4]}"#)
        .await;
    assert_eq!(status, 413);
    let (status, answer) = server.post("/v1/events", r#"{"events": []}"#).await;
    assert_eq!((status, &answer["accepted"]), (200, &json!(0)));

    for (name, value) in [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-encoding", "br"),
    ] {
        let request = server
            .client
            .post(format!("{}/v1/events", server.url))
            .header(name, value);
        let response = request.body("x").send().await.expect("an answer");
        assert_eq!(response.status(), 415);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
}

#[tokio::test]
async fn a_server_that_stops_taking_events_says_so_and_when_to_come_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    server.log.shutdown();
    let request = server.client.post(format!("{}/v1/events", server.url));
    let response = request
        .body(batch(&[event("1")]))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(server.get("/readyz").await.status(), 503);
    assert_eq!(server.get("/healthz").await.status(), 200);
}
