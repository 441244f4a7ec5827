//! Claims about `POST /v1/recommend`, `POST /v1/score`, `POST /v1/explain` and `GET /v1/explore`.

use serde_json::json;

use crate::harness::TestServer;

#[tokio::test]
async fn ranking_answers_best_first_and_scoring_in_the_order_asked() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let (status, answer) = server
        .post("/v1/recommend", r#"{"candidates": ["a", "bb"], "k": 2}"#)
        .await;
    assert_eq!(status, 200);
    assert_eq!(answer["items"][0], json!({ "item_id": "bb", "score": 2.0 }));

    let (status, answer) = server
        .post("/v1/score", r#"{"item_ids": ["a", "bb"]}"#)
        .await;
    assert_eq!(status, 200);
    assert_eq!(answer["items"][0], json!({ "item_id": "a", "score": 1.0 }));
    assert_eq!(answer["model_version"], 1);
}

#[tokio::test]
async fn bad_requests_point_at_the_field() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let cases = [
        ("/v1/recommend", json!({ "k": 0 }), "/k"),
        ("/v1/recommend", json!({ "k": 1001 }), "/k"),
        ("/v1/recommend", json!({ "user_id": 1 }), "/user_id"),
        (
            "/v1/recommend",
            json!({ "history": [{ "item_id": "a" }] }),
            "/history/0/kind",
        ),
        (
            "/v1/recommend",
            json!({ "exclude_seen": "no" }),
            "/exclude_seen",
        ),
        ("/v1/recommend", json!({ "exploration": 1 }), "/exploration"),
        (
            "/v1/recommend",
            json!({ "exploration": { "temperature": 0, "seed": 1 } }),
            "/exploration/temperature",
        ),
        (
            "/v1/recommend",
            json!({ "exploration": { "epsilon": 0.1 } }),
            "/exploration/seed",
        ),
        (
            "/v1/recommend",
            json!({ "exploration": { "epsilon": 0.1, "seed": 1, "pool": 0 } }),
            "/exploration/pool",
        ),
        ("/v1/explain", json!({}), "/item_id"),
        ("/v1/explain", json!({ "item_id": "zzz" }), "/item_id"),
        ("/v1/explain", json!({ "item_id": "a", "k": 0 }), "/k"),
        ("/v1/explain", json!({ "item_id": "a", "k": 1001 }), "/k"),
        (
            "/v1/explain",
            json!({ "item_id": "a", "history": [{ "item_id": "a", "kind": "gaze" }] }),
            "/history/0/kind",
        ),
        ("/v1/score", json!({}), "/item_ids"),
        (
            "/v1/score",
            json!({ "item_ids": ["a", "zzz"] }),
            "/item_ids/1",
        ),
    ];
    for (path, body, pointer) in cases {
        let (status, problem) = server.post(path, body.to_string()).await;
        assert_eq!(
            (status, &problem["errors"][0]["pointer"]),
            (422, &json!(pointer)),
            "{body}"
        );
    }
    assert_eq!(server.post("/v1/recommend", "{").await.0, 400);
}

#[tokio::test]
async fn not_ready_is_503_and_a_failure_keeps_its_reason_inside() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    assert_eq!(server.post("/v1/recommend", "{}").await.0, 503);
    let (status, problem) = server
        .post("/v1/recommend", r#"{"candidates": ["a"], "k": 13}"#)
        .await;
    assert_eq!(status, 500);
    assert!(!problem.to_string().contains("secret"), "{problem}");
}

#[tokio::test]
async fn a_wish_to_explore_arrives_and_without_one_there_is_no_propensity() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let wish = json!({ "candidates": ["a"], "exploration": { "temperature": 0.5, "seed": 7 } });
    let (status, answer) = server.post("/v1/recommend", wish.to_string()).await;
    assert_eq!(
        (status, &answer["items"][0]["propensity"]),
        (200, &json!(0.5))
    );
    let (_, answer) = server
        .post(
            "/v1/recommend",
            r#"{"candidates": ["a"], "exploration": null}"#,
        )
        .await;
    assert_eq!(answer["items"][0], json!({ "item_id": "a", "score": 1.0 }));
}

#[tokio::test]
async fn an_explanation_names_parts_and_events_and_an_empty_history_has_none() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let event = json!({ "item_id": "bb", "kind": "click", "occurred_at": 5 });
    let ask = json!({ "item_id": "a", "history": [event, event, event], "k": 2 });
    let (status, answer) = server.post("/v1/explain", ask.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["item_id"], "a");
    assert_eq!(answer["parts"]["text"], 2.0);
    assert_eq!(
        answer["parts"].as_object().map(serde_json::Map::len),
        Some(6)
    );
    assert_eq!(answer["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer["events"][0]["kind"], "click");

    let (status, answer) = server
        .post("/v1/explain", r#"{"item_id": "a", "history": []}"#)
        .await;
    assert_eq!((status, &answer["events"]), (200, &json!([])));
}

#[tokio::test]
async fn an_item_that_no_version_holds_yet_is_503_and_named() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let (status, problem) = server
        .post("/v1/explain", r#"{"item_id": "bb", "history": []}"#)
        .await;
    assert_eq!(status, 503);
    assert!(problem["detail"].to_string().contains("bb"), "{problem}");
}

#[tokio::test]
async fn what_to_explore_comes_as_json_or_as_a_table() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let get = async |query: &str| {
        let url = format!("{}/v1/explore{query}", server.url);
        let response = server.client.get(url).send().await.expect("answers");
        let status = response.status().as_u16();
        (status, response.text().await.expect("text"))
    };
    let (status, body) = get("?k=1").await;
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["items"][0]["upper"]), (200, &json!(0.75)));
    assert_eq!(body["items"].as_array().map(Vec::len), Some(1));
    let (_, table) = get("?format=tsv").await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "item_id\tshare\tnum_events\tuncertainty\tupper",
            "a\t0.250000\t2.000\t0.500000\t0.750000"
        ]
    );
    for (query, name) in [("?k=0", "k"), ("?k=x", "k"), ("?format=xml", "format")] {
        let (status, body) = get(query).await;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, &body["errors"][0]["pointer"]), (400, &json!(name)));
    }
}
