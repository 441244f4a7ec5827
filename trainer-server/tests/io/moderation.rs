//! Claims about rules over HTTP: who may make them, what is refused, what lasts, and what pages are told.
//!
//! Not here: what a rule does to a list (`shared_model`), and what happens to rules by themselves (`moderation`).

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use shared_model::ids::ItemId;
use shared_model::manifest::{ModerationNote, parse_key_list};

use crate::harness::{NOW_MILLIS, TestServer};

const ADMIN: &str = "an-admin-token-of-some-length";
const READ: &str = "a-read-key-of-some-length";
const NOTE: &str = "/v1/models/main/moderation";

async fn sent(server: &TestServer, path: &str, body: &Value) -> (u16, Value) {
    let request = server.client.post(format!("{}{path}", server.admin_url));
    let answer = request.json(body).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

async fn read(server: &TestServer, path: &str) -> Value {
    let request = server.client.get(format!("{}{path}", server.admin_url));
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.expect("JSON")
}

fn block(id: &str) -> Value {
    json!({ "action": "block", "item_ids": [id], "reason": "recalled", "by": "anna" })
}

fn decision(decision: &str, by: &str) -> Value {
    json!({ "decision": decision, "by": by })
}

/// What a page is told.
async fn noted(server: &TestServer) -> ModerationNote {
    let keys = server.get("/v1/models/main/keys").await;
    let keys = parse_key_list(&keys.bytes().await.expect("a body")).expect("keys");
    let note = server.get(NOTE).await.bytes().await.expect("a body");
    let verified = ModerationNote::verify(&note, &keys, "main");
    verified.expect("a note that a page believes").0
}

fn audited(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.jsonl")).expect("there");
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().expect("JSON Lines")
}

#[tokio::test]
async fn a_rule_holds_once_it_is_approved_in_answers_and_in_what_pages_are_told() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let empty = noted(&server).await;
    let (status, rule) = sent(&server, "/v1/rules", &block("bb")).await;
    assert_eq!((status, &rule["state"]), (200, &json!("proposed")));
    let everything = r#"{"candidates": ["a", "bb"], "k": 2}"#;
    let (_, answer) = server.post("/v1/recommend", everything).await;
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(2));
    let preview = read(&server, "/v1/rules/1/preview").await;
    assert_eq!(preview["num_changed"], 1, "{preview}");

    let (status, rule) = sent(&server, "/v1/rules/1", &decision("approve", "ben")).await;

    assert_eq!((status, &rule["state"]), (200, &json!("active")));
    assert_eq!(
        rule["approvals"],
        json!([{ "by": "ben", "at": NOW_MILLIS }])
    );
    let (_, answer) = server.post("/v1/recommend", everything).await;
    assert_eq!(answer["items"][0]["item_id"], "a");
    let (_, scored) = server
        .post("/v1/score", r#"{"item_ids": ["a", "bb"]}"#)
        .await;
    let expected = json!({ "item_id": "bb", "score": null, "is_blocked": true });
    assert_eq!(scored["items"][1], expected);
    let explain = r#"{"item_id": "a", "history": []}"#;
    let (_, explained) = server.post("/v1/explain", explain).await;
    assert_eq!(explained["rules"], json!([]));
    let note = noted(&server).await;
    assert!(note.revision > empty.revision);
    assert_eq!(note.rules.block, [ItemId::new("bb").expect("short")]);

    let bury =
        json!({ "action": "bury", "points": 2, "item_ids": ["a"], "reason": "slow", "by": "anna" });
    sent(&server, "/v1/rules", &bury).await;
    sent(&server, "/v1/rules/2", &decision("approve", "ben")).await;
    let (_, explained) = server.post("/v1/explain", explain).await;
    let expected = json!([{ "id": 2, "action": "bury", "points": 2.0, "reason": "slow" }]);
    assert_eq!(explained["rules"], expected);
    assert_eq!(explained["score"], 2.0);

    sent(&server, "/v1/rules/1", &decision("withdraw", "ben")).await;
    let (_, answer) = server.post("/v1/recommend", everything).await;
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn what_is_refused_is_named_with_its_value_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let with = |name: &str, value: Value| {
        let mut body = block("a");
        body[name] = value;
        body
    };
    for (body, pointer, part) in [
        (with("action", json!("hide")), "/action", "hide"),
        (with("item_ids", json!(["a", "zzz"])), "/item_ids/1", "zzz"),
        (with("by", json!("")), "/by", "\"\""),
        (with("expires_at", json!(5)), "/expires_at", "found 5"),
        (json!([]), "", "a list"),
    ] {
        let (status, problem) = sent(&server, "/v1/rules", &body).await;
        assert_eq!(status, 422, "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(part), "{detail}");
    }
    let huge = with("reason", json!("x".repeat(20_000)));
    assert_eq!(sent(&server, "/v1/rules", &huge).await.0, 413);

    sent(&server, "/v1/rules", &block("a")).await;
    for (path, body, expected) in [
        (
            "/v1/rules/1",
            json!({ "decision": "maybe", "by": "ben" }),
            422,
        ),
        ("/v1/rules/1", json!({ "decision": "approve" }), 422),
        ("/v1/rules/2", decision("approve", "ben"), 404),
        ("/v1/rules/x", decision("approve", "ben"), 404),
    ] {
        let (status, problem) = sent(&server, path, &body).await;
        assert_eq!(status, expected, "{problem}");
    }
    let (status, _) = sent(&server, "/v1/rules/1", &decision("reject", "ben")).await;
    assert_eq!(status, 200);
    let (status, problem) = sent(&server, "/v1/rules/1", &decision("approve", "ben")).await;
    assert_eq!(status, 409);
    assert_eq!(problem["detail"], "rule 1 is rejected");
    assert_eq!(noted(&server).await.rules, Default::default());
}

#[tokio::test]
async fn rules_are_for_the_admin_token_and_the_note_is_for_everyone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let keys = [("access.admin_token", ADMIN), ("access.read_key", READ)];
    let server = TestServer::start(dir.path(), &keys).await;
    let status = async |url: &str, path: &str, key: &str| {
        let request = server.client.get(format!("{url}{path}")).bearer_auth(key);
        request.send().await.expect("an answer").status().as_u16()
    };
    for path in ["/v1/rules", "/v1/rules/1/preview"] {
        assert_eq!(status(&server.admin_url, path, READ).await, 403, "{path}");
        assert_eq!(status(&server.url, path, ADMIN).await, 404, "{path}");
    }
    assert_eq!(status(&server.admin_url, "/v1/rules", ADMIN).await, 200);
    for path in ["/v1/rules", "/v1/rules/1"] {
        assert_eq!(sent(&server, path, &block("a")).await.0, 401, "{path}");
    }
    assert_eq!(server.get(NOTE).await.status(), 200);
    assert_eq!(
        server.get("/v1/models/other/moderation").await.status(),
        404
    );
}

