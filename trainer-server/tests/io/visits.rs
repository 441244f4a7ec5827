//! Claims about visit tokens.

use serde_json::{Value, json};
use shared_model::ids::LogOffset;
use trainer_server::event_log::LogRecord;

use crate::harness::{NOW_MILLIS, TestServer, event};

async fn visit(server: &TestServer, body: Value) -> (u16, Value) {
    server.post("/v1/visits", body.to_string()).await
}

#[tokio::test]
async fn an_event_is_vouched_for_by_a_token_of_its_own_user_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let mut tokens = Vec::new();
    for user_id in ["u", "another"] {
        let (status, answer) = visit(&server, json!({ "user_id": user_id })).await;
        assert_eq!(status, 200);
        assert_eq!(answer["expires_at"], NOW_MILLIS + 3_600_000);
        tokens.push(answer["token"].clone());
    }
    tokens.extend([Value::Null, json!(""), json!("ä".repeat(27))]);
    let events = tokens.iter().enumerate().map(|(idx, token)| {
        let mut event = event(&idx.to_string());
        event["token"] = token.clone();
        event
    });
    let body = json!({ "events": events.collect::<Vec<_>>() });
    let (status, answer) = server.post("/v1/events", body.to_string()).await;
    assert_eq!((status, &answer["accepted"]), (200, &json!(5)));
    assert_eq!(answer["invalid_tokens"], 3, "null is none at all");
    let records = server.log.read(LogOffset(2), 10).expect("readable");
    let vouched = records.iter().map(|(_, record)| match record {
        LogRecord::Event(stored) => stored.is_vouched,
        other => panic!("{other:?} is no event"),
    });
    let vouched: Vec<bool> = vouched.collect();
    assert_eq!(vouched, [true, false, false, false, false]);
    let body = json!({ "events": [event("without")] });
    let (_, answer) = server.post("/v1/events", body.to_string()).await;
    assert_eq!(answer.get("invalid_tokens"), None, "{answer}");
}

#[tokio::test]
async fn one_address_gets_so_many_tokens_and_a_bad_user_id_gets_none() {
    let dir = tempfile::tempdir().expect("temp dir");
    let flags = [("limits.client_visits_per_hour", "2")];
    let server = TestServer::start(dir.path(), &flags).await;
    for bad in [json!({}), json!({ "user_id": 7 }), json!({ "user_id": "" })] {
        let (status, answer) = visit(&server, bad).await;
        assert_eq!(status, 422, "{answer}");
        assert_eq!(answer["errors"][0]["pointer"], "/user_id");
    }
    for expected in [200, 200, 429] {
        let (status, answer) = visit(&server, json!({ "user_id": "u" })).await;
        assert_eq!(status, expected, "{answer}");
    }
}
