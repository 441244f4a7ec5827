//! Claims about `POST /v1/recommend` and `POST /v1/score`.

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