#[tokio::test]
async fn rules_and_their_history_survive_a_restart_and_every_act_is_audited() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    for id in ["a", "bb"] {
        sent(&server, "/v1/rules", &block(id)).await;
    }
    sent(&server, "/v1/rules/1", &decision("approve", "ben")).await;
    sent(&server, "/v1/rules/2", &decision("reject", "eve")).await;
    sent(&server, "/v1/rules/2", &decision("approve", "eve")).await;
    let (before, revision) = (
        read(&server, "/v1/rules").await,
        noted(&server).await.revision,
    );
    server.stop().await;

    let server = TestServer::start(dir.path(), &[]).await;

    let after = read(&server, "/v1/rules").await;
    for name in ["rules", "history"] {
        assert_eq!(after[name], before[name], "{name}");
    }
    let note = noted(&server).await;
    assert_eq!(note.rules.block.len(), 1);
    assert!(note.revision > revision);
    let rows = audited(dir.path());
    let expected = [
        ("POST /v1/rules {\"rule\":", "done"),
        ("POST /v1/rules {\"rule\":", "done"),
        (
            r#"POST /v1/rules/1 {"by":"ben","decision":"approve"}"#,
            "done",
        ),
        (
            r#"POST /v1/rules/2 {"by":"eve","decision":"reject"}"#,
            "done",
        ),
        (
            r#"POST /v1/rules/2 {"by":"eve","decision":"approve"}"#,
            "rule 2 is rejected",
        ),
    ];
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    for (row, (what, outcome)) in rows.iter().zip(expected) {
        assert!(
            row["what"]
                .as_str()
                .is_some_and(|found| found.starts_with(what)),
            "{row}"
        );
        assert_eq!(row["outcome"], outcome);
    }
}

#[tokio::test]
async fn the_stream_announces_the_revision_that_holds_and_each_later_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let stream = server.get("/v1/models/main/watch").await;
    let mut chunks = stream.bytes_stream();
    let mut heard = async || {
        let chunk = tokio::time::timeout(Duration::from_secs(10), chunks.next()).await;
        let chunk = chunk.expect("in time").expect("open").expect("read");
        String::from_utf8(chunk.to_vec()).expect("text")
    };
    let said = |revision: u64| format!("event: moderation\ndata: {revision}\n\n");
    assert_eq!(heard().await, said(noted(&server).await.revision));
    sent(&server, "/v1/rules", &block("a")).await;
    sent(&server, "/v1/rules/1", &decision("approve", "ben")).await;
    assert_eq!(heard().await, said(noted(&server).await.revision));
}
