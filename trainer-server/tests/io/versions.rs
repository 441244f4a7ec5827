//! Claims about what operators read of versions, and about codes that they send.

use serde_json::{Value, json};
use shared_model::codec::delta::encode_delta;
use shared_model::codec::snapshot::encode_snapshot;
use shared_model::ids::Version;
use shared_model::manifest::VersionKind;
use trainer_server::gate::GateFigures;
use trainer_server::ledger::movement::movement;
use trainer_server::ledger::{LedgerRow, Origin, Provenance, PublishedRow};

use crate::harness::{NOW_MILLIS, TestServer, new_version, state};

/// Publishes versions 1 to `num_versions` with a row each, and a refusal behind every second.
fn publish(server: &TestServer, num_versions: i16) {
    for step in 1..=num_versions {
        let published = server
            .publisher
            .publish(new_version(VersionKind::Fast, step))
            .expect("published");
        let provenance = Provenance {
            origin: Origin::Promoted,
            by: Some("anna".to_owned()),
            gate: Some(GateFigures {
                log_loss: Some(2.5),
                live_log_loss: Some(2.75),
                agreement: Some(1.0),
                ..GateFigures::default()
            }),
        };
        let moved = movement(&state(step - 1), &state(step));
        let row = PublishedRow::new(&published.manifest, Some(provenance), Some(moved));
        let add = |row| server.ledger.add(row).expect("written");
        add(LedgerRow::Published(row));
        if step % 2 == 0 {
            let newest = published.manifest.version;
            let reason = "log loss is 9 where the live version has 2";
            add(LedgerRow::refused(
                newest,
                VersionKind::Fast,
                NOW_MILLIS,
                reason,
                None,
            ));
        }
    }
}

async fn ask(server: &TestServer, path: &str) -> (u16, Value) {
    let url = format!("{}{path}", server.admin_url);
    let response = server.client.get(url).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

/// Sends a body as codes.
async fn send(server: &TestServer, query: &str, content_type: &str, body: Vec<u8>) -> (u16, Value) {
    let url = format!("{}/v1/versions{query}", server.admin_url);
    let request = server.client.post(url).header("content-type", content_type);
    let response = request.body(body).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

#[tokio::test]
async fn the_ledger_is_read_newest_first_page_by_page() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    publish(&server, 6);

    let mut rows = Vec::new();
    let mut path = "/v1/versions?limit=4".to_owned();
    for expected_len in [4, 4, 1] {
        let (status, page) = ask(&server, &path).await;
        assert_eq!(status, 200);
        let found = page["rows"].as_array().expect("rows").clone();
        assert_eq!(found.len(), expected_len);
        rows.extend(found);
        path = format!("/v1/versions?limit=4&before={}", page["next_before"]);
    }
    let kinds = rows.iter().map(|row| row["row"].as_str().expect("text"));
    let refused = kinds.filter(|kind| *kind == "refused").count();
    let versions = rows.iter().filter_map(|row| row["version"].as_u64());
    assert_eq!(refused, 3);
    assert_eq!(versions.collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
    assert_eq!(rows[0]["newest"], 6);
    server.stop().await;
}

#[tokio::test]
async fn a_version_says_who_let_it_out_what_the_gate_measured_and_what_moved() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    publish(&server, 2);
    let (status, row) = ask(&server, "/v1/versions/2").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&row["origin"], &row["by"]),
        (&json!("promoted"), &json!("anna"))
    );
    assert_eq!(row["gate"]["live_log_loss"], 2.75);
    assert_eq!(row["movement"]["num_rows"], 0);
    assert!(row["delta_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    for path in ["/v1/versions/9", "/v1/versions/x"] {
        assert_eq!(ask(&server, path).await.0, 404);
    }
    server.stop().await;
}

#[tokio::test]
async fn questions_out_of_bounds_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    publish(&server, 1);
    let questions = [
        ("/v1/versions?limit=0", "limit"),
        ("/v1/versions?limit=1001", "limit"),
        ("/v1/versions?limit=x", "limit"),
        ("/v1/versions?before=-1", "before"),
        ("/v1/versions/1/changes", "base"),
        ("/v1/versions/1/changes?base=x", "base"),
    ];
    for (path, name) in questions {
        let (status, problem) = ask(&server, path).await;
        assert_eq!(status, 400, "{path}");
        assert_eq!(problem["errors"][0]["pointer"], name, "{path}");
    }
    // Nothing of it is for pages.
    for path in [
        "/v1/versions",
        "/v1/versions/1",
        "/v1/versions/1/changes?base=1",
    ] {
        assert_eq!(server.get(path).await.status(), 404);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_changes_between_two_versions_are_those_of_their_codes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    publish(&server, 3);
    let (status, found) = ask(&server, "/v1/versions/3/changes?base=1").await;
    assert_eq!(status, 200);
    let encoded = encode_delta(&state(1), Version(1), &state(3), Version(3)).expect("encodes");
    assert_eq!(found["delta_bytes"], encoded.len());
    let tensors = found["tensors"].as_array().expect("tensors");
    let changed = tensors.iter().filter(|tensor| tensor["codes_changed"] != 0);
    let changed: Vec<&Value> = changed.map(|tensor| &tensor["name"]).collect();
    assert_eq!(changed, ["item.bias"]);
    let (status, problem) = ask(&server, "/v1/versions/3/changes?base=8").await;
    assert_eq!(
        (status, &problem["detail"]),
        (404, &json!("version 8 is not kept"))
    );
    server.stop().await;
}

#[tokio::test]
async fn codes_must_be_called_what_they_are_and_their_sender_too() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let snapshot = encode_snapshot(&state(1), Version(1)).expect("encodes");
    let octets = "application/octet-stream";
    let (status, _) = send(&server, "", "text/plain", snapshot.clone()).await;
    assert_eq!(status, 415);
    for by in ["", "%07", &"x".repeat(65)] {
        let (status, problem) = send(&server, &format!("?by={by}"), octets, snapshot.clone()).await;
        assert_eq!(
            (status, &problem["errors"][0]["pointer"]),
            (400, &json!("by"))
        );
    }
    let (status, problem) = send(&server, "?by=anna", octets, snapshot).await;
    assert_eq!(status, 503, "no trainer is here: {problem}");
    server.stop().await;
}
