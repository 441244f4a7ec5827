//! Claims about `PUT` and `DELETE /v1/items`.

use reqwest::Method;
use serde_json::json;

use tokio::io::AsyncWriteExt;

use crate::harness::{TestServer, event};

#[tokio::test]
async fn items_survive_a_restart_and_unchanged_ones_cost_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let end = server.log.end();
    server.stop().await;

    let server = TestServer::start(dir.path(), &[]).await;
    let items = json!({ "items": [
        { "item_id": "a", "title": "Tea pot" },
        { "item_id": "bb", "title": "Red balloons" },
        { "item_id": "c" },
    ]});
    let (status, answer) = server
        .send(Method::PUT, "/v1/items", items.to_string())
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        (&answer["accepted"], &answer["unchanged"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(answer["rejected"][0]["pointer"], "/items/2/title");
    assert_eq!(server.log.end(), end.next());
}

#[tokio::test]
async fn a_deleted_item_takes_no_events_until_it_is_put_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::with_items(dir.path()).await;
    let ids = json!({ "item_ids": ["a", "zzz", 3] }).to_string();
    let (status, answer) = server.send(Method::DELETE, "/v1/items", ids).await;
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)));
    let codes: Vec<_> = [0, 1]
        .iter()
        .map(|idx| answer["rejected"][*idx]["code"].clone())
        .collect();
    assert_eq!(codes, ["unknown_item", "malformed"]);

    let body = json!({ "events": [event("1")] }).to_string();
    let (_, answer) = server.post("/v1/events", body.clone()).await;
    assert_eq!(answer["rejected"][0]["code"], "unknown_item");

    let again = json!({ "items": [{ "item_id": "a", "title": "Tea pot" }] }).to_string();
    server.send(Method::PUT, "/v1/items", again).await;
    let (_, answer) = server.post("/v1/events", body).await;
    assert_eq!(answer["accepted"], 1);
}

#[tokio::test]
async fn an_item_that_is_in_the_log_is_known_although_its_sender_hung_up() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    let items = json!({ "items": [{ "item_id": "a", "title": "Tea pot" }] }).to_string();
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address)
        .await
        .expect("connects");
    let head = format!(
        "PUT /v1/items HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n",
        items.len()
    );
    stream
        .write_all(format!("{head}{items}").as_bytes())
        .await
        .expect("sent");
    server
        .log
        .watch()
        .wait_for(|end| end.0 == 1)
        .await
        .expect("written");
    drop(stream);

    let body = json!({ "events": [event("1")] }).to_string();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while server.post("/v1/events", body.clone()).await.1["accepted"] != 1 {
        assert!(
            std::time::Instant::now() < deadline,
            "the item is still unknown"
        );
    }
}
